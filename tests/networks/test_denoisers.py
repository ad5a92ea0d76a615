"""Denoiser networks: shapes, conditioning that starts where it should, and inputs that must not be forgotten."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg.errors import UserError
from jaxrl_reg.networks import denoisers
from jaxrl_reg.types import Spec

SPEC = Spec(observation_dim=3, action_dim=2)
RNG = np.random.default_rng(0)
X, TIME, OBSERVATION = (RNG.normal(size=shape).astype(np.float32) for shape in ((4, 2), (4,), (4, 3)))
TASK = RNG.normal(size=(4, 5)).astype(np.float32)


def test_every_embedding_gives_features_that_depend_on_time():
    times = np.array([0.0, 0.25, 0.5, 1.0], np.float32)

    @jax.jit
    def run(key):
        made = {kind: denoisers.time_embedding(kind, 8, scale=10.0) for kind in denoisers.EMBEDDINGS}
        return {kind: e.apply(e.init(key), times) for kind, e in made.items()}

    for features in run(jax.random.key(0)).values():
        assert features.shape == (4, 8)
        assert np.abs(np.diff(features, axis=0)).max(axis=1).min() > 1e-3
    with pytest.raises(UserError, match="sinusoidal"):
        denoisers.time_embedding("sinusoid")
    with pytest.raises(ValueError, match="even"):
        denoisers.time_embedding(width=7)


def test_mlp_uses_every_input():
    network = denoisers.denoiser_mlp(SPEC, (8, 8), time_width=4)
    pair = denoisers.denoiser_mlp(SPEC, (8,), times=2, time_width=4, time_scale=10.0)
    free = denoisers.denoiser_mlp(Spec(0, 2), (8,), time_width=4)

    @jax.jit
    def run(key):
        params, pair_params = network.init(key), pair.init(key)
        slopes = jax.grad(lambda *inputs: network.apply(params, *inputs).sum(), argnums=(0, 1, 2))(X, TIME, OBSERVATION)
        by_time = jax.grad(lambda r, t: pair.apply(pair_params, X, r, t, OBSERVATION).sum(), argnums=(0, 1))(TIME, TIME)
        return network.apply(params, X, TIME, OBSERVATION), slopes, by_time, free.apply(free.init(key), X, TIME)

    out, slopes, by_time, unconditional = run(jax.random.key(0))
    assert out.shape == unconditional.shape == (4, 2)
    assert all(np.any(s) for s in (*slopes, *by_time))
    with pytest.raises(ValueError, match="observation"):
        jax.eval_shape(lambda key: network.apply(network.init(key), X, TIME), jax.random.key(0))
    with pytest.raises(ValueError, match="1 time or 2"):
        denoisers.denoiser_mlp(SPEC, times=3)


def test_resnet_conditioning_starts_neutral_and_dropout_needs_a_key():
    small = {"width": 8, "blocks": 2, "time_width": 4, "expansion": 2, "dropout": 0.5}
    networks = {
        "plain": denoisers.denoiser_resnet(SPEC, **small),
        "one_plus": denoisers.denoiser_resnet(SPEC, film_width=5, **small),
        "multiplicative": denoisers.denoiser_resnet(SPEC, film_width=5, film="multiplicative", **small),
        "zero": denoisers.denoiser_resnet(SPEC, zero_output=True, **small),
    }

    @jax.jit
    def run(key):
        out, slopes = {}, {}
        for name, network in networks.items():
            params = network.init(key)
            z = {"z": TASK} if name in ("one_plus", "multiplicative") else {}
            out[name] = network.apply(params, X, TIME, OBSERVATION, **z)
            slopes[name] = jax.grad(lambda p, n=network, z=z: n.apply(p, X, TIME, OBSERVATION, **z).sum())(params)
        plain = networks["plain"].init(key)
        dropped = [networks["plain"].apply(plain, X, TIME, OBSERVATION, key=k) for k in jax.random.split(key)]
        other = networks["one_plus"].apply(networks["one_plus"].init(key), X, TIME, OBSERVATION, z=-TASK)
        return out, slopes, dropped, other

    out, slopes, dropped, other = run(jax.random.key(0))
    np.testing.assert_allclose(other, out["one_plus"])  # the task has no influence yet ...
    gains = [
        v["kernel"] for k, v in slopes["one_plus"]["body"].items() if v.get("kernel", np.zeros(0)).shape == (5, 16)
    ]
    assert len(gains) == 4
    assert all(np.any(gain) for gain in gains)  # ... but every modulation learns at once
    np.testing.assert_allclose(out["zero"], 0.0)
    assert not np.allclose(dropped[0], dropped[1])
    assert not np.allclose(out["plain"], out["multiplicative"])
    network = networks["one_plus"]
    with pytest.raises(ValueError, match="z was not given"):
        jax.eval_shape(lambda key: network.apply(network.init(key), X, TIME, OBSERVATION), jax.random.key(0))
    with pytest.raises(UserError, match="one_plus"):
        denoisers.denoiser_resnet(SPEC, film="oneplus")


def test_multiplicative_modulation_switches_blocks_off_at_the_start():
    network = denoisers.denoiser_resnet(
        SPEC, width=8, blocks=1, time_width=4, film_width=5, film="multiplicative", dropout=0.0
    )

    @jax.jit
    def run(key):
        params = network.init(key)
        return jax.grad(lambda p: network.apply(p, X, TIME, OBSERVATION, z=TASK).sum())(params)["body"]

    slopes = run(jax.random.key(0))
    widths = {name: np.shape(v["kernel"]) for name, v in slopes.items() if "kernel" in v}
    (expanding,) = [name for name, shape in widths.items() if shape == (8, 32)]
    np.testing.assert_allclose(slopes[expanding]["kernel"], 0.0)  # BREEZE's form: waits until the gain has moved
    assert jnp.asarray([np.any(slopes[n]["kernel"]) for n, shape in widths.items() if shape == (5, 32)]).any()
