"""Cal-QL: CQL that does not push values below those of the data, so that going on online starts from their scale.

In words. All is CQL, but for one thing: in the penalty, the critics' values of the policy's own actions, at s and from
s', count as at least G(s, a), the return that the data's episode went on to have from the row. Where a critic is below
it there is nothing left to push down. The uniform actions are not lifted. G is summed with the agent's own discount
from the rewards that follow the row. After a time-out the episode would have gone on: ``after_time_out`` says what that
counts. A row of a replay whose episode is still under way has no bound, and its penalty is CQL's. The update is written
out in ``cql``.

Metrics: those of CQL, and ``calibrated``, the share of values that the bound lifts; ``bound``, its mean where known.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents.offline import cql
from jaxrl_reg.agents.offline.cql import State
from jaxrl_reg.data import buffers, samplers
from jaxrl_reg.errors import unknown
from jaxrl_reg.types import Agent, Array, Key, Metrics, Paper, Protocol, Spec, Transition, pytree, setting

__all__ = ["KIND", "PAPER", "PROTOCOL", "Config", "Hyper", "State", "make"]

PAPER = Paper(
    title="Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning",
    authors="Nakamoto, Zhai, Singh, Mark, Ma, Finn, Kumar, Levine",
    year=2023,
    url="https://arxiv.org/abs/2303.05479",
    deviations="As CQL's here. The released code counts nothing after a time-out, or with a switch the last reward for "
    "ever; here only a negative one goes on, so that the bound stays one from below whether rewards are paid or "
    "charged. An online row whose episode has not ended has no bound yet; there it is trained on after the end only.",
)
KIND = "offline"
PROTOCOL = Protocol(sparse=(10.0, -5.0), batch_size=256, updates=1_000_000, note="Before the updates online.")
RULES = ("lower", "last", "nothing")


@dataclasses.dataclass(frozen=True)
class Config(cql.Config):
    after_time_out: str = setting(
        default="lower",
        help="what a time-out leaves to be earned: last, its last reward for ever; nothing; lower, the less of the two",
    )


@pytree
class Hyper(cql.Hyper):
    pass


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` for an unknown ``after_time_out``."""
    if config.after_time_out not in RULES:
        raise unknown("after_time_out", config.after_time_out, RULES)
    length = spec.max_episode_steps

    def lift(values: Array, batch: Transition, hyper: Hyper) -> tuple[Array, Metrics]:
        bound, known = return_to_go(batch, hyper.discount, config.after_time_out), batch.extras["known"] > 0
        each = jax.vmap(jax.vmap(losses.calibrated_value, (0, None)), (0, None))
        lifted = each(values, jnp.where(known, bound, -jnp.inf))
        mean = jnp.where(known, bound, 0.0).sum() / jnp.maximum(known.sum(), 1)
        return lifted, {"calibrated": (lifted > values).mean(), "bound": mean}

    def replay(buffer: buffers.Buffer, key: Key, batch_size: int, stride: int) -> Transition:
        return buffers.ahead(buffer, key, batch_size, stride, length)

    return cql.make(config, spec, lift)._replace(sample=samplers.ahead(length), replay=replay)


def return_to_go(batch: Transition, discount: Array | float, after_time_out: str) -> Array:
    """``[B]``: the discounted rewards from each row to its episode's end, and what follows where a time-out ended it.

    ``batch`` is as ``samplers.ahead`` makes it. The last reward r going on for ever is worth r / (1 - discount).
    """
    ahead, last = batch.extras["reward_ahead"], batch.extras["cut_reward"]
    earned = jnp.sum(jnp.power(jnp.float32(discount), jnp.arange(ahead.shape[-1])) * ahead, axis=-1)
    kept = {"lower": jnp.minimum(last, 0.0), "last": last, "nothing": jnp.zeros_like(last)}[after_time_out]
    rest = kept / jnp.maximum(1.0 - discount, 1e-6)
    return earned + jnp.power(jnp.float32(discount), batch.extras["steps_ahead"]) * rest
