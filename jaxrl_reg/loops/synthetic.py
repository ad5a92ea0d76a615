"""Offline training on synthetic experience: a diffusion model of trajectories, steered towards the current policy.

Policy-Guided Diffusion (Jackson et al., 2024, https://arxiv.org/abs/2404.06356) in three pieces. ``fit`` is a run that
trains the denoiser. ``generator`` makes ``generate(key, model, log_prob) -> Transition``, pure, for use anywhere in a
compiled program. ``synthetic`` is a run that trains any offline agent on what is generated, anew every so often, with
the policy of that moment::

    views = trajectories(dataset, length=32)  # data.trajectories
    network = temporal_unet(views.scaler.channels)  # networks.temporal
    state, _ = jax.jit(fit(network, updates=100_000))(key, FitHyper(), views)
    data = SyntheticData(dataset, TrajectoryModel(state.average, views.scaler))
    run = synthetic(agent, generator(network, windows=256, length=32), updates=1_000_000, refresh_every=10_000)

Trajectories follow p(x) prod_t pi(a_t | s_t)^c in spirit: the behaviour's law times the policy's, so they stay near the
data. Observations are moved through the denoiser alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_reg import generative
from jaxrl_reg.data.samplers import uniform
from jaxrl_reg.data.trajectories import Trajectories, TrajectoryScaler
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops.offline import INIT, TRAIN, Evaluator, evaluate_agent, per_segment
from jaxrl_reg.transforms import adam, polyak
from jaxrl_reg.types import Agent, Array, Dataset, Key, Metrics, Network, PyTree, Run, Transition, pytree, setting

LogProb = Callable[[Array, Array], Array]  # observation [..., O], action [..., A] -> [...]
SIGMA_DATA = 1.0  # channels are standardised


@pytree
class FitHyper:
    """Settings of ``fit``."""

    learning_rate: float = setting(default=2e-3, help="Adam step size at its peak")
    average_rate: float = setting(default=0.005, help="least step of the averaged parameters towards the trained ones")


class FitState(NamedTuple):
    """``average`` is what to sample with."""

    params: PyTree
    opt_state: PyTree
    average: PyTree


class TrajectoryModel(NamedTuple):
    """What ``generate`` needs: averaged parameters, and the scaler of the data they were trained on."""

    params: PyTree
    scaler: TrajectoryScaler


class SyntheticData(NamedTuple):
    """What ``synthetic`` trains on: the real rows, and the model of their trajectories. Shared by all members."""

    real: Dataset
    model: TrajectoryModel


Generate = Callable[[Key, TrajectoryModel, LogProb | None], Transition]


def _field(network: Network, params: PyTree) -> Callable[[Array, Array], Array]:
    return lambda x, noise: network.apply(params, x, noise)


def fit(
    network: Network,
    *,
    updates: int,
    segments: int = 1,
    batch_size: int = 32,
    average_every: int = 10,
    warmup: float = 0.1,
) -> Run:
    """A run that trains ``network`` (``networks.temporal``) to denoise windows: ``run(key, FitHyper(), trajectories)``.

    EDM's loss and noise density (Karras et al. 2022) on standardised channels. The learning rate rises over the first
    ``warmup`` of the updates from a tenth of its peak, then falls to 0 on a half cosine. Metric: ``model_loss``.
    """
    length = per_segment(updates, segments)
    rising = max(int(warmup * updates), 1)

    def rate(step: Array) -> Array:
        up = 0.1 + 0.9 * step / rising
        down = 0.5 * (1.0 + jnp.cos(jnp.pi * (step - rising) / max(updates - rising, 1)))
        return jnp.where(step < rising, up, down)

    def init(key: Key, hyper: FitHyper) -> FitState:
        params = network.init(jax.random.fold_in(key, INIT))
        return FitState(params, adam(hyper.learning_rate).init(params), jax.tree.map(jnp.copy, params))

    def train(state: FitState, index: Array, key: Key, hyper: FitHyper, data: Trajectories) -> tuple[FitState, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(key, TRAIN), index)

        def body(state: FitState, i: Array):
            step = index * length + i
            sample_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
            x = data.sample(sample_key, batch_size)

            def loss(params):
                return generative.edm_loss(loss_key, _field(network, params), x, sigma_data=SIGMA_DATA)[0].mean()

            value, gradients = jax.value_and_grad(loss)(state.params)
            optimiser = adam(hyper.learning_rate * rate(step))
            changes, opt_state = optimiser.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, changes)
            # The plain mean at first, so that the start is forgotten however short the run.
            mean = 1.0 / (step // average_every + 1.0)
            average = jax.lax.cond(
                step % average_every == 0,
                lambda: polyak(params, state.average, jnp.maximum(hyper.average_rate, mean)),
                lambda: state.average,
            )
            return FitState(params, opt_state, average), {"model_loss": value}

        state, metrics = jax.lax.scan(body, state, jnp.arange(length))
        return state, jax.tree.map(jnp.mean, metrics)

    return Run(init, train, None, segments, length)


def policy_guide(
    scaler: TrajectoryScaler,
    log_prob: LogProb,
    weights: Array,
    *,
    denoise: generative.Denoiser | None = None,
    normalise: bool = True,
) -> generative.Guide:
    """The solver's guide ``weights[i] * grad_a sum_t log pi(a_t | s_t)`` on channels ``x [B, L, C]``.

    ``log_prob`` sees observations and actions in their own units; the gradient is with respect to the action channels,
    observations held fixed. ``denoise`` and ``normalise`` as in ``generative.gradient_guide``: with a denoiser the
    gradient is taken at its estimate, held as an input, and ``normalise`` divides by the norm over the whole window.
    """

    def total(x: Array) -> Array:
        observation = jax.lax.stop_gradient(scaler.observation(x))
        return log_prob(observation, scaler.action(x)).sum(axis=-1)

    return generative.gradient_guide(total, weights, denoise=denoise, normalise=normalise)


def generator(
    network: Network,
    *,
    windows: int,
    length: int,
    steps: int = 64,
    coefficient: Array | float = 1.0,
    cosine: float = 0.3,
    denoised: bool = True,
    normalise: bool = True,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    churn: float | None = 80.0,
) -> Generate:
    """``generate(key, model, log_prob) -> Transition`` with ``windows * (length - 1)`` rows, all complete.

    Stochastic Heun on Karras' grid. ``length`` should be that of training. ``log_prob(observation, action)`` is the
    policy to steer towards, None for none.

    Args:
      windows: trajectories drawn.
      length: ``L``, steps of each.
      steps: levels of noise; 2 network calls each, 3 with ``denoised``. 32 to 64 suffice for small problems.
      coefficient: ``c`` of the guidance, may be traced; about 1e-1 to 1. Larger means nearer to the policy, further
        from the data and the dynamics.
      cosine: height of the bump in the weights ``c ((1 - i / n) + cosine sin(pi (i + 1) / n))``.
      denoised: take the gradient at the denoised estimate instead of the noised trajectory.
      normalise: divide the gradient by its norm over the window.
      sigma_min, sigma_max: limits of the noise levels.
      churn: noise added back per pass; None: deterministic.
    """

    def generate(key: Key, model: TrajectoryModel, log_prob: LogProb | None = None) -> Transition:
        start_key, solve_key = jax.random.split(key)
        denoise = generative.edm_denoiser(_field(network, model.params), SIGMA_DATA)
        sigmas = generative.karras(steps, sigma_min, sigma_max)
        guide = None
        if log_prob is not None:
            weights = generative.cosine_weights(steps, coefficient, cosine)
            at = denoise if denoised else None
            guide = policy_guide(model.scaler, log_prob, weights, denoise=at, normalise=normalise)
        x = sigmas[0] * jax.random.normal(start_key, (windows, length, model.scaler.channels))
        options: dict[str, Any] = {"churn_min": 0.05, "churn_max": 50.0, "noise_scale": 1.003}
        x = generative.heun(solve_key, denoise, x, sigmas, churn=churn, guide=guide, **options)
        rows = model.scaler.decode(x)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)

    return generate


def unit_normal(agent: Agent) -> Callable[[PyTree, PyTree], LogProb]:
    """``(state, hyper) -> log_prob``: a normal of standard deviation 1 around the agent's greedy action.

    The paper's choice for deterministic actors; up to the scale of each dimension also what a Gaussian policy with one
    standard deviation for all states gives, because the gradient is normalised.
    """

    def of(state: PyTree, hyper: PyTree) -> LogProb:
        def log_prob(observation: Array, action: Array) -> Array:
            mean = agent.act(state, observation, hyper, jax.random.key(0), False)
            return -0.5 * jnp.square(action - mean).sum(axis=-1)

        return log_prob

    return of


def synthetic(
    agent: Agent,
    generate: Generate,
    *,
    updates: int,
    refresh_every: int,
    segments: int = 1,
    batch_size: int = 256,
    real_rows: int = 16,
    guided: bool = True,
    log_prob: Callable[[PyTree, PyTree], LogProb] | None = None,
    evaluate: Evaluator | None = None,
) -> Run:
    """A run that trains ``agent`` mostly on synthetic rows: ``run(key, hyper, SyntheticData(dataset, model))``.

    Args:
      agent: any offline agent that learns from transitions.
      generate: from ``generator``.
      updates: total number of calls of ``agent.update``.
      refresh_every: updates between two generations; a segment holds a whole number of them, so that nothing synthetic
        needs to be kept between segments.
      segments: number of parts; metrics are averaged, and the agent evaluated, once per part.
      batch_size: rows per update, of which ``real_rows`` come from the data set.
      guided: steer towards the current policy; without it the rows follow the data's law.
      log_prob: ``(agent state, hyper) -> log_prob(observation, action)``; by default ``unit_normal(agent)``.
      evaluate: as in ``loops.offline``.

    Raises:
      UserError: for numbers that do not divide, more real rows than the batch holds, or an agent that draws batches of
        its own.
    """
    if agent.sample is not None or agent.begin is not None:
        raise UserError("synthetic rows suit agents that learn from single transitions; this one draws its own batches")
    length = per_segment(updates, segments)
    if refresh_every < 1 or length % refresh_every:
        raise UserError(f"updates/segments={length} must be a positive multiple of refresh_every={refresh_every}")
    if not 0 <= real_rows <= batch_size:
        raise UserError(f"real_rows={real_rows} must lie between 0 and batch_size={batch_size}")
    policy = log_prob or unit_normal(agent)

    def init(key: Key, hyper: PyTree) -> PyTree:
        return agent.init(jax.random.fold_in(key, INIT), hyper)

    def train(state: PyTree, index: Array, key: Key, hyper: PyTree, data: SyntheticData) -> tuple[PyTree, Metrics]:
        key = jax.random.fold_in(jax.random.fold_in(key, TRAIN), index)

        def refresh(state: PyTree, r: Array) -> tuple[PyTree, Metrics]:
            generate_key, learn_key = jax.random.split(jax.random.fold_in(key, r))
            rows = generate(generate_key, data.model, policy(state, hyper) if guided else None)

            def body(state: PyTree, i: Array) -> tuple[PyTree, Metrics]:
                real_key, synthetic_key, update_key = jax.random.split(jax.random.fold_in(learn_key, i), 3)
                chosen = jax.random.randint(synthetic_key, (batch_size - real_rows,), 0, rows.reward.shape[0])
                drawn = jax.tree.map(lambda leaf: leaf[chosen], rows)
                # A synthetic window has no rank among the episodes, so no row of the batch has one.
                real = dataclasses.replace(uniform(data.real, real_key, real_rows), return_rank=None, extras={})
                batch = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), real, drawn)
                step = index * length + r * refresh_every + i
                return agent.update(state, batch, hyper, update_key, step)

            return jax.lax.scan(body, state, jnp.arange(refresh_every))

        state, metrics = jax.lax.scan(refresh, state, jnp.arange(length // refresh_every))
        return state, jax.tree.map(jnp.mean, metrics)

    return Run(init, train, None if evaluate is None else evaluate_agent(agent, evaluate), segments, length)
