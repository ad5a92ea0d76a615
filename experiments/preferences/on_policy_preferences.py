"""Where the best response is rare under the reference, does it matter whether pairs are drawn from the policy?

A hundred responses are the bins of [-1, 1], the reference the exact histogram of tanh(Cauchy(-0.7, 0.4)), the reward a
peak of width 10 bins at bin 70 (rare) or 20 (dense). Every arm may label 2,560 samples, in groups of four: on-policy in
40 rounds of 16 groups with ten steps each, offline 640 groups of the reference and 400 steps. The larger reward is
preferred. Each arm had the settings of ``GRID`` on seeds 0 to 9 and keeps its best, ``CHOSEN``.

What is claimed is conditional: where the peak is dense, offline pairs do as well. Weighting by reward values, which
pairs do not show, is nearly as good offline as DPO is on-policy.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from experiments.preferences._fit import fit, keys
from jaxrl_reg import losses
from jaxrl_reg.data.preferences import all_pairs, best_worst

CLAIM = Claim(
    statement="Where the best responses are rare under the reference, DPO on pairs of its own samples finds them with "
    "2,560 labels; DPO on as many labels of the reference's samples does not, and cloning the best of these still less "
    "(where the peak is dense, the reference's samples do as well)",
    paper="https://arxiv.org/abs/2404.14367",
    method="DPO, on-policy, rare",
    baselines=("DPO, offline, rare",),
    ablation="cloning, offline, rare",
    metric="expected reward",
    systems=(67,),
    margin=0.2,
    seeds=10,
    chosen="seeds 0 to 9: over DPO, offline 0.374, sd 0.095; power 0.999",
)
RESPONSES, PEAKS, GROUP, GROUPS, STEPS = 100, {"rare": 70, "dense": 20}, 4, 640, 400
ROUNDS = {"on-policy": 40, "offline": 1}
RATES, BETAS, TEMPERATURES = (0.03, 0.1), (0.1, 1.0), (0.1, 0.3)
GRID = {  # (step size, beta or temperature)
    "DPO": list(itertools.product(RATES, BETAS)),
    "cloning": list(itertools.product(RATES, (1.0,))),
    "REINFORCE": list(itertools.product(RATES, (1.0,))),
    "reward-weighted": list(itertools.product(RATES, TEMPERATURES)),
}
CHOSEN = {  # place in the grid
    "DPO, on-policy, rare": 3,
    "DPO, on-policy, dense": 3,
    "DPO, offline, rare": 2,
    "DPO, offline, dense": 2,
    "cloning, on-policy, rare": 1,
    "cloning, on-policy, dense": 0,
    "cloning, offline, rare": 1,
    "cloning, offline, dense": 1,
    "REINFORCE, on-policy, rare": 1,
    "REINFORCE, on-policy, dense": 0,
    "REINFORCE, offline, rare": 1,
    "REINFORCE, offline, dense": 1,
    "reward-weighted, on-policy, rare": 0,
    "reward-weighted, on-policy, dense": 0,
    "reward-weighted, offline, rare": 2,
    "reward-weighted, offline, dense": 2,
}


def reference():
    """Exact log-probabilities ``[RESPONSES]``, from the distribution function of tanh(Cauchy(-0.7, 0.4))."""
    edges = np.arctanh(np.linspace(-1.0, 1.0, RESPONSES + 1)[1:-1])
    below = np.concatenate([[0.0], 0.5 + np.arctan((edges + 0.7) / 0.4) / np.pi, [1.0]])
    return jnp.asarray(np.log(np.diff(below)), jnp.float32)


def reward_at(centre):
    return jnp.exp(-jnp.square((jnp.arange(RESPONSES) - centre) / 10.0))


def labelled(arm, responses, score):
    """What an arm learns from, of groups ``[N, GROUP]``: responses in roles, and a weight, leaves ``[rows]``."""
    if arm in ("DPO", "cloning"):
        chosen, rejected, valid = all_pairs(score) if arm == "DPO" else best_worst(score)
        chosen, rejected, valid = (part.reshape(len(responses), -1) for part in (chosen, rejected, valid))
        of = functools.partial(jnp.take_along_axis, responses, axis=-1)
        return of(chosen).ravel(), of(rejected).ravel(), valid.ravel()
    weight = score if arm == "reward-weighted" else (score - score.mean()) / (score.std() + 1e-6)
    return responses.ravel(), responses.ravel(), weight.ravel()


def objective(arm, logps, ref, rows, number):
    """The loss of what ``labelled`` gave, a scalar."""
    first, second, weight = rows
    if arm == "DPO":
        return losses.masked_mean(losses.dpo_loss(logps[first], logps[second], ref[first], ref[second], number), weight)
    if arm == "cloning":
        return losses.masked_mean(losses.behaviour_cloning_nll(logps[first]), weight)
    if arm == "REINFORCE":
        return losses.policy_gradient_loss(logps[first], weight).mean()
    return losses.weighted_log_prob_loss(logps[first], losses.awr_weight(weight - 1.0, 1.0 / number, 1.0)).mean()


@functools.partial(jax.jit, static_argnames=("arm", "rounds"))
@functools.partial(jax.vmap, in_axes=(None, None, 0, None, None, None))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, None, None))
@functools.partial(jax.vmap, in_axes=(None, None, None, None, 0, 0))
def trained(arm, rounds, key, centre, rate, number):
    """Expected reward ``[seeds, peaks, settings]``; labels and steps are spread over the rounds."""
    ref = reference()
    reward = reward_at(centre)

    def body(logits, key):
        draw_key, fit_key = jax.random.split(key)
        responses = jax.random.categorical(draw_key, logits, shape=(GROUPS // rounds, GROUP))

        rows = labelled(arm, responses, reward[responses])

        def loss(logits, rows):
            return objective(arm, jax.nn.log_softmax(logits), ref, rows, number)

        return fit(fit_key, logits, loss, rows, STEPS // rounds, rate=rate), None

    logits, _ = jax.lax.scan(body, ref, jax.random.split(key, rounds))
    return jax.nn.softmax(logits) @ reward


def run(seeds, scale, say):
    peaks = jnp.array(list(PEAKS.values()))
    for peak, centre in PEAKS.items():
        say(f"reference, {peak}: {float(jnp.exp(reference()) @ reward_at(centre)):.3f}")
    results = {}
    for (arm, grid), (where, rounds) in itertools.product(GRID.items(), ROUNDS.items()):
        rates, numbers = (jnp.array(part) for part in zip(*grid, strict=True))
        found = np.asarray(trained(arm, rounds, keys(seeds), peaks, rates, numbers))
        for column, peak in enumerate(PEAKS):
            name = f"{arm}, {where}, {peak}"
            place = CHOSEN[name]
            results[name] = found[:, column, place].tolist()
            say(f"{name}: {np.round(found[:, column].mean(0), 3)} of {grid}; kept {grid[place]}")
    return results
