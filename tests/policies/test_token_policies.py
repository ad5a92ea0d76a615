"""Token policies: what the sampler says of its tokens is what the scorer says, with the cache and across members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.contract.subject import quick
from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.tokens import majority_at_k, pass_at_k
from jaxrl_reg.networks.tokens import token_scorer, token_transformer
from jaxrl_reg.policies import tokens
from jaxrl_reg.types import TokenSpec

SPEC = TokenSpec(vocabulary=7, prompt=4, completion=5)
SIZES = {"hidden": (8, 8), "heads": 2}
PROMPTS = np.array([[0, 0, 3, 2], [4, 5, 6, 2], [0, 4, 4, 2]], np.int32)
MEMBERS, SAMPLES = 2, 40


def spread(params):
    """Parameters large enough that tokens matter, the head's included."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [x + 0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


@pytest.fixture(scope="module")
def drawn():
    """For each of two members: samples, their scores, greedy completions and the model's logits both ways."""
    policy, model = tokens.make(SPEC, **SIZES), token_transformer(SPEC, **SIZES)

    def member(key):
        params = spread(policy.init(key))
        prompts = jnp.asarray(PROMPTS)
        sampled, log_prob = policy.sample(params, prompts, key, (SAMPLES,), temperature=1.5)
        many = jnp.broadcast_to(prompts, (SAMPLES, *prompts.shape))
        greedy = policy.mode(params, prompts)
        whole = jnp.concatenate([many, sampled], axis=-1)
        first, memory = model.start(params, many)

        def read(memory, column):
            logits, memory = model.step(params, memory, whole[..., column], column)
            return memory, logits

        _, later = jax.lax.scan(read, memory, SPEC.prompt + jnp.arange(SPEC.completion - 1))
        garbled = whole.at[..., 0].set(jnp.where(many[..., 0] == 0, 0, 3))
        both = model.apply(params, jnp.stack([whole, garbled]))
        last = jnp.concatenate([many, prompts[None]]), jnp.concatenate([sampled, greedy[None]])
        logits = policy.apply(params, *last)
        return {
            "sampled": sampled,
            "log_prob": log_prob,
            "scored": policy.log_prob(params, many, sampled, temperature=1.5),
            "entropy": policy.entropy(params, many, sampled, temperature=1.5),
            "logits": logits[:-1],
            "cached": jnp.concatenate([first[..., None, :], jnp.moveaxis(later, 0, -2)], axis=-2),
            "all": both[0],
            "garbled": both[1],
            "greedy": greedy,
            "greedy_logits": logits[-1],
            "first": policy.apply(policy.init(key), prompts, greedy),
        }

    def alone(key):
        return policy.sample(spread(policy.init(key)), jnp.asarray(PROMPTS), key, (SAMPLES,), temperature=1.5)

    keys = jax.random.split(jax.random.key(0), MEMBERS)
    found = jax.jit(jax.vmap(member))(keys), jax.jit(alone)(keys[1])
    return jax.tree.map(np.asarray, found)


def mask_of(completion):
    out = np.ones(completion.shape)
    for row, real in zip(completion.reshape(-1, SPEC.completion), out.reshape(-1, SPEC.completion), strict=True):
        ends = np.flatnonzero(row == SPEC.EOS)
        if len(ends):
            real[ends[0] + 1 :] = 0
    return out


def test_sampled_log_probabilities_are_the_scored_ones_alone_and_among_members(drawn):
    members, alone = drawn
    mask = mask_of(members["sampled"])
    assert 0 < mask.mean() < 1
    assert ((members["sampled"] == SPEC.PAD) & (mask > 0)).any()  # a padding token inside of a completion
    assert (members["sampled"][mask == 0] == SPEC.PAD).all()
    np.testing.assert_allclose(members["log_prob"], members["scored"], atol=1e-5)
    assert (members["log_prob"][mask == 0] == 0).all()
    np.testing.assert_array_equal(members["sampled"][1], alone[0])
    np.testing.assert_allclose(members["log_prob"][1], alone[1], atol=1e-5)


def test_logits_with_and_without_the_cache_are_equal(drawn):
    members, _ = drawn
    np.testing.assert_allclose(members["cached"], members["logits"], atol=1e-5)
    np.testing.assert_allclose(members["all"][..., SPEC.prompt - 1 : -1, :], members["logits"], atol=1e-5)


