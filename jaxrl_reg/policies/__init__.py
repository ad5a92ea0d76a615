"""Policies: ``deterministic``, ``gaussian``, ``categorical``, ... each module makes a ``Policy`` or a ``Network``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl_reg.types import Array, Key, PyTree


class Policy(NamedTuple):
    """A stochastic policy as pure functions of its parameters and an observation ``[..., O]``.

    ``init(key) -> params``; ``apply(params, observation) -> distribution parameters``;
    ``sample(params, observation, key, shape=()) -> (action [*shape, ..., A], log_prob [*shape, ...])`` draws ``shape``
    actions per observation from one pass of the network, differentiable where the distribution allows it;
    ``log_prob(params, observation, action) -> [...]``; ``mode(params, observation) -> [..., A]``;
    ``entropy(params, observation) -> [...]``, None where there is no closed form.
    For losses that ask one pass of the network for several things: ``log_prob_of(distribution, action) -> [...]`` and
    ``entropy_of(distribution, key) -> [...]`` take what ``apply`` gave; the latter is exact where there is a closed
    form, else from one sample.
    Actions of ``categorical.make`` are int32 without the axis ``A``.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[..., Any]
    sample: Callable[..., tuple[Array, Array]]
    log_prob: Callable[[PyTree, Array, Array], Array]
    mode: Callable[[PyTree, Array], Array]
    log_prob_of: Callable[[Any, Array], Array]
    entropy_of: Callable[[Any, Key], Array]
    entropy: Callable[[PyTree, Array], Array] | None = None


__all__ = ["Policy"]
