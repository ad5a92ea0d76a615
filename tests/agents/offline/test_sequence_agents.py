"""Decision Transformer and Decision Mamba: what is asked for is got, padding teaches nothing, labels are refined."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, data, losses
from jaxrl_reg.agents.offline import _sequence
from jaxrl_reg.contract.subject import quick
from jaxrl_reg.data import samplers
from jaxrl_reg.errors import UserError
from jaxrl_reg.loops import offline
from jaxrl_reg.networks import hashed_memory
from jaxrl_reg.networks.sequence import decision_mamba, decision_transformer
from jaxrl_reg.types import Spec, as_float32, policy_of

NAMES = ("decision_mamba", "decision_transformer")
SPEC = Spec(2, 1, 6)
CONFIG = {"hidden": (8,), "context": 4, "dropout": 0.0}
MAMBA = {**CONFIG, "state_size": 2}


def steered(episodes=200):
    """Episodes of 1 to 4 steps; each step's action is 0.5 or -0.5 for the whole episode, and is the reward."""
    rng = np.random.default_rng(0)
    length = rng.integers(1, 5, size=episodes)
    action = np.repeat(rng.choice([-0.5, 0.5], size=episodes), length)
    end = np.zeros(len(action))
    end[np.cumsum(length) - 1] = 1
    observation = rng.normal(size=(len(action), 2))
    return data.from_arrays(observation, action[:, None], action, 0 * end, end, observation, name="steered")


@functools.cache
def trained(name):
    """The agent, its hyperparameters, and a state after 300 updates."""
    agent = agents.make(name, SPEC, **(MAMBA if name == "decision_mamba" else CONFIG))
    hyper = as_float32(agents.load(name).Hyper(learning_rate=1e-2, warm_up=10.0))
    run = offline(agent, batch_size=64, updates=300)
    state, history = quick(run)(jax.random.key(0), hyper, steered())
    return agent, hyper, state, history


def draw(agent):
    return quick(lambda dataset, key: agent.sample(dataset, key, 64))(steered(), jax.random.key(3))


