"""rejax: PPO and SAC on gymnax's Pendulum, whole training runs in one compiled call."""

from __future__ import annotations

import os

from worker import serve


def prepare(options):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import time

    import jax
    import rejax
    from rejax.evaluate import evaluate

    steps, members = options["steps"], options["members"]
    algorithm = {"ppo": rejax.PPO, "sac": rejax.SAC}[options["agent"]].create(
        env="Pendulum-v1", total_timesteps=steps, eval_freq=steps, skip_initial_evaluation=True, **options["config"]
    )
    # Evaluation is left out on both sides.
    algorithm = algorithm.replace(eval_callback=lambda algo, state, key: ())
    keys = jax.random.split(jax.random.PRNGKey(0), members)
    begun = time.perf_counter()
    train = jax.jit(jax.vmap(algorithm.train)).lower(keys).compile()
    # The random steps that fill SAC's buffer are part of a run on both sides and count on neither.
    facts = {
        "unit": members * options.get("unit", steps),
        "compile_seconds": time.perf_counter() - begun,
        "version": jax.__version__,
    }

    if learn := options.get("learn"):
        longer = {**options["config"], **options.get("learn_config", {}), "total_timesteps": learn["steps"]}
        whole = {"ppo": rejax.PPO, "sac": rejax.SAC}[options["agent"]].create(
            env="Pendulum-v1", eval_freq=learn["steps"], skip_initial_evaluation=True, **longer
        )
        whole = whole.replace(eval_callback=lambda algo, state, key: ())

        def learned(key):
            train_key, key = jax.random.split(key)
            act = whole.make_act(whole.train(train_key)[0])
            found = evaluate(act, key, whole.env, whole.env_params, learn["episodes"], 200)
            return found[1].mean()

        keys_of = jax.random.split(jax.random.PRNGKey(1), learn["seeds"])
        facts["returns"] = jax.jit(jax.vmap(learned))(keys_of).tolist()
        facts["learned_steps"] = learn["steps"]

    def go(count):
        out = None
        for _ in range(count):
            out = train(keys)
        jax.block_until_ready(jax.tree.leaves(out))

    return go, facts


if __name__ == "__main__":
    serve(prepare)
