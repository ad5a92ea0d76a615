"""Losses of token agents as their switches choose them, against NumPy, and that what pays becomes likelier."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents
from jaxrl_reg.agents.tokens import _switches, _terms
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import tokens
from jaxrl_reg.types import Completions, TokenSpec, as_float32

SPEC = TokenSpec(6, 3, 4)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 3, 4, 6)).astype(np.float32)
TOKENS = RNG.integers(0, 6, (2, 3, 4))
MASK = (np.arange(4) < np.array([[4, 2, 3], [1, 4, 2]])[..., None]).astype(np.float32)
LOG_PROB = np.take_along_axis(LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True)), TOKENS[..., None], -1)[..., 0]
OLD = LOG_PROB - RNG.normal(scale=0.4, size=LOG_PROB.shape).astype(np.float32)
REFERENCE = LOG_PROB - RNG.normal(scale=0.3, size=LOG_PROB.shape).astype(np.float32)
ADVANTAGE = RNG.normal(size=(2, 3)).astype(np.float32)
KL, ENTROPY, LOW, HIGH = 0.3, 0.05, 0.1, 0.25


def surrogate(kind, dual):
    each, ratio = ADVANTAGE[..., None] * np.ones(4), np.exp(LOG_PROB - OLD)
    if kind == "reinforce":
        return -each * LOG_PROB
    if kind == "cispo":
        return -np.clip(ratio, 1 - LOW, 1 + HIGH) * each * LOG_PROB
    if kind == "gspo":
        ratio = np.exp((MASK * (LOG_PROB - OLD)).sum(-1) / MASK.sum(-1))[..., None] * np.ones(4)
    loss = -np.minimum(ratio * each, np.clip(ratio, 1 - LOW, 1 + HIGH) * each)
    return np.where(each < 0, np.minimum(loss, -dual * each), loss) if dual else loss


def mean(kind, x):
    if kind == "token":
        return (MASK * x).sum() / MASK.sum()
    if kind == "sequence":
        return ((MASK * x).sum(-1) / MASK.sum(-1)).mean()
    return (MASK * x).sum() / (6 * SPEC.completion)


def divergence(kind):
    x = LOG_PROB - REFERENCE
    return {"k1": x, "k2": x**2 / 2, "k3": np.exp(-x) - 1 + x}[kind]


@dataclasses.dataclass
class Settings:
    clip_low: float = LOW
    clip_high: float = HIGH
    kl_coef: float = KL
    entropy_coef: float = ENTROPY


CASES = [
    {"surrogate": "ppo", "aggregation": "sequence", "kl": "k3", "dual_clip": None},
    {"surrogate": "ppo", "aggregation": "token", "kl": "none", "dual_clip": 1.2},
    {"surrogate": "gspo", "aggregation": "sequence", "kl": "k2", "dual_clip": None},
    {"surrogate": "cispo", "aggregation": "token", "kl": "k1", "dual_clip": None},
    {"surrogate": "reinforce", "aggregation": "constant", "kl": "reward", "dual_clip": None},
]


def test_every_switch_is_the_loss_that_it_names():
    def found(log_prob, logits):
        scored = _terms.Scored(log_prob, logits, jnp.array(OLD), jnp.array(ADVANTAGE), jnp.array(MASK))
        configs = [_switches.Config(**case) for case in CASES]
        return [_terms.total(one, scored, jnp.array(REFERENCE), Settings(), SPEC.completion) for one in configs]

    p = np.exp(LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True)))
    entropy = mean("token", -(p * np.log(p)).sum(-1))
    change = np.exp(LOG_PROB - OLD) - 1
    outside = mean("token", (change < -LOW) | (change > HIGH))
    for case, (value, metrics) in zip(CASES, jax.jit(found)(LOG_PROB, LOGITS), strict=True):
        actor = mean(case["aggregation"], surrogate(case["surrogate"], case["dual_clip"]))
        wanted = actor - ENTROPY * entropy
        if case["kl"] in ("k1", "k2", "k3"):
            wanted += KL * mean(case["aggregation"], divergence(case["kl"]))
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6, err_msg=str(case))
        np.testing.assert_allclose(metrics["actor_loss"], actor, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
        np.testing.assert_allclose(metrics["clipped"], outside, rtol=1e-5)
        assert ("kl" in metrics) == (case["kl"] != "none")


def batch_of(reward, **changes):
    shape = reward.shape
    ends = np.array([[2, 4, 3], [4, 1, 2]])  # columns; one of 4 has no end
    at = np.arange(4)
    completion = np.where(at < ends[..., None] - 1, TOKENS % 4 + 2, np.where(at == ends[..., None] - 1, 1, 0))
    completion[0, 1] = completion[1, 0] = [3, 4, 5, 2]
    batch = Completions(
        jnp.array([[0, 3, 2], [4, 5, 2]]),
        jnp.array(completion),
        jnp.array((at < ends[..., None]).astype(np.float32)),
        jnp.array(reward, jnp.float32),
        jnp.array((ends == 4).astype(np.float32)),
    )
    assert shape == (2, 3)
    return dataclasses.replace(batch, **changes)


REWARD = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])


def test_rewards_and_advantages():
    batch = batch_of(REWARD)
    old, reference = LOG_PROB * MASK, REFERENCE * MASK
    shaped = _terms.shaped(_switches.Config(overlong_buffer=2), batch, SPEC)
    np.testing.assert_allclose(shaped, REWARD + np.array([[0, -1, -0.5], [-1, 0, 0]]))
    off = _terms.kl_in_reward(_switches.Config(kl="reward"), jnp.array(old), jnp.array(reference), Settings())
    np.testing.assert_allclose(off, KL * (old - reference).sum(-1), rtol=1e-5)
    centred = REWARD - REWARD.mean(-1, keepdims=True)
    wanted = {
        "group": centred / (REWARD.std(-1, ddof=1, keepdims=True) + 1e-4),
        "centred": centred,
        "leave_one_out": centred * 1.5,
        "batch": REWARD - REWARD.mean(),
    }
    for name, value in wanted.items():
        found = _terms.advantages(_switches.Config(advantage=name), jnp.array(REWARD, jnp.float32))
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_pays_becomes_likelier_and_what_is_cut_off_is_left_out():
    module = agents.dapo
    agent = module.make(module.Config(hidden=(8,), heads=2, minibatches=2), SPEC)
    hyper = as_float32(module.Hyper(learning_rate=0.01))
    batch = batch_of(REWARD)
    policy = tokens.make(SPEC, (8,), 2)

    @jax.jit
    def learnt(key, batch):
        start = agent.init(key, hyper)
        state, metrics = jax.lax.scan(
            lambda state, i: agent.update(state, batch, hyper, jax.random.fold_in(key, i), i), start, jnp.arange(30)
        )
        prompt = jnp.broadcast_to(batch.prompt[:, None], (2, 3, 3))
        after, before = (policy.log_prob(s.model.params, prompt, batch.completion).sum(-1) for s in (state, start))
        return after - before, metrics, state

    key = jax.random.key(0)
    gain, metrics, _ = jax.device_get(learnt(key, batch))
    assert gain[0, 0] > gain[0, 2] + 0.5
    assert min(gain[1, 1], gain[1, 2]) > 0.5
    assert all(np.isfinite(value).all() for value in metrics.values())
    same, _, state = jax.device_get(learnt(key, batch_of(np.ones((2, 3)))))
    np.testing.assert_array_equal(same, 0.0)  # equal rewards teach nothing
    flipped = batch_of(REWARD)
    cut = np.array(flipped.completion)
    cut[0, 1], cut[1, 0] = [5, 5, 5, 5], [2, 2, 2, 2]
    other, _, _ = jax.device_get(learnt(key, dataclasses.replace(flipped, completion=jnp.array(cut))))
    kept = np.array([[True, False, True], [False, True, True]])
    np.testing.assert_allclose(other[kept], gain[kept], atol=1e-5)  # what stands in cut-off rows has no say
    assert jax.tree.structure(state.reference) == jax.tree.structure(state.model.params)


def test_unknown_words_are_one_line():
    for changes, words in [
        ({"surrogate": "gpso"}, "did you mean 'gspo'"),
        ({"advantage": "mean"}, "advantage 'mean'"),
        ({"kl": "k4"}, "kl 'k4'"),
        ({"heads": 3}, "heads=3 must divide"),
    ]:
        with pytest.raises(UserError, match=words):
            agents.make("grpo", SPEC, **changes)
    agent = agents.make("grpo", SPEC, hidden=(8,), heads=2, minibatches=2)
    hyper = as_float32(agents.grpo.Hyper())
    batch = jax.tree.map(lambda leaf: leaf[:1], batch_of(REWARD))
    state = jax.eval_shape(agent.init, jax.random.key(0), hyper)
    with pytest.raises(UserError, match="minibatches=2 must divide the 1 prompts"):
        jax.eval_shape(agent.update, state, batch, hyper, jax.random.key(0), jnp.int32(0))
