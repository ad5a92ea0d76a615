"""A student of a random teacher: what of its gain comes from the data?

Frames of 12 x 12 show two blurred balls of opposite sign at random places. A network with random weights labels them,
and a student of the same shape with first weights of its own (objective ``random_teacher``) learns to repeat it: on
frames, or on Gaussian noise instead of frames. Metric: ``R^2`` of a linear probe of the four coordinates from the 16
features, on fresh frames. With 0.06 added the teacher's has to be the higher one, which bounds the gain. Said beside
it: the student's before training.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from experiments.harness import Claim
from experiments.representation._pretrained import of_arms, table, trained
from jaxrl_reg import networks, representation
from jaxrl_reg.types import Spec

CLAIM = Claim(
    statement="On frames of balls a student of a random teacher gains next to nothing: a linear probe reads less than "
    "0.06 of R^2 more from it than from its teacher. That a student is read better than its teacher is published of "
    "pictures of objects, and is not claimed here; nor is it a pre-training for control without a probe",
    paper="https://arxiv.org/abs/2302.12091",
    method="teacher, 0.06 added",
    baselines=("student of frames",),
    ablation=None,
    metric="R^2 of the balls' places",
    systems=(47,),
    margin=0.0,
    seeds=6,
    chosen="6 recorded seeds: 0.065, sd 0.02; power 1.00",
)
SIDE, WIDTH, FEATURES, ROWS, TEST, STEPS = 12, 128, 16, 4000, 1000, 600


def frames(key, count):
    """Frames ``[count, 144]``, of spread 1, and places ``[count, 4]``."""
    place = jax.random.uniform(key, (count, 2, 2), minval=1.5, maxval=SIDE - 2.5)
    cell = jnp.stack(jnp.divmod(jnp.arange(SIDE * SIDE), SIDE), -1)
    ball = jnp.exp(-jnp.square(cell - place[:, :, None]).sum(-1) / (2.0 * 1.2**2))
    seen = ball[:, 0] - ball[:, 1]
    return seen / seen.std(), place.reshape(count, 4)


def measured(key, noisy):
    """``R^2`` of the student, of its teacher, and of the student before training: ``[3]``."""
    keys = jax.random.split(key, 4)
    (seen, place), (fresh, aim) = (frames(k, n) for k, n in zip(keys[:2], (ROWS, TEST), strict=True))
    encoder = networks.mlp((SIDE * SIDE, WIDTH, WIDTH, FEATURES), layer_norm="every")
    objective = representation.random_teacher(Spec(SIDE * SIDE, 1), encoder, (32,), projection=256)
    rows = jnp.where(noisy > 0, jax.random.normal(keys[2], seen.shape), seen)
    before = objective.init(keys[3])
    params = trained(keys[3], objective, table(rows), STEPS, size=128, rate=1e-3)

    def read(weights):
        features = (encoder.apply(weights, x) for x in (seen, fresh))
        first, second = features
        return representation.linear_probe(first, place, second, aim)

    return jnp.stack([read(one) for one in (params["encoder"], params["teacher"]["encoder"], before["encoder"])])


def run(seeds, scale, say):
    found = of_arms(measured, seeds, jnp.array([1.0, 0.0]))
    values = {"student of noise": found[:, 0, 0], "student of frames": found[:, 1, 0]}
    values |= {
        "teacher": found[:, 0, 1],
        "teacher, 0.06 added": found[:, 0, 1] + 0.06,
        "student before training": found[:, 0, 2],
    }
    for arm, value in values.items():
        say(f"{arm}: R^2 {value.mean():.3f}")
    return {arm: value.tolist() for arm, value in values.items()}
