"""Losses of preferences beyond the contract: golden numbers, equivalences, exact optima, and what must stay finite."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses

PAIR = {
    "chosen_logps": np.array([-1.0, -4.0]),
    "rejected_logps": np.array([-2.0, -1.5]),
    "ref_chosen_logps": np.array([-1.5, -3.0]),
    "ref_rejected_logps": np.array([-1.0, -2.5]),
}
FREE = {"chosen_logps": np.array([-1.0, -4.0]), "rejected_logps": np.array([-2.0, -1.5])}
MEANS = {"chosen_logps": np.array([-0.5, -1.0]), "rejected_logps": np.array([-0.5, -0.5])}
LENGTHS = {"chosen": np.array([2.0, 4.0]), "rejected": np.array([4.0, 3.0])}
PER_TOKEN = {name: value / LENGTHS["chosen" if "chosen" in name else "rejected"] for name, value in PAIR.items()}
NASH = {"logits": np.array([1.0, 2.0, -1.0]), "ref_logits": np.array([0.0, 1.0, 0.0]), "mixture_coef": 0.25}
PHRASES = {
    "chosen_logps": np.array([-0.5, -1.2, -0.3, -0.9]),
    "ref_chosen_logps": np.array([-0.7, -1.0, -0.3, -1.4]),
    "rejected_logps": np.array([-0.4, -2.0, -0.8, 0.0]),
    "ref_rejected_logps": np.array([-0.6, -1.5, -0.9, 0.0]),
}
MARKED = {"chosen_phrases": [0.0, 1, 0, 1], "rejected_phrases": [0.0, 1, 1, 0], "chosen_kl": [0.02, 0.05, 0.01, 0.04]}
TOKEN_REWARDS = {
    "chosen_reward": [0.168188, -0.074443, 0.0, 0.231059],
    "rejected_reward": [-0.024979, -0.268525, -0.049834, 0.0],
}
JUDGE = {"teacher_logits": [1.0, 0, -1], "student_logits": [0.0, 0.5, -0.5], "target": [1.0, 0, 0]}
RANKS = {"first": [0.3, -0.1, 0.8, 0.2, -0.5], "second": [0.1, 0.0, 0.5, 0.4, -0.2]}
LAST = {"last_chosen_logps": np.array([-0.8, -3.5]), "last_rejected_logps": np.array([-1.5, -2.0])}
SCORES = {"chosen": [1.0, -0.5], "rejected": [0.2, 0.4], "margin": [0.3, 0.3]}
KLS = {"chosen_kl": [0.3, 0.1], "rejected_kl": [0.05, 0.4], "beta": 0.5, "alpha": 0.5}
SINGLE = {"logps": PAIR["chosen_logps"], "ref_logps": PAIR["ref_chosen_logps"]}
OTHER = {"logps": PAIR["rejected_logps"], "ref_logps": PAIR["ref_rejected_logps"]}

# Float64 from the definitions, beta 0.5 unless it says otherwise.
GOLDEN = [
    ("reward_model_loss", SCORES, [0.474077, 1.463282]),
    ("reward_model_loss", SCORES | {"center_rewards_coefficient": 0.01}, [0.488477, 1.463382]),
    ("dpo_loss", PAIR | {"beta": 0.5}, [0.386871, 1.313262]),
    ("dpo_loss", PAIR | {"beta": 0.5, "label_smoothing": 0.1}, [0.461871, 1.213262]),
    ("dpo_loss", PER_TOKEN | {"beta": 0.5}, [0.575939, 0.849577]),
    ("robust_dpo_loss", PAIR | {"beta": 0.5, "label_smoothing": 0.1}, [0.293121, 1.438262]),
    ("ipo_loss", PAIR | {"beta": 0.5}, [0.25, 9.0]),
    ("ipo_loss", PER_TOKEN | {"beta": 0.5}, [0.25, 2.506944]),
    ("dpo_hinge_loss", PAIR | {"beta": 0.5}, [0.25, 2.0]),
    ("dpo_positive_loss", PAIR | {"beta": 0.5, "penalty": 5.0}, [0.386871, 3.529750]),
    ("tdpo_loss", PAIR | KLS | {"first": True}, [0.348445, 1.425081]),
    ("tdpo_loss", PAIR | KLS, [0.367242, 1.368638]),
    ("kto_loss", SINGLE | {"desirable": [1.0, 1.0], "kl": 0.2, "beta": 0.5}, [0.462570, 0.645656]),
    ("kto_loss", OTHER | {"desirable": [0.0, 0.0], "kl": 0.2, "beta": 0.5}, [0.354344, 0.598688]),
    ("kto_reference_point", {"logps": [0.5, -1.0, 0.2], "ref_logps": [0.0, 0.0, 0.0]}, 0.0),
    ("kto_reference_point", {"logps": [0.5, 0.5], "ref_logps": [0.0, 0.0]}, 0.5),
    ("simpo_loss", MEANS | {"beta": 2.0, "simpo_gamma": 0.5}, [0.974077, 1.701413]),
    ("simpo_loss", MEANS | {"beta": 2.0, "simpo_gamma": 0.5, "label_smoothing": 0.1}, [0.924077, 1.551413]),
    ("cpo_loss", FREE | {"nll": [0.0, 0.0], "beta": 0.5}, [0.474077, 1.501929]),
    ("cpo_loss", FREE | {"nll": [0.5, 1.0], "beta": 0.5}, [0.974077, 2.501929]),
    ("odds_ratio_loss", MEANS | {"beta": 0.1}, [0.069315, 0.129438]),
    ("slic_loss", FREE | {"target_logps": [-1.0, -4.0], "margin": 1.0, "coefficient": 0.1}, [0.1, 3.9]),
    ("sppo_loss", SINGLE | {"win_probability": [1.0, 1.0], "beta": 0.5}, [0.25, 4.0]),
    ("sppo_loss", OTHER | {"win_probability": [0.0, 0.0], "beta": 0.5}, [0.0, 4.0]),
    ("nash_md_advantage", {"probability": 0.7, "logps": -2.0, "ref_logps": -2.4, "beta": 0.1}, 0.16),
    ("geometric_mixture", NASH, [-1.371539, -0.371539, -2.871539]),
    ("rpo_loss", PAIR | {"baseline_logps": PAIR["chosen_logps"], "beta": 0.5, "eta": 0.1}, [0.436871, 1.513262]),
    ("rrpo_loss", PHRASES | MARKED | {"beta": 0.5, "alpha": 0.05}, 0.539382),
    ("flex_dpo_loss", PAIR | {"beta_chosen": 0.5, "beta_rejected": 0.2}, [0.493249, 1.103186]),
    ("inpo_loss", PAIR | LAST | {"eta": 0.3, "tau": 0.1}, [0.934444, 9.0]),
    ("treg_loss", PHRASES | TOKEN_REWARDS | {"beta": 0.5, "alpha": 0.25}, 0.513530),
    ("consistency_rate", RANKS, 0.9),
    ("cream_loss", PAIR | {"consistency": [0.7, 0.7], "beta": 0.5}, [0.611871, 1.013262]),
    ("self_judge_loss", JUDGE | {"student_weight": 0.3, "distillation_weight": 2.0}, 1.302737),
    ("expected_score", {"logits": [0.0, 0.5, -0.5], "values": [0.0, 1, 2]}, 0.879128),
    (
        "contrastive_token_reward",
        {"better_logps": [-1.0, -2, -0.5], "worse_logps": [-1.5, -1.2, -0.5], "mask": [1.0, 1, 1]},
        [0.122459, -0.189974, 0.0],
    ),
]
STATIC = {"first"}


def evaluate(cases):
    """Every ``(name, arguments)`` of a list in one program: value, and its gradient where there is one."""
    static = [{k: v for k, v in arguments.items() if k in STATIC} for _, arguments in cases]
    arrays = [
        {k: jnp.asarray(v, jnp.float32) for k, v in arguments.items() if k not in STATIC} for _, arguments in cases
    ]

    def one(name, fixed, arguments):
        def total(arguments):
            value = getattr(losses, name)(**arguments, **fixed)
            return value.sum(), value

        return jax.value_and_grad(total, has_aux=True)(arguments)

    def program(arrays):
        return [one(name, fixed, given) for (name, _), fixed, given in zip(cases, static, arrays, strict=True)]

    return [(np.asarray(value), gradient) for (_, value), gradient in jax.jit(program)(arrays)]


def test_golden_numbers():
    found = evaluate([(name, arguments) for name, arguments, _ in GOLDEN])
    for (name, _, expected), (value, _) in zip(GOLDEN, found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5, err_msg=name)


def test_equivalences_of_value_and_gradient():
    ones, baseline = np.ones(4), {"baseline_logps": PAIR["chosen_logps"]}
    zeros = {"chosen_kl": np.zeros(4), "beta": 0.5, "alpha": 0.0}
    sums = {name: value.sum(keepdims=True) for name, value in PHRASES.items()} | {"beta": 0.5}
    same = [
        (("flex_dpo_loss", PAIR | {"beta_chosen": 0.5, "beta_rejected": 0.5}), ("dpo_loss", PAIR | {"beta": 0.5})),
        (("inpo_loss", PAIR | LAST | {"eta": 0.3, "tau": 0.3}), ("ipo_loss", PAIR | {"beta": 0.3})),
        (("cream_loss", PAIR | {"consistency": [1.0, 1.0], "beta": 0.5}), ("dpo_loss", PAIR | {"beta": 0.5})),
        (
            ("rpo_loss", PAIR | baseline | {"beta": 0.5, "eta": 0.0}),
            ("dpo_loss", PAIR | {"beta": 0.5}),
        ),
        (("dpo_positive_loss", PAIR | {"beta": 0.5, "penalty": 0.0}), ("dpo_loss", PAIR | {"beta": 0.5})),
        (("rrpo_loss", PHRASES | zeros | {"chosen_phrases": ones, "rejected_phrases": ones}), ("dpo_loss", sums)),
        (("treg_loss", PHRASES | TOKEN_REWARDS | {"beta": 0.5, "alpha": 0.0}), ("dpo_loss", sums)),
    ]
    found = evaluate([case for both in same for case in both])
    for ((name, _), _), (left, moved), (right, expected) in zip(same, found[::2], found[1::2], strict=True):
        np.testing.assert_allclose(left, np.squeeze(right) if left.ndim == 0 else right, rtol=1e-6, err_msg=name)
        for argument in ("chosen_logps", "rejected_logps"):
            gradient = np.broadcast_to(expected[argument], np.shape(moved[argument]))
            np.testing.assert_allclose(moved[argument], gradient, rtol=1e-5, atol=1e-7, err_msg=f"{name} {argument}")


def test_no_log_probability_makes_a_loss_or_a_gradient_that_is_not_finite():
    numbers = (-np.inf, -1e4, -1.0, 0.0)
    grid = np.array(list(itertools.product(numbers, repeat=4))).T
    pair = dict(zip(PAIR, grid, strict=True))
    free = {name: pair[name] for name in FREE}
    single = {"logps": pair["chosen_logps"], "ref_logps": pair["ref_chosen_logps"]}
    tokens = {name: value[:, None] for name, value in pair.items()}
    one, token, beta = np.ones(grid.shape[1]), np.ones((grid.shape[1], 1)), {"beta": 0.5}
    last = {"last_chosen_logps": pair["ref_rejected_logps"], "last_rejected_logps": pair["ref_chosen_logps"]}
    cases = [
        ("dpo_loss", pair | beta),
        ("robust_dpo_loss", pair | beta | {"label_smoothing": 0.1}),
        ("ipo_loss", pair | beta),
        ("dpo_hinge_loss", pair | beta),
        ("dpo_positive_loss", pair | beta | {"penalty": 5.0}),
        ("rpo_loss", pair | beta | {"eta": 0.1, "baseline_logps": pair["chosen_logps"]}),
        ("flex_dpo_loss", pair | {"beta_chosen": 0.5, "beta_rejected": 0.2}),
        ("kto_loss", single | beta | {"desirable": one, "kl": 0.1}),
        ("kto_reference_point", single),
        ("simpo_loss", free | beta | {"simpo_gamma": 0.5}),
        ("cpo_loss", free | beta | {"nll": -pair["chosen_logps"]}),
        ("odds_ratio_loss", free | beta),
        ("slic_loss", free | {"target_logps": pair["chosen_logps"], "margin": 1.0, "coefficient": 0.1}),
        ("tdpo_loss", pair | beta | {"chosen_kl": one, "rejected_kl": one, "alpha": 0.5}),
        ("sppo_loss", single | beta | {"win_probability": one}),
        ("inpo_loss", pair | last | {"eta": 0.3, "tau": 0.1}),
        ("cream_loss", pair | beta | {"consistency": one}),
        ("nash_md_advantage", single | beta | {"probability": one}),
        (
            "rrpo_loss",
            tokens | beta | {"chosen_phrases": token, "rejected_phrases": token, "chosen_kl": token, "alpha": 0.1},
        ),
        ("treg_loss", tokens | beta | {"chosen_reward": token, "rejected_reward": -token, "alpha": 0.1}),
    ]
    for (name, _), (value, gradients) in zip(cases, evaluate(cases), strict=True):
        assert np.isfinite(value).all(), name
        for argument, gradient in gradients.items():
            assert np.isfinite(gradient).all(), (name, argument)
            impossible = np.isinf(dict(cases)[name][argument]) if "logps" in argument else False
            assert (np.asarray(gradient)[impossible] == 0).all() if np.any(impossible) else True, (name, argument)
    assert np.isnan(losses.dpo_loss(*(np.array([np.nan, -1.0]) for _ in range(4)), 0.5)[0]), "NaN is not hidden"


def test_a_completion_against_itself_moves_no_policy_but_by_its_likelihood():
    same = {name: np.array([-1.5]) for name in PAIR}
    free, beta, log2 = {name: same[name] for name in FREE}, {"beta": 0.5}, np.log(2)
    last = {"last_chosen_logps": [-1.0], "last_rejected_logps": [-1.0]}
    cases = [
        ("dpo_loss", same | beta, log2, 0),
        ("dpo_loss", PAIR | {"beta": 0.0}, log2, 0),
        ("robust_dpo_loss", same | beta | {"label_smoothing": 0.1}, log2, 0),
        ("ipo_loss", same | beta, 1.0, 0),
        ("dpo_hinge_loss", same | beta, 1.0, 0),
        ("simpo_loss", free | beta | {"simpo_gamma": 0.5}, np.log1p(np.exp(0.5)), 0),
        ("odds_ratio_loss", free | beta, 0.5 * log2, 0),
        ("inpo_loss", same | last | {"eta": 0.5, "tau": 0.1}, 1.0, 0),
        ("rpo_loss", same | beta | {"baseline_logps": [-1.5], "eta": 0.1}, log2 + 0.075, 0),
    ]
    found = evaluate([case[:2] for case in cases])
    for (name, _, expected, slope), (value, gradient) in zip(cases, found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(
            gradient["chosen_logps"] + gradient["rejected_logps"], slope, atol=1e-6, err_msg=name
        )


def test_padding_is_never_touched():
    nan = np.array([np.nan])
    padded = {name: np.concatenate([value, nan]) for name, value in PHRASES.items()}
    marked = {name: np.append(value, 0.0) for name, value in MARKED.items()}
    reward = {"better_logps": [-1.0, np.nan], "worse_logps": [-1.5, np.nan], "mask": [1.0, 0.0]}
    (value, gradient), (weak, _) = evaluate(
        [("rrpo_loss", padded | marked | {"beta": 0.5, "alpha": 0.05}), ("contrastive_token_reward", reward)]
    )
    np.testing.assert_allclose(value, 0.539382, atol=1e-5)
    assert np.isfinite(gradient["chosen_logps"]).all()
    assert np.isfinite(gradient["rejected_logps"]).all()
    np.testing.assert_allclose(weak, [0.122459, 0.0], atol=1e-6)


def test_ties_make_no_order_and_one_candidate_none_at_all():
    assert losses.consistency_rate(np.zeros(4), np.zeros(4)) == 0.5
    with pytest.raises(ValueError, match="1 candidate"):
        losses.consistency_rate(np.zeros((3, 1)), np.zeros((3, 1)))


def test_exact_optima_of_the_expected_losses_are_stationary():
    """All ordered pairs of six responses, weighted by their frequency and by the exact chance of each label."""
    generator = np.random.default_rng(0)
    n, beta, tau, flips = 6, 0.5, 0.2, 0.1
    mu = generator.dirichlet(np.ones(n))
    ref, last = (np.log(generator.dirichlet(np.full(n, 2.0))) for _ in range(2))
    reward = generator.normal(size=n)
    judge = 1 / (1 + np.exp(reward[None] - reward[:, None]))
    game = generator.uniform(size=(n, n))
    game = np.where(np.triu(np.ones((n, n)), 1) > 0, game, 1 - game.T)
    np.fill_diagonal(game, 0.5)
    flipped = (1 - flips) * judge + flips * (1 - judge)
    i, j = (index.ravel() for index in np.mgrid[:n, :n])

    def slope(loss, labels, tilt, base, *extra):
        def expected(logits):
            log_policy = jax.nn.log_softmax(logits)
            value = loss(log_policy[i], log_policy[j], ref[i], ref[j], *extra)
            return (mu[i] * mu[j] * labels[i, j] * value).sum()

        at = jax.nn.log_softmax(base + tilt)
        return jax.grad(expected)(at), jax.grad(expected)(at + jnp.linspace(-0.5, 0.5, n))

    def inpo(*pairs):
        return losses.inpo_loss(*pairs, last[i], last[j], beta, tau)

    with jax.enable_x64(True):
        share = tau / beta
        mixed = share * ref + (1 - share) * last
        slopes = jax.jit(
            lambda: {
                "dpo": slope(losses.dpo_loss, judge, reward / beta, ref, beta),
                "ipo": slope(losses.ipo_loss, game, game @ mu / beta, ref, beta),
                "inpo": slope(inpo, game, game @ mu / beta, mixed),
                "robust": slope(losses.robust_dpo_loss, flipped, reward / beta, ref, beta, flips),
                "conservative": slope(losses.dpo_loss, judge, reward / beta, ref, beta, flips),
                "flipped": slope(losses.dpo_loss, flipped, reward / beta, ref, beta),
            }
        )()
    for name in ("dpo", "ipo", "inpo", "robust"):
        optimum, elsewhere = slopes[name]
        assert np.abs(optimum).max() < 1e-12, name
        assert np.abs(elsewhere).max() > 1e-4, name
    assert np.abs(slopes["flipped"][0]).max() > 1e-4
    np.testing.assert_allclose(slopes["conservative"][0], slopes["flipped"][0], atol=1e-12)
