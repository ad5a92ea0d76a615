"""Our side: offline updates of a population, online PPO and SAC, diffusion actions, tokens, and the matrix product."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import time

from worker import serve

ROWS, OBSERVATION, ACTION = 100_000, 17, 6


def synthetic(observation=OBSERVATION):
    """100,000 transitions of noise in 100 episodes, the same for every contestant."""
    import numpy as np

    from jaxrl_reg import data

    generator = np.random.default_rng(0)
    ends = (np.arange(ROWS) % 1000 == 999).astype(np.float32)
    return data.from_arrays(
        generator.normal(size=(ROWS, observation)).astype(np.float32),
        generator.uniform(-1, 1, (ROWS, ACTION)).astype(np.float32),
        generator.normal(size=ROWS).astype(np.float32),
        np.zeros(ROWS, np.float32),
        ends,
        generator.normal(size=(ROWS, observation)).astype(np.float32),
        name="synthetic",
    )


def offline(options):
    """One unit is ``block`` updates of every member, in one compiled call; without ``hidden`` the agent's own sizes."""
    import jax
    import jax.numpy as jnp

    from jaxrl_reg import agents, loops, population
    from jaxrl_reg.population import placement
    from jaxrl_reg.types import as_float32

    module = agents.load(options["agent"])
    members, block = options["members"], options["block"]
    table = synthetic(options.get("observation", OBSERVATION))
    sizes = {"hidden": tuple(options["hidden"])} if options["hidden"] else {}
    agent = module.make(module.Config(**sizes), table.spec)
    run = loops.offline(agent, batch_size=options["batch_size"], updates=block, segments=1)
    devices = jax.devices()[: options["devices"]]
    data = placement.replicate(table, devices)
    chunk, devices = placement.choose(members, options["placement"], None, devices)
    keys = jax.vmap(jax.random.key)(jnp.arange(members))
    hypers = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (members,)), as_float32(module.Hyper()))
    keys, hypers = placement.place((keys, hypers), devices)
    level = {} if devices[0].platform != "cpu" else {"xla_backend_optimization_level": 1}
    begun = time.perf_counter()
    initialise = population.over_members(lambda member, _: run.init(*member), chunk, devices)
    states = placement.place(jax.jit(initialise, compiler_options=level)((keys, hypers), None), devices)
    jax.block_until_ready(states)  # or compiling, which is timed next, would share the cores with it
    made = time.perf_counter() - begun

    def one(member, shared):
        state, key, hyper = member
        return run.train(state, shared[0], key, hyper, shared[1])[0]

    def train(states, keys, hypers, index, data):
        return population.over_members(one, chunk, devices)((states, keys, hypers), (index, data))

    index = placement.replicate(jnp.int32(0), devices)
    begun = time.perf_counter()
    lowered = jax.jit(train, donate_argnums=0, compiler_options=level).lower(states, keys, hypers, index, data)
    traced = time.perf_counter()
    compiled = lowered.compile()
    facts = {
        "unit": members * block,
        "initial_seconds": made,
        "trace_seconds": traced - begun,
        "compile_seconds": time.perf_counter() - traced,
        "temporary_bytes": int(compiled.memory_analysis().temp_size_in_bytes),
        "state_bytes": placement.tree_bytes(states),
        "argument_bytes": placement.tree_bytes(data),
        "version": jax.__version__,
    }
    kept = {"states": states}

    def go(count):
        states = kept["states"]
        for _ in range(count):
            states = compiled(states, keys, hypers, index, data)
        kept["states"] = jax.block_until_ready(states)

    return go, facts


def online(options):
    """One unit is a segment of ``steps`` environment steps of every member; ``learn`` says what to train to the end."""
    import jax
    import jax.numpy as jnp

    from jaxrl_reg import agents, envs, loops
    from jaxrl_reg.evaluation import returns
    from jaxrl_reg.types import as_float32

    module = agents.load(options["agent"])
    env = envs.make("pendulum")
    agent = module.make(
        module.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in options["config"].items()}), env.spec
    )
    run = loops.online(agent, env, steps=options["steps"], segments=1, **options["loop"])
    members = options["members"]
    keys = jax.vmap(jax.random.key)(jnp.arange(members))
    hyper = as_float32(module.Hyper())
    states = jax.jit(jax.vmap(lambda key: run.init(key, hyper)))(keys)
    begun = time.perf_counter()
    train = jax.jit(jax.vmap(lambda state, key: run.train(state, jnp.int32(0), key, hyper, None)[0]), donate_argnums=0)
    compiled = train.lower(states, keys).compile()
    facts = {
        "unit": members * options["steps"],
        "compile_seconds": time.perf_counter() - begun,
        "version": jax.__version__,
    }
    if learn := options.get("learn"):
        whole = loops.online(agent, env, steps=learn["steps"], segments=1, **options["loop"])

        def learned(seed):  # by the policy as it explores, which is how the peer evaluates its own
            state, _ = whole(jax.random.key(seed), hyper)
            judge = returns.episode_returns(env, learn["episodes"])
            act = lambda observation, key: agent.act(state.agent, observation, hyper, key, True)  # noqa: E731
            return judge(act, jax.random.key(1000 + seed))["return"].mean()

        facts["returns"] = jax.jit(jax.vmap(learned))(jnp.arange(learn["seeds"])).tolist()
        facts["learned_steps"] = learn["steps"]
    kept = {"states": states}

    def go(count):
        states = kept["states"]
        for _ in range(count):
            states = compiled(states, keys)
        kept["states"] = jax.block_until_ready(states)

    return go, facts


