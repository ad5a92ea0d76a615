"""A2PR's four losses against NumPy, and the order in which their models move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import agents, networks
from jaxrl_reg.agents import a2pr
from jaxrl_reg.types import as_float32
from tests.agents import reference as ref

KEY = jax.random.key(5)
HIDDEN = {"critic_hidden": (8, 8, 8), "vae_hidden": (10, 10)}


@functools.cache
def programs(**config):
    agent = agents.make("a2pr", ref.SPEC, hidden=ref.HIDDEN, **HIDDEN, **config)
    return agent, jax.jit(agent.update)


def start(agent, hyper):
    """A fresh state whose values lie amid the critics', so that some actions are better and some are not."""
    state, batch = jax.jit(agent.init)(jax.random.key(0), hyper), ref.as64(ref.batch())
    params = state.value.params
    values = ref.forward(ref.as64(params), batch.observation)[0][:, 0]
    q = ref.q_values(ref.as64(state.td3.critic.params), batch.observation, batch.action)[0]
    last = {**params["Dense_3"], "bias": params["Dense_3"]["bias"] + np.median(q - values).astype(np.float32)}
    return state._replace(value=state.value._replace(params={**params, "Dense_3": last}))


def step(config=(), number=0, **hyper):
    """State before and after an update in which only the models with a learning rate given move, and its metrics."""
    agent, update = programs(**dict(config))
    rates = {f.name: 0.0 for f in dataclasses.fields(a2pr.Hyper) if f.name.endswith("learning_rate")}
    hyper = as_float32(a2pr.Hyper(**{**rates, **hyper}))
    before = start(agent, hyper)
    after, metrics = update(before, ref.batch(), hyper, KEY, jnp.int32(number))
    return ref.as64(before), ref.as64(after), ref.as64(metrics)


def autoencode(params, observation, action, key):
    out = ref.forward(params["encoder"], np.concatenate([observation, action], -1))[0]
    mean, log_std = out[:, :4], np.clip(out[:, 4:], -4, 15)  # latent: twice the two actions
    latent = mean + np.exp(log_std) * np.asarray(jax.random.normal(key, mean.shape), np.float64)
    return np.tanh(ref.forward(params["decoder"], np.concatenate([observation, latent], -1))[0]), mean, log_std


def losses_of(before, critic, alpha=2.5, mask=0.5, weight=1.0, kl=0.5, filtered=True):
    """The losses when the critics have just become ``critic`` and nothing else has moved."""
    batch, (smooth, encode, generate) = ref.as64(ref.batch()), jax.random.split(KEY, 3)
    noise = np.clip(0.2 * np.asarray(jax.random.normal(smooth, (ref.B, 2)), np.float64), -0.5, 0.5)
    next_action = np.tanh(ref.forward(before.td3.target_actor, batch.next_observation)[0]) + noise
    next_action = np.clip(next_action, -1, 1)
    bootstraps = [
        ref.q_values(c, batch.next_observation, next_action).min(0) for c in (before.td3.target_critic, critic)
    ]
    target = batch.reward + 0.99 * batch.discount * np.minimum(*bootstraps)
    v = ref.forward(before.value.params, batch.observation)[0][:, 0]
    data_q = ref.q_values(critic, batch.observation, batch.action)[0]
    better = data_q > v if filtered else np.ones(ref.B)
    again, mean, log_std = autoencode(before.vae.params, batch.observation, batch.action, encode)
    errors = weight * better * ((again - batch.action) ** 2).mean(-1)
    divergence = -(1 + 2 * log_std - mean**2 - np.exp(2 * log_std)) / 2
    action = np.tanh(ref.forward(before.td3.actor.params, batch.observation)[0])
    generated = autoencode(before.vae.params, batch.observation, action, generate)[0]
    q, generated_q = (ref.q_values(critic, batch.observation, x)[0] for x in (action, generated))
    towards = np.where((generated_q >= data_q)[:, None], generated, batch.action)
    gate = np.where((generated_q >= v) | (data_q > v), mask, 0.0)
    pulls = gate * ((action - towards) ** 2).mean(-1)
    return {
        "value_loss": ((v - target) ** 2).mean(),
        "vae_loss": errors.mean() + kl * divergence.mean(),
        "actor_loss": (pulls - alpha / np.abs(q).mean() * q).mean(),
        "bc_loss": ((action - towards) ** 2).mean(),
        "generated": (generated_q >= data_q).mean(),
        "held": (gate > 0).mean(),
        "better": better.mean(),
    }


