"""Answers that earn a reward which nobody judged: relevance, length and repetition, by the kind of question.

Twenty words in five topics of four, three fillers and an end; at most twelve words. A question shows two words of a
topic. Half are open-ended: a good answer covers the topic and keeps to it. Half have one right word, the smaller of the
topic's two others. Words are embedded as their topic's direction with a little of their own. A policy clones a mediocre
human, half on topic, then REINFORCE raises a reward under a divergence from the clone; advantages are standardised kind
by kind. Metric: an F1 that training never sees, of coverage and share on topic, or of the right word.

Every factor alone is earned without an answer: relevance by repeating the question, length by filling the limit, both
together by one word twelve times. Looked at and not claimed: answers with one right word do not become better than by
length alone, since nothing tells the policy to stop; what a reward of their own gains over one product is in them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import Claim
from experiments.preferences._fit import fit, forward, keys, mlp
from jaxrl_reg import losses
from jaxrl_reg.losses.token_rewards import distinct_ngrams, truncate_at
from jaxrl_reg.losses.tokens import completion_mask, token_logprobs

CLAIM = Claim(
    statement="A policy that maximises relevance x length x repetition on open questions, and relevance to the right "
    "answer x repetition on the others (R^3), answers better on average than one that maximises relevance alone or "
    "length alone, than the clone it starts from, and than with one product for both kinds",
    paper="https://arxiv.org/abs/2402.03469",
    method="R^3",
    baselines=("relevance alone", "length alone", "clone"),
    ablation="one product for both kinds",
    metric="F1 of answers, mean of both kinds of question",
    systems=(41,),
    margin=0.01,
    seeds=14,
    chosen="seeds 3000 to 3013: over one product for both kinds; 14 seeds for a power of 0.95",
)
TOPICS, EACH, FILLERS, LONGEST, DIM = 5, 4, 3, 12, 16
WORDS = TOPICS * EACH
EOS = WORDS + FILLERS
VOCABULARY = EOS + 1
CLONING, UPDATES, BATCH, RATE, COEFFICIENT, FRESH = 400, 250, 128, 3e-3, 0.02, 1000
ARMS = {  # relevance, length, repetition, branching; the clone takes no update
    "relevance alone": (1.0, 0.0, 0.0, 0.0),
    "length alone": (0.0, 1.0, 0.0, 0.0),
    "relevance and length": (1.0, 1.0, 0.0, 0.0),
    "one product for both kinds": (1.0, 1.0, 1.0, 0.0),
    "R^3": (1.0, 1.0, 1.0, 1.0),
}


def asked(key, count):
    """``(topic [B], shown [B, 2], answer [B], open_ended [B])``."""
    topic_key, order_key, kind_key = jax.random.split(key, 3)
    topic = jax.random.randint(topic_key, (count,), 0, TOPICS)
    order = jax.vmap(lambda key: jax.random.permutation(key, EACH))(jax.random.split(order_key, count))
    word = topic[:, None] * EACH + order
    return topic, word[:, :2], word[:, 2:].min(1), jax.random.bernoulli(kind_key, 0.5, (count,)).astype(jnp.float32)


def human(key, question):
    """Tokens ``[B, LONGEST]``: of each word half are on topic, or on a question with one answer two in five that."""
    topic, _, answer, open_ended = question
    keys = jax.random.split(key, 4)
    shape = len(topic), LONGEST
    meant = jnp.where(
        open_ended[:, None] > 0, topic[:, None] * EACH + jax.random.randint(keys[0], shape, 0, EACH), answer[:, None]
    )
    said = jax.random.bernoulli(keys[1], jnp.where(open_ended > 0, 0.5, 0.4)[:, None], shape)
    tokens = jnp.where(said, meant, jax.random.randint(keys[2], shape, 0, EOS))
    length = jax.random.randint(keys[3], (len(topic), 1), 1, 9)
    return jnp.where(jnp.arange(LONGEST) < length, tokens, EOS)


def seen(question, said, before, time):
    """What the policy sees: words of the question, its kind, how often each word was said, the last one, the time."""
    _, shown, _, open_ended = question
    about = jnp.concatenate([jax.nn.one_hot(shown, WORDS).sum(-2), open_ended[:, None]], -1)
    about = about if said.ndim == 2 else jnp.broadcast_to(about[:, None], (*said.shape[:2], about.shape[-1]))
    time = jnp.broadcast_to(time / LONGEST, said.shape[:-1])[..., None]
    return jnp.concatenate([about, said / EACH, jax.nn.one_hot(before, VOCABULARY), time], -1)


def relu(params, x):
    return forward(params, x, jax.nn.relu)


def logits(params, question, tokens):
    """``[B, LONGEST, VOCABULARY]``: of every word after those before it; the first follows an end."""
    each = jax.nn.one_hot(tokens, VOCABULARY)
    before = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=EOS)
    return relu(params, seen(question, jnp.cumsum(each, 1) - each, before, jnp.arange(LONGEST)))


def answered(key, params, question):
    def step(carry, inputs):
        said, before = carry
        time, key = inputs
        token = jax.random.categorical(key, relu(params, seen(question, said, before, time)))
        return (said + jax.nn.one_hot(token, VOCABULARY), token), token

    count = len(question[0])
    start = jnp.zeros((count, VOCABULARY)), jnp.full(count, EOS)
    return jax.lax.scan(step, start, (jnp.arange(LONGEST), jax.random.split(key, LONGEST)))[1].T


def gold(question, tokens):
    """F1 ``[B]``, and how many words there are."""
    topic, _, answer, open_ended = question
    words = truncate_at(tokens, completion_mask(tokens, EOS), EOS)
    count = jnp.maximum(words.sum(-1), 1.0)
    wanted = topic[:, None] * EACH + jnp.arange(EACH)
    covered = ((tokens[:, None] == wanted[..., None]) & (words[:, None] > 0)).any(-1).mean(-1)
    on_topic = (words * ((tokens // EACH == topic[:, None]) & (tokens < WORDS))).sum(-1) / count
    right = (words * (tokens == answer[:, None])).sum(-1)
    recall = jnp.where(open_ended > 0, covered, right > 0)
    precision = jnp.where(open_ended > 0, on_topic, right / count)
    return 2.0 * recall * precision / jnp.maximum(recall + precision, 1e-6), words.sum(-1)


def rewarded(arm, embedding, question, tokens):
    related, long, repeated, branching = arm
    _, shown, answer, open_ended = question
    words = truncate_at(tokens, completion_mask(tokens, EOS), EOS)
    response = losses.pooled_embedding(embedding[tokens], words)
    of_query = losses.relevance(embedding[shown].mean(-2), response)
    factors = (related, of_query), (long, losses.length_incentive(words)), (repeated, distinct_ngrams(tokens, words))
    of_query, length, repetition = (jnp.where(used > 0, factor, 1.0) for used, factor in factors)
    kind = jnp.where(branching > 0, open_ended, 1.0)
    of_reference = losses.relevance(embedding[answer], response)
    return losses.regularised_relevance_reward(of_query, of_reference, length, repetition, kind)


@jax.jit
@jax.vmap
def trained(key):
    """F1 on open questions, on the others, and words ``[seeds, 1 + ARMS]``, the clone first."""
    embed_key, init_key, clone_key, key, test_key, ask_key = jax.random.split(key, 6)
    topic_key, own_key = jax.random.split(embed_key)
    direction = jax.random.orthogonal(topic_key, DIM)[:TOPICS] * 3.5**0.5
    own = 0.15 * jax.random.normal(own_key, (VOCABULARY, DIM))
    embedding = own.at[:WORDS].add(jnp.repeat(direction, EACH, axis=0))
    start = mlp(init_key, (WORDS + 1 + 2 * VOCABULARY + 1, 64, VOCABULARY))

    def cloning(params, keys):
        ask, say = jax.random.split(keys[0])
        question = asked(ask, BATCH)
        tokens = human(say, question)
        return -token_logprobs(logits(params, question, tokens), tokens, completion_mask(tokens, EOS)).sum(-1).mean()

    rows = jax.random.split(clone_key, 4 * CLONING)  # a row is a key, whose batch is made when it is drawn
    clone = fit(clone_key, start, cloning, rows, CLONING, 1, rate=RATE)

    def arm(setting):
        def loss(params, keys):
            ask, say = jax.random.split(keys[0])
            question = asked(ask, BATCH)
            tokens = jax.lax.stop_gradient(answered(say, params, question))
            reward, mask = rewarded(setting, embedding, question, tokens), completion_mask(tokens, EOS)
            advantage = sum(losses.whitened(reward[None], kind[None])[0] for kind in (question[3], 1.0 - question[3]))
            now, before = logits(params, question, tokens), logits(clone, question, tokens)
            log_prob = token_logprobs(now, tokens, mask).sum(-1)
            divergence = (mask * losses.categorical_kl(now, before)).sum(-1)
            return (losses.policy_gradient_loss(log_prob, advantage) + COEFFICIENT * divergence).mean()

        return fit(key, clone, loss, jax.random.split(key, 4 * UPDATES), UPDATES, 1, rate=RATE)

    policies = jax.vmap(arm)(jnp.array(list(ARMS.values())))
    policies = jax.tree.map(lambda first, others: jnp.concatenate([first[None], others]), clone, policies)
    question = asked(ask_key, FRESH)
    scores, words = jax.vmap(lambda policy: gold(question, answered(test_key, policy, question)))(policies)
    free = question[3]
    return (scores * free).sum(-1) / free.sum(), (scores * (1 - free)).sum(-1) / (1 - free).sum(), words.mean(-1)


def run(seeds, scale, say):
    free, single, words = (np.asarray(part) for part in trained(keys(seeds)))
    for column, arm in enumerate(("clone", *ARMS)):
        means = [part[:, column].mean() for part in (free, single, words)]
        say("{}: open questions {:.3f}, one right word {:.3f}; {:.1f} words".format(arm, *means))
    return {arm: (0.5 * (free + single))[:, column].tolist() for column, arm in enumerate(("clone", *ARMS))}
