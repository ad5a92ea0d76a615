"""What every loss does before its mathematics: strict shapes, and arithmetic in at least float32."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp

P = ParamSpec("P")
R = TypeVar("R")


def shapes(**layouts: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a loss with the layout of its array arguments.

    A layout lists axes: ``"N ... A"`` is an array whose first axis is ``N``, whose last is ``A``, and any axes between.
    The same name, ``...`` included, must stand for the same size in every argument; ``""`` is a scalar (a Python number
    or an array of shape ``[]``). Arguments without a layout, and those that are None, pass through.

    The named arguments reach the function as arrays of one dtype: that of the non-scalar arguments, or float32 if that
    is wider. Results go back to the dtype of the non-scalar arguments, so bfloat16 networks get bfloat16 losses and a
    float32 hyperparameter promotes nothing. The layouts stay readable as ``loss.layouts``.

    Raises:
      ValueError: (by the decorated function) an argument does not fit its layout; nothing is ever broadcast.
    """
    axes = {name: tuple(layout.split()) for name, layout in layouts.items()}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = {name: jnp.asarray(bound.arguments[name]) for name in axes if bound.arguments[name] is not None}
            _fit(function.__name__, axes, given)
            arrays = [array for name, array in given.items() if axes[name]] or list(given.values())
            dtype = jnp.result_type(*arrays)
            dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(jnp.float32)
            wide = jnp.promote_types(dtype, jnp.float32)
            bound.arguments.update({name: array.astype(wide) for name, array in given.items()})
            return jax.tree.map(lambda out: out.astype(dtype), function(*bound.args, **bound.kwargs))

        checked.layouts = dict(layouts)  # type: ignore[attr-defined]
        return checked

    return decorate


def _fit(function: str, axes: Mapping[str, tuple[str, ...]], given: Mapping[str, jax.Array]) -> None:
    sizes: dict[str, int | tuple[int, ...]] = {}
    for name, array in given.items():
        found = _split(axes[name], array.shape)
        if found is None or any(sizes.setdefault(axis, size) != size for axis, size in found.items()):
            wanted = ", ".join(f"{other} [{', '.join(axes[other])}]" for other in given)
            got = ", ".join(f"{other} {list(array.shape)}" for other, array in given.items())
            raise ValueError(f"{function}: {name} has shape {list(array.shape)}; expected {wanted}; got {got}")


def _split(axes: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, int | tuple[int, ...]] | None:
    """The size of each named axis, or None if the number of axes cannot fit."""
    if "..." not in axes:
        if len(axes) != len(shape):
            return None
        named: dict[str, int | tuple[int, ...]] = dict(zip(axes, shape, strict=True))
        square = all(named[axis] == size for axis, size in zip(axes, shape, strict=True))  # "B B"
        return named if square else None
    before = axes.index("...")
    after = len(axes) - before - 1
    rest = len(shape) - before - after
    if rest < 0:
        return None
    middle = shape[before : before + rest]
    named = dict(zip(axes[:before], shape[:before], strict=True))
    return named | {"...": middle} | dict(zip(axes[before + 1 :], shape[before + rest :], strict=True))
