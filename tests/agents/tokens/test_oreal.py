"""OREAL: balanced sides, the loss against NumPy, who learns when; and best-of-n, which it clones, by enumeration."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import losses
from jaxrl_reg.agents.tokens import oreal
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.types import Completions, TokenSpec, as_float32

SPEC = TokenSpec(6, 3, 4)
RIGHT = np.array([[1.0, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])


def test_both_sides_of_a_group_weigh_the_same_and_groups_of_one_kind_nothing():
    share = np.array(oreal.shares(jnp.array(RIGHT, jnp.float32)))
    np.testing.assert_allclose((share * RIGHT).sum(-1), [1, 0, 0, 1], rtol=1e-6)
    np.testing.assert_allclose((share * (1 - RIGHT)).sum(-1), [1, 0, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(share[0], [1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)


def test_the_loss_of_the_policy():
    rng = np.random.default_rng(0)
    shape = (*RIGHT.shape, 4)
    mask = (np.arange(4) < rng.integers(1, 5, RIGHT.shape)[..., None]).astype(np.float32)
    log_prob, reference = -rng.uniform(0.5, 1.5, (2, *shape))
    above, below = rng.uniform(size=(2, *shape))
    hyper = as_float32(oreal.Hyper(negative=0.4))

    @jax.jit
    def found(right, share):
        batch = Completions(None, None, jnp.array(mask), right, None)
        judged = oreal.Judged(right, share, jnp.array(above), jnp.array(below))

        def loss(log_prob):
            value, kl = oreal.actor_loss(judged, batch, log_prob, jnp.array(reference), hyper)
            return value, (value, kl)

        gradient, (value, kl) = jax.grad(loss, has_aux=True)(jnp.array(log_prob))
        return value, kl, gradient

    share = np.array(oreal.shares(jnp.array(RIGHT, jnp.float32)))
    value, kl, gradient = found(jnp.array(RIGHT, jnp.float32), jnp.array(share))
    advantage = (RIGHT - (RIGHT.sum(-1, keepdims=True) - RIGHT) / 4)[..., None]
    positive, negative = ((mask * (share * side)[..., None]) for side in (RIGHT, 1 - RIGHT))
    wanted = (positive * above * advantage * -log_prob).sum() / positive.sum()
    wanted += -0.4 * (negative * below * advantage).sum() / negative.sum()  # the ratio is 1: one step per batch
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    x = log_prob - reference
    k3 = np.exp(-x) - 1 + x
    both = positive + negative
    np.testing.assert_allclose(kl, (both * k3).sum() / both.sum(), rtol=1e-5)
    slope = -advantage * (positive * above / positive.sum() + 0.4 * negative * below / negative.sum())
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-7)
    one_kind = jnp.ones(RIGHT.shape)
    for empty in found(one_kind, oreal.shares(one_kind)):  # every group is all right
        np.testing.assert_array_equal(empty, 0.0)


def batch_of():
    """Two prompts with two right answers, which begin with 3 and 4, and a wrong one, which begins with 5."""
    answer = jnp.broadcast_to(jnp.array([[3, 4, 1, 0], [4, 3, 1, 0], [5, 4, 1, 0]], jnp.int32), (2, 3, 4))
    mask = jnp.broadcast_to(jnp.array([1.0, 1, 1, 0]), (2, 3, 4))
    prompt = jnp.array([[0, 3, 2], [4, 5, 2]], jnp.int32)
    return Completions(prompt, answer, mask, jnp.broadcast_to(jnp.array([1.0, 1, 0]), (2, 3)), jnp.zeros((2, 3)))


def test_the_reward_model_learns_first_and_then_the_policy():
    agent = oreal.make(oreal.Config(hidden=(8,), heads=2), SPEC)
    hyper, batch = as_float32(oreal.Hyper(learning_rate=0.01, score_learning_rate=0.02, freeze=20.0)), batch_of()
    lesson = dataclasses.replace(jax.tree.map(lambda leaf: leaf[:, :1], batch), prompt=batch.prompt)

    @quick
    def learnt(key):
        start, _ = agent.imitate(agent.init(key, hyper), lesson, hyper, key, jnp.int32(0))

        def body(state, i):
            state, metrics = agent.update(state, batch, hyper, jax.random.fold_in(key, i), i)
            return state, (metrics, jax.tree.leaves(state.model)[0])

        state, (metrics, leaf) = jax.lax.scan(body, start, jnp.arange(40))
        return start, state, metrics, leaf

    start, _, metrics, leaf = jax.device_get(learnt(jax.random.key(0)))
    trunk = [{name: value for name, value in one.params.items() if name != "head"} for one in (start.model, start.kept)]
    jax.tree.map(np.testing.assert_array_equal, *trunk)  # it starts as the policy that imitation left
    assert not start.kept.params["head"]["kernel"].any()
    assert start.kept.params["head"]["kernel"].shape == (8, 1)
    np.testing.assert_allclose(metrics["score_loss"][0], np.log(2), rtol=1e-5)
    assert metrics["score_loss"][19] < 0.3
    assert (leaf[:20] == jax.tree.leaves(start.model)[0]).all()
    assert (leaf[20] != leaf[19]).any()
    assert metrics["kl"][:20].max() < 1e-6 < metrics["kl"][-1]
    assert metrics["weight_right"][0] == metrics["weight_wrong"][0] == 0.0
    assert min(metrics["weight_right"][-1], metrics["weight_wrong"][-1]) > 0.5


def test_without_a_reward_model_every_completion_counts():
    agent = oreal.make(oreal.Config(hidden=(8,), heads=2, reward_model=False), SPEC)
    hyper = as_float32(oreal.Hyper())
    state = jax.eval_shape(agent.init, jax.random.key(0), hyper)
    assert state.kept == ()
    shapes = jax.eval_shape(agent.update, state, batch_of(), hyper, jax.random.key(0), jnp.int32(0))
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(state)
    assert set(shapes[1]) == {"actor_loss", "kl", "entropy"}


# What it clones: best-of-n, in closed form.


def test_best_of_n_is_the_regularised_optimum():
    rng = np.random.default_rng(0)
    policy, right = rng.dirichlet(np.ones(8)), np.arange(8) < 3
    best = np.zeros(8)
    for draws in itertools.product(range(8), repeat=4):
        hits = [one for one in draws if right[one]]
        best[hits[0] if hits else draws[0]] += np.prod(policy[list(draws)])
    p = policy[right].sum()
    mass = 1 - (1 - p) ** 4
    inverse = np.log(mass / (1 - mass)) - np.log(p / (1 - p))
    optimum = losses.kl_regularised_value(jnp.array(right, jnp.float32), jnp.log(jnp.array(policy)), 1.0 / inverse)[1]
    np.testing.assert_allclose(np.exp(optimum), best, rtol=1e-5)
    logit = np.log(0.7599 / 0.2401) - np.log(0.3 / 0.7)
    np.testing.assert_allclose(1 / logit, 0.5001427, rtol=1e-6)  # p = 0.3, n = 4


def test_the_share_of_right_completions_in_the_gradient_is_the_rate_of_wrong_ones():
    """Of all groups of 4 of 5 outcomes, two of them right, each with its probability."""
    logits, right = jnp.array([0.3, -0.4, 0.8, 0.1, -0.6]), jnp.array([1.0, 1, 0, 0, 0])
    groups = jnp.array(list(itertools.product(range(5), repeat=4)))

    @jax.jit
    def gradients(logits):
        policy = jax.nn.softmax(logits)
        chance = jax.lax.stop_gradient(policy[groups].prod(-1))
        advantage, log_prob = losses.leave_one_out_advantage(right[groups]), jax.nn.log_softmax(logits)[groups]
        each = chance[:, None] * -losses.policy_gradient_loss(log_prob, advantage) / 4
        rate = (policy * right).sum()
        cloned = (jax.lax.stop_gradient(policy * right / rate) * jnp.log(policy)).sum()
        return jnp.stack([(each * right[groups]).sum(), (each * (1 - right[groups])).sum(), rate, cloned])

    rate = float(gradients(logits)[2])
    of_right, of_wrong, of_rate, of_cloning = jax.jacobian(gradients)(logits)
    np.testing.assert_allclose(of_right + of_wrong, of_rate, atol=1e-6)
    np.testing.assert_allclose(of_right, (1 - rate) * of_rate, atol=1e-6)
    np.testing.assert_allclose(of_wrong, rate * of_rate, atol=1e-6)
    np.testing.assert_allclose(of_cloning, of_rate / rate, atol=1e-6)
