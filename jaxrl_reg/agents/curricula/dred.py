"""Data-Regularised Environment Design: new levels come from a generative model of the few that are given.

In words. Each member is given ``data_levels`` levels of the distribution aimed at, which stay in the buffer for good. A
variational autoencoder learns them before training; a new level is decoded from a point between the codes of two of
them (polar interpolation, and the posterior's noise). So there are more levels than were given, of the same kind, where
a designer's generator would shift what is trained on. The environments that learn draw by a mixture: the given levels
by rank of value loss, all that were ever solved by rank of theirs (its share ``eta`` rises over training), and the
given ones by staleness. Beside them as many new levels are only scored; one enters if it was solved and beats the least
score there (``insertion=score``), or for as long as it is among the newest (``recent``). ``buffered=false`` learns from
new levels alone, each used once. ``generator=edit`` edits replayed levels instead, ``designer`` takes the designer's.

Metrics: PPO's; ``curriculum/score`` is the mean of the new scores, ``curriculum/filled`` the buffer's filled share.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reg.agents.curricula import _curriculum
from jaxrl_reg.agents.online import ppo
from jaxrl_reg.data import levels as buffers
from jaxrl_reg.errors import UserError, unknown
from jaxrl_reg.representation import level_vae
from jaxrl_reg.types import Agent, Array, Key, Levels, Paper, Protocol, PyTree, Spec, pytree, setting

PAPER = Paper(
    title="DRED: Zero-Shot Transfer in Reinforcement Learning via Data-Regularised Environment Design",
    authors="Garcin, Doran, Guo, Lucas, Albrecht",
    year=2024,
    url="https://arxiv.org/abs/2402.03479",
    deviations="Every new level has a pair and a point of its own, drawn at random, where the paper takes six points "
    "of six pairs, end points included; it is played beside the replayed ones instead of after them; continuous parts "
    "of a level are drawn from the decoder with its noise, without which they add nothing to the data; the temperature "
    "over the data is 0.3 instead of 0.1, which suits few levels.",
)
KIND = "on_policy"
METRICS = ppo.METRICS
PROTOCOL = Protocol(note="Learns in a world with levels.")
defaults = ppo.defaults
GENERATORS, RULES = ("vae", "edit", "designer"), ("score", "recent")


@dataclasses.dataclass(frozen=True)
class Config(ppo.Config):
    """PPO's, the buffer's and the autoencoder's."""

    capacity: int = setting(default=256, help="slots of the buffer, those of the given levels included", small=8)
    data_levels: int = setting(default=64, help="how many levels each member is given", small=4)
    generator: str = setting(default="vae", help="of new levels: vae, edit (changes of replayed ones) or designer")
    insertion: str = setting(default="score", help="which new levels stay: score, or recent")
    buffered: bool = setting(default=True, help="false: learn from new levels alone, each used once")
    edits: int = setting(default=5, help="generator=edit: random changes of a level at a time")
    ramp_steps: int = setting(default=1000, help="iterations over which eta rises; a run takes its own number")
    vae_hidden: tuple[int, ...] = setting(default=(128,), help="widths of the hidden layers of encoder and decoder")
    vae_latent: int = setting(default=24, help="size of a code")
    vae_steps: int = setting(default=1000, help="Adam steps on all given levels, before training")
    vae_beta: float = setting(default=1.0, help="weight of the divergence of codes from the standard normal")
    vae_noise: bool = setting(default=True, help="false: continuous parts are the decoder's mean, not a draw")
    vae_learning_rate: float = setting(default=2e-3, help="Adam step size of the autoencoder")


@pytree
class Hyper(ppo.Hyper):
    """PPO's, and who is drawn."""

    eta: float = setting(
        default=1.0, help="share of draws from the whole buffer at the end; it rises from 0", curriculum=True
    )
    staleness: float = setting(
        default=0.3, help="share of draws by how long ago a given level was scored", curriculum=True
    )
    temperature_data: float = setting(default=0.3, help="of rank^(-1/temperature) of the given levels", curriculum=True)
    temperature_buffer: float = setting(default=1.0, help="the same of the whole buffer; inf: alike", curriculum=True)


def make(config: Config, spec: Spec) -> Agent:
    if config.generator not in GENERATORS:
        raise unknown("generator of dred", config.generator, GENERATORS)
    if config.insertion not in RULES:
        raise unknown("insertion of dred", config.insertion, RULES)
    if config.generator == "edit" and not config.buffered:
        raise UserError("generator=edit changes levels that are replayed, so it needs buffered=true")
    if config.data_levels < 2 or min(config.edits, config.ramp_steps, config.vae_steps) < 1:
        raise UserError("dred needs data_levels of at least 2, and edits, ramp_steps and vae_steps of at least 1")

    def weights(buffer: buffers.LevelBuffer, hyper: Hyper, iteration: Array) -> Array:
        eta = hyper.eta * jnp.clip(iteration / config.ramp_steps, 0.0, 1.0)
        known = buffers.mixture(buffer, eta, hyper.staleness, hyper.temperature_data, hyper.temperature_buffer)
        return jnp.where(buffer.unseen.any(), buffer.unseen.astype(jnp.float32), known)

    def recipe(levels: Levels, num_envs: int) -> _curriculum.Recipe:
        vae = level_vae.level_vae(levels, config.vae_hidden, config.vae_latent, config.vae_beta, config.vae_noise)

        def prepare(key: Key, data: PyTree) -> PyTree:
            params = level_vae.fit(vae, data, key, config.vae_steps, config.vae_learning_rate)
            return params, vae.encode(params, data)

        def generate(key: Key, state: _curriculum.State, replayed: PyTree, hyper: Any) -> PyTree:
            params, codes = state.generator
            code_key, decode_key = jax.random.split(key)
            code = level_vae.between(*codes, code_key, num_envs)
            return jax.vmap(vae.decode, (None, 0, 0))(params, code, jax.random.split(decode_key, num_envs))

        learnt = config.generator == "vae"
        others = {
            "edit": _curriculum.edited(levels, num_envs, config.edits),
            "designer": _curriculum.drawn(levels, num_envs),
        }
        return _curriculum.Recipe(
            num_envs if config.buffered else 0,
            num_envs,
            others.get(config.generator, generate),
            weights,
            capacity=config.capacity if config.buffered else config.data_levels,
            keep=config.insertion if config.buffered else None,
            ground=True,
            data=_curriculum.given(levels, config.data_levels),
            prepare=prepare if learnt else None,
        )

    return _curriculum.agent(config, spec, recipe)