@pytest.mark.parametrize("name", NAMES)
def test_the_action_follows_the_return_asked_for(name):
    agent, hyper, state, _ = trained(name)
    dataset = steered()
    returns = data.episode_returns(dataset)
    np.testing.assert_allclose(state.returns, [returns.mean(), returns.max(), 2.0], rtol=1e-5)
    observation = jax.random.normal(jax.random.key(1), (64, 2))

    @quick
    def first(asked):
        aim = (asked - state.returns.mean) / (state.returns.best - state.returns.mean)
        changed = dataclasses.replace(hyper, target_return=aim)
        return agent.act(state, observation, changed, jax.random.key(0), False)

    for asked in (-1.5, 1.5):
        np.testing.assert_allclose(first(jnp.float32(asked)).mean(), np.sign(asked) * 0.5, atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_taken_off_what_is_asked_for(name):
    agent, hyper, state, _ = trained(name)
    policy = policy_of(agent, state, dataclasses.replace(hyper, target_return=jnp.float32(0.5)))
    memory = policy.start((3,))
    asked = (state.returns.mean + 0.5 * (state.returns.best - state.returns.mean)) / 2.0
    np.testing.assert_allclose(memory.togo, np.full(3, asked), rtol=1e-6)
    step = quick(policy.step)
    for reward in (np.zeros(3), np.array([1.0, -1.0, 0.0])):
        _, memory = step(memory, jnp.zeros((3, 2)), jnp.float32(reward), jax.random.key(0))
    np.testing.assert_allclose(memory.togo, asked - np.array([0.5, -0.5, 0.0]), atol=1e-6)
    np.testing.assert_array_equal(memory.time, 2)


@pytest.mark.parametrize("name", NAMES)
def test_padding_teaches_nothing(name):
    agent, hyper, state, _ = trained(name)
    batch = draw(agent)
    mask = batch.extras["mask"]
    assert batch.observation.shape == (16, 4, 2)
    assert 0 < mask.mean() < 1
    assert (jnp.diff(mask, axis=1) <= 0).all()  # real steps first: none of them comes after padding
    dirt = 10.0 * (1.0 - mask)
    dirty = dataclasses.replace(
        batch,
        observation=batch.observation + dirt[..., None],
        action=batch.action - dirt[..., None],
        next_observation=batch.next_observation + dirt[..., None],
        reward=batch.reward + dirt,
        extras={**batch.extras, "return_to_go": batch.extras["return_to_go"] + dirt},
    )
    update = quick(agent.update)
    clean, spoilt = (update(state, b, hyper, jax.random.key(0), jnp.int32(5)) for b in (batch, dirty))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(spoilt), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_labels_are_refined_by_the_slow_copy_up_to_the_cap():
    agent, hyper, state, _ = trained("decision_mamba")
    agent = agents.make("decision_mamba", SPEC, **MAMBA, ramp_steps=10)
    model = decision_mamba(SPEC, (8,), 4, state_size=2, dropout=0.0)
    batch = draw(agent)
    inputs = _sequence.inputs(batch)

    @quick
    def run(final_weight, step):
        changed = dataclasses.replace(hyper, final_weight=final_weight)
        metrics = agent.update(state, batch, changed, jax.random.key(0), step)[1]
        found = model.apply(state.model.params, *inputs)
        ahead = found.next_observation, found.next_return
        return metrics, found.action, model.apply(state.target_model, *inputs).action, ahead

    def huber(error):
        return np.where(np.abs(error) < 1, 0.5 * np.square(error), np.abs(error) - 0.5)

    left = inputs[0] - batch.reward / batch.extras["return_scale"]  # what is to come after a step
    for final_weight, step, beta in ((0.0, 10, 0.0), (0.8, 2, 0.16), (0.4, 99, 0.4), (0.8, 10, 0.5)):
        metrics, found, past, (following, promised) = run(jnp.float32(final_weight), jnp.int32(step))
        errors = {"observation_loss": huber(following - batch.next_observation).mean(-1)}
        errors["return_loss"] = huber(promised - left)
        for name, error in errors.items():
            wanted = losses.masked_mean(jnp.asarray(error), batch.extras["mask"])
            np.testing.assert_allclose(metrics[name], wanted, rtol=1e-4)
        label = (1.0 - beta) * batch.action + beta * past
        for name, aim in (("actor_loss", label), ("action_error", batch.action)):
            wanted = losses.masked_mean(jnp.square(found - aim)[..., 0], batch.extras["mask"])
            np.testing.assert_allclose(metrics[name], wanted, rtol=1e-4)
    assert np.abs(past - found).max() > 1e-3  # the slow copy is another model


def test_the_optimiser_warms_up_clips_and_decays_matrices_only():
    hyper = as_float32(_sequence.Hyper(learning_rate=1.0, warm_up=10.0, weight_decay=0.5))
    params = {"layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "embedding": jnp.ones((3, 2))}

    @quick
    def run(gradient, step):
        optimiser = _sequence.optimiser(hyper, step)
        return optimiser.update(jax.tree.map(lambda leaf: gradient * leaf, params), optimiser.init(params), params)

    for step, size in ((50, 0.5), (0, 0.05)):
        updates, _ = run(jnp.float32(0.0), jnp.int32(step))
        np.testing.assert_allclose(updates["layer"]["kernel"], -size)
        assert not np.any(updates["layer"]["bias"])
        assert not np.any(updates["embedding"])
    _, state = run(jnp.float32(100.0), jnp.int32(50))
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 0]
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in moments[: len(jax.tree.leaves(params))]))
    np.testing.assert_allclose(norm, 0.1 * 0.25, rtol=1e-5)  # the first moment of a gradient of the largest norm


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_do_not_fit_are_refused(name):
    with pytest.raises(UserError, match="hidden=8,4: a sequence model"):
        agents.make(name, SPEC, hidden=(8, 4))


