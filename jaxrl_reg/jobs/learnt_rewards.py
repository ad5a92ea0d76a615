"""Training on another reward than the data's own: learnt from pairs of segments, or rid of what confounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxrl_reg.errors import UserError
from jaxrl_reg.jobs.settings import COLLECTED, EXPLORED, SweepConfig

if TYPE_CHECKING:
    from jaxrl_reg.types import Dataset

UPDATES, BATCH, PARTS, SEED = 2_000, 64, 10, 0  # batch in pairs; agreement is told of the last part


def refuse(config: SweepConfig) -> None:
    """Raises ``UserError`` for an agent that has no use for another reward, and options that exclude each other."""
    from jaxrl_reg import agents
    from jaxrl_reg.jobs.preprocessing import protocol

    if config.deconfound is None and config.instruments is not None:
        raise UserError("--instruments move what --deconfound names: give that too, or leave them out")
    if config.deconfound is not None:
        if config.reward_from_pairs is not None:
            raise UserError("--deconfound repairs the data's rewards and --reward-from-pairs replaces them: give one")
        if not protocol(config.agent).rewards:
            raise UserError(f"{config.agent} learns without rewards, so leave out --deconfound")
        if config.dataset in (*COLLECTED, *EXPLORED):
            raise UserError(
                f"--deconfound takes columns that were logged beside the data, and {config.dataset} is collected here: "
                "give --dataset FILE"
            )
    if config.reward_from_pairs is None:
        return
    if "pairs_file" in {name for name, *_ in agents.settings(agents.load(config.agent).Config)}:
        raise UserError(f"{config.agent} learns from the pairs themselves: give them as --pairs")
    if not protocol(config.agent).rewards:
        raise UserError(f"{config.agent} learns without rewards, so leave out --reward-from-pairs")
    if config.pair_steps < 1:
        raise UserError(f"pair_steps={config.pair_steps} must be at least 1")


def applied(data: Dataset, config: SweepConfig) -> tuple[Dataset, list[str]]:
    """The data with the reward that ``config`` asks for, and a line that says so; as they are where it asks for none.
    The same data, and the same pairs, give the same reward.

    Raises:
      UserError: as ``data.preferences.read`` and ``data.deconfound``.
    """
    if config.deconfound is not None:
        from jaxrl_reg.data import deconfound

        done = deconfound(data, config.deconfound, instruments=config.instruments)
        return done, list(done.notes[len(data.notes) :])
    if config.reward_from_pairs is None:
        return data, []
    return _from_pairs(data, config)


def _from_pairs(data: Dataset, config: SweepConfig) -> tuple[Dataset, list[str]]:
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
