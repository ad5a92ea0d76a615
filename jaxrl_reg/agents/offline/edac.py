"""EDAC: SAC-N whose critics are kept diverse, so that ten do the work of hundreds.

In words: ``sac_n`` plus ``eta`` times the mean similarity of the critics' action gradients at the data's actions. For
each row the gradients grad_a Q_i(s, a) are scaled to length one, and the similarity is the sum of their inner products
over ordered pairs i != j, divided by N - 1. Critics that agree everywhere would be sure everywhere.

Metrics: those of ``sac_n``; ``diversity`` the mean similarity above, from -N / (N - 1) to N, low is diverse.
"""

from __future__ import annotations

import jax

from jaxrl_reg import losses
from jaxrl_reg.agents.offline import sac_n
from jaxrl_reg.agents.offline.sac_n import KIND, PAPER, PROTOCOL, Config, State
from jaxrl_reg.types import Agent, Array, Metrics, Network, PyTree, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "action_gradients", "make"]


@pytree
class Hyper(sac_n.Hyper):
    eta: float = setting(
        default=1.0, help="weight of the similarity of gradients; the paper: 1, and 5 for most expert data"
    )


def action_gradients(q: Network, params: PyTree, observation: Array, action: Array) -> Array:
    """``grad_a Q_i(s, a)`` of every critic and row: ``[N, B, A]``. ``q`` is a ``networks.q_network``."""

    def of_one(member: PyTree) -> Array:
        stacked = jax.tree.map(lambda leaf: leaf[None], member)
        # Rows do not interact, so the gradient of the sum holds every row's gradient.
        return jax.grad(lambda a: q.apply(stacked, observation, a).sum())(action)

    return jax.vmap(of_one)(params)


def make(config: Config, spec: Spec) -> Agent:
    """Needs at least two critics."""

    def diversity(q: Network, params: PyTree, batch: Transition, hyper: Hyper) -> tuple[Array, Metrics]:
        gradients = action_gradients(q, params, batch.observation, batch.action)
        similarity = losses.gradient_diversity_loss(gradients).mean()
        return hyper.eta * similarity, {"diversity": similarity}

    return sac_n.make(config, spec, diversity)
