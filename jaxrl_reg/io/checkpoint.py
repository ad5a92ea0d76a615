"""Checkpoints of a whole population, with Orbax: atomic, the previous one kept, no pickle.

A pytree is stored as its leaves in flattening order, so any structure (NamedTuples, typed keys) goes in and comes back
into the structure that the caller describes; leaves without entries (of MJX, for example), which Orbax refuses, come
from there. A save that is cut off leaves a temporary folder that is never read.
"""

from __future__ import annotations

import json
import pathlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import WriteError
from jaxrl_reg.types import PyTree


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(tree: PyTree) -> dict[str, np.ndarray]:
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(jax.device_get(leaves)) if np.size(leaf)}


def _from_host(leaves: dict[str, np.ndarray], like: PyTree) -> PyTree:
    wanted, structure = jax.tree.flatten(like)
    needed = sum(template.size > 0 for template in wanted)
    if needed != len(leaves):
        raise UserError(f"the checkpoint has {len(leaves)} arrays, the run needs {needed}: not the same settings")
    stored, restored = (leaves[name] for name in sorted(leaves)), []
    for template in wanted:
        leaf = next(stored) if template.size > 0 else np.zeros(template.shape)
        if _is_key(template):
            # Keys are of the default implementation, as jax.random.key makes them.
            value: Any = jax.random.wrap_key_data(jnp.asarray(leaf))
        else:
            value = np.asarray(leaf, template.dtype)
        if value.shape != template.shape:
            raise UserError(
                f"a checkpoint array has shape {value.shape}, the run needs {template.shape}: not the same settings"
            )
        restored.append(value)
    return jax.tree.unflatten(structure, restored)


def _manager(directory: str | pathlib.Path, create: bool):
    need("orbax")
    import orbax.checkpoint as ocp

    path = pathlib.Path(directory).resolve()
    if create:
        path.mkdir(parents=True, exist_ok=True)
    # Of several processes one writes and each reads for itself, so Orbax has nothing to wait for.
    this = jax.process_index()
    apart = ocp.options.MultiprocessingOptions(this, {this}, f"process {this}") if jax.process_count() > 1 else None
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2,
        enable_async_checkpointing=False,
        create=False,
        multiprocessing_options=apart or ocp.options.MultiprocessingOptions(),
    )
    return ocp.CheckpointManager(path, options=options)


def save(directory: str | pathlib.Path, step: int, tree: PyTree, info: dict[str, Any]) -> None:
    """Write ``tree`` (arrays, typed keys) and ``info`` (JSON) as checkpoint ``step``; the two newest are kept.

    Raises:
      WriteError: if the disk refuses; the previous checkpoint is untouched.
    """
    need("orbax")
    import orbax.checkpoint as ocp

    try:
        with _manager(directory, create=True) as manager:
            if step in manager.all_steps():  # a damaged one that a resumed run has reached again
                manager.delete(step)
            leaves = ocp.args.StandardSave(_to_host(tree))
            manager.save(step, args=ocp.args.Composite(leaves=leaves, info=ocp.args.JsonSave(info)), force=True)
    except (OSError, ValueError, RuntimeError) as error:  # a full disk is a ValueError of the array writer
        reason = " ".join(str(error).split())[-200:]
        raise WriteError(
            f"could not write checkpoint {step} in {directory}: {reason}; the previous one is intact"
        ) from error


def steps(directory: str | pathlib.Path) -> list[int]:
    """The complete checkpoints in ``directory``, oldest first; empty if there is none."""
    if not pathlib.Path(directory).is_dir():
        return []
    with _manager(directory, create=False) as manager:
        return sorted(manager.all_steps())


def restore(directory: str | pathlib.Path, like, leading: bool = False) -> tuple[int, PyTree, dict[str, Any]] | None:
    """The newest readable checkpoint as ``(step, tree, info)``, or None if there is none.

    Args:
      directory: where ``save`` wrote.
      like: ``like(info)`` describes the tree (arrays or ``jax.ShapeDtypeStruct``); may depend on the stored ``info``.
      leading: the tree is only the first leaves of what was saved; the others are not read.

    A damaged checkpoint is reported by a warning and the one before it used.

    Raises:
      UserError: if no checkpoint can be read although there are some, or one belongs to other settings.
    """
    need("orbax")
    import orbax.checkpoint as ocp

    found = steps(directory)
    for step in reversed(found):
        try:
            with _manager(directory, create=False) as manager:
                info = manager.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore()))["info"]
                wanted = ocp.args.StandardRestore()
                if leading:
                    templates = enumerate(jax.tree.leaves(like(info)))
                    names = [f"{i:05d}" for i, template in templates if template.size > 0]
                    wanted = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), partial_restore=True)
                leaves = manager.restore(step, args=ocp.args.Composite(leaves=wanted))["leaves"]
        except (OSError, ValueError, KeyError, FileNotFoundError, json.JSONDecodeError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            warnings.warn(f"checkpoint {step} in {directory} is damaged ({reason}); trying an older one", stacklevel=2)
            continue
        return step, _from_host(leaves, like(info)), info
    if found:
        raise UserError(f"no checkpoint in {directory} can be read; delete the folder to start over")
    return None
