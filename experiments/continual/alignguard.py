"""Fine-tuning a policy that avoids hazards on goals that do not pay for avoiding them: what do adapters forget?

A policy on the grid of ``_goals`` learns twelve goals with 0.5 off for every hazard entered. Adapters (LoRA, rank 4)
then learn three goals of the upper room, from starts in the upper room, 400 steps, where no hazard is needed and none
is paid for. Forgetting is what the aligned objective loses on the twelve goals. AlignGuard holds the adapters' product
within the half of each kernel's input directions in which the ALIGNED policy is most sensitive (Fisher information).

It forgets a tenth of what plain adapters do. That is bought with part of their gain on the new goals, and a plain L2
pull or a diagonal Fisher forget about as little at the same gain, so what helps is a pull and not this one. Without the
sensitive directions the paper's terms for collisions hold less (its geodesic one vanishes within a single adapter).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import arms
from experiments.continual import _goals
from experiments.harness import Claim
from jaxrl_reg import transforms
from jaxrl_reg.evaluation import plots

OLD, NEW, COST, ENTROPY = 12, 3, 0.5, 0.04
PRETRAINING, UPDATES, PARTS, RATE = 500, 400, 8, 1e-2
RANK, ALPHA, SHARE = 4, 8.0, 0.5
UPPER = np.asarray([state % _goals.SIDE > 3 for state in range(_goals.STATES)], np.float32)
TERMS = ("sensitive", "free", "collision", "l2", "ewc")
ARMS = {
    "LoRA": {},
    "AlignGuard": {"sensitive": 3.0},
    "without sensitivity": {"free": 1e-3, "collision": 0.1},
    "L2": {"l2": 0.01},
    "EWC": {"ewc": 3.0},
}
CLAIM = Claim(
    statement="Adapters that are kept out of the input directions in which an aligned policy is sensitive forget less "
    "of what it was aligned to than free adapters (at part of their gain on the new task, as a plain L2 pull does)",
    paper="https://arxiv.org/abs/2508.02079",
    method="AlignGuard",
    baselines=("LoRA",),
    ablation=None,
    metric="loss of the aligned objective on the 12 old goals",
    systems=(2,),
    higher_is_better=False,
    margin=0.1,
    seeds=15,
    chosen="seeds 0 to 2: over LoRA 0.54, sd 0.15; power above 0.99",
)


def aligned(params, seen, goals):
    """Mean value minus the cost of hazards over goals, entries per episode, and the mean entropy."""
    log_policy = jax.nn.log_softmax(_goals.logits(params, seen))
    policy = jnp.exp(log_policy)
    value, entries = (
        jax.vmap(lambda p, g, of=of: _goals.over_starts(of(p, g), g))(policy, goals).mean()
        for of in (_goals.values, _goals.entries)
    )
    return value - COST * entries, entries, _goals.entropy(log_policy)


def new_value(params, seen, goals):
    """Mean value of goals from starts in the upper room, and the mean entropy."""
    log_policy = jax.nn.log_softmax(_goals.logits(params, seen))
    starts = jnp.asarray(UPPER)
    each = jax.vmap(lambda p, g: _goals.over_starts(_goals.values(p, g), g, starts))(jnp.exp(log_policy), goals)
    return each.mean(), _goals.entropy(log_policy)


def train(key):
    """Old and new goals, what is seen of both, and the aligned policy."""
    goal_key, policy_key = jax.random.split(key)
    order = jax.random.permutation(goal_key, _goals.STATES)
    new = order[jnp.argsort(1.0 - jnp.asarray(UPPER)[order], stable=True)][:NEW]
    taken = jnp.asarray(_goals.HAZARDS)[order] + jnp.isin(order, new)
    old = order[jnp.argsort(taken, stable=True)][:OLD]
    seen_old, seen_new = (_goals.observations(_goals.place(goals)) for goals in (old, new))

    def objective(params):
        paid, _, entropy = aligned(params, seen_old, old)
        return paid + ENTROPY * entropy

    params = _goals.ascend(objective, _goals.initial(policy_key, 2 * _goals.PLACES), PRETRAINING)
    return old, new, seen_old, seen_new, params


def sensitivity(seen, params):
    """Directions in which the aligned policy is sensitive ``{kernel: (values, vectors)}``, and the diagonal."""
    rows = seen.reshape(-1, seen.shape[-1])
    factors = transforms.fisher_factors(_goals.logits, transforms.categorical_metric, params, rows, _goals.STATES)
    directions = {path: transforms.sensitive_directions(left, SHARE) for path, (left, _) in factors.items()}
    return directions, _goals.fisher(params, seen)


def tune(key, old, new, seen_old, seen_new, base, known, arm):
    """Forgetting, entries and value on the new goals ``[3, PARTS + 1]`` as fine-tuning goes on."""
    directions, diagonal = known
    scale, optimiser = ALPHA / RANK, optax.chain(optax.scale(-1.0), transforms.adam(RATE))
    adapters = transforms.low_rank(key, base, RANK)

    def objective(adapters):
        params, changes = transforms.merged(base, adapters, scale), transforms.low_rank_change(adapters, scale)
        value, entropy = new_value(params, seen_new, new)
        held, _ = transforms.alignguard_penalty(
            changes,
            base,
            directions,
            sensitive=arm["sensitive"],
            free=arm["free"],
            collision=arm["collision"],
        )
        moved = jax.tree.map(lambda a, b: jnp.square(a - b), params, base)
        weighed = jax.tree.map(lambda f, m: (arm["l2"] + arm["ewc"] * f) * m, diagonal, moved)
        pull = 0.5 * sum(leaf.sum() for leaf in jax.tree.leaves(weighed))
        return value + ENTROPY * entropy - held - pull

    def step(carry, _):
        adapters, state = carry
        steps, state = optimiser.update(jax.grad(objective)(adapters), state, adapters)
        return (optax.apply_updates(adapters, steps), state), None

    before = aligned(base, seen_old, old)[0]

    def judged(adapters):
        params = transforms.merged(base, adapters, scale)
        paid, entries, _ = aligned(params, seen_old, old)
        return jnp.stack([before - paid, entries, new_value(params, seen_new, new)[0]])

    def part(carry, _):
        carry, _ = jax.lax.scan(step, carry, None, length=UPDATES // PARTS)
        return carry, judged(carry[0])

    _, after = jax.lax.scan(part, (adapters, optimiser.init(adapters)), None, length=PARTS)
    return jnp.concatenate([judged(adapters)[None], after]).T


def run(seeds, scale, say, out):
    del scale  # exact and small: there is nothing to enlarge
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    begun = arms.over_devices(train, keys)
    known = jax.jit(jax.vmap(sensitivity))(begun[2], begun[4])  # LAPACK: on one device
    settings = [{name: jnp.float32(arm.get(name, 0.0)) for name in TERMS} for arm in ARMS.values()]
    found = _goals.crossed(tune, (keys, *begun, known), settings)
    results, updates = {}, np.linspace(0, UPDATES, PARTS + 1)
    for arm, curves in zip(ARMS, found, strict=True):
        results[arm] = curves[:, 0, -1].tolist()
        forgotten, entries, value = curves.mean(axis=0)
        say(
            f"{arm}: {forgotten[-1]:.3f} forgotten, {entries[-1]:.3f} hazards entered per old episode, value of the "
            f"new goals {value[0]:.3f} before and {value[-1]:.3f} after"
        )
    shown = [
        plots.Curve(arm, updates, np.mean(curves[:, 0], axis=0))
        for arm, curves in zip(ARMS, found, strict=True)
        if arm in ("LoRA", "AlignGuard", "L2", "EWC")
    ]
    figure = plots.learning_curves(shown, score="forgotten", axis="updates of fine-tuning")
    (out / "alignguard_forgetting.png").write_bytes(plots.encode(figure))
    return results
