"""Masks of what a policy looks at, where that is known; climbs towards the several things that a unit answers to."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg.contract.subject import quick
from jaxrl_reg.evaluation import explanation, facets
from jaxrl_reg.evaluation.logs import answers
from jaxrl_reg.types import Policy, memoryless

STEPS, LIVING = 40, 30


def gated(observation, key):
    """Sensor 0 decides which of sensors 1 and 2 is the action; sensor 3 is not looked at."""
    return jnp.where(observation[..., :1] > 0, observation[..., 1:2], observation[..., 2:3])


@quick
def explained(key):
    keys = jax.random.split(key, 3)
    visited = jax.random.normal(keys[0], (200, 4))
    seen = jax.random.normal(keys[1], (STEPS, 4))
    seen = seen.at[:, 0].set(jnp.where(jnp.arange(STEPS) < 15, 1.0, -1.0))
    alive = (jnp.arange(STEPS) < LIVING).astype(jnp.float32)
    given = memoryless(gated), seen, jnp.zeros(STEPS), alive, visited, keys[2]
    return explanation.explain(*given, share=0.4, steps=150), explanation.explain(*given, differentiable=False), seen


def test_the_mask_marks_what_the_actions_were_made_of():
    found, by_hiding, seen = explained(jax.random.key(0))
    mask = np.asarray(found.mask)
    early, late = mask[:15].mean(axis=0), mask[15:LIVING].mean(axis=0)
    np.testing.assert_allclose([early[2], late[1], mask[:LIVING, 3].mean()], 0.4, atol=0.1)  # not needed: the prior's
    assert min(early[1], late[2]) > 0.55
    assert mask[LIVING:].max() == 0.0
    learnt, _, chance = np.asarray(found.fidelity)
    assert learnt > chance + 0.3
    assert learnt > 0.3  # of the 60 entries needed, 48 may be shown
    np.testing.assert_allclose(found.action[:15, 0], seen[:15, 1])
    np.testing.assert_allclose(found.occlusion[:, 3], 0.0, atol=1e-6)
    hidden, shown = (np.asarray(one)[:LIVING].ravel() for one in (by_hiding.occlusion, by_hiding.mask))
    order = np.argsort(hidden)[(hidden == 0).sum() :]  # of those that change nothing any order will do
    assert order.size > 50
    assert (np.diff(shown[order]) > -1e-6).all()  # occlusion's order is kept


def test_a_memory_hears_the_whole_episode():
    """The action is the sum of what was seen and paid so far: hiding a step changes all later ones."""

    def step(memory, observation, reward, key):
        memory = memory + observation.sum(axis=-1) + reward
        return memory[..., None], memory

    policy = Policy(jnp.zeros, step)
    seen, paid = jnp.arange(12.0).reshape(3, 2, 2), jnp.ones((3, 2))
    found = quick(lambda *given: answers(policy, *given, jax.random.key(0)))(seen, paid)
    np.testing.assert_allclose(found[..., 0], np.cumsum(np.asarray(seen).sum(-1) + 1.0, axis=0))


PEAKS = np.array([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])


@quick
def climbed(key):
    keys = jax.random.split(key, 3)
    peaks = jnp.asarray(PEAKS)
    inputs = jnp.concatenate(
        [jax.random.uniform(keys[0], (400, 2), minval=-2.5, maxval=2.5), 3.0 * jax.random.normal(keys[1], (400, 2))], -1
    )

    def unit(x):
        return jnp.exp(-jnp.square(x[:2] - peaks).sum(axis=-1)).max()

    alike = facets.facet_starts(inputs[:, :2], inputs, 1, keys[2], members=400)
    smoothed = facets.maximise_unit(lambda x: 0.0 * x.sum(), jnp.array([[0.0, 1.0, 0.0]]), 200, 0.01, -1.0, 1.0, 1.0)
    bounded = facets.maximise_unit(lambda x: x.sum(), jnp.array([[0.0, 5.0], [3.0, 0.0]]), 5, 10.0, -1.0, 1.0)
    steep = jnp.array([[1.0, 0.0], [3.0, 0.0]])
    one = facets.maximise_unit(lambda x: 1e-6 * x[0] ** 2, steep, 1, 0.5, -9.0, 9.0)
    return facets.value_facets(unit, inputs, keys[2], top=60), alike, inputs.mean(axis=0), smoothed, bounded, one


def test_facets_are_the_several_peaks_of_a_unit():
    found, alike, mean, smoothed, bounded, one = climbed(jax.random.key(1))
    near = np.linalg.norm(np.asarray(found.found)[:, None, :2] - PEAKS, axis=-1)
    assert sorted(near.argmin(axis=1)) == [0, 1, 2]
    assert near.min(axis=1).max() < 0.2
    np.testing.assert_allclose(found.value, np.exp(-(near.min(axis=1) ** 2)), atol=1e-4)
    assert np.all(np.asarray(found.distance) < 1.0)  # irrelevant numbers stay where data are
    np.testing.assert_allclose(alike[0], mean, atol=1e-5)
    assert facets.total_variation(jnp.array([1.0, 3, 2, 2])) == 3
    assert facets.total_variation(smoothed)[0] < 0.1
    np.testing.assert_array_equal(bounded, 1.0)
    # A step of mean size 0.5 over both numbers, however steep it is where another climb stands.
    np.testing.assert_allclose(one, [[2.0, 0.0], [4.0, 0.0]], atol=1e-5)
