"""Unifloral's training step, from a clone that the options name: IQL and TD3+BC on the same rows, in one compiled scan.

Its packages for data, environments and logging are not needed for a step, so empty modules stand for them.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import types

from worker import serve
from worker_ours import ACTION, OBSERVATION, synthetic


def released(clone: pathlib.Path, agent: str) -> tuple[types.ModuleType, str]:
    """The clone's module of an agent, and the commit it is at. It sets a flag for GPUs, which is taken back."""
    for name in ("d4rl", "gym", "tyro", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    flags = os.environ.get("XLA_FLAGS", "")
    spec = importlib.util.spec_from_file_location(agent, clone / "algorithms" / f"{agent}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[agent] = module
    spec.loader.exec_module(module)
    os.environ["XLA_FLAGS"] = flags
    command = ["git", "-C", str(clone), "rev-parse", "--short=8", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return module, done.stdout.strip() or "unknown"


def prepare(options):
    """One unit is ``block`` gradient steps on the critics of every member; members lie side by side, by ``vmap``."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_enable_concurrency_optimized_scheduler=false"  # as ours
    import time

    import jax
    import jax.numpy as jnp

    agent, members, block = options["agent"], options["members"], options["block"]
    theirs, commit = released(pathlib.Path(options["clone"]), agent)
    table = synthetic()
    rows = theirs.Transition(
        *(table.observation, table.action, table.reward, table.next_observation),
        done=1.0 - table.discount,
    )
    args = theirs.Args()
    moments = rows.obs.mean(axis=0), rows.obs.std(axis=0)
    state_input, pair_input = [jnp.zeros(OBSERVATION)], [jnp.zeros(OBSERVATION), jnp.zeros(ACTION)]
    critic = theirs.DualQNetwork(*moments)
    if agent == "iql":
        actor, value = theirs.TanhGaussianActor(ACTION, *moments), theirs.StateValueFunction(*moments)
        networks = {"actor": (actor, 0, state_input), "value": (value, 1, state_input)}
        step = theirs.make_train_step(args, actor.apply, critic.apply, value.apply, rows)
    else:
        actor = theirs.DeterministicTanhActor(ACTION, *moments)
        networks = {"actor": (actor, 0, state_input), "actor_target": (actor, 0, state_input)}
        step = theirs.make_train_step(args, actor.apply, critic.apply, rows)
    networks |= {"dual_q": (critic, 2, pair_input), "dual_q_target": (critic, 2, pair_input)}
    steps = block // getattr(args, "num_critic_updates_per_step", 1)

    def begin(key):
        keys = jax.random.split(key, 3)
        made = {
            name: theirs.create_train_state(args, keys[i], network, example)
            for name, (network, i, example) in networks.items()
        }
        return theirs.AgentTrainState(**made)

    def train(key, state):
        (key, state), losses = jax.lax.scan(step, (key, state), None, steps)
        return key, state, losses

    keys = jax.random.split(jax.random.PRNGKey(0), members)
    if members > 1:
        begin, train = jax.vmap(begin), jax.vmap(train)
    else:
        keys = keys[0]
    kept = jax.block_until_ready((keys, jax.jit(begin)(keys)))
    begun = time.perf_counter()
    compiled = jax.jit(train, donate_argnums=1).lower(*kept).compile()
    facts = {
        "unit": members * block,
        "compile_seconds": time.perf_counter() - begun,
        "version": jax.__version__,
        "commit": commit,
    }

    def go(count):
        nonlocal kept
        for _ in range(count):
            *kept, losses = compiled(*kept)
        jax.block_until_ready((kept, losses))

    return go, facts


if __name__ == "__main__":
    serve(prepare)
