"""Any agent that can be held, held to what its policy was before this task: a pull on weights, a divergence, adapters.

``l2`` adds ``c (p - a)`` to the gradient of the actor's weights ``p``, ``a`` being those at the start of the task;
``ewc`` weighs it by the Fisher information of that policy in its earlier world (its ``c`` counts nats, to second order,
as that of ``kl`` does); ``kl`` adds ``c KL(policy || start)``, exact, over the states that are met NOW; ``lora:RANK``
trains low-rank adapters of the actor's kernels instead of its weights. ``none`` is plain fine-tuning. Critics are free.

An agent can be held if its ``make`` takes ``penalty`` and ``transform`` and its ``Agent`` says its ``distribution``.
Running statistics of observations, where an agent has them, stay those of the start: weights that stand still would
otherwise see the old world through new eyes, and act differently there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import losses, transforms
from jaxrl_reg.agents import _common
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition, pytree, setting

KINDS = ("none", "l2", "ewc", "kl", "lora")
SWEPT = ("l2", "ewc", "kl")  # whose strength is a number
COEFFICIENT = "anchor_coef"  # the hyperparameter that every held agent has beside its own


class Anchor(NamedTuple):
    """What a policy is held by: one of ``KINDS``, and the rank of adapters."""

    kind: str = "none"
    rank: int = 0


def parse(text: str) -> Anchor:
    """``l2``, ``ewc``, ``kl``, ``none`` or ``lora:RANK`` as an ``Anchor``.

    Raises:
      UserError: for anything else.
    """
    kind, colon, rank = text.partition(":")
    if kind not in KINDS:
        raise unknown("anchor", kind, KINDS)
    if kind != "lora":
        if colon:
            raise UserError(f"anchor {text}: only lora takes a number after a colon; how strong is --anchor-coef")
        return Anchor(kind)
    if not rank.isdecimal() or int(rank) < 1:
        raise UserError(f"anchor {text}: lora needs the rank of its adapters, such as lora:4")
    return Anchor(kind, int(rank))


def can_be_held(module: ModuleType) -> bool:
    """Whether the agents of a module can be held."""
    return {"penalty", "transform"} <= set(inspect.signature(module.make).parameters)


class State(NamedTuple):
    """The agent's own state; the actor's weights at the start of the task; their importance, ``()`` but for ``ewc``."""

    agent: PyTree
    start: PyTree
    importance: PyTree


@functools.cache
def hyper_of(module: ModuleType) -> type:
    """The ``Hyper`` of a held agent: the module's own and ``anchor_coef``."""

    class Hyper(module.Hyper):
        anchor_coef: float = setting(default=0.0, help="how strongly the policy is held to what it was; 0: not at all")

    return pytree(Hyper)


def divergence(distribution: Any, reference: Any) -> Array:
    """``KL(distribution || reference)`` ``[...]``, nats: of logits, or of ``(mean, log std)``."""
    if isinstance(distribution, tuple):
        return losses.gaussian_kl(*distribution, *reference)
    return losses.categorical_kl(distribution, reference)


def plain(state: PyTree) -> PyTree:
    """The agent's own state of one that was held; another one as it is."""
    return state.agent if isinstance(state, State) else state


def fisher(agent: Agent, state: PyTree, observations: Array) -> PyTree:
    """Diagonal of the Fisher information of an agent's policy over ``observations [N, O]``, a tree like its actor.

    ``observations`` are of the behaviour that is to be kept. What was important to a ``state`` that was held by ``ewc``
    itself is added: importance sums over tasks.
    """
    weights = plain(state).actor.params

    def outputs(params: PyTree, observation: Array) -> Array:
        found = agent.distribution(state, params, observation)  # type: ignore[misc]
        return jnp.concatenate(found, axis=-1) if isinstance(found, tuple) else found

    spoken = agent.distribution(state, weights, observations[:1])  # type: ignore[misc]
    metric = transforms.gaussian_metric if isinstance(spoken, tuple) else transforms.categorical_metric
    found = transforms.fisher_diagonal(outputs, metric, weights, observations)
    earlier = state.importance if isinstance(state, State) else ()
    return transforms.accumulate(earlier, found) if jax.tree.leaves(earlier) else found


