"""MAP-Elites on a planar arm of redundant joints, by this project's repertoire or by QDax: the same work in both.

A genome holds the angles of 8 joints in [0, 1]; the outcome is where the arm's end is, the fitness minus the variance
of the angles. A turn is 100 batches of 256: parents drawn from the elites, normal noise, 100 x 100 cells.
"""

from __future__ import annotations

import os

from worker import serve

JOINTS, BATCH, BATCHES, SIDE, NOISE = 8, 256, 100, 100, 0.05


def arm(angles):
    """``(fitness [B], end [B, 2])`` of ``angles [B, JOINTS]``; the end lies in [0, 1]^2."""
    import jax.numpy as jnp

    turned = jnp.cumsum(2.0 * jnp.pi * angles - jnp.pi, axis=-1)
    end = jnp.stack([jnp.cos(turned).mean(-1), jnp.sin(turned).mean(-1)], -1)
    return -jnp.var(angles, axis=-1), (end + 1.0) / 2.0


def ours():
    import jax
    import jax.numpy as jnp

    from jaxrl_reg.search import repertoire

    extent, every = ((0.0, 1.0), (0.0, 1.0)), jnp.ones(BATCH, bool)

    def generation(elites, key):
        pick, noise = jax.random.split(key)
        share = elites.filled / jnp.maximum(elites.filled.sum(), 1)
        parents = elites.genome[jax.random.choice(pick, SIDE**2, (BATCH,), p=share)]
        children = jnp.clip(parents + NOISE * jax.random.normal(noise, parents.shape), 0.0, 1.0)
        fitness, end = arm(children)
        return repertoire.insert(elites, children, fitness, end, extent, every), None

    def start(key):
        genome = jax.random.uniform(key, (BATCH, JOINTS))
        fitness, end = arm(genome)
        return repertoire.insert(repertoire.grid(JOINTS, SIDE), genome, fitness, end, extent, every)

    return start, generation, lambda elites: {"coverage": float(repertoire.coverage(elites))}


def qdax():
    import jax
    import jax.numpy as jnp
    from qdax.core.emitters.standard_emitters import MixingEmitter
    from qdax.core.map_elites import MAPElites

    def scoring(genome, key):
        return *arm(genome), {}

    def mutate(genome, key):
        return jnp.clip(genome + NOISE * jax.random.normal(key, genome.shape), 0.0, 1.0)

    line = (jnp.arange(SIDE) + 0.5) / SIDE
    centroids = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    emitter = MixingEmitter(mutate, None, variation_percentage=0.0, batch_size=BATCH)
    search = MAPElites(scoring, emitter, lambda repertoire: {})

    def start(key):
        repertoire, state, _ = search.init(jax.random.uniform(key, (BATCH, JOINTS)), centroids, key)
        return repertoire, state

    def generation(carry, key):
        repertoire, state, _ = search.update(*carry, key)
        return (repertoire, state), None

    return start, generation, lambda carry: {"coverage": float((carry[0].fitnesses.reshape(-1) > -jnp.inf).mean())}


def prepare(options):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import time

    import jax

    start, generation, told = {"ours": ours, "qdax": qdax}[options["library"]]()
    keys = jax.random.split(jax.random.key(0), BATCHES)
    begun = time.perf_counter()
    state = jax.jit(start)(jax.random.key(1))
    step = jax.jit(lambda state: jax.lax.scan(generation, state, keys)[0]).lower(state).compile()
    facts = {"unit": BATCH * BATCHES, "compile_seconds": time.perf_counter() - begun, "version": jax.__version__}
    facts |= told(step(state))

    def go(count):
        after = state
        for _ in range(count):
            after = step(after)
        jax.block_until_ready(jax.tree.leaves(after))

    return go, facts


if __name__ == "__main__":
    serve(prepare)
