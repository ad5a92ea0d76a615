"""A run that is cheap to compile: stochastic gradient descent on a linear model, with noise from the member's key."""

import jax
import jax.numpy as jnp

from jaxrl_reg import population
from jaxrl_reg.types import Run, pytree, setting


@pytree
class Hyper:
    learning_rate: float = setting(default=0.1, help="step size")
    noise: float = setting(default=0.01, help="standard deviation of the gradient noise")


def make_data(rows=64):
    x = jax.random.normal(jax.random.key(7), (rows, 3))
    return x, x @ jnp.array([1.0, -2.0, 0.5])


def make_run(segments=4, updates=8, evaluate=True, wait=None):
    def init(key, hyper):
        return {"w": jax.random.normal(jax.random.fold_in(key, 0), (3,)), "key": jax.random.fold_in(key, 1)}

    def train(state, index, key, hyper, data):
        key = jax.random.fold_in(jax.random.fold_in(key, 2), index)

        def body(w, i):
            rows = jax.random.randint(jax.random.fold_in(key, 2 * i), (8,), 0, data[0].shape[0])
            noise = hyper.noise * jax.random.normal(jax.random.fold_in(key, 2 * i + 1), w.shape)
            loss, grad = jax.value_and_grad(lambda w: jnp.mean((data[0][rows] @ w - data[1][rows]) ** 2))(w)
            return w - hyper.learning_rate * (grad + noise), loss

        w, losses = jax.lax.scan(body, state["w"], jnp.arange(updates))
        return {"w": w, "key": jax.random.fold_in(state["key"], index)}, {"loss": losses.mean()}

    def score(state, index, key, hyper):
        return {"eval/return": -jnp.sum((state["w"] - jnp.array([1.0, -2.0, 0.5])) ** 2)}

    return Run(init, train, score if evaluate else None, segments, updates)


def long_sweep(**options):
    hypers = population.grid(Hyper(), learning_rate=[0.05, 0.1, 0.2])
    return population.sweep(make_run(segments=40), seeds=3, hypers=hypers, data=make_data(), **options)