def make(module: ModuleType, anchor: Anchor, config: Any, spec: Spec) -> Agent:
    """The agent of ``module`` held by ``anchor``; its hyperparameters are ``hyper_of(module)``, its state a ``State``.

    Its metrics gain ``moved``, the root mean square change of the actor's weights since the start of the task.

    Raises:
      UserError: for a module whose agents cannot be held.
    """
    if not can_be_held(module):
        raise UserError(f"{module.__name__.rpartition('.')[2]} cannot be held: its make has no penalty and transform")
    inner = module.make(config, spec, **_hooks(anchor, lambda: inner))

    def within(hyper: Any, held: State | None = None, key: Key | None = None) -> Any:
        """The hyperparameters, and what differs from member to member, for ``penalty`` and ``transform``."""
        return SimpleNamespace(**vars(hyper), held=held, key=key)

    def init(key: Key, hyper: Any) -> State:
        agent = inner.init(key, within(hyper, key=jax.random.fold_in(key, 1)))
        start = _common.copy(agent.actor.params)
        return State(agent, start, jax.tree.map(jnp.zeros_like, start) if anchor.kind == "ewc" else ())

    def learning(update: Callable[..., Any]) -> Callable[..., tuple[State, Metrics]]:
        def held(state: State, batch: Transition, hyper: Any, key: Key, step: Array) -> tuple[State, Metrics]:
            agent, metrics = update(state.agent, batch, within(hyper, state), key, step)
            if hasattr(agent, "statistics"):
                agent = agent._replace(statistics=state.agent.statistics)
            size = sum(leaf.size for leaf in jax.tree.leaves(state.start))
            metrics["moved"] = optax.tree.norm(optax.tree.sub(agent.actor.params, state.start)) / size**0.5
            return state._replace(agent=agent), metrics

        return held

    def own(function: Callable[..., Any] | None) -> Any:
        return None if function is None else lambda state, *rest: function(state.agent, *rest)

    return Agent(
        init,
        learning(inner.update),
        own(inner.act),
        measure=own(inner.measure),
        kind=inner.kind,
        cycle=tuple(map(learning, inner.cycle)),
        distribution=own(inner.distribution),
    )


def begin(agent: Agent, trained: PyTree, hyper: Any, key: Key, importance: PyTree = ()) -> State:
    """The state in which a ``trained`` one of the same module, held or not, begins another task with ``agent``, of
    ``make``: the actor's optimiser is new. ``importance`` is of ``fisher``, for ``ewc``; ``key`` serves adapters."""
    trained = plain(trained)
    fresh = agent.init(key, hyper).agent
    kept = {  # what has another form when it is held, such as metrics that a state remembers, begins anew
        name: old if jax.tree.structure(old) == jax.tree.structure(getattr(fresh, name)) else getattr(fresh, name)
        for name, old in trained._asdict().items()
    }
    kept["actor"] = _common.Trainable(trained.actor.params, fresh.actor.opt_state)
    return State(fresh._replace(**kept), _common.copy(trained.actor.params), importance)


def _hooks(anchor: Anchor, inner: Callable[[], Agent]) -> dict[str, Any]:
    """``penalty`` or ``transform`` for ``make``; ``inner()`` is the agent that they are given to."""
    if anchor.kind in ("l2", "ewc"):

        def pull(hyper: Any) -> Any:
            if hyper.held is None:  # its state does not depend on what it pulls to
                return transforms.anchored(None, 0.0)
            weights = hyper.held.importance if anchor.kind == "ewc" else None
            return transforms.anchored(hyper.held.start, hyper.anchor_coef, weights)

        return {"transform": pull}
    if anchor.kind == "lora":

        def adapters(hyper: Any) -> Any:
            start = None if hyper.held is None else hyper.held.start
            return functools.partial(transforms.adapted, base=start, key=hyper.key, rank=anchor.rank)

        return {"transform": adapters}
    if anchor.kind == "kl":

        def penalty(distribution: Any, observation: Array, hyper: Any, step: Array) -> Array:
            held = hyper.held
            reference = inner().distribution(held.agent, held.start, observation)  # type: ignore[misc]
            return hyper.anchor_coef * divergence(distribution, jax.lax.stop_gradient(reference))

        return {"penalty": penalty}
    return {}