def diffusion(options):
    """One unit is a batch of actions of every member, sampled in ``steps`` evaluations by ``sampler``.

    ``meanflow`` jumps, ``edm`` is BESO's solver on a denoiser, ``ddpm`` the discrete chain; networks of one size.
    """
    import jax
    import jax.numpy as jnp

    from jaxrl_reg import generative
    from jaxrl_reg.networks import denoisers
    from jaxrl_reg.policies import diffusion as policies
    from jaxrl_reg.policies import flow
    from jaxrl_reg.types import Spec

    spec, members, steps = Spec(OBSERVATION, ACTION), options["members"], options["steps"]
    if options["sampler"] == "meanflow":
        policy = flow.meanflow(denoisers.denoiser_mlp(spec, times=2, time_scale=10.0), spec, steps)
    elif options["sampler"] == "edm":
        sigmas = generative.exponential(steps, 0.02, 5.0)
        policy = policies.edm(denoisers.denoiser_mlp(spec, embedding="linear"), spec, sigmas, method="ddim")
    else:
        policy = policies.ddpm(denoisers.denoiser_mlp(spec), spec, generative.vp_betas(steps))
    keys = jax.random.split(jax.random.key(0), members)
    states = jax.jit(jax.vmap(policy.init))(keys)
    observation = jax.random.normal(jax.random.key(1), (options["batch_size"], OBSERVATION))
    sample = jax.vmap(policy.sample, in_axes=(0, None, 0))
    begun = time.perf_counter()
    compiled = jax.jit(sample).lower(states, observation, keys).compile()
    facts = {
        "unit": options["members"] * options["batch_size"],
        "compile_seconds": time.perf_counter() - begun,
        "version": jax.__version__,
    }

    def go(count):
        out = jnp.zeros(())
        for _ in range(count):
            out = compiled(states, observation, keys)
        jax.block_until_ready(out)

    return go, facts


def tokens(options):
    """One unit is a completion token of every member: sampled with keys and values remembered (``cached``) or by
    reading everything again for each (``uncached``), or learned from in one pass of GRPO (``training``)."""
    import jax
    import jax.numpy as jnp

    from jaxrl_reg import population
    from jaxrl_reg.agents.tokens import grpo
    from jaxrl_reg.policies import tokens as policies
    from jaxrl_reg.population import placement
    from jaxrl_reg.types import Completions, TokenSpec, as_float32

    spec, form, members = TokenSpec(16, 8, options["length"]), options["form"], options["members"]
    rows, group = options["batch_size"], options["group"]
    shape = (rows, group, spec.completion)
    prompt = jax.random.randint(jax.random.key(0), (rows, spec.prompt), 3, spec.vocabulary)
    several = jnp.repeat(prompt, group, axis=0)
    agent, policy, hyper = grpo.make(grpo.Config(epochs=1), spec), policies.make(spec), as_float32(grpo.Hyper())

    def cached(member, _):
        return member[0], policy.sample(member[0].model.params, several, member[1])[0]

    def uncached(member, _):
        state, key = member

        def body(carry, t):
            completion, done = carry
            logits = policy.apply(state.model.params, several, completion)[:, t]
            token = jnp.where(done, spec.PAD, jax.random.categorical(jax.random.fold_in(key, t), logits))
            return (completion.at[:, t].set(token.astype(jnp.int32)), done | (token == spec.EOS)), None

        begun = jnp.zeros((rows * group, spec.completion), jnp.int32), jnp.zeros(rows * group, bool)
        return state, jax.lax.scan(body, begun, jnp.arange(spec.completion))[0][0]

    def training(member, batch):
        return agent.update(member[0], batch, hyper, member[1], jnp.int32(0))

    chunk, devices = placement.choose(members, "auto", None, jax.devices()[: options["devices"]])
    keys = placement.place(jax.random.split(jax.random.key(1), members), devices)
    begin = population.over_members(lambda key, _: agent.init(key, hyper), chunk, devices)
    states = placement.place(jax.jit(begin)(keys, None), devices)
    completion = jax.random.randint(jax.random.key(2), shape, 3, spec.vocabulary)
    reward = jnp.broadcast_to(jnp.arange(group) % 2.0, shape[:2])
    batch = Completions(prompt, completion, jnp.ones(shape), reward, jnp.ones(shape[:2]))
    batch = placement.replicate(batch, devices)
    function = {"cached": cached, "uncached": uncached, "training": training}[form]
    begun = time.perf_counter()
    compiled = (
        jax.jit(lambda members, batch: population.over_members(function, chunk, devices)(members, batch))
        .lower((states, keys), batch)
        .compile()
    )
    facts = {
        "unit": members * rows * group * spec.completion,
        "compile_seconds": time.perf_counter() - begun,
        "version": jax.__version__,
    }
    kept = {"states": states}

    def go(count):
        for _ in range(count):
            kept["states"], out = compiled((kept["states"], keys), batch)
        jax.block_until_ready((kept, out))

    return go, facts


