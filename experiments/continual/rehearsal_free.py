"""Classes learnt three at a time without keeping a row: which pull keeps the earlier ones?

Fifteen Gaussian classes seen through one fixed random map, five tasks of three, 150 Adam steps of 64 rows each. A tanh
MLP with one sigmoid per class is trained by binary cross-entropy; earlier classes are negatives ("plain"), or are left
out ("new columns only"), or are taught by the network at the task's start (PredKD) and held by L2, EWC (importance:
the Fisher information of the classes met, over the last task's rows, summed over tasks) or features (FeatKD). Pulls act
on the trunk and on the columns of earlier classes only, and the trunk was pretrained on thirty other classes of the
same map. Coefficients were chosen on seeds 0 to 4.

As the paper has it, PredKD with L2 is best once there is pretraining, and FeatKD adds nothing to PredKD. That FeatKD
alone is useless does not come out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import arms
from experiments.continual import _goals
from experiments.harness import Claim
from jaxrl_reg import losses, transforms
from jaxrl_reg.evaluation import continual

TASKS, EACH, ROWS, TESTED, OTHERS = 5, 3, 100, 50, 30
CLASSES, LATENT, MIXED, WIDTH = TASKS * EACH, 16, 48, 64
BATCH, UPDATES, PRETRAINING, RATE, SPREAD = 64, 150, 600, 3e-3, 0.7
TERMS = ("negatives", "prediction", "l2", "ewc", "features")
ARMS = {
    "plain": {"negatives": 1.0},
    "new columns only": {},
    "L2": {"l2": 0.1},
    "EWC": {"ewc": 30.0},
    "FeatKD": {"features": 0.03},
    "PredKD": {"prediction": 0.5},
    "PredKD + EWC": {"prediction": 0.5, "ewc": 1.0},
    "PredKD + FeatKD": {"prediction": 0.5, "features": 0.03},
    "PredKD + L2": {"prediction": 0.5, "l2": 0.03},
}
CLAIM = Claim(
    statement="With a pretrained trunk, distillation of earlier classes' predictions together with an L2 pull keeps "
    "more of fifteen classes learnt three at a time than either alone, than elastic weight consolidation, alone or "
    "with distillation, and than plain training",
    paper="https://arxiv.org/abs/2203.17269",
    method="PredKD + L2",
    baselines=("plain", "PredKD", "EWC", "L2", "PredKD + EWC"),
    ablation=None,
    metric="accuracy over all 15 classes at the end",
    systems=(39,),
    margin=0.0,
    seeds=24,
    chosen="seeds 0 to 2: over L2 0.036, sd 0.037, over PredKD 0.08, sd 0.09; power 0.98",
)


def network(key, inputs, outputs):
    """Two tanh layers of 64 with kernels N(0, 1/in), and a head that starts at 0."""
    params = _goals.initial(key, inputs, (WIDTH, WIDTH))
    params["layer_2"] = {"kernel": jnp.zeros((WIDTH, outputs)), "bias": jnp.zeros(outputs)}
    return params


def classes(key, count, rows, mix):
    """``rows`` of each of ``count`` classes through the map ``mix``, ``[count, rows, 16]``."""
    centre_key, key = jax.random.split(key)
    centre = jax.random.normal(centre_key, (count, 1, LATENT))
    latent = centre + SPREAD * jax.random.normal(key, (count, rows, LATENT))
    first, second = mix
    return 2.0 * jnp.tanh(2.0 * latent @ first) @ second


def descend(loss, params, updates, keys):
    """``params`` after Adam steps on ``loss(params, key)``, the optimiser's state new."""
    return _goals.ascend(lambda params, key: -loss(params, key), params, updates, RATE, xs=keys)


