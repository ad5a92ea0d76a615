"""Agents with a loss of their own on GRPO's: Lp-Reg, SIREN's anchor, AEPO's temperature; against NumPy, and by case."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents
from jaxrl_reg.agents.tokens import _group, _switches, aepo, lp_reg, siren
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.policies import tokens
from jaxrl_reg.types import Completions, TokenSpec, as_float32

SPEC = TokenSpec(6, 3, 4)
POLICY = tokens.make(SPEC, (8,), 2)
RNG = np.random.default_rng(0)
ENDS = np.array([[4, 2, 3, 4], [3, 4, 2, 4]])
MASK = (np.arange(4) < ENDS[..., None]).astype(np.float32)
COMPLETION = np.where(np.arange(4) < ENDS[..., None] - 1, RNG.integers(2, 6, (2, 4, 4)), MASK.astype(int))
PROMPT = np.array([[0, 3, 2], [4, 5, 2]])


def completions(reward, completion=COMPLETION):
    reward = jnp.broadcast_to(jnp.asarray(reward, jnp.float32), (2, 4))
    prompt, completion = (jnp.asarray(ids, jnp.int32) for ids in (PROMPT, completion))
    return Completions(prompt, completion, jnp.asarray(MASK), reward, jnp.zeros((2, 4)))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def unsettled(agent, hyper, key):
    """The first state with weights that make no two tokens alike; those of a new policy are uniform."""
    state = quick(agent.init)(key, hyper)
    leaves, tree = jax.tree.flatten(state.model.params)
    keys = jax.random.split(key, len(leaves))
    leaves = [leaf + 0.5 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return state._replace(model=state.model._replace(params=jax.tree.unflatten(tree, leaves)))


def logits_of(params):
    prompt = jnp.broadcast_to(PROMPT[:, None], (2, 4, 3))
    return np.asarray(quick(POLICY.apply)(params, prompt, jnp.asarray(COMPLETION)), np.float64)


def test_lp_reg_pulls_the_least_likely_tokens_of_what_was_wrong():
    before, logits = RNG.normal(scale=1.5, size=(2, 2, 4, 4, 6)).astype(np.float32)
    advantage = np.array([[1.0, -1.5, -0.7, 0.4], [-0.3, 2.0, -1.0, -0.2]], np.float32)

    def of(table):
        return np.take_along_axis(table, COMPLETION[..., None], -1)[..., 0]

    def wanted(before, logits, advantage, min_p):
        """Loss, and the share of the tokens that is pulled; weight 3, share 0.4, clips 0.5 and 0.8."""
        p, lp, old = np.exp(log_softmax(before)), of(log_softmax(logits)), of(log_softmax(before))
        kept = np.where(p >= min_p * p.max(-1, keepdims=True), p, 0.0)
        with np.errstate(divide="ignore"):
            proxy = of(np.log(kept / kept.sum(-1, keepdims=True)))
        each, ratio = advantage[..., None] * np.ones(4), np.exp(lp - old)
        places = [tuple(at) for at in np.argwhere((MASK > 0) & (each < 0))]
        places.sort(key=lambda at: lp[at])
        pulled = {at for at in places[: int(0.4 * len(places))] if lp[at] < proxy[at] - 1e-6}
        loss = -np.minimum(ratio * each, np.clip(ratio, 0.5, 1.8) * each)
        for at in pulled:
            apart = proxy[at] - lp[at]
            loss[at] = -each[at] * ratio[at] + 3.0 * min(np.exp(apart) - 1 - apart, 10.0)
        return (MASK * loss).sum() / MASK.sum(), len(pulled) / MASK.sum()

    objective = lp_reg.objective(_switches.Config(aggregation="token", kl="none"), 4)

    def found(before, logits, advantage, min_p):
        hyper = lp_reg.Hyper(clip_low=0.5, clip_high=0.8, lp_coef=3.0, lp_share=0.4, min_p=min_p)
        log_prob, old = (POLICY.log_prob_of(each, jnp.asarray(COMPLETION)) for each in (logits, before))
        known = _group.Known(completions(0.0), jnp.asarray(MASK), old, jnp.zeros(MASK.shape), advantage)
        more, kept = objective.before(known, before, hyper, ())
        value, metrics = objective.loss(known._replace(more=more), log_prob, logits, hyper, kept)
        return value, metrics["protected"]

    cases = [  # the last three: nobody is wrong; nothing is filtered from the policy itself; noise takes up the share
        (before, logits, advantage, 0.2),
        (before, logits, abs(advantage), 0.2),
        (logits, logits, advantage, 0.0),
        (logits, logits, advantage, 1.0),
    ]
    stacked = [jnp.asarray(np.stack(column)) for column in zip(*cases, strict=True)]
    values, shares = quick(jax.vmap(found))(*stacked)
    for case, value, share in zip(cases, values, shares, strict=True):
        np.testing.assert_allclose((value, share), wanted(*case), rtol=1e-5)
    assert shares[0] > 0
    assert shares[1] == shares[2] == 0


def test_siren_holds_the_peaks_at_what_they_were_in_the_first_batch():
    agent = siren.make(siren.Config(hidden=(8,), heads=2, epochs=2, minibatches=2), SPEC)
    hyper = as_float32(siren.Hyper(learning_rate=3e-3, nucleus=0.9, quantile=0.4))
    start = unsettled(agent, hyper, jax.random.key(0))
    assert float(start.kept) == siren.UNSET

    @quick
    @jax.vmap
    def learnt(anchor):
        batch = completions(1.0)  # equal rewards: what moves the policy is the anchor alone

        def body(state, i):
            return agent.update(state, batch, hyper, jax.random.fold_in(jax.random.key(1), i), i)

        state, metrics = jax.lax.scan(body, start._replace(kept=anchor), jnp.arange(40))
        return state.kept, metrics, agent.imitate(start, batch, hyper, jax.random.key(2), 0)[0].kept

    p = np.exp(log_softmax(logits_of(start.model.params)))
    order = -np.sort(-p, axis=-1)
    kept = np.where(np.cumsum(order, -1) - order < 0.9, order, 0.0)
    q = kept / kept.sum(-1, keepdims=True)
    entropy = -(q * np.log(np.where(q > 0, q, 1.0))).sum(-1)
    rows = [row[: int(count)] for row, count in zip(entropy.reshape(-1, 4), MASK.reshape(-1, 4).sum(-1), strict=True)]
    anchor = np.mean([row[row > np.quantile(row, 0.4)].mean() for row in rows])

    found, metrics, taught = learnt(jnp.array([siren.UNSET, anchor + 0.3, anchor - 0.3], jnp.float32))
    np.testing.assert_allclose(found, [anchor, anchor + 0.3, anchor - 0.3], rtol=1e-5)  # set once, then for good
    np.testing.assert_allclose(metrics["anchor"], np.tile(found[:, None], (1, 40)))
    held, raised, lowered = metrics["peak_entropy"][:, -1] - anchor
    assert abs(held) < 0.1
    assert raised > 0.15
    assert lowered < -0.15
    np.testing.assert_array_equal(taught, siren.UNSET)  # a warm start leaves the anchor to the first batch after it


@pytest.fixture(scope="module")
def steered():
    """An AEPO agent, a policy of it, and its updates of several batches and settings at once: parameters ``[N]``."""
    agent = aepo.make(aepo.Config(hidden=(8,), heads=2, epochs=1, extra=2), SPEC)
    start = unsettled(agent, as_float32(aepo.Hyper()), jax.random.key(3))
    update = quick(jax.vmap(lambda batch, hyper: agent.update(start, batch, hyper, jax.random.key(0), jnp.int32(0))))

    def updated(batches, targets):
        hypers = [as_float32(aepo.Hyper(target_entropy=target, learning_rate=1e-2)) for target in targets]
        return update(*(jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows) for rows in (batches, hypers)))

    return agent, start, updated


def test_aepo_clones_right_extra_samples_and_nothing_else_of_them(steered):
    _, start, updated = steered
    other = COMPLETION.copy()
    other[:, 2:] = [[[5, 4, 1, 0], [4, 4, 4, 1]], [[3, 1, 0, 0], [5, 5, 5, 1]]]
    apart, alike = [1.0, 0.0], [1.0, 1.0]
    batches = [
        completions([0.0, 0.0, 0.0, 0.0]),  # no sample is right
        completions([*alike, 0.0, 0.0]),  # extra ones are no part of the group
        completions([*alike, 0.9, 0.5]),  # half right is not right
        completions([*alike, 1.0, 1.0]),  # all are right, so that nobody has an advantage
        completions([*apart, 0.0, 0.0]),
        completions([*apart, 0.0, 0.0], other),
    ]
    state, metrics = updated(batches, [0.4] * len(batches))
    changes = [
        np.concatenate([np.ravel(leaf[row] - old) for leaf, old in zip(*map(jax.tree.leaves, pair), strict=True)])
        for row in range(len(batches))
        for pair in [(state.model.params, start.model.params)]
    ]
    for row in range(3):
        np.testing.assert_array_equal(changes[row], 0.0)
    assert abs(changes[3]).max() > 1e-3
    assert abs(changes[4]).max() > 1e-3
    np.testing.assert_allclose(changes[4], changes[5], atol=1e-7)  # a wrong one leaves no trace
    assert metrics["cloned"].tolist() == [0, 0, 0, 1, 0, 0]
    prompt = jnp.broadcast_to(PROMPT[:, None], (2, 2, 3))
    after, before = (
        POLICY.log_prob(params, prompt, jnp.asarray(COMPLETION[:, 2:])).sum()
        for params in (jax.tree.map(lambda leaf: leaf[3], state.model.params), start.model.params)
    )
    assert after > before


def test_aepo_steers_by_the_entropy_of_ordinary_samples(steered):
    _, start, updated = steered
    log_p = log_softmax(logits_of(start.model.params))
    each = -(np.exp(log_p) * log_p).sum(-1)
    ordinary, whole = (float((MASK * each)[:, :n].sum() / MASK[:, :n].sum()) for n in (2, 4))
    assert abs(ordinary - whole) > 0.02
    state, metrics = updated([completions([1.0, 0.0, 1.0, 0.0])] * 6, [ordinary - 0.01, ordinary + 0.01] * 3)
    np.testing.assert_allclose(metrics["entropy"], ordinary, rtol=1e-4)
    np.testing.assert_allclose(state.kept, [0.5, 2.0] * 3)
    np.testing.assert_allclose(metrics["temperature"], state.kept)
    assert float(start.kept) == 0.5  # the first batch is drawn cold


def test_aepo_draws_the_last_of_every_group_at_its_temperature(steered):
    agent, start, _ = steered
    hyper, key = as_float32(aepo.Hyper()), jax.random.key(4)
    cold = start._replace(kept=jnp.float32(1e-4))
    groups, flat = jnp.repeat(PROMPT[:, None], 12, axis=1), jnp.repeat(PROMPT, 12, axis=0)

    @quick
    def both(state):
        alone = POLICY.sample(state.model.params, flat, key)[0]
        drawn = [agent.act(state, prompt, hyper, key, True) for prompt in (groups, flat)]
        return drawn, alone, agent.act(state, PROMPT, hyper, key, False)

    (grouped, single), alone, greedy = jax.device_get(both(cold))
    np.testing.assert_array_equal(grouped[:, 10:], np.repeat(greedy[:, None], 2, axis=1))
    np.testing.assert_array_equal(grouped[:, :10], alone.reshape(2, 12, 4)[:, :10])
    np.testing.assert_array_equal(single, alone)  # an evaluation's prompts are no groups
    assert (alone.reshape(2, 12, 4)[:, 10:] != greedy[:, None]).any()
    with pytest.raises(UserError, match="extra=2 of a group of 3 must leave 2 or more; take --group 4"):
        jax.eval_shape(lambda: agent.act(start, groups[:, :3], hyper, key, True))
    with pytest.raises(UserError, match="extra=0 must be at least 1"):
        agents.make("aepo", SPEC, extra=0)


def test_what_the_three_fix_of_the_family(monkeypatch):
    seen = []
    inner = _group.make
    monkeypatch.setattr(_group, "make", lambda config, *rest: seen.append(config) or inner(config, *rest))
    for name in ("lp_reg", "siren", "aepo"):
        agents.make(name, SPEC, hidden=(8,), heads=2)
    switches = ("advantage", "surrogate", "aggregation", "kl", "dual_clip", "mask_truncated")
    assert [tuple(getattr(config, name) for name in switches) for config in seen] == [
        ("group", "ppo", "token", "none", None, False),
        ("centred", "ppo", "constant", "none", None, False),
        ("group", "ppo", "token", "none", 3.0, False),
    ]
    defaults = {name: dataclasses.asdict(agents.load(name).Hyper()) for name in ("lp_reg", "siren", "aepo")}
    assert (defaults["lp_reg"]["clip_low"], defaults["lp_reg"]["clip_high"]) == (1.0, 9.0)
    assert (defaults["siren"]["clip_low"], defaults["siren"]["clip_high"]) == (0.28, 0.28)
    assert (defaults["aepo"]["clip_low"], defaults["aepo"]["clip_high"]) == (0.2, 0.2)
