"""One agent compiled for an accelerator that is not there: JSON options in, one line of JSON out."""

from __future__ import annotations

import dataclasses
import json
import sys

ROWS, OBSERVATIONS, ACTIONS, UPDATES, BATCH = 1000, 17, 6, 1000, 256


def noise(observations: int, actions: int):
    """Rows that a data set of these sizes may have."""
    import numpy as np

    import jaxrl_reg as jr

    rng = np.random.default_rng(0)
    rows = {name: rng.standard_normal((ROWS, observations), np.float32) for name in ("now", "next")}
    action, steps = np.tanh(rng.standard_normal((ROWS, actions), np.float32)), np.arange(ROWS)
    ends = steps % 100 == 99
    return jr.data.from_arrays(rows["now"], action, rows["now"][:, 0], ends, steps < 0, rows["next"], name="plan")


def main() -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")
    import jaxrl_reg as jr
    from jaxrl_reg.loops.levels import levelled
    from jaxrl_reg.population import plan_for

    options = json.loads(sys.argv[1])
    module = jr.agents.load(options["agent"])
    hypers = jr.population.stack([module.Hyper()])
    if jr.agents.family(options["agent"]) == "curricula":
        env = jr.envs.make("maze")
        agent, unroll = module.make(module.Config(), env.spec), env.spec.max_episode_steps
        run = levelled(agent, env, steps=unroll * 32 * 10, num_envs=32, unroll=unroll)
        data = None
    elif module.KIND == "on_policy":
        env = jr.envs.make("pointnav")
        agent = module.make(module.Config(), env.spec)
        run = jr.loops.online(agent, env, steps=64 * 32 * 10, num_envs=32, unroll=64)
        data = None if agent.beside is None else noise(env.spec.observation_dim, env.spec.action_dim)
    elif module.KIND == "tokens":
        task = jr.envs.make("tokens/reverse")
        agent = module.make(module.Config(), task.spec)
        run, data = jr.loops.rlvr(agent, task, updates=UPDATES), None
    else:
        data = noise(OBSERVATIONS, ACTIONS)
        agent = module.make(module.Config(), data.spec)
        run = jr.loops.offline(agent, batch_size=BATCH, updates=UPDATES)
        data = data if agent.prepare is None else agent.prepare(data)
    one = plan_for(run, options["target"], seeds=options["members"], hypers=hypers, data=data)
    print(json.dumps({**dataclasses.asdict(one), "updates_per_second": one.updates_per_second}))


if __name__ == "__main__":
    main()
