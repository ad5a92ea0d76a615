"""The ensemble of critics of SAC and of the TD3 family: what is built of its settings, and one step of it."""

from __future__ import annotations

from typing import Any

from jaxrl_reg import losses, networks
from jaxrl_reg.agents import _beer, _common, _plasticity, _switches
from jaxrl_reg.types import Array, Metrics, Network, PyTree, Spec, Transition


def critics(config: Any, spec: Spec, hidden: tuple[int, ...]) -> Network:
    """The ensemble of critics that a ``Config`` of actor and critics asks for."""
    _switches.check(config)
    norms = {"layer_norm": config.critic_layer_norm, "feature_norm": config.critic_feature_norm}
    options = _plasticity.body(config, **norms)
    return _plasticity.network(config, networks.q_network(spec, hidden, config.n_critics, **options))


def critic_step(
    config: Any, q: Network, state: Any, learning_rate: Array, batch: Transition, bootstrap: tuple
) -> tuple[_common.Trainable, Metrics]:
    """One step of an ensemble ``state.critic`` on its TD error and whatever is switched on, BEER too.

    ``bootstrap`` is ``(next_action [B, A], target [B], following)``, the last for ``_beer``.
    """
    next_action, target, following = bootstrap
    inputs, ahead = (batch.observation, batch.action), ((batch.next_observation, next_action), batch.discount)

    def loss(params: PyTree) -> tuple[Array, Metrics]:
        values, features = q.apply(params, *inputs, features=True)
        loss = _plasticity.seen(config.churn, losses.ensemble_td_error(values, target)).mean()
        metrics = {"critic_loss": loss, "q": values.mean()}
        found = _beer.regularise(config.beer, loss, metrics, params, features, following)
        return _plasticity.regularise(config, q, found, params, (values, features), inputs, ahead, state.kept)

    optimiser = _plasticity.optimiser(config, learning_rate, state.kept.start)
    critic, metrics = _common.descend(loss, state.critic, optimiser)
    return _plasticity.stepped(config, critic), metrics
