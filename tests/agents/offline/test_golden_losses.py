"""What the other offline agents report for one update, against NumPy on the same parameters and samples."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import scipy.special

from jaxrl_reg import networks
from jaxrl_reg.agents import cal_ql, edac, percent_bc
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import gaussian
from tests.agents import reference as ref

KEY = jax.random.key(7)
DATA = ref.batch()
BATCH = ref.as64(DATA)


def one_update(name, config=None, step=0, cross=False, **changes):
    """``(state before, state after, metrics)``. The learning rate is large, to show who uses whose new parameters."""
    pair = ref.Pair(name, 3e-2, config, **changes)
    if cross:
        pair.edit(lambda state: ref.crossing(state, DATA))
    before = pair.state
    metrics = pair.update(DATA, KEY, step)
    return before, pair.state, {name: float(value) for name, value in metrics.items()}


def assert_polyak(before, after, rate=0.005):
    expected = ref.mix(ref.as64(after.critic.params), ref.as64(before.target_critic), rate)
    ref.assert_tree_close(after.target_critic, expected, 1e-6)


def squared_errors(critic, target, observation=BATCH.observation, action=BATCH.action):
    return ((ref.q_values(critic, observation, action) - target) ** 2).mean(-1).sum()


def test_bc():
    before, _, metrics = one_update("bc")
    error = (np.tanh(ref.forward(ref.as64(before.actor.params), BATCH.observation)[0]) - BATCH.action) ** 2
    np.testing.assert_allclose(metrics["actor_loss"], error.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["action_error"], error.sum(-1).mean(), rtol=1e-5)

    before, _, metrics = one_update("bc", {"policy": "gaussian"})
    params = ref.as64(before.actor.params)  # log standard deviation 0 at first
    error = (np.tanh(ref.forward(params["mean"], BATCH.observation)[0]) - BATCH.action) ** 2
    np.testing.assert_allclose(metrics["actor_loss"], (0.5 * error.sum(-1)).mean() + np.log(2 * np.pi), rtol=1e-5)


def test_percent_bc_counts_only_the_best_rows():
    before, after, metrics = one_update("percent_bc", fraction=0.25)
    kept = BATCH.return_rank >= 0.75
    assert kept.sum() == 4
    error = (np.tanh(ref.forward(ref.as64(before.actor.params), BATCH.observation)[0]) - BATCH.action) ** 2
    np.testing.assert_allclose(metrics["actor_loss"], error[kept].mean(), rtol=1e-5)

    before, after, metrics = one_update("percent_bc", fraction=-1.0)  # nobody is in it
    assert metrics["actor_loss"] == 0.0
    ref.assert_tree_close(after.actor.params, before.actor.params, 0.0)
    blind = ref.batch()
    object.__setattr__(blind, "return_rank", None)
    with pytest.raises(UserError, match=r"percent_bc needs batch\.return_rank"):
        ref.Pair("percent_bc", 0.0).agent.update(before, blind, percent_bc.Hyper(), KEY, 0)


def test_rebrac_penalises_the_target_and_the_actor_by_sums():
    before, after, metrics = one_update("rebrac", actor_bc_coef=0.3, critic_bc_coef=0.7, cross=True)
    noise = np.clip(0.2 * np.asarray(jax.random.normal(KEY, (ref.B, 2)), np.float64), -0.5, 0.5)
    old_actor, old_critic = ref.as64(before.actor.params), ref.as64(before.critic.params)
    next_action = np.clip(np.tanh(ref.forward(old_actor, BATCH.next_observation)[0]) + noise, -1, 1)
    next_q = ref.q_values(old_critic, BATCH.next_observation, next_action).min(0)
    penalty = ((next_action - BATCH.next_action) ** 2).sum(-1)  # a sum over action dimensions, not a mean
    target = BATCH.reward + 0.99 * BATCH.discount * (next_q - 0.7 * penalty)
    np.testing.assert_allclose(metrics["target"], target.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["critic_loss"], squared_errors(old_critic, target), rtol=1e-5)
    assert "LayerNorm_0" in before.critic.params
    assert "LayerNorm_0" not in before.actor.params

    action = np.tanh(ref.forward(old_actor, BATCH.observation)[0])
    q = ref.mixed(ref.q_values(ref.as64(after.critic.params), BATCH.observation, action)).min(0)  # after their step
    distance = ((action - BATCH.action) ** 2).sum(-1)
    np.testing.assert_allclose(metrics["actor_loss"], (0.3 * distance - q / np.abs(q).mean()).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["bc_loss"], distance.mean() / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_policy"], q.mean(), rtol=1e-4)
    critic, scale = ref.as64(after.critic.params), np.abs(q).mean()

    def actor_loss(params):
        action = np.tanh(ref.forward(params, BATCH.observation)[0])
        value = ref.q_values(critic, BATCH.observation, action).min(0)
        return (0.3 * ((action - BATCH.action) ** 2).sum(-1) - value / scale).mean()

    ref.check_descent(before.actor, after.actor, actor_loss, 1, 3e-2)  # where all values have one sign, it alone tells
    assert_polyak(before, after)

    before, after, _ = one_update("rebrac", step=1)  # between two actor updates
    ref.assert_tree_close(after.actor, before.actor, 0.0)
    ref.assert_tree_close(after.target_critic, before.target_critic, 0.0)
    with pytest.raises(AssertionError):
        ref.assert_tree_close(after.critic, before.critic, 1e-4)


def test_awac():
    before, after, metrics = one_update("awac", {"max_weight": 1.2}, temperature=0.5)
    keys = jax.random.split(KEY)
    policy = gaussian.clipped(ref.SPEC, ref.HIDDEN)
    old = before.actor.params

    def sample(observation, key):
        return np.clip(np.asarray(policy.sample(old, observation, key)[0], np.float64), -1, 1)

    old_critic = ref.as64(before.critic.params)
    next_q = ref.q_values(old_critic, BATCH.next_observation, sample(DATA.next_observation, keys[0])).min(0)
    target = BATCH.reward + 0.99 * BATCH.discount * next_q
    np.testing.assert_allclose(metrics["critic_loss"], squared_errors(old_critic, target), rtol=1e-5)

    new_critic = ref.as64(after.critic.params)
    baseline = ref.q_values(new_critic, BATCH.observation, sample(DATA.observation, keys[1])).min(0)
    advantage = ref.q_values(new_critic, BATCH.observation, BATCH.action).min(0) - baseline
    weight = np.minimum(np.exp(advantage / 0.5), 1.2)
    np.testing.assert_allclose(metrics["advantage"], advantage.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["weight"], weight.mean(), rtol=1e-4)
    assert weight.min() < weight.max() == 1.2
    mean = np.tanh(ref.forward(ref.as64(old["mean"]), BATCH.observation)[0])
    log_prob = -(0.5 * (BATCH.action - mean) ** 2).sum(-1) - np.log(2 * np.pi)
    np.testing.assert_allclose(metrics["actor_loss"], -(weight * log_prob).mean(), rtol=1e-4)
    assert_polyak(before, after)


SQUASHED_SAMPLE = jax.jit(gaussian.squashed(ref.SPEC, ref.HIDDEN).sample, static_argnums=3)


def squashed_sample(params, observation, key, shape=()):
    action, log_prob = SQUASHED_SAMPLE(params, observation, key, shape)
    return np.asarray(action, np.float64), np.asarray(log_prob, np.float64)


def soft_td_loss(before, after):
    """With the temperature and the actor as they are after their own steps."""
    critic, alpha = ref.as64(before.critic.params), np.exp(float(after.log_temperature.params))
    action, log_prob = squashed_sample(after.actor.params, DATA.next_observation, jax.random.split(KEY, 3)[2])
    next_q = ref.q_values(critic, BATCH.next_observation, action).min(0)
    return squared_errors(critic, BATCH.reward + 0.99 * BATCH.discount * (next_q - alpha * log_prob))


def test_sac_n_learns_temperature_then_actor_then_critics():
    before, after, metrics = one_update("sac_n", {"n_critics": 3})
    keys = jax.random.split(KEY, 3)
    alpha = np.exp(float(after.log_temperature.params))
    np.testing.assert_allclose(metrics["temperature"], alpha, rtol=1e-6)
    _, log_prob = squashed_sample(before.actor.params, DATA.observation, keys[0])
    # The first step of Adam has the length of the learning rate and the sign of the entropy's shortfall.
    np.testing.assert_allclose(np.log(alpha), 3e-2 * np.sign((log_prob - 2).mean()), rtol=1e-3)

    critic = ref.as64(before.critic.params)
    action, log_prob = squashed_sample(before.actor.params, DATA.observation, keys[1])
    q = ref.q_values(critic, BATCH.observation, action).min(0)
    np.testing.assert_allclose(metrics["actor_loss"], (alpha * log_prob - q).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], -log_prob.mean(), rtol=1e-4)

    np.testing.assert_allclose(metrics["critic_loss"], soft_td_loss(before, after), rtol=1e-5)
    data_q = ref.q_values(critic, BATCH.observation, BATCH.action)
    np.testing.assert_allclose(metrics["q_std"], data_q.std(0).mean(), rtol=1e-4)
    assert_polyak(before, after)


def test_edac_diversity_by_finite_differences():
    before, after, metrics = one_update("edac", {"n_critics": 3}, eta=2.0)
    critic, h = ref.as64(before.critic.params), 1e-6
    gradients = np.zeros((3, ref.B, 2))
    for d in range(2):
        up, down = BATCH.action.copy(), BATCH.action.copy()
        up[:, d] += h
        down[:, d] -= h
        difference = ref.q_values(critic, BATCH.observation, up) - ref.q_values(critic, BATCH.observation, down)
        gradients[..., d] = difference / (2 * h)
    q = networks.q_network(ref.SPEC, ref.HIDDEN, 3)
    own = jax.jit(functools.partial(edac.action_gradients, q))(before.critic.params, DATA.observation, DATA.action)
    np.testing.assert_allclose(own, gradients, atol=1e-5)

    unit = gradients / np.linalg.norm(gradients, axis=-1, keepdims=True)
    pairs = [(unit[i] * unit[j]).sum(-1) for i in range(3) for j in range(3) if i != j]
    diversity = sum(pairs).mean() / 2
    np.testing.assert_allclose(metrics["diversity"], diversity, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], soft_td_loss(before, after) + 2.0 * diversity, rtol=1e-4)
    lone, hyper = edac.make(edac.Config(hidden=ref.HIDDEN, n_critics=1), ref.SPEC), edac.Hyper()
    with pytest.raises(ValueError, match="at least 2"):
        jax.eval_shape(lambda: lone.update(lone.init(KEY, hyper), DATA, hyper, KEY, 0))


def sampled_values(before, n):
    """Critics ``[2, 3 n, B]`` at uniform actions, at the policy's from s' and at its own, and log-densities."""
    uniform_key, here_key, next_key, _ = jax.random.split(KEY, 4)
    actor, critic = before.actor.params, ref.as64(before.critic.params)
    next_actions, next_log_probs = squashed_sample(actor, DATA.next_observation, next_key, (n + 1,))
    here_actions, here_log_probs = squashed_sample(actor, DATA.observation, here_key, (n,))
    uniform = np.asarray(jax.random.uniform(uniform_key, (n, ref.B, 2), minval=-1.0, maxval=1.0), np.float64)
    actions = np.concatenate([uniform, next_actions[1:], here_actions])
    densities = np.concatenate([np.full((n, ref.B), 2 * np.log(0.5)), next_log_probs[1:], here_log_probs])
    observations = np.broadcast_to(BATCH.observation, (3 * n, ref.B, 3))
    return ref.q_values(critic, observations, actions), densities, next_actions[0]


def test_cql():
    n, gap = 2, 1.5
    before, after, metrics = one_update("cql", {"n_samples": n, "target_gap": gap}, cql_coef=0.5)
    actor_key = jax.random.split(KEY, 4)[3]
    actor, critic = before.actor.params, ref.as64(before.critic.params)

    action, log_prob = squashed_sample(actor, DATA.observation, actor_key)
    q = ref.q_values(critic, BATCH.observation, action).min(0)
    np.testing.assert_allclose(metrics["actor_loss"], (log_prob - q).mean(), rtol=1e-4)  # alpha is 1 at first

    sampled, densities, next_action = sampled_values(before, n)
    target_q = ref.q_values(critic, BATCH.next_observation, next_action).min(0)
    target = BATCH.reward + 0.99 * BATCH.discount * target_q  # no entropy
    td_loss = squared_errors(critic, target)
    np.testing.assert_allclose(metrics["td_loss"], td_loss, rtol=1e-4)

    soft_maximum = scipy.special.logsumexp(sampled - densities, axis=1)
    penalty = (soft_maximum - ref.q_values(critic, BATCH.observation, BATCH.action)).mean(-1)
    np.testing.assert_allclose(metrics["cql_penalty"], penalty.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], td_loss + 0.5 * (penalty - gap).sum(), rtol=1e-4)
    assert penalty.mean() > gap  # so the multiplier grows, by one step of Adam
    np.testing.assert_allclose(after.log_lagrange.params, 3e-2, rtol=1e-4)
    assert_polyak(before, after)


def test_cal_ql_lifts_the_policys_values_to_the_return_of_the_data_and_no_others():
    n, steps, gamma = 2, 4, 0.9
    rng = np.random.default_rng(3)
    ahead, count = rng.normal(size=(ref.B, steps)), rng.integers(1, steps + 1, ref.B)
    ahead[np.arange(steps) >= count[:, None]] = 0.0
    cut = np.where(np.arange(ref.B) % 3 == 0, 0.0, ahead[np.arange(ref.B), count - 1])
    known = (np.arange(ref.B) % 4 > 0).astype(float)
    extras = {"reward_ahead": ahead, "steps_ahead": count, "cut_reward": cut, "known": known}
    data = dataclasses.replace(DATA, extras={name: np.asarray(x, np.float32) for name, x in extras.items()})
    pair = ref.Pair("cal_ql", 3e-2, {"n_samples": n}, cql_coef=0.5, discount=gamma)
    before = pair.state
    metrics = pair.update(data, KEY, 0)

    bound = np.array([sum(gamma**k * ahead[i, k] for k in range(steps)) for i in range(ref.B)])
    bound += np.array([gamma ** count[i] * min(cut[i], 0.0) / (1 - gamma) for i in range(ref.B)])
    sampled, densities, next_action = sampled_values(before, n)
    lifted = sampled.copy()
    rows = known > 0
    lifted[:, n:, rows] = np.maximum(sampled[:, n:, rows], bound[rows])
    critic = ref.as64(before.critic.params)
    soft_maximum = scipy.special.logsumexp(lifted - densities, axis=1)
    penalty = (soft_maximum - ref.q_values(critic, BATCH.observation, BATCH.action)).mean(-1)
    assert (lifted > sampled).any()
    assert (bound[rows] < sampled[:, n:, rows]).any()
    np.testing.assert_allclose(metrics["cql_penalty"], penalty.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["calibrated"], (lifted > sampled)[:, n:].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["bound"], bound[rows].mean(), rtol=1e-4)
    target_q = ref.q_values(critic, BATCH.next_observation, next_action).min(0)
    td_loss = squared_errors(critic, BATCH.reward + gamma * BATCH.discount * target_q)
    np.testing.assert_allclose(metrics["critic_loss"], td_loss + 0.5 * penalty.sum(), rtol=1e-4)


@pytest.mark.parametrize(("rule", "paid", "charged"), [("lower", 7.5, -10), ("last", 10, -10), ("nothing", 7.5, -7.5)])
def test_what_a_time_out_leaves_to_be_earned_is_bounded_from_below(rule, paid, charged):
    """Two steps of 5, or of -5, at a discount of a half, then a time-out, or a termination, which leaves nothing."""
    for reward, timed_out in ((5.0, paid), (-5.0, charged)):
        extras = {"reward_ahead": [[reward, reward, 0.0]] * 2, "steps_ahead": [2, 2], "cut_reward": [reward, 0]}
        batch = dataclasses.replace(DATA, extras={name: np.asarray(x, np.float32) for name, x in extras.items()})
        found = cal_ql.return_to_go(batch, 0.5, rule)
        np.testing.assert_allclose(found, [timed_out, 1.5 * reward], rtol=1e-6)
