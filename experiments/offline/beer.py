"""BEER while a critic evaluates a fixed policy of the pendulum, whose values are known to any precision.

The data cover states and actions, the target bootstraps from the policy, and truth is the return of rolling it out.
Only large TD errors can violate the bound, so it is violated early, while values are not learned yet.

How far a rank is pushed differs tenfold between seeds, so it is judged as a logarithm, over the last quarter of
training, and what is less than 0.05 counts as 0.05: as a plain difference at the end one seed in five decided, and the
interval began at 0.0005. A beta of 0.1 or 0.001 pushes the rank less still (first revision).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.arms import over_devices
from experiments.harness import Claim, robust
from jaxrl_reg import envs, losses, networks
from jaxrl_reg.agents import _beer
from jaxrl_reg.envs import pendulum
from jaxrl_reg.transforms import polyak

CLAIM = Claim(
    statement="BEER adapts: a critic that knows its values meets Bellman's bound by itself and is then left alone, so "
    "its features end near the effective rank that they have without a penalty; with the same beta on every cosine, or "
    "on every one above 0.9, the rank is pushed at least a quarter further away. Not so here: that BEER makes pairs "
    "above the bound rarer during training, or ends with a smaller error than no penalty",
    paper="https://arxiv.org/abs/2404.12754",
    method="BEER",
    baselines=("every cosine penalised",),
    ablation="bound fixed at 0.9",
    metric="log10 of |effective rank - effective rank without penalty|, last quarter of training (pendulum)",
    systems=(28,),
    higher_is_better=False,
    margin=0.1,
    seeds=15,
    revision=2,
    chosen="seeds 0 to 3: over bound fixed at 0.9 0.804, sd 0.49; power 0.999",
)
ARMS = {  # beta, and the bound on the cosine where it is not Bellman's
    "no penalty": (0.0, 2.0),
    "BEER": (1.0, 2.0),
    "every cosine penalised": (1.0, -1.0),
    "bound fixed at 0.9": (1.0, 0.9),
}
NOTHING = 0.05  # ranks nearer to each other than this are the same
GAMMA, RATE, TAU, BATCH = 0.95, 3e-4, 0.02, 256
EPISODES, STEPS, TESTS, HORIZON, PARTS = 100, 200, 512, 300, 12
SIZES = {"small": ((64, 64), 6_000), "full": ((256, 256), 60_000)}  # hidden widths, updates
WORST = -16.2736044  # the lowest reward of the pendulum; rewards are scaled to [0, 1]


def policy(observation):
    """Pump energy, and near the top hold; ``[..., 3] -> [..., 1]``."""
    cosine, sine, speed = observation[..., 0], observation[..., 1], observation[..., 2]
    missing = pendulum.GRAVITY / 2.0 * (1.0 - cosine) - jnp.square(speed) / 6.0
    near = jax.nn.sigmoid(20.0 * (cosine - 0.9))
    action = near * (-4.0 * sine - speed) + (1.0 - near) * jnp.tanh(0.5 * missing * speed)
    return jnp.clip(action, -1.0, 1.0)[..., None]


def experience(key):
    """``(physics, observation, action, reward, next observation)``, flat: half of the actions are uniform."""
    env = envs.make("pendulum", episode_length=STEPS)

    def step(state, key):
        which, what = jax.random.split(key)
        uniform = jax.random.uniform(what, (1,), minval=-1.0, maxval=1.0)
        action = jnp.where(jax.random.bernoulli(which), uniform, policy(state.observation))
        following = env.step(state, action)
        reward = 1.0 - following.reward / WORST
        return following, (state.inner, state.observation, action, reward, following.final_observation)

    def episode(key):
        start, *keys = jax.random.split(key, STEPS + 1)
        return jax.lax.scan(step, env.reset(start), jnp.stack(keys))[1]

    rows = jax.vmap(episode)(jax.random.split(key, EPISODES))
    return jax.tree.map(lambda x: x.reshape(EPISODES * STEPS, *x.shape[2:]), rows)


def returns(physics, action):
    """``Q [B]`` of actions ``[B, 1]``: the pendulum and the policy are deterministic."""
    env = envs.make("pendulum", episode_length=HORIZON + 1)
    start = env.reset(jax.random.key(0))

    def one(inner, action):
        def step(carry, power):
            state, action = carry
            state = env.step(state, action)
            return (state, policy(state.observation)), GAMMA**power * (1.0 - state.reward / WORST)

        state = dataclasses.replace(start, inner=inner)
        return jax.lax.scan(step, (state, action), jnp.arange(HORIZON, dtype=jnp.float32))[1].sum()

    return jax.vmap(one)(physics, action)


def trained(members, hidden, updates):
    """What is measured in each part of training, ``[members, PARTS]``; members ``(seed, beta, fixed bound)``."""

    def member(chosen):
        seed, beta, fixed = chosen
        data_key, init_key, test_key, key = jax.random.split(jax.random.key(seed), 4)
        physics, *rows = experience(data_key)
        tests = jax.random.choice(test_key, len(rows[2]), (TESTS,), replace=False)
        truth = returns(*jax.tree.map(lambda x: x[tests], (physics, rows[1])))
        q = networks.q_network(envs.make("pendulum").spec, hidden, n_critics=1)
        adam = optax.adam(RATE)

        def bootstrap(target, batch):
            _, _, reward, following = (x[batch] for x in rows)
            next_q, features = q.apply(target, following, policy(following), features=True)
            held = _beer.Following(features, reward[None], jnp.ones(len(reward)), GAMMA)
            return reward + GAMMA * next_q, held

        def update(carry, key):
            params, target, opt_state = carry
            batch = jax.random.randint(key, (BATCH,), 0, len(rows[2]))
            y, held = bootstrap(target, batch)

            def loss(params):
                values, features = q.apply(params, rows[0][batch], rows[1][batch], features=True)
                bound = jnp.where(fixed > 1, _beer.bound(params, features, held), fixed)
                excess = losses.beer_loss(features, held.features, bound, jnp.ones_like(bound))
                return losses.squared_td_error(values, y).mean() + beta * excess.mean(), features

            gradients, features = jax.grad(loss, has_aux=True)(params)
            cosine = losses.feature_cosine(features, held.features)[0]
            above = losses.violation_fraction(cosine, _beer.bound(params, features, held)[0], held.discount)
            moves, opt_state = adam.update(gradients, opt_state)
            params = optax.apply_updates(params, moves)
            return (params, polyak(params, target, TAU), opt_state), (above, cosine.mean())

        def part(carry, keys):
            carry, (above, cosine) = jax.lax.scan(update, carry, keys)
            values, features = q.apply(carry[0], rows[0][tests], rows[1][tests], features=True)
            return carry, {
                "violations": above.mean(),
                "cosine": cosine.mean(),
                "error": jnp.square(values[0] - truth).mean() / truth.var(),
                "dormant": losses.dormant_fraction(features[0]),
                "features": features[0],
            }

        params = q.init(init_key)
        keys = jax.random.split(key, (PARTS, updates // PARTS))
        return jax.lax.scan(part, (params, params, adam.init(params)), keys)[1]

    found = over_devices(member, members)
    # Singular values come from LAPACK, which members on two devices at once may wait for for ever.
    features = found.pop("features")
    for name, measure in {"srank": losses.srank, "effective rank": losses.effective_rank}.items():
        found[name] = np.asarray(jax.jit(lambda x, measure=measure: jax.lax.map(jax.vmap(measure), x))(features))
    return found


def run(seeds, scale, say, out=None):
    pairs = [(seed, *ARMS[arm]) for arm in ARMS for seed in seeds]
    measured = trained(tuple(map(jnp.asarray, zip(*pairs, strict=True))), *SIZES[scale])
    found = jax.tree.map(lambda x: x.reshape(len(ARMS), len(seeds), PARTS), measured)
    for i, arm in enumerate(ARMS):
        end = {name: points[i, :, -1].mean() for name, points in found.items()}
        say(
            f"{arm}: violations {found['violations'][i].mean():.3f}; at the end {end['violations']:.3f}, error "
            f"{end['error']:.4f}, cosine {end['cosine']:.3f}, srank {end['srank']:.1f}, effective rank "
            f"{end['effective rank']:.1f}, dormant {end['dormant']:.2f}"
        )
    if out is not None:
        draw(found, list(ARMS), SIZES[scale][1], out / "beer_training.png")
    ranks = found["effective rank"][..., -(PARTS // 4) :].mean(axis=-1)
    off = robust.log_share(np.abs(ranks - ranks[list(ARMS).index("no penalty")]), 1.0, NOTHING)
    shown = {f"effective rank, {arm}": ranks[i].tolist() for i, arm in enumerate(ARMS)}
    return {arm: off[i].tolist() for i, arm in enumerate(ARMS) if arm != "no penalty"} | shown


def draw(found, order, updates, path):
    """What is measured, over training, mean of the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {
        "violations": "pairs above the bound",
        "error": "error / variance of returns",
        "effective rank": "effective rank",
        "dormant": "dormant units",
    }
    fig, panels = plt.subplots(1, len(shown), figsize=(13, 3.2), layout="constrained")
    time = (np.arange(PARTS) + 0.5) * updates / PARTS
    for axes, (name, label) in zip(panels, shown.items(), strict=True):
        for i, arm in enumerate(order):
            axes.plot(time, found[name][i].mean(axis=0), lw=2 if arm == CLAIM.method else 1, label=arm)
        axes.set_title(label)
        axes.set_xlabel("updates")
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].set_yscale("log")
    panels[0].legend(frameon=False, fontsize=8)
    fig.savefig(path, dpi=130)
    plt.close(fig)
