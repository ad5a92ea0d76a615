"""How long to train a linear model: the theory's answer against training itself.

A student of 100 weights learns a teacher's by gradient descent on as many noisy examples (signal-to-noise 5), the
worst number there is; beside it on half and twice as many. Theory knows the eigenvalues of the inputs and the
signal-to-noise ratio, not the labels, and says when the error on new rows is least.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from jaxrl_reg.evaluation import linear_dynamics

CLAIM = Claim(
    statement="With as many examples as weights, a linear model that stops when the theory of gradient flow says has "
    "an error on the teacher's weights at least 1.0 (variances of a weight) below that of the same model trained to "
    "the end",
    paper="https://arxiv.org/abs/1710.03667",
    method="stopped by theory",
    baselines=("to the end",),
    ablation=None,
    metric="mean squared error of the weights",
    systems=(26,),
    higher_is_better=False,
    margin=1.0,
    seeds=20,
    chosen="ten tuning seeds: 1.78, sd 0.66; power above 0.99",
)
WEIGHTS, SNR, STEP, END = {"small": 100, "full": 400}, 5.0, 0.05, 400.0


def trained(seed: int, share: float, weights: int) -> tuple[float, float, float]:
    """Errors where theory stops, at the end, and the least there was."""
    rng = np.random.default_rng([seed, int(100 * share)])
    examples = int(share * weights)
    x, teacher = rng.normal(size=(weights, examples)) / np.sqrt(weights), rng.normal(size=weights)
    y = teacher @ x + rng.normal(size=examples) / np.sqrt(SNR)
    covariance, moment = x @ x.T, x @ y
    eigenvalues = np.linalg.eigvalsh(covariance)
    eigenvalues[eigenvalues < 1e-9] = 0.0
    times = np.geomspace(0.1, END, 200)
    said = linear_dynamics.generalisation_error(jnp.asarray(times), jnp.asarray(eigenvalues), SNR)
    student, errors = np.zeros(weights), []
    for _ in range(round(END / STEP)):
        student = student + STEP * (moment - covariance @ student)
        errors.append(np.square(student - teacher).mean())
    stop = round(float(times[np.asarray(said).argmin()]) / STEP) - 1
    return float(errors[stop]), float(errors[-1]), float(min(errors))


def run(seeds, scale, say):
    for share in (0.5, 2.0):
        stopped, end, least = np.mean([trained(seed, share, WEIGHTS[scale]) for seed in seeds], axis=0)
        say(f"{share:g} examples per weight: stopped {stopped:.3f}, to the end {end:.3f}, at best {least:.3f}")
    found = np.array([trained(seed, 1.0, WEIGHTS[scale]) for seed in seeds])
    stopped, end, least = found.mean(0)
    say(f"1 example per weight: stopped {stopped:.3f}, to the end {end:.3f}, at best {least:.3f}")
    return {"stopped by theory": found[:, 0].tolist(), "to the end": found[:, 1].tolist()}
