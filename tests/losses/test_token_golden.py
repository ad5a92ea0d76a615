"""Numbers worked out by hand (float64) for losses over tokens and groups, edges, what KL estimators push at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses
from jaxrl_reg.losses import verified
from jaxrl_reg.losses.entropy import peak_entropy

INF = np.inf
REWARD = [1.0, 0, 0, 1, 1, 0, 0, 0]
LP, OLD, A = [-0.5, -1.2, -0.1, -2.3], [-0.7, -1.0, -0.1, -0.9], [1.0, -2, 0.5, -1]
X, MASK = [[1.0, 2, 3, 4], [5, 6, 7, 8]], [[1.0, 1, 1, 0], [1, 0, 0, 0]]
ONE_ROW = [[1.0, 1, 1, 0], [0, 0, 0, 0]]
LOGITS = [2.0, 1, 0, -1]
LOG_P = np.log([0.6439143, 0.2368828, 0.0871443, 0.0320586])
SHIFT = [0.1, 0.3, 0.1, -0.4]
SCORES, ALL = [[2.0, -1, 0.5, -3]], [[1.0, 1, 1, 1]]
PEAKS, FIVE = [[0.1, 0.5, 0.9, 0.3, 0.7]], [[1.0] * 5]
LENGTHS, RIGHT = [4.0, 6, 8, 10, 5, 20], [1.0, 1, 0, 0, 0, 0]
GSPO = ([[-0.5, -1.2, -0.1], [-0.3, -9, -9]], [[-0.7, -1.0, -0.4], [-0.4, -1, -1]], [1.0, -1], [[1.0, 1, 1], [1, 0, 0]])
LP_REG_LP, LP_REG_A = [-0.2, -3.0, -4.5, -0.7, -6.0], [1.0, -1, -1, -1, -1]
LP_REG_PROXY = [-0.19, -2.9, -4.3, -0.68, -INF]


def wrong(high, low):
    return [high if r else low for r in REWARD]


def groups():
    return [
        ("group", losses.group_advantage, (REWARD,), {}, wrong(1.2073814, -0.7244289)),
        ("verl's epsilon", losses.group_advantage, (REWARD,), {"epsilon": 1e-6}, wrong(1.2076124, -0.7245674)),
        ("Dr. GRPO", losses.group_advantage, (REWARD,), {"normalise": False}, wrong(0.625, -0.375)),
        ("RLOO", losses.leave_one_out_advantage, (REWARD,), {}, wrong(0.7142857, -0.4285714)),
        ("overlong", losses.overlong_penalty, ([10.0, 15, 17, 20, 25], 20, 5), {}, [0, 0, -0.4, -1, -1]),
        ("tokens", losses.masked_mean, (X, MASK), {}, 2.75),
        ("rows", losses.sequence_mean, (X, MASK), {}, 3.5),
        ("constant", losses.constant_mean, (X, MASK, 4), {}, 1.375),
        ("tokens, a row empty", losses.masked_mean, (X, ONE_ROW), {}, 2),
        ("rows, a row empty", losses.sequence_mean, (X, ONE_ROW), {}, 2),
        ("constant, a row empty", losses.constant_mean, (X, ONE_ROW, 4), {}, 0.75),
        *(
            (f"DADS {n}/8", losses.difficulty_weight, ([1.0] * n + [0] * (8 - n),), {}, [w] * n + [1] * (8 - n))
            for n, w in ((1, 0.2880768), (2, 0.4931653), (4, 0.7431186), (6, 0.8698036), (7, 0.9073102))
        ),
        (
            "STCR",
            losses.overthinking_weight,
            (LENGTHS, RIGHT, np.log(1.1)),
            {},
            [1, 1, 1.2486852, 1.3790787, 1, 1.7606080],
        ),
        (
            "STCR as released",
            losses.overthinking_weight,
            (LENGTHS, RIGHT, np.log(1.00001)),
            {},
            [1, 1, 1.00003, 1.00005, 1, 1.00015],
        ),
        ("SCoRe", losses.progress_reward, ([0.0, 1, 0, 1], [1.0, 1, 0, 0], 10), {}, [11, 1, 0, -10]),
    ]


def surrogates():
    return [
        ("PPO", losses.ppo_clip_loss, (LP, OLD, A, 0.2), {}, [-1.2, 1.6374615, -0.5, 0.8]),
        ("clip-higher", losses.ppo_clip_loss, (LP, OLD, A, 0.2, 0.28), {}, [-1.2214028, 1.6374615, -0.5, 0.8]),
        ("no dual clip", losses.ppo_clip_loss, ([0.0], [-1.5], [-1.0], 0.2), {}, [4.4816891]),
        ("dual clip", losses.ppo_clip_loss, ([0.0], [-1.5], [-1.0], 0.2), {"dual_clip": 3}, [3]),
        ("CISPO", losses.cispo_loss, (LP, OLD, A, 0.2, 0.28), {}, [0.6107014, -1.9649538, 0.05, -1.84]),
        ("CISPO, no floor", losses.cispo_loss, (LP, OLD, A, INF, 0.28), {}, [0.6107014, -1.9649538, 0.05, -0.5671730]),
        ("GSPO", losses.gspo_loss, (*GSPO, 3e-4, 4e-4), {}, [[-1.0004] * 3, [1.1051709, 0, 0]]),
        ("k2", losses.sampled_kl, (SHIFT, [0.0] * 4), {"estimator": "k2"}, [0.005, 0.045, 0.005, 0.08]),
        ("k3", losses.sampled_kl, (SHIFT, [0.0] * 4), {}, [0.0048374, 0.0408182, 0.0048374, 0.0918247]),
        (
            "Lp-Reg",
            losses.lp_reg_loss,
            (LP_REG_LP, LP_REG_LP, LP_REG_PROXY, LP_REG_A, [0.0, 0, 1, 0, 1], 0.2, 0.2, 1),
            {},
            [-1, 1, 1.0214028, 1, 1],
        ),
    ]


def scores():
    return [
        ("entropy", losses.categorical_entropy, (LOGITS,), {}, 0.9475370),
        *(
            (f"nucleus {mass} {strict}", losses.nucleus_entropy, (LOGITS, mass), {"strict": strict}, value)
            for mass, strict, value in (
                (0.5, False, 0),
                (0.5, True, 0),
                (0.8, False, 0.5822031),
                (0.8, True, 0),
                (0.9, False, 0.8323956),
                (0.9, True, 0.5822031),
            )
        ),
        ("quantile", losses.masked_quantile, (PEAKS, FIVE, 0.8), {}, [0.74]),
        ("peaks", losses.peak_mask, (PEAKS, FIVE, 0.8), {}, [[0, 0, 1, 0, 0]]),
        ("anchor", losses.anchored_entropy_loss, (PEAKS, FIVE, 0.6, 0.8), {}, 0.09),
        ("anchor, padded", losses.anchored_entropy_loss, (PEAKS, [[1.0, 1, 1, 1, 0]], 0.4, 0.5), {}, 0.09),
        ("proxy", verified.min_p_log_proxy, (LOGITS,), {"threshold": 0.1}, [*(LOG_P[:3] + 0.0325837), -INF]),
        ("OREAL judges", losses.outcome_score_loss, (SCORES, ALL, [1.0]), {"prefixes": False}, [0.8981233]),
        ("OREAL judges a wrong one", losses.outcome_score_loss, (SCORES, ALL, [0.0]), {"prefixes": False}, [0.5231233]),
        (
            "OREAL weighs",
            losses.score_weights,
            (SCORES, ALL),
            {},
            ([[0.7615942, 0.2449187, 0.2449187, 0]], [[0, 0, 0, 0.1853332]]),
        ),
    ]


GOLDEN = [*groups(), *surrogates(), *scores()]


def asked():
    return {
        name: [jnp.asarray(x, jnp.float32) if np.ndim(x) else float(x) for x in inputs]
        for name, _, inputs, _, _ in GOLDEN
    }


def test_golden_numbers_compiled_and_mapped_over_members():
    functions = {name: (function, settings) for name, function, _, settings, _ in GOLDEN}

    def every(inputs):
        return {name: functions[name][0](*given, **functions[name][1]) for name, given in inputs.items()}

    twice = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x, jnp.float32)] * 2), asked())
    found = jax.jit(jax.vmap(every))(twice)
    for name, _, _, _, expected in GOLDEN:
        for member in range(2):
            for left, right in zip(jax.tree.leaves(found[name]), _leaves(expected), strict=True):
                np.testing.assert_allclose(left[member], right, rtol=1e-5, atol=1e-5, err_msg=name)


def _leaves(expected):
    return [np.asarray(each, np.float32) for each in (expected if isinstance(expected, tuple) else (expected,))]


def test_golden_gradients():
    def slope(function, at, **settings):
        return jax.grad(lambda x: function(x, **settings).sum())(jnp.asarray(at, jnp.float32))

    def every():
        zero = jnp.zeros(4)
        real = jnp.asarray(GSPO[3])
        return {
            "k2": slope(losses.sampled_kl, SHIFT, reference=zero, estimator="k2"),
            "k3": slope(losses.sampled_kl, SHIFT, reference=zero),
            "PPO": slope(losses.ppo_clip_loss, LP, old_log_prob=jnp.asarray(OLD), advantage=jnp.asarray(A), clip=0.28),
            "CISPO": slope(losses.cispo_loss, LP, old_log_prob=jnp.asarray(OLD), advantage=jnp.asarray(A), clip=0.2),
            "GSPO": slope(
                lambda lp: losses.sequence_mean(
                    losses.gspo_loss(lp, jnp.asarray(GSPO[1]), jnp.asarray(GSPO[2]), real, 0.2), real
                ),
                GSPO[0],
            ),
            "proxy": slope(losses.sampled_kl, LOG_P[:1], reference=jnp.asarray(LOG_P[:1] + 0.0325837)),
        }

    found = jax.jit(every)()
    rho = np.exp(np.array(LP) - OLD)
    expected = {
        "k2": SHIFT,
        "k3": [0.0951626, 0.2591818, 0.0951626, -0.4918247],
        "PPO": [-rho[0], 2 * rho[1], -0.5, 0],  # the last is clipped where a clip holds it
        "CISPO": [-1.2, 2 * rho[1], -0.5, 0.8],
        "GSPO": [[-1.1051709 / 6] * 3, [1.1051709 / 2, 0, 0]],
        "proxy": [-0.0331204],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_each_estimator_of_the_divergence_pushes_at():
    """By enumeration over all tokens: in the loss, and detached in the reward."""
    logits, reference = jnp.array([0.5, -0.2, 0.1, -1]), jax.nn.log_softmax(jnp.array([0, 0.3, -0.4, 0.2]))

    def pushes(estimator):
        p = jax.nn.softmax(logits)
        in_loss = jax.grad(lambda z: (p * losses.sampled_kl(jax.nn.log_softmax(z), reference, estimator)).sum())(logits)
        penalty = losses.sampled_kl(jax.nn.log_softmax(logits), reference, estimator)
        in_reward = jax.grad(lambda z: (p * penalty * jax.nn.log_softmax(z)).sum())(logits)
        return (p * penalty).sum(), in_loss, in_reward

    def both():
        kl = jax.grad(lambda z: losses.categorical_kl(z, reference))(logits)
        forward = jax.grad(lambda z: losses.categorical_kl(reference, z))(logits)
        return {name: pushes(name) for name in ("k1", "k2", "k3")}, kl, forward

    found, kl, forward = jax.jit(both)()
    for name, value in {"k1": 0.2071453, "k2": 0.1930895, "k3": 0.2071453}.items():
        np.testing.assert_allclose(found[name][0], value, atol=1e-6)
    np.testing.assert_allclose(found["k1"][1], np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(found["k2"][1], [0.1533377, -0.1316279, 0.1027854, -0.1244952], atol=1e-6)
    np.testing.assert_allclose(found["k3"][1], [0.1826427, -0.1104710, 0.1224291, -0.1946008], atol=1e-6)
    np.testing.assert_allclose(found["k3"][2], [-0.0293050, -0.0211569, -0.0196437, 0.0701056], atol=1e-6)
    np.testing.assert_allclose(found["k2"][1], kl, atol=1e-6)
    np.testing.assert_allclose(found["k1"][2], kl, atol=1e-6)
    np.testing.assert_allclose(found["k3"][1], forward, atol=1e-6)
    with pytest.raises(ValueError, match="k1, k2 or k3"):
        losses.sampled_kl(logits, reference, "k4")


def test_edges_are_defined_and_their_gradients_finite():
    """Groups without variance, rows without tokens, NaN on padding, log-probabilities of minus infinity."""
    lp = jnp.array([-INF, -INF, -1.0, -INF])
    old = jnp.array([-INF, -1.0, -INF, -2.0])
    nans, none = jnp.full((2, 3), jnp.nan), jnp.zeros((2, 3))
    ones, zeros = jnp.ones(4), jnp.zeros(4)
    gone = jnp.array([[1.0, -INF, 0.0], [-INF] * 3])
    cases = {
        "group": (losses.group_advantage, jnp.full((2, 3), 0.1), np.zeros((2, 3))),
        "leave one out": (losses.leave_one_out_advantage, jnp.full((2, 3), 0.1), np.zeros((2, 3))),
        "whitened": (lambda x: losses.whitened(x, none.at[0, 0].set(1)), nans.at[0, 0].set(3.0), np.zeros((2, 3))),
        "whitened none": (lambda x: losses.whitened(x, none), nans, np.zeros((2, 3))),
        "tokens": (lambda x: losses.masked_mean(x, none), nans, 0),
        "rows": (lambda x: losses.sequence_mean(x, none), nans, 0),
        "constant": (lambda x: losses.constant_mean(x, none, 3), nans, 0),
        "ppo": (lambda x: losses.ppo_clip_loss(x, old, ones, 0.2), lp, [-1, -np.exp(-20), -1.2, -np.exp(-20)]),
        "k3": (lambda x: losses.sampled_kl(x, jnp.full(4, -INF)), lp[:1].repeat(4), np.zeros(4)),
        "reinforce": (lambda x: losses.policy_gradient_loss(x, zeros), lp, np.zeros(4)),
        "cispo": (lambda x: losses.cispo_loss(x, old, zeros, 0.2), lp, np.zeros(4)),
        "gspo": (lambda x: losses.gspo_loss(x, none, jnp.ones(2), none, 0.2), nans, np.zeros((2, 3))),
        "gspo -inf": (lambda x: losses.gspo_loss(x, x, jnp.ones(1), jnp.ones((1, 4)), 0.2), lp[None], -np.ones((1, 4))),
        "entropy": (losses.categorical_entropy, gone, [0.5822031, 0]),
        "nucleus": (lambda x: losses.nucleus_entropy(x, 0.9), gone, [0.5822031, 0]),
        "quantile": (lambda x: losses.masked_quantile(x, none, 0.5), nans, [0, 0]),
        "peaks": (lambda x: peak_entropy(x, none, 0.5), nans, 0),
        "peaks alike": (lambda x: peak_entropy(x, jnp.ones((2, 3)), 0.5), none, 0),
        "score": (lambda x: losses.outcome_score_loss(x, none, jnp.ones(2)), nans, [0, 0]),
        "one-sided": (lambda x: losses.one_sided_reinforce_loss(x, jnp.zeros(1)), lp[None], np.zeros((1, 4))),
    }

    def every():
        def both(function, x):
            return function(x), jax.grad(lambda x: function(x).sum())(x)

        return {name: both(function, x) for name, (function, x, _) in cases.items()}

    for name, (value, gradient) in jax.jit(every)().items():
        np.testing.assert_allclose(value, cases[name][2], rtol=1e-5, atol=1e-7, err_msg=name)
        assert np.isfinite(gradient).all(), name
    for function in (losses.group_advantage, losses.leave_one_out_advantage):
        with pytest.raises(ValueError, match="at least 2 per prompt"):
            function(jnp.ones((3, 1)))


def test_the_lowest_are_selected_by_rank():
    value = jnp.array([[-3.0, -3.0, -3.0], [-1.0, -9.0, -2.0]])
    candidate = jnp.array([[True, True, True], [True, False, True]])
    select = jax.jit(verified.lowest_share)
    np.testing.assert_array_equal(select(value, candidate, 0.4), [[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(select(value, candidate, 0.2), np.zeros((2, 3)))  # one alone is none
    np.testing.assert_array_equal(select(value, candidate, 1.0), candidate)
    np.testing.assert_array_equal(select(value, candidate & False, 1.0), np.zeros((2, 3)))
    np.testing.assert_array_equal(select(jnp.array(LP_REG_LP), jnp.array(LP_REG_A) < 0, 0.5), [0, 0, 1, 0, 1])