def test_scores_and_entropies_are_those_of_the_softmax(drawn):
    members, _ = drawn
    p = np.exp(members["logits"] / 1.5)
    p /= p.sum(-1, keepdims=True)
    mask = mask_of(members["sampled"])
    chosen = np.take_along_axis(np.log(p), members["sampled"][..., None], -1)[..., 0]
    np.testing.assert_allclose(members["scored"], chosen * mask, atol=1e-5)
    np.testing.assert_allclose(members["entropy"], -(p * np.log(p)).sum(-1) * mask, atol=1e-5)


def test_greedy_completions_are_the_argmax_of_the_whole_pass(drawn):
    members, _ = drawn
    mask = mask_of(members["greedy"])
    np.testing.assert_array_equal(np.where(mask > 0, members["greedy_logits"].argmax(-1), 0), members["greedy"])
    np.testing.assert_allclose(members["first"], 0)  # a new policy is uniform


def test_only_padding_of_the_prompt_is_hidden_and_nothing_sees_ahead(drawn):
    members, _ = drawn
    moved = np.abs(members["garbled"] - members["all"]).max((0, 1, 3, 4))
    assert moved[0] == 0  # padding stays padding
    assert moved[1] > 1e-3
    frequent = np.mean([(members["sampled"][:, :, i] == members["sampled"][:, :1, i]).mean() for i in range(3)])
    assert frequent < 0.9  # samples of one prompt differ


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="heads=3 must divide the width 8"):
        tokens.make(SPEC, (8, 8), 3)
    with pytest.raises(UserError, match="all of one width"):
        token_transformer(SPEC, (8, 16), 2)


def test_pass_and_majority_at_k():
    right = np.zeros((3, 8))
    right[0, :2] = right[2, :7] = 1
    np.testing.assert_allclose(pass_at_k(jnp.asarray(right), 4), [0.7857143, 0, 1], atol=1e-6)
    np.testing.assert_allclose(pass_at_k(jnp.asarray(right), 1), right.mean(-1), atol=1e-6)
    for k in (0, 9):
        with pytest.raises(ValueError, match=f"k={k}"):
            pass_at_k(jnp.asarray(right), k)
    answers = np.array([[[3], [4], [4]], [[3], [4], [5]]])
    np.testing.assert_array_equal(majority_at_k(jnp.asarray(answers), jnp.array([[0, 1, 1], [1, 0, 0]])), [1, 1])


def test_a_scorer_has_read_the_token_that_it_scores_and_starts_at_0():
    scorer, policy = token_scorer(SPEC, **SIZES), tokens.make(SPEC, **SIZES)
    params = quick(lambda key: spread(policy.init(key)))(jax.random.key(0))
    prompt, completion = jnp.asarray(PROMPTS[1]), jnp.array([3, 4, 5, 1, 0])
    first = scorer.of(params)
    assert first["head"]["kernel"].shape == (8, 1)
    scores = quick(scorer.apply)
    np.testing.assert_array_equal(scores(first, prompt, completion), 0.0)
    head = {"kernel": 1.0 + jnp.arange(8.0)[:, None], "bias": first["head"]["bias"]}
    moved = {**first, "head": head}
    before, after = scores(moved, prompt, completion), scores(moved, prompt, completion.at[2].set(6))
    np.testing.assert_array_equal(before[:2], after[:2])
    assert (np.abs(before - after)[2:] > 1e-3).all()


def test_models_of_as_many_columns_have_the_same_parameters():
    columns = SPEC.second.prompt + SPEC.second.completion
    both = [token_transformer(one, **SIZES, columns=columns) for one in (SPEC, SPEC.second)]
    first, second = quick(lambda key: [model.init(key) for model in both])(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    prompt = jnp.broadcast_to(jnp.asarray(PROMPTS[1]), (2, 4))
    whole = jnp.concatenate([prompt, jnp.array([[3, 4, 5, 6, 3, 2], [3, 4, 5, 6, 4, 2]])], axis=-1)
    seen, short = quick(lambda a, b: (both[1].apply(spread(b), whole), both[0].apply(spread(a), whole[:1, :8])))(
        first, second
    )
    np.testing.assert_allclose(seen[0, :8], short[0], atol=1e-5)
    assert np.abs(seen[0, -1] - seen[1, -1]).max() > 1e-3