def begin(key):
    """Rows to learn ``[15, 100, 16]`` and to be tested ``[15, 50, 16]``, and a network with a pretrained trunk."""
    keys = jax.random.split(key, 6)
    first = jax.random.normal(keys[0], (LATENT, MIXED)) / np.sqrt(LATENT)
    mix = first, jax.random.normal(keys[1], (MIXED, LATENT)) / np.sqrt(MIXED)
    drawn = classes(keys[2], CLASSES, ROWS + TESTED, mix)
    other = classes(keys[3], OTHERS, ROWS, mix).reshape(-1, LATENT)
    label = jnp.repeat(jnp.arange(OTHERS), ROWS)

    def loss(params, key):
        rows = jax.random.randint(key, (BATCH,), 0, len(other))
        logits = _goals.logits(params, other[rows])
        return losses.cross_entropy_loss(logits, jax.nn.one_hot(label[rows], OTHERS)).mean()

    trunk = descend(loss, network(keys[4], LATENT, OTHERS), PRETRAINING, jax.random.split(keys[5], PRETRAINING))
    params = {**trunk, "layer_2": network(keys[4], LATENT, CLASSES)["layer_2"]}
    return drawn[:, :ROWS], drawn[:, ROWS:], params


def on_columns(params, weight):
    """A tree of ones, but ``weight [15]`` on the head's columns: what a pull holds."""
    ones = jax.tree.map(jnp.ones_like, params)
    return {**ones, "layer_2": jax.tree.map(lambda leaf: leaf * weight, ones["layer_2"])}


def learn(key, rows, tested, params, arm):
    """Accuracies over all fifteen classes ``[TASKS, TASKS]`` after each task."""
    column = jnp.arange(CLASSES) // EACH

    def task(carry, number):
        start, importance = carry
        now, earlier = (column == number).astype(jnp.float32), (column < number).astype(jnp.float32)
        own = rows.reshape(TASKS, EACH * ROWS, LATENT)[number]
        label = jnp.repeat(jnp.arange(EACH), ROWS) + EACH * number
        held = on_columns(start, earlier)

        def loss(params, key):
            chosen = jax.random.randint(key, (BATCH,), 0, EACH * ROWS)
            (logits, hidden), (teacher, features) = (_goals.outputs(p, own[chosen]) for p in (params, start))
            target = jax.nn.one_hot(label[chosen], CLASSES)
            new = optax.sigmoid_binary_cross_entropy(logits, target) * (now + arm["negatives"] * earlier)
            taught = losses.binary_distillation_loss(logits, teacher, jnp.broadcast_to(earlier, logits.shape))
            like = losses.feature_distillation_loss(hidden, features)
            moved = jax.tree.map(lambda h, p, a: h * jnp.square(p - a), held, params, start)
            heavy = jax.tree.map(jnp.multiply, importance, moved)
            l2, ewc = (sum(leaf.sum() for leaf in jax.tree.leaves(tree)) for tree in (moved, heavy))
            later = (number > 0) * arm["features"] * like.mean()
            first = new.sum(axis=-1).mean() + arm["prediction"] * taught.mean() + later
            return first + 0.5 * (arm["l2"] * l2 + arm["ewc"] * ewc)

        params = descend(loss, start, UPDATES, jax.random.split(jax.random.fold_in(key, number), UPDATES))
        met = (column <= number).astype(jnp.float32)

        def metric(logits):
            return transforms.bernoulli_metric(logits) * met * met[:, None]

        found = transforms.fisher_diagonal(_goals.logits, metric, params, own[::3], chunk=50)
        importance = transforms.accumulate(importance, found)
        logits = jnp.where(column <= number, _goals.logits(params, tested), -jnp.inf)
        right = (logits.argmax(axis=-1) == jnp.arange(CLASSES)[:, None]).mean(axis=-1)
        return (params, importance), right.reshape(TASKS, EACH).mean(axis=-1)

    nothing = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(task, (params, nothing), jnp.arange(TASKS))[1]


def run(seeds, scale, say):
    del scale  # small: there is nothing to enlarge
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    begun = arms.over_devices(begin, keys)
    settings = [{name: jnp.float32(arm.get(name, 0.0)) for name in TERMS} for arm in ARMS.values()]
    results = {}
    for arm, matrix in zip(ARMS, _goals.crossed(learn, (keys, *begun), settings), strict=True):
        results[arm] = continual.average_performance(matrix).tolist()
        say(
            f"{arm}: {np.mean(results[arm]):.3f} over all classes; the first task {matrix[:, -1, 0].mean():.3f}, a new "
            f"one when learnt {continual.learning(matrix).mean():.3f}, backward transfer "
            f"{continual.backward_transfer(matrix).mean():+.3f}"
        )
    return results
