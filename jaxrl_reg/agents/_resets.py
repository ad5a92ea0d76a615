"""What happens to an agent between updates: units drawn anew (ReDo, continual backprop), resets, shrink and perturb.

Their settings are those of ``_switches.Switches``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg import losses, transforms
from jaxrl_reg.agents import _common, _plasticity
from jaxrl_reg.agents._switches import Switches
from jaxrl_reg.types import Agent, Array, Key, Metrics, Network, Transition

KEPT_BY_RESETS = ("statistics", "actor_metrics", "kept")
KEYS = (1001, 1002, 1003)  # folded in: small numbers would give the keys of a split once more


def switched(
    config: Switches,
    agent: Agent,
    q: Network,
    inputs: Callable[[Any, Transition], tuple[Array, ...]] = lambda state, batch: (batch.observation, batch.action),
    within: str = "",
) -> Agent:
    """``agent`` with what is on of these after its updates; their keys come from the update's own.

    ``q`` are its critics, ``state.critic`` or ``state.value``, and ``inputs(state, batch)`` the rows ``[..., D]`` at
    which units are looked at. ``within`` names the field of the state in which the critics are, if not at its top.
    """
    if not (config.redo_period or config.reset_period or config.replacement_rate):
        return agent

    def update(state: Any, batch: Transition, hyper: Any, key: Key, step: Array) -> tuple[Any, Metrics]:
        now, metrics = agent.update(state, batch, hyper, key, step)
        redo_key, reset_key, replace_key = (jax.random.fold_in(key, use) for use in KEYS)
        if config.redo_period:

            def recycled() -> Any:
                return _recycled(config, now, within, q, inputs(now, batch), redo_key)

            now = _after(config.redo_period, step, recycled, now)
        if config.replacement_rate:
            now = _replaced(config, now, within, q, inputs(now, batch), replace_key)
        if config.reset_period:
            now = _after(config.reset_period, step, lambda: reset(config, now, agent.init(reset_key, hyper)), now)
        return now, metrics

    return agent._replace(update=update, cycle=())


def _after(period: int, step: Array, new: Callable[[], Any], old: Any) -> Any:
    """``new()`` after ``period``, 2 ``period``, ... updates, but not after 0."""
    return jax.lax.cond((step + 1) % period == 0, new, lambda: old)


def _recycled(config: Switches, state: Any, within: str, q: Network, inputs: tuple[Array, ...], key: Key) -> Any:
    _, critic, hidden = _looked_at(state, within, q, inputs)
    score = losses.dormant_scores
    scores = [score(h) if h.ndim == 2 else jax.vmap(score)(h) for h in hidden]
    recycled = transforms.recycle(critic.params, critic.opt_state, scores, q.init(key), config.redo_threshold)
    return _with_critic(state, within, *recycled)


def _replaced(config: Switches, state: Any, within: str, q: Network, inputs: tuple[Array, ...], key: Key) -> Any:
    """``state`` after what continual backprop does in an update."""
    inner, critic, hidden = _looked_at(state, within, q, inputs)
    usage = transforms.utility_step(critic.params, inner.kept.usage, hidden)

    def replaced(fresh: Any) -> tuple[Any, ...]:
        return transforms.replace_units(critic.params, critic.opt_state, usage, fresh, config.replacement_rate)

    # Most updates replace nothing, and drawing whole networks would cost them more than all the rest of this.
    counted = replaced(critic.params)[2]
    due = jnp.stack([(new.age < old.age).any() for new, old in zip(counted, usage, strict=True)]).any()
    params, opt_state, usage = jax.lax.cond(
        due, lambda: replaced(q.init(key)), lambda: (critic.params, critic.opt_state, counted)
    )
    return _with_critic(state, within, params, opt_state, usage)


def _looked_at(state: Any, within: str, q: Network, inputs: tuple[Array, ...]) -> tuple[Any, _common.Trainable, Any]:
    """The part of the state that has the critics, these, and their hidden layers ``[..., B, D]`` at ``inputs``."""
    inner = getattr(state, within) if within else state
    critic = inner.critic if "critic" in inner._fields else inner.value
    rows = (x.reshape(-1, x.shape[-1]) for x in inputs)
    return inner, critic, q.apply(critic.params, *rows, features="all")[1]


def _with_critic(state: Any, within: str, params: Any, opt_state: Any, usage: Any = None) -> Any:
    inner = getattr(state, within) if within else state
    name = "critic" if "critic" in inner._fields else "value"
    inner = inner._replace(**{name: _common.Trainable(params, opt_state)})
    if usage is not None:
        inner = inner._replace(kept=inner.kept._replace(usage=usage))
    return state._replace(**{within: inner}) if within else inner


def reset(config: Switches, old: Any, fresh: Any) -> Any:
    """The state ``old`` with new weights, or a mixture, and everything that must go with them.

    Optimisers begin anew and targets are copies; statistics of observations stay. A mixture takes the kernels and
    biases of layers and leaves scales of norms, temperatures and vectors as they were.
    """
    whole = config.reset_shrink == 0.0 and config.reset_perturb == 1.0

    def mixed(before: Any, new: Any) -> Any:
        if isinstance(before, _common.Trainable):
            if whole:
                return new
            weights = transforms.shrink_perturb(
                before.params, new.params, config.reset_shrink, config.reset_perturb, _plasticity.of_layers
            )
            return _common.Trainable(weights, new.opt_state)
        parts = {}
        for name in before._fields:
            was, now = getattr(before, name), getattr(new, name)
            if name in KEPT_BY_RESETS:
                parts[name] = was
            elif name.startswith("target_"):  # after what it follows
                parts[name] = _common.copy(parts[name.removeprefix("target_")].params)
            else:
                parts[name] = mixed(was, now)
        if "kept" in parts:
            actor, critic = (
                _common.copy(one.params) for one in (parts["actor"], parts.get("critic", parts.get("value")))
            )
            parts["kept"] = _plasticity.moved_on(config, parts["kept"], critic, actor)._replace(usage=new.kept.usage)
        return type(before)(**parts)

    return mixed(old, fresh)