def test_a_memory_is_read_while_acting_as_it_was_in_training():
    """Step by step through a table of signatures, and at once by the same signatures without a table."""
    model = decision_transformer(SPEC, (8,), 3, dropout=0.0, memory=2)
    past, steps = 2, 3

    @quick
    def both(key):
        keys = jax.random.split(key, 4)
        params = model.init(keys[0])
        seen = jax.random.normal(keys[1], (past + steps, 2))
        seen = seen.at[past + 1].set(seen[0])  # what was seen before the window is met again
        done = jax.random.uniform(keys[2], (past + steps, 1), minval=-1.0)
        togo, time = jnp.linspace(1.0, 0.0, past + steps), jnp.arange(past + steps)
        carry, taken = model.start(()), []
        for t in range(past + steps):
            action, carry = model.step(params, carry, togo[t], seen[t], time[t], lambda _, t=t: done[t])
            taken.append(action)
        recall = hashed_memory.recall(2, 8, 16, 1)
        names = seen @ params["memory_keys"]["kernel"]
        reads = [
            hashed_memory.hashed_read(names[t], names[:t], recall.value(done[:t]), jnp.ones(t), recall.planes)
            for t in range(past, past + steps)
        ]
        window = (seen[past:], done[past:], (seen[:past], done[:past], jnp.ones(past)))
        expected = recall.expected(params["memory_keys"]["kernel"], *window)
        blind = recall.expected(params["memory_keys"]["kernel"], *window[:2], (*window[2][:2], jnp.zeros(past)))
        direct = [
            hashed_memory.expected_read(names[t], names[:t], recall.value(done[:t]), jnp.ones(t), 8)
            for t in range(past, past + steps)
        ]
        return carry[5], jnp.stack(reads), carry[6].sum(axis=1), recall.value(done), expected, jnp.stack(direct), blind

    found, reads, table, values, expected, direct, blind = both(jax.random.key(0))
    np.testing.assert_allclose(found, reads, atol=1e-6)
    assert abs(found[1]).max() > 0.5  # what was seen before the window was found
    np.testing.assert_allclose(table, np.broadcast_to(values.sum(axis=0), table.shape), atol=1e-5)
    np.testing.assert_allclose(expected, direct, atol=1e-6)  # what training reads is the mean over signatures
    assert np.abs(blind[0]).max() == 0.0  # without the rows before the window its first step finds nothing
    assert np.abs(np.asarray(expected[0])).max() > 0.5


def test_a_memory_finds_what_lies_before_the_window():
    """Episodes of 12 steps: the action of a situation is that of its first appearance, up to eleven steps ago."""
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(8, 8))
    order = np.concatenate([np.tile(np.arange(8), (300, 1)), rng.integers(0, 8, (300, 4))], axis=1)
    action = 0.8 * np.take_along_axis(rng.choice([-1.0, 1.0], size=(300, 8)), order, axis=1)
    shown = codes[order].reshape(-1, 8)
    end = np.zeros((300, 12))
    end[:, -1] = 1
    zero = np.zeros(3600)
    dataset = data.from_arrays(shown, action.reshape(-1, 1), zero, zero, end.ravel(), shown, name="met again")
    hyper = as_float32(agents.load("decision_transformer").Hyper(learning_rate=2e-2, warm_up=10.0))
    errors = {}
    for memory in (0, 4):
        config = {"hidden": (8,), "context": 1, "dropout": 0.0, "memory": memory}
        agent = agents.make("decision_transformer", Spec(8, 1, 12), **config)
        run = offline(agent, batch_size=128, updates=400, segments=4)
        state, history = quick(run)(jax.random.key(0), hyper, dataset)
        errors[memory] = float(history["actor_loss"][-1])
    assert errors[4] < 0.8 * errors[0]

    batch = quick(lambda d, key: samplers.windows_with_past(1, 5)(d, key, 64))(dataset, jax.random.key(3))
    step, real = np.asarray(batch.extras["step"][:, 0]), np.asarray(batch.extras["past_mask"])
    np.testing.assert_array_equal(real.sum(axis=1), np.minimum(step, 5))
    for t, rows, kept in zip(step, np.asarray(batch.extras["past_observation"]), real > 0, strict=True):
        known = [int(np.argmin(np.abs(codes - one).sum(-1))) for one in rows[kept]]
        if t <= 5:  # all there are
            assert sorted(known) == list(range(t))
        elif t <= 8:  # so far the codes came in turn: one out of each fifth of the steps before
            assert all(np.diff(known) >= 0)
            assert max(known) < t
            assert max(known) - min(known) >= t - 4
    bare = {name: value for name, value in batch.extras.items() if not name.startswith("past")}
    bare |= {f"return_{name}": jnp.float32(1.0) for name in ("mean", "best", "scale")} | {"return_to_go": batch.reward}
    with pytest.raises(UserError, match="windows_with_past"):
        agent.update(state, dataclasses.replace(batch, extras=bare), hyper, jax.random.key(0), 0)
