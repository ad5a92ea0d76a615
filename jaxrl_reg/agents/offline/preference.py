"""Direct preference optimisation of segments: a policy from pairs of trajectory segments, of which one is better.

In words. A table of pairs is made once: ``pairs`` segments of ``segment`` steps drawn from the data and judged by their
returns (Bradley-Terry, see ``data.preferences.judged``), or those of ``pairs_file``. Two policies learn. The reference
clones the data's actions, uniform rows, for ``clone`` updates and then stands still. The policy minimises ``(1 - w)``
times the same cloning loss plus ``w`` times the loss of preferences, ``w`` growing from 0 to 1 over those updates.

A segment's log-probability is the MEAN over its steps, ``sum_t log pi(a_t | s_t) / n``: densities of a whole segment
differ by hundreds of nats, so beta for sums is ``beta / n`` here. ``rpo`` also raises the likelihood of the preferred
segment, with weight ``eta beta``. A preference between 0 and 1 counts both ways, for every loss.

Metrics: ``actor_loss``, as above; ``clone_loss`` of the reference; ``chosen_log_ratio`` and ``rejected_log_ratio``,
nats per step; ``accuracy``, the share of pairs that the policy orders as the judge did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrl_reg import losses
from jaxrl_reg.agents import _common
from jaxrl_reg.data import preferences
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.policies import categorical, gaussian
from jaxrl_reg.transforms import adam
from jaxrl_reg.types import Agent, Array, Dataset, Key, Metrics, Paper, Protocol, Spec, Transition, pytree, setting

PAPER = Paper(
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    authors="Rafailov, Sharma, Mitchell, Ermon, Manning, Finn",
    year=2023,
    url="https://arxiv.org/abs/2305.18290",
    deviations="Segments of trajectories instead of completions: means over steps, and two segments need not begin in "
    "the same state. The default loss adds the likelihood of the preferred segment (Liu et al., 2024, RPO).",
)
KIND = "offline"
PROTOCOL = Protocol(note="No published protocol for control.")
LOSSES = (
    "cpo", "dpo", "dpo_hinge", "dpo_positive", "flex_dpo", "ipo", "odds_ratio", "robust_dpo", "rpo", "simpo", "slic"
)  # fmt: skip
FLIPPED = 0.1  # share of wrong labels that robust DPO undoes
ROWS_PER_PAIR = 4  # rows of a batch for each pair in it


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = setting(default=(256, 256), help="widths of the hidden layers")
    loss: str = setting(default="rpo", help=", ".join(LOSSES))
    segment: int = setting(default=16, help="steps of a segment", small=2)
    pairs: int = setting(default=2000, help="pairs that are drawn and judged by their returns", small=32)
    pairs_file: str = setting(default="", help="Parquet file of pairs instead; its form is in docs/preferences.md")
    judge_temperature: float = setting(
        default=0.25, help="of the judge of returns, in standard deviations of a segment's return; 0 never errs"
    )
    judge_seed: int = setting(default=0, help="seed of the pairs and of their labels")
    clone: int = setting(default=2000, help="updates for which the reference is cloned", small=4)
    simpo_gamma: float = setting(default=0.5, help="wanted lead of simpo")
    penalty: float = setting(default=5.0, help="of dpo_positive, per nat that the chosen loses")
    rejected_share: float = setting(default=0.3, help="beta of the rejected over beta, in flex_dpo")


@pytree
class Hyper:
    learning_rate: float = setting(default=3e-4, help="Adam step size")
    beta: float = setting(default=1.0, help="per nat of the mean over a segment's steps: small leaves the reference")
    eta: float = setting(default=1.0, help="weight of the preferred segment's likelihood, times beta; rpo and cpo only")
    label_smoothing: float = setting(default=0.05, help="share of labels taken to be wrong", range=(0.0, 0.45))


class State(NamedTuple):
    actor: _common.Trainable
    reference: _common.Trainable


def pair_loss(config: Config, chosen: Array, rejected: Array, ref_chosen: Array, ref_rejected: Array, hyper) -> Array:
    """The loss of pairs ``[B]`` by its name; all log-probabilities are means over steps."""
    pair, beta = (chosen, rejected, ref_chosen, ref_rejected), hyper.beta
    table: dict[str, Callable[[], Any]] = {
        "cpo": lambda: losses.cpo_loss(chosen, rejected, -chosen, beta, beta * hyper.eta),
        "dpo": lambda: losses.dpo_loss(*pair, beta),
        "dpo_hinge": lambda: losses.dpo_hinge_loss(*pair, beta),
        "dpo_positive": lambda: losses.dpo_positive_loss(*pair, beta, config.penalty),
        "flex_dpo": lambda: losses.flex_dpo_loss(*pair, beta, config.rejected_share * beta),
        "ipo": lambda: losses.ipo_loss(*pair, beta),
        "odds_ratio": lambda: losses.odds_ratio_loss(chosen, rejected, beta) - chosen,
        "robust_dpo": lambda: losses.robust_dpo_loss(*pair, beta, FLIPPED),
        "rpo": lambda: losses.rpo_loss(*pair, chosen, beta, hyper.eta),
        "simpo": lambda: losses.simpo_loss(chosen, rejected, beta, config.simpo_gamma),
        "slic": lambda: losses.slic_loss(chosen, rejected, chosen, 1.0 / beta, 0.1),
    }
    return table[config.loss]()


def make(config: Config, spec: Spec) -> Agent:
    """Raises ``UserError`` for a loss that is not known, or one of probabilities where actions have densities."""
    if config.loss not in LOSSES:
        raise unknown("loss", config.loss, LOSSES)
    if config.loss == "odds_ratio" and not spec.discrete:
        raise UserError("loss=odds_ratio needs probabilities, and continuous actions have densities; try loss=simpo")
    policy: Any = categorical.coded(spec, config.hidden) if spec.discrete else gaussian.clipped(spec, config.hidden)

    def prepare(data: Dataset) -> tuple[Dataset, preferences.Pairs]:
        if config.pairs_file:
            return data, preferences.read(config.pairs_file, data, config.segment)
        judge = (config.segment, config.pairs, config.judge_temperature, config.judge_seed)
        return data, preferences.judged(data, *judge)

    draw = preferences.batches(config.segment, ROWS_PER_PAIR)

    def sample(prepared: Any, key: Key, batch_size: int) -> Transition:
        if not isinstance(prepared, tuple):
            raise UserError("preference learns from pairs; give the run agent.prepare(data) instead of data")
        return draw(prepared, key, batch_size)

    def init(key: Key, hyper: Hyper) -> State:
        params = policy.init(key)
        return State(*(_common.trainable(_common.copy(params), adam(hyper.learning_rate)) for _ in range(2)))

    def of_segments(params, batch: Transition) -> Array:
        """Mean log-probability per step, ``[2, P]``."""
        mask = batch.extras["segment_mask"]
        log_prob = policy.log_prob(params, batch.extras["segment_observation"], batch.extras["segment_action"])
        return losses.sequence_logprobs(log_prob, mask, average=True)

    def update(state: State, batch: Transition, hyper: Hyper, key: Key, step: Array) -> tuple[State, Metrics]:
        grown = jnp.clip(step / max(config.clone, 1), 0.0, 1.0)

        def cloning(params):
            loss = losses.behaviour_cloning_nll(policy.log_prob(params, batch.observation, batch.action)).mean()
            return loss, {"clone_loss": loss}

        rate = jnp.where(grown < 1.0, hyper.learning_rate, 0.0)
        reference, cloned = _common.descend(cloning, state.reference, adam(rate))
        ref_first, ref_second = of_segments(state.reference.params, batch)
        said = batch.extras["preference"]
        preferred = said + hyper.label_smoothing * (1.0 - 2.0 * said)

        def loss(params):
            first, second = of_segments(params, batch)
            one_way = pair_loss(config, first, second, ref_first, ref_second, hyper)
            other_way = pair_loss(config, second, first, ref_second, ref_first, hyper)
            value = (preferred * one_way + (1.0 - preferred) * other_way).mean()
            moved, other = first - ref_first, second - ref_second
            right = said > 0.5
            metrics = {
                "chosen_log_ratio": jnp.where(right, moved, other).mean(),
                "rejected_log_ratio": jnp.where(right, other, moved).mean(),
                "accuracy": jnp.where(right, moved > other, moved < other).mean(dtype=jnp.float32),
            }
            total = (1.0 - grown) * cloning(params)[0] + grown * value
            return total, {"actor_loss": total, **metrics}

        actor, metrics = _common.descend(loss, state.actor, adam(hyper.learning_rate))
        return State(actor, reference), {**metrics, **cloned}

    def act(state: State, observation: Array, hyper: Hyper, key: Key, explore: bool) -> Array:
        if explore:
            return jnp.clip(policy.sample(state.actor.params, observation, key)[0], -1.0, 1.0)
        return policy.mode(state.actor.params, observation)

    return Agent(init, update, act, sample=sample, prepare=prepare)