@pytest.mark.parametrize(
    "rate", [1e-2, -1e-2]
)  # critics that rise, and critics that fall: either target is the smaller
def test_losses_equal_numpy(rate):
    """With moving critics: the second target of V, the filter and the choice all see the critics after their step."""
    before, after, metrics = step(critic_learning_rate=rate)
    expected = losses_of(before, after.td3.critic.params)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert 0 < expected["generated"] < 1  # both kinds of targets occur
    assert 0 < expected["better"] < 1
    stale = losses_of(before, before.td3.critic.params)
    assert abs(stale["actor_loss"] - expected["actor_loss"]) > 1e-3
    assert (stale["value_loss"] != expected["value_loss"]) == (rate < 0)
    ref.assert_tree_close(after.vae.params, before.vae.params, 0.0)


def test_weights_enter_where_they_should():
    before, after, metrics = step(alpha=7.0, mask=0.3, vae_weight=2.0, kl_coef=0.1)
    expected = losses_of(before, after.td3.critic.params, alpha=7.0, mask=0.3, weight=2.0, kl=0.1)
    for name in ("vae_loss", "actor_loss"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, err_msg=name)


def test_autoencoder_and_actor_see_the_value_before_its_step():
    _, _, still = step()
    before, after, moved = step(value_learning_rate=1.0)
    assert np.abs(after.value.params["Dense_0"]["kernel"] - before.value.params["Dense_0"]["kernel"]).max() > 0.5
    for name in ("vae_loss", "better", "actor_loss", "generated", "held"):
        assert moved[name] == still[name]


def test_actor_sees_the_autoencoder_after_its_step():
    assert step(vae_learning_rate=0.1)[2]["actor_loss"] != step()[2]["actor_loss"]


def test_filter_off_counts_every_row():
    before, after, metrics = step((("advantage_filter", False),))
    expected = losses_of(before, after.td3.critic.params, filtered=False)
    np.testing.assert_allclose(metrics["vae_loss"], expected["vae_loss"], rtol=1e-5)
    assert metrics["vae_loss"] > step()[2]["vae_loss"]


def test_gradient_through_the_generated_action_is_a_choice():
    """Same loss either way, another gradient: Adam's first moment is a tenth of it."""
    _, through, through_metrics = step((("detach_generated", False),), actor_learning_rate=1e-3)
    _, held, metrics = step(actor_learning_rate=1e-3)
    np.testing.assert_allclose(through_metrics["actor_loss"], metrics["actor_loss"], rtol=1e-6)
    moments = [ref.flat(state.td3.actor.opt_state[0].mu) for state in (through, held)]
    assert max(np.abs(moments[0][name] - moments[1][name]).max() for name in moments[0]) > 5e-6
    for state in (through, held):  # the autoencoder itself never learns from the actor
        ref.assert_tree_close(state.vae.params, step()[0].vae.params, 0.0)


def test_only_the_first_critic_judges_actions():
    agent, update = programs()
    hyper = as_float32(a2pr.Hyper(critic_learning_rate=0.0))
    state = start(agent, hyper)

    def shifted(member):
        bias = state.td3.critic.params["Dense_3"]["bias"].at[member].add(100.0)
        params = {**state.td3.critic.params, "Dense_3": {**state.td3.critic.params["Dense_3"], "bias": bias}}
        return state._replace(td3=state.td3._replace(critic=state.td3.critic._replace(params=params)))

    plain, second, first = (
        update(s, ref.batch(), hyper, KEY, jnp.int32(0))[1] for s in (state, shifted(1), shifted(0))
    )
    for name in ("better", "generated", "held", "actor_loss"):
        assert plain[name] == second[name]
    assert first["better"] == 1.0


def test_actor_and_targets_wait_for_their_turn():
    before, after, metrics = step(number=1, actor_learning_rate=1e-2, critic_learning_rate=1e-2, vae_learning_rate=1e-2)
    ref.assert_tree_close(after.td3.actor.params, before.td3.actor.params, 0.0)
    ref.assert_tree_close(after.td3.target_critic, before.td3.target_critic, 0.0)
    assert np.abs(ref.flat(after.vae.params)["['decoder']['Dense_0']['kernel']"]).sum() > 0
    assert metrics["actor_loss"] == 0.0  # none yet


def test_action_vae_is_cut_and_bounded():
    vae = networks.action_vae(ref.SPEC, (6,), latent=3)
    params = jax.jit(vae.init)(jax.random.key(0))
    far = 1e4 * ref.batch().observation
    mean, log_std = vae.encode(params, far, ref.batch().action)
    assert mean.shape == log_std.shape == (ref.B, 3)
    assert float(log_std.min()) == -4.0
    assert float(log_std.max()) == 15.0
    assert float(jnp.abs(vae.decode(params, far, mean)).max()) <= 1.0
