"""One process of several, with physics: ``python -m tests.envs.physics_host PORT PROCESSES PROCESS DIR OUT NAME``."""

import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reg import envs, population
from jaxrl_reg.evaluation.returns import evaluator
from jaxrl_reg.types import Judge, Run, pytree

SEGMENTS = 4


@pytree
class Hyper:
    gain: float = 1.0


def make_run(name):
    """A linear policy; in a body of Brax it drifts and is evaluated, elsewhere it learns from its own steps."""
    env = envs.make(name, episode_length=3)
    shape = env.spec.observation_dim, env.spec.action_dim
    step = jax.jit(env.step)

    def act(w, observation):
        return jnp.tanh(observation @ w)

    def init(key, hyper):
        return 0.5 * jax.random.normal(key, shape)

    def drift(w, index, key, hyper, data):
        return w + hyper.gain * jax.random.normal(jax.random.fold_in(key, index), shape), {"drift": hyper.gain}

    def learn(w, index, key, hyper, data):
        state = step(env.reset(jax.random.fold_in(key, index)), act(w, data))
        return w + hyper.gain * state.observation[:, None], {"reward": state.reward}

    def evaluate(w, index, key, hyper):
        found = evaluator(env, 2)(lambda observation, _: act(w, observation), jax.random.fold_in(key, index))
        return {f"eval/{name}": value for name, value in found.items()}

    def on_the_host(states, segment, keys, hypers):
        bits = np.asarray(jax.vmap(jax.random.uniform)(keys)) + segment
        return {"eval/host": np.asarray(states)[:, 0, 0] + np.asarray(hypers.gain) + bits}

    brax, judge = name.startswith("brax"), Judge(("eval/host",), on_the_host)
    run = Run(init, drift if brax else learn, evaluate if brax else None, SEGMENTS, 1, judge)
    return run, jnp.ones(shape[0])


def train(name, **how):
    """A race in a body of Brax, a sweep elsewhere."""
    run, data = make_run(name)
    how = {"seeds": 2, "hypers": population.grid(Hyper(), gain=[0.5, 2.0]), "data": data, **how}
    if name.startswith("brax"):
        return population.race(run, population.stopping.halving(eta=2), **how)
    return population.sweep(run, **how)


def tell(name):
    print("segment of", name, flush=True)
    time.sleep(0.1)


def main(port, processes, process, directory, out, *names):
    population.hosts.join(f"127.0.0.1:{port}", int(processes), int(process), heartbeat_timeout_seconds=10)

    for name in names:
        folder = pathlib.Path(directory, name)
        told = {"on_round" if name.startswith("brax") else "on_segment": lambda one, name=name: tell(name)}
        result = train(name, directory=folder, save_seconds=0, resume=True, **told)
        if population.hosts.first():
            found = {"state": result.state, **{key.replace("/", "_"): one for key, one in result.metrics.items()}}
            np.savez(pathlib.Path(out, name.replace("/", "_")), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