def gemm(options):
    """One unit is ``members`` chains of 120 products of 256 x 256 float32 matrices: forward form, or a training mix.

    The chains are split over ``devices`` and run side by side on each: one is the limit of a core, an accelerator
    wants many.
    """
    import jax
    import jax.numpy as jnp

    from jaxrl_reg import population
    from jaxrl_reg.population import placement

    size, length, members = 256, 120, options.get("members", 1)
    forms = {
        "forward": lambda x, w: x @ w,
        "input gradient": lambda x, w: jnp.einsum("ij,kj->ik", x, w),
        "weight gradient": lambda x, w: jnp.einsum("ji,jk->ik", x, w),
    }
    chosen = [forms["forward"]] if options["form"] == "forward" else list(forms.values())

    def chain(member, _):
        def body(x, _):
            for form in chosen:
                x = form(x, member[1])
            return x, None

        return jax.lax.scan(body, member[0], None, length=length // len(chosen))[0]

    devices = jax.devices()[: options.get("devices", 1)]
    w = placement.place(jax.random.normal(jax.random.key(0), (members, size, size)) / size**0.5, devices)
    run = jax.jit(lambda x, w: population.over_members(chain, members // len(devices), devices)((x, w), None))

    def go(count):
        x = w
        for _ in range(count):
            x = run(x, w)
        jax.block_until_ready(x)

    return go, {"unit": members * length, "version": jax.__version__}


KINDS = {"offline": offline, "online": online, "diffusion": diffusion, "tokens": tokens, "gemm": gemm}


def joined(options):
    """The same with ``processes`` of them, each with its share of the members; this one directs the others.

    Without ``processes``, or in a process that was started by another, only what is needed of that.
    """
    count, process = options.get("processes", 1), options.get("process", 0)
    if count == 1:
        return KINDS[options["kind"]](options)
    if process == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            options = {**options, "port": free.getsockname()[1]}
    others = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps({**options, "process": i})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for i in range(1, count if process == 0 else 0)
    ]  # fmt: skip
    from jaxrl_reg.population import hosts

    hosts.join(f"127.0.0.1:{options['port']}", count, process)
    # Registered after JAX's own farewell and so called before it, which waits for all processes.
    atexit.register(lambda: [other.stdin.close() for other in others])
    run, facts = KINDS[options["kind"]](options)
    for other in others:
        other.stdout.readline()  # ready

    def go(times):
        for other in others:
            other.stdin.write(json.dumps({"run": times}) + "\n")
            other.stdin.flush()
        more = run(times) or {}
        replies = [json.loads(other.stdout.readline()) for other in others]
        return {**more, "others_cpu": sum(reply["cpu"] for reply in replies)}

    return go, facts


def prepare(options):
    if options.get("platform", "cpu") == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_enable_concurrency_optimized_scheduler=false".strip()
    os.environ["JAX_NUM_CPU_DEVICES"] = str(options.get("devices", 1) // options.get("processes", 1))
    run, facts = joined(options)

    def go(count):
        import jax

        more = run(count) or {}
        stats = jax.local_devices()[0].memory_stats() or {}  # none on a CPU
        return {**more, **({"peak_bytes": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {})}

    return go, facts


if __name__ == "__main__":
    serve(prepare)
