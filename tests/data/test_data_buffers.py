import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.data import buffers
from jaxrl_reg.errors import UserError
from jaxrl_reg.types import Transition


def transition(reward):
    """A transition whose every field follows from ``reward``, of any leading shape."""
    reward = jnp.asarray(reward, jnp.float32)
    wide = jnp.stack([reward, -reward], axis=-1)
    return Transition(wide, wide[..., :1], reward, jnp.ones_like(reward), wide + 0.5, extras={"id": reward.astype(int)})


EXAMPLE = transition(0.0)
add = jax.jit(buffers.add)


@pytest.mark.parametrize(("capacity", "size"), [(7, 1), (7, 3), (7, 11), (8, 4)])
def test_ring_against_a_list(capacity, size):
    buffer = buffers.init(capacity, EXAMPLE)
    assert buffer.capacity == capacity
    written: list[float] = []
    for batch in range(6):
        values = [1.0 + batch * size + k for k in range(size)]
        buffer = add(buffer, transition(values))
        written += values
        kept = written[-capacity:]
        assert int(buffer.size) == len(kept)
        assert int(buffer.position) == len(written) % capacity
        valid = np.asarray(buffer.rows.reward[: len(kept)])
        np.testing.assert_array_equal(np.sort(valid), kept)
        if len(kept) == capacity:
            np.testing.assert_array_equal(np.roll(valid, -int(buffer.position)), kept)  # oldest first
        np.testing.assert_array_equal(buffer.rows.observation[: len(kept), 1], -valid)
        np.testing.assert_array_equal(buffer.rows.extras["id"][: len(kept)], valid.astype(int))


def test_no_row_is_written_twice_in_one_scatter():
    # Which write wins is undefined; the CPU happens to keep the last, so this looks at the program.
    program = jax.make_jaxpr(buffers.add)(buffers.init(7, EXAMPLE), transition(np.arange(11.0)))
    updates = [eqn.invars[2].aval.shape[0] for eqn in program.jaxpr.eqns if eqn.primitive.name == "scatter"]
    assert updates == [7] * len(jax.tree.leaves(EXAMPLE))


def test_a_trajectory_is_added_in_order_of_time():
    grid = np.arange(1.0, 13.0).reshape(4, 3)  # [T, E]
    whole = add(buffers.init(8, EXAMPLE), transition(grid))
    step = buffers.init(8, EXAMPLE)
    for row in grid:
        step = add(step, transition(row))
    np.testing.assert_array_equal(np.roll(whole.rows.reward, -int(whole.position)), np.arange(5.0, 13.0))
    np.testing.assert_array_equal(
        np.roll(whole.rows.reward, -int(whole.position)), np.roll(step.rows.reward, -int(step.position))
    )


def test_samples_come_from_valid_rows_only_and_evenly():
    sample = jax.jit(buffers.sample, static_argnums=2)
    buffer = add(buffers.init(10, EXAMPLE), transition([1.0, 2.0, 3.0]))
    batch = sample(buffer, jax.random.key(0), 600)
    values, counts = np.unique(batch.reward, return_counts=True)
    np.testing.assert_array_equal(values, [1, 2, 3])
    assert np.abs(counts - 200).max() < 5 * np.sqrt(600 * 2 / 9)
    np.testing.assert_array_equal(batch.observation[:, 0], batch.reward)
    np.testing.assert_array_equal(batch.next_observation[:, 0], batch.reward + 0.5)
    full = add(buffer, transition(np.arange(4.0, 16.0)))
    np.testing.assert_array_equal(np.unique(sample(full, jax.random.key(1), 600).reward), np.arange(6.0, 16.0))
    empty = sample(buffers.init(10, EXAMPLE), jax.random.key(0), 4)
    np.testing.assert_array_equal(empty.reward, np.zeros(4))


def test_inside_a_scan_vmapped_and_donated():
    def run(key):
        def body(buffer, index):
            buffer = buffers.add(buffer, transition(index * 2.0 + jnp.arange(2.0)))
            return buffer, buffers.sample(buffer, jax.random.fold_in(key, index), 4).reward

        return jax.lax.scan(body, buffers.init(5, EXAMPLE), jnp.arange(6))

    buffer, drawn = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(np.sort(buffer.rows.reward, axis=1), np.tile(np.arange(7.0, 12.0), (3, 1)))
    assert (np.asarray(drawn[:, 0]) <= 1).all()
    donated = jax.jit(buffers.add, donate_argnums=0)
    before = buffers.init(5, EXAMPLE)
    after = donated(before, transition([1.0, 2.0]))
    assert before.rows.reward.is_deleted()
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.weak_type), buffers.init(5, EXAMPLE)
    )


