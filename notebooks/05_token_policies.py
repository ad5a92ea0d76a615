# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jaxrl-reg/jaxrl_reg/blob/main/notebooks/05_token_policies.ipynb)
#
# # Token policies with verified rewards
#
# The losses of GRPO, GSPO and CISPO are functions of log-probabilities, advantages and masks: first inside a plain
# Flax and optax loop that uses nothing else of this package, then the same by a population of seeds and settings.

# %%
# On Colab: install the package, and pin the jax and numpy that are already there so that nothing moves them.
import importlib.metadata
import os
import subprocess
import sys

if "google.colab" in sys.modules:
    there = [p for p in ("jax", "jaxlib", "numpy") if any(True for _ in importlib.metadata.distributions(name=p))]
    pins = [f"{p}=={importlib.metadata.version(p)}" for p in there]
    with open("pins.txt", "w") as file:
        file.write("\n".join(pins))
    source = "jaxrl-reg[all] @ git+https://github.com/jaxrl-reg/jaxrl_reg"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "pins.txt", source])

SMALL = os.environ.get("JAXRL_REG_SMALL") == "1"  # tiny sizes, for the tests

# %%
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxrl_reg.losses import cispo_loss, group_advantage, gspo_loss, masked_mean, ppo_clip_loss, sequence_mean

# %% [markdown]
# ## Your loop, our losses
#
# The question is a number q, the answer any two numbers that add up to q modulo 7: two tokens. The policy is a small
# Flax module that sees q and the token before. Of each question eight answers are sampled and verified; the group is
# its own baseline. A loss is per token `[B, G, T]`, and you take the mean; two passes over each batch, so that ratios
# leave 1 and the three losses differ.

# %%
N, B, G, PASSES = 7, 16, 8, 2
UPDATES, RATE = (10 if SMALL else 150), 0.01


class Policy(nn.Module):
    @nn.compact
    def __call__(self, question, before):  # [...] and [...] -> logits [..., N]; N stands for "nothing before"
        x = jnp.concatenate([jax.nn.one_hot(question, N), jax.nn.one_hot(before, N + 1)], axis=-1)
        return nn.Dense(N)(nn.relu(nn.Dense(64)(x)))


policy = Policy()
optimiser = optax.adam(RATE)


def log_prob(params, question, answer):  # [B, G] and [B, G, 2] -> [B, G, 2]
    before = jnp.stack([jnp.full_like(question, N), answer[..., 0]], axis=-1)
    logits = policy.apply(params, jnp.broadcast_to(question[..., None], before.shape), before)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), answer[..., None], axis=-1)[..., 0]


def grpo(lp, old, advantage, mask):
    return sequence_mean(ppo_clip_loss(lp, old, advantage[..., None] * mask, 0.2, 0.28), mask)


def gspo(lp, old, advantage, mask):
    return sequence_mean(gspo_loss(lp, old, advantage, mask, 0.2, 0.28), mask)


def cispo(lp, old, advantage, mask):
    return masked_mean(cispo_loss(lp, old, advantage[..., None] * mask, 0.2, 0.28), mask)


@jax.jit
def sampled(params, key):  # a batch: what the losses need to know of it
    question_key, *token_keys = jax.random.split(key, 3)
    question = jnp.repeat(jax.random.randint(question_key, (B, 1), 0, N), G, axis=1)
    tokens = [jnp.full_like(question, N)]
    for token_key in token_keys:
        tokens.append(jax.random.categorical(token_key, policy.apply(params, question, tokens[-1])))
    answer = jnp.stack(tokens[1:], axis=-1)
    reward = (answer.sum(-1) % N == question).astype(jnp.float32)
    return question, answer, log_prob(params, question, answer), group_advantage(reward), reward.mean()


@functools.partial(jax.jit, static_argnames="loss")
def step(params, moments, question, answer, old, advantage, loss):
    mask = jnp.ones(answer.shape)  # every answer has two tokens
    slope = jax.grad(lambda p: loss(log_prob(p, question, answer), old, advantage, mask))(params)
    change, moments = optimiser.update(slope, moments)
    return optax.apply_updates(params, change), moments


init_key, train_key = jax.random.split(jax.random.key(0))
start = policy.init(init_key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
rewards = {}
for loss in (grpo, gspo, cispo):
    params, moments, right = start, optimiser.init(start), []
    for key in jax.random.split(train_key, UPDATES):
        *batch, share = sampled(params, key)
        for _ in range(PASSES):
            params, moments = step(params, moments, *batch, loss)
        right.append(share)
    rewards[loss.__name__] = np.array(right)

for name, right in rewards.items():
    plt.plot(right, label=name)
    print(f"{name}: {right[:5].mean():.2f} right in the first five updates, {right[-5:].mean():.2f} in the last")
    assert SMALL or right[-5:].mean() > 0.9
plt.xlabel("updates")
plt.ylabel("share of right answers")
plt.legend()
plt.show()

# %% [markdown]
# ## The same by a population
#
# `tokens/split` asks the same question, with an end token after the answer; a small transformer is warmed up on a few
# right answers, sampled, verified and updated in one compiled program, for every seed and every setting side by side.
# `surrogate` is static and compiles anew; `clip_high` is traced, so a grid over it does not.

# %%
import jaxrl_reg as jr
from jaxrl_reg.agents.tokens import grpo as agents

task = jr.envs.make("tokens/split", times=1)
SEEDS, SEGMENTS, UPDATES, WARM_UP = (1, 2, 2, 0) if SMALL else (3, 6, 150, 60)
SIZES = {"hidden": (8,), "heads": 1} if SMALL else {"hidden": (32,), "heads": 4}

for surrogate in ("ppo",) if SMALL else ("ppo", "gspo", "cispo"):
    agent = agents.make(agents.Config(surrogate=surrogate, epochs=PASSES, kl="none", **SIZES), task.spec)
    run = jr.loops.rlvr(agent, task, updates=UPDATES, prompts=B, group=G, segments=SEGMENTS, warm_up=WARM_UP)
    hypers = jr.population.grid(agents.Hyper(learning_rate=2e-3), clip_high=[0.2, 0.28])
    result = jr.population.sweep(run, seeds=SEEDS, hypers=hypers)
    right = result.metrics["train/return"]  # (settings, seeds, segments)
    for setting, clip in enumerate(hypers.clip_high):
        print(f"{surrogate}, clip_high {float(clip):.2f}: right answers {right[setting, :, -1].mean():.2f}")
        plt.plot(
            run.updates_per_segment * (1 + jnp.arange(SEGMENTS)), right[setting].mean(0), label=f"{surrogate} {clip}"
        )
plt.xlabel("updates")
plt.ylabel("share of right answers")
plt.legend()
plt.show()

# %% [markdown]
# What a member answers, in words: a question, what is answered, and how that is judged.


# %%
@jax.jit
def asked(state, key):
    prompt = jax.vmap(task.draw)(jax.random.split(key, 4))
    answer = agent.act(state, prompt, result.hyper(0), key, False)
    return prompt, answer, jax.vmap(task.verify)(prompt, answer)


for prompt, answer, right in zip(*jax.device_get(asked(result.member(0, 0), jax.random.key(1))), strict=True):
    print(f"{task.decode(prompt)} {task.decode(answer)}: {right:.0f}")
