"""Training on a reward that is learnt from pairs of segments of the data, instead of on the data's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs.settings import SweepConfig

if TYPE_CHECKING:
    from jaxrl_reg.types import Dataset

UPDATES, BATCH, PARTS, SEED = 2_000, 64, 10, 0  # batch in pairs; agreement is told of the last part


def refuse(config: SweepConfig) -> None:
    """Raises ``UserError`` for an agent that has no use for a learnt reward."""
    from jaxrl_reg import agents
    from jaxrl_reg.jobs.preprocessing import protocol

    if config.reward_from_pairs is None:
        return
    if "pairs_file" in {name for name, *_ in agents.settings(agents.load(config.agent).Config)}:
        raise UserError(f"{config.agent} learns from the pairs themselves: give them as --pairs")
    if not protocol(config.agent).rewards:
        raise UserError(f"{config.agent} learns without rewards, so leave out --reward-from-pairs")
    if config.pair_steps < 1:
        raise UserError(f"pair_steps={config.pair_steps} must be at least 1")


def applied(data: Dataset, config: SweepConfig) -> tuple[Dataset, list[str]]:
    """The data with the reward that is learnt from the pairs of ``config``, and a line that says so; as they are
    without. The same data and pairs give the same reward.

    Raises:
      UserError: as ``data.preferences.read``.
    """
    if config.reward_from_pairs is None:
        return data, []
    import jax

    from jaxrl_reg import representation
    from jaxrl_reg.data import preferences
    from jaxrl_reg.loops import pretrain
    from jaxrl_reg.loops.pretrain import Hyper
    from jaxrl_reg.types import as_float32

    pairs = preferences.read(config.reward_from_pairs, data, config.pair_steps)
    model = representation.reward_model(data.spec)
    sample = preferences.batches(config.pair_steps)
    run = pretrain(model, batch_size=BATCH, updates=UPDATES, segments=PARTS, sample=sample)
    state, history = jax.jit(run)(jax.random.key(SEED), as_float32(Hyper()), (data, pairs))
    done = jax.jit(lambda data, params: representation.with_reward(data, model, params))(data, state.params)
    share = float(history["agreement"][-1])
    count = int(pairs.first.shape[0])
    return done, [f"rewards learnt from {count:,} pairs, of which they order {share:.0%} as the judge did"]