def test_wrong_batches_are_refused():
    buffer = buffers.init(4, EXAMPLE)
    with pytest.raises(UserError, match=r"\.observation is float32\[2, 3\], expected float32\[batch, 2\]"):
        buffers.add(buffer, Transition(jnp.zeros((2, 3)), *([jnp.zeros((2, 1))] * 4), extras={"id": jnp.zeros(2, int)}))
    with pytest.raises(UserError, match=r"\.observation is float32\[2\]"):
        buffers.add(buffer, transition(1.0))
    with pytest.raises(UserError, match=r"\.reward is float32\[2, 2, 2\], expected float32\[batch\]"):
        buffers.add(buffer, dataclasses.replace(transition([1.0]), reward=jnp.zeros((2, 2, 2))))
    with pytest.raises(UserError, match=r"different numbers of rows, \[1, 2\]"):
        buffers.add(buffer, dataclasses.replace(transition([1.0]), reward=jnp.zeros(2)))
    with pytest.raises(UserError, match="other fields"):
        buffers.add(buffer, Transition(*[jnp.zeros((2, 2))] * 5))
    with pytest.raises(UserError, match="capacity"):
        buffers.init(0, EXAMPLE)


def streams(length: int, ends: dict[int, float]):
    """``length`` steps of two environments ``[T, 2]``; ``ends``: step -> discount there (0 terminates, 1 cuts).

    The second environment is the first, one step later. Rewards are the steps, 100 more in the second.
    """
    time = np.arange(length)[:, None] - np.array([[0, 1]])
    last = np.isin(time, list(ends)).astype(np.float32)
    discount = np.ones_like(last)
    for step, value in ends.items():
        discount[time == step] = value
    rows = transition(np.where(time >= 0, time + np.array([0, 100]), -1.0))
    return dataclasses.replace(rows, discount=jnp.asarray(discount), last=jnp.asarray(last))


@pytest.mark.parametrize("capacity", [40, 14])
def test_rows_know_the_action_that_followed_in_their_own_environment(capacity):
    rows = streams(10, {3: 0.0, 6: 1.0})
    buffer = add(buffers.init(capacity, dataclasses.replace(EXAMPLE, last=jnp.float32(0))), rows)
    batch = jax.jit(buffers.following, static_argnums=(2, 3))(buffer, jax.random.key(0), 400, 2)
    reward, end = np.asarray(batch.reward), np.asarray(batch.last) > 0
    seen = np.sort(np.unique(reward))
    first = 0 if capacity == 40 else 3  # of 14 rows the last seven steps of each are there
    wanted = np.arange(first, 9), np.arange(max(first - 1, 0), 8) + 100
    assert set(seen) - {-1.0} == set(np.concatenate(wanted)), "all but the newest step of each"
    inside = ~end & (reward >= 0)
    np.testing.assert_array_equal(batch.next_action[:, 0][inside], reward[inside] + 1)
    np.testing.assert_array_equal(batch.next_action[:, 0][end], batch.action[:, 0][end])
    np.testing.assert_array_equal(batch.action[:, 0], reward)


def test_one_step_in_the_buffer_is_better_than_none_and_too_small_a_buffer_is_refused():
    example = dataclasses.replace(EXAMPLE, last=jnp.float32(0))
    batch = buffers.following(add(buffers.init(8, example), streams(1, {})), jax.random.key(0), 20, 2)
    np.testing.assert_array_equal(batch.next_action, batch.action)
    with pytest.raises(UserError, match="a replay of 2 rows holds no step of 2 environments"):
        buffers.following(buffers.init(2, example), jax.random.key(0), 4, 2)


@pytest.mark.parametrize("length", [8, 3])
def test_rewards_ahead_stop_at_the_end_and_are_unknown_where_there_is_none_yet(length):
    rows = streams(10, {3: 0.0, 6: 1.0})  # a termination, a time-out, and an episode under way
    buffer = add(buffers.init(16, dataclasses.replace(EXAMPLE, last=jnp.float32(0))), rows)
    batch = jax.jit(buffers.ahead, static_argnums=(2, 3, 4))(buffer, jax.random.key(0), 400, 2, length)
    extras = {name: np.asarray(value) for name, value in batch.extras.items()}
    seen = set()
    for i, reward in enumerate(np.asarray(batch.reward)):
        offset = 100 if reward >= 50 else 0
        step = int(reward) - offset
        seen.add((step, offset))
        ends = [end for end in (3, 6) if end >= step]
        upto = min(ends[0] if ends else 9 - (offset > 0), step + length - 1)
        known = bool(ends) and ends[0] - step < length
        np.testing.assert_array_equal(extras["reward_ahead"][i][: upto - step + 1], np.arange(step, upto + 1) + offset)
        assert not extras["reward_ahead"][i][upto - step + 1 :].any()
        assert extras["steps_ahead"][i] == upto - step + 1
        assert extras["known"][i] == known
        assert extras["cut_reward"][i] == (6 + offset if known and ends[0] == 6 else 0)
    assert {step for step, _ in seen} >= set(range(2, 9)), "what stands at the ring's seam is drawn too"
