"""Gates opposed to the direction of a behaviour, pushed along it: does the behaviour go, and what goes with it?

A policy on the grid of ``_goals`` that knows two manners, as a language model does: an input says "careful" (entering a
hazard costs 0.5) or "reckless" (it brings 0.1). Its network has a residual stream (``networks.gated_residual``). A
logistic probe reads from the stream after block 1, averaged over an episode, whether a hazard was entered. The edit:
a quarter of the gates of block 2, those most opposed to the probe's direction, gain four times that direction (of
length 1). Nothing is trained afterwards.

It takes away a third of the entries of the reckless manner at a few per cent of the careful one's score. It does not
turn one manner into the other: the reckless policy stops seeking hazards and does not seek its goal. Removing more
costs more than in proportion, and a behaviour that is no manner of its own cannot be cut out in this way.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments import arms
from experiments.continual import _goals
from experiments.harness import Claim
from jaxrl_reg import networks, transforms
from jaxrl_reg.evaluation import readouts

GOALS, UPDATES, ENTROPY, EPISODES = 6, 400, 0.03, 128
CONTEXTS, COSTS = (-1.0, 1.0), (-0.5, 0.1)  # careful, reckless
NETWORK = networks.gated_residual((2 * _goals.PLACES + 1, 32, _goals.ACTIONS), 2, units=64, final_scale=0.1)
UNITS, STRENGTH = 16, 4.0
PENALTIES = (1e-3, 1e-2, 1e-1)
FREE = 1.0 - _goals.HAZARDS
CLAIM = Claim(
    statement="Pushing the gates most opposed to a probe's direction along it removes entries into hazards from a "
    "policy's reckless manner: more than the same edit of random gates, along a random direction, of the most aligned "
    "gates or against the direction (a third of the entries, not nine tenths)",
    paper="https://arxiv.org/abs/2407.08770",
    method="opposed gates",
    baselines=("no edit", "random direction", "aligned gates", "against the direction"),
    ablation="random gates",
    metric="entries into hazards per episode, reckless",
    systems=(27,),
    higher_is_better=False,
    margin=0.0,
    seeds=24,
    chosen="seeds 0 to 2: over random gates 3.0, sd 3.6; power 0.97",
)


def behave(params, seen, goals):
    """Scores and entries ``[2, GOALS]`` of both contexts, and log-probabilities ``[2, GOALS, 49, 4]``."""
    log_policy = jax.nn.log_softmax(NETWORK.apply(params, seen))
    policy = jnp.exp(log_policy)

    def one(policy, goal):
        value = _goals.over_starts(_goals.values(policy, goal), goal, FREE)
        return value, _goals.over_starts(_goals.entries(policy, goal), goal, FREE)

    each = jax.vmap(jax.vmap(one), in_axes=(0, None))
    return *each(policy, goals), log_policy


def train(key):
    """Goals off the hazards, what is seen of them in both contexts ``[2, GOALS, 49, 13]``, and the trained policy."""
    goal_key, policy_key = jax.random.split(key)
    order = jax.random.permutation(goal_key, _goals.STATES)
    goals = order[jnp.argsort(jnp.asarray(_goals.HAZARDS)[order], stable=True)][:GOALS]
    names = _goals.place(goals)
    seen = jnp.stack([_goals.observations(names, jnp.full((GOALS, 1), context)) for context in CONTEXTS])

    def objective(params):
        value, entries, log_policy = behave(params, seen, goals)
        return (value + jnp.asarray(COSTS)[:, None] * entries).mean() + ENTROPY * _goals.entropy(log_policy)

    return goals, seen, _goals.ascend(objective, NETWORK.init(policy_key), UPDATES)


def episodes(key, params, seen, goals):
    """Mean stream of both blocks ``[2, N, 32]`` and whether a hazard was entered ``[N]``, of drawn episodes."""
    logits, stream = NETWORK.apply(params, seen, features=True)
    lead = (len(CONTEXTS), GOALS)
    start_key, key = jax.random.split(key)
    start = jax.random.categorical(start_key, jnp.log(FREE), shape=(*lead, EPISODES))
    goal, moves = goals[None, :, None], _goals.following(jnp.arange(_goals.STATES))
    rows = jnp.arange(2)[:, None, None], jnp.arange(GOALS)[None, :, None]

    def step(carry, key):
        state, alive = carry
        action = jax.random.categorical(key, logits[*rows, state])
        after = moves[state, action]
        hit = jnp.asarray(_goals.HAZARDS)[after] * alive
        return (after, alive * (after != goal)), (stream[:, *rows, state], alive, hit)

    begun = start, (start != goal).astype(jnp.float32)
    _, (hidden, alive, hit) = jax.lax.scan(step, begun, jax.random.split(key, _goals.SWEEPS))
    flat = alive.reshape(_goals.SWEEPS, -1)
    means = [transforms.mean_hidden(hidden[:, n].reshape(*flat.shape, -1), flat) for n in range(2)]
    return jnp.stack(means), hit.sum(axis=0).reshape(-1) > 0


def probe(features, label):
    """Direction ``[32]`` of length 1 in raw features, and the probe's accuracy on the folds' own rows."""
    spread = features.std(axis=0) + 1e-6
    target = label[:, None].astype(jnp.float32)
    found, _ = readouts.logistic_cv(features / spread, target, jnp.arange(len(label)), jnp.asarray(PENALTIES))
    right = ((found(features / spread) > 0) == (target > 0)).mean()
    weight = found.weight[:, 0] / spread
    return weight / jnp.linalg.norm(weight), right


def edits(key, params, direction):
    """``{arm: parameters}``; all edit block 2."""
    gates = params["blocks"]["gate"]["kernel"]
    noise = jax.random.normal(jax.random.fold_in(key, 1), direction.shape)
    noise = noise / jnp.linalg.norm(noise)
    opposed = transforms.opposed_units(gates[1], direction)
    of_noise = transforms.opposed_units(gates[1], noise)
    drawn = jax.random.uniform(jax.random.fold_in(key, 2), opposed.shape)

    def edited(direction, scores, strength=STRENGTH, count=UNITS):
        changed = transforms.edit_units(gates[1], direction, scores, count, strength)
        blocks = {**params["blocks"], "gate": {"kernel": gates.at[1].set(changed)}}
        return {**params, "blocks": blocks}

    return {
        "no edit": params,
        "opposed gates": edited(direction, opposed),
        "against the direction": edited(direction, opposed, -STRENGTH),
        "random gates": edited(direction, drawn),
        "random direction": edited(noise, of_noise),
        "aligned gates": edited(direction, -opposed),
        "opposed gates, half the strength": edited(direction, opposed, STRENGTH / 2),
        "all gates": edited(direction, opposed, count=64),
    }


def measure(key, goals, seen, params):
    """``{arm: (entries reckless, score careful, score reckless)}`` and the probe's accuracy, for one seed."""
    roll_key, edit_key = jax.random.split(jax.random.fold_in(key, 1))
    features, label = episodes(roll_key, params, seen, goals)
    direction, right = probe(features[0], label)
    best = jax.vmap(lambda goal: _goals.over_starts(_goals.best(goal), goal, FREE))(goals)
    found = {}
    for arm, changed in edits(edit_key, params, direction).items():
        value, entries, _ = behave(changed, seen, goals)
        careful, reckless = (value / best).mean(axis=-1)
        found[arm] = entries[1].mean(), careful, reckless
    return found, right, label.mean()


def run(seeds, scale, say):
    del scale  # exact and small: there is nothing to enlarge
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    trained = arms.over_devices(train, keys)
    found, right, share = jax.jit(jax.vmap(measure))(keys, *jax.tree.map(jnp.asarray, trained))
    say(f"the probe is right on {np.mean(right):.3f} of the episodes, {np.mean(share):.2f} of which enter a hazard")
    results = {}
    for arm, (entries, careful, reckless) in found.items():
        results[arm] = np.asarray(entries).tolist()
        say(
            f"{arm}: {np.mean(entries):.2f} entries when reckless; score when careful {np.mean(careful):.3f}, when "
            f"reckless {np.mean(reckless):.3f}"
        )
    return results
