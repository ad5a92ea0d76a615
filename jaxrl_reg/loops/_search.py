"""The rounds of ``loops.search``: explore, exploit, train the encoder; and what a search keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxrl_reg.errors import UserError
from jaxrl_reg.evaluation.returns import final_states
from jaxrl_reg.loops.offline import INIT
from jaxrl_reg.representation import Objective, autoencoding
from jaxrl_reg.search import emitters as emitting
from jaxrl_reg.search import outcomes
from jaxrl_reg.search import repertoire as store
from jaxrl_reg.search.emitters import Emitters
from jaxrl_reg.search.repertoire import Elites, Repertoire
from jaxrl_reg.types import Array, Env, EnvState, Key, Metrics, Network, PyTree, Spec, Transition, pytree, setting

METHODS = ("stax", "serene", "taxons", "novelty", "fitness")
LEARNT, EMITTING = ("stax", "taxons"), ("stax", "serene")  # methods with a learnt outcome, and with emitters
SIDE = 20  # of the grid of elites, in cells
BATCH = 128  # rows of an update of the encoder
EPISODE = 4  # stream of random numbers beside those of ``loops.offline``
LEAST_SCALE = 0.05  # of an emitter whose ancestor has a twin


@pytree
class Hyper:
    """Settings of a search that can be swept."""

    mutation: float = setting(default=0.05, help="standard deviation of the noise on every weight of an offspring")
    emitter_scale: float = setting(default=1 / 3, help="an emitter's mutations, over its distance to the next genome")
    learning_rate: float = setting(default=1e-3, help="Adam step size of the encoder; 0: an encoder as it was drawn")
    surprise: float = setting(default=0.5, help="chance of a generation to be judged by the encoder's error instead")


class Found(NamedTuple):
    """What a search keeps of all that it evaluated. ``elites`` is None in a world without tasks; ``tried``, solutions
    in order of time whose outcomes are their places, unless the search keeps everything."""

    rewarding: Repertoire
    elites: Elites | None
    tried: Repertoire | None
    fittest: Array  # scalar, the highest fitness


class SearchState(NamedTuple):
    """What a segment starts from; ``encoder``, ``opt_state`` and ``emitters`` are empty where a method has none."""

    population: Repertoire
    novel: Repertoire
    found: Found
    encoder: PyTree
    opt_state: PyTree
    emitters: Emitters | tuple[()]
    evaluations: Array  # scalar float32


class Sizes(NamedTuple):
    """How much a round does; ``evaluations`` is what all of it costs, whether or not there is anything to exploit."""

    population: int = 50
    offspring: int = 2  # of everyone in the population
    generations: int = 5
    archived: int = 5  # of every generation, at random, for the archive of novelty
    neighbours: int = 15
    rewarding: int = 512  # rows of the archive of rewarding solutions
    emitters: int = 16
    candidates: int = 4  # new emitters of a round
    bootstrap: int = 5  # steps of each
    chosen: int = 4  # emitters that go on
    steps: int = 15  # of each
    encoder_updates: int = 200

    @property
    def exploit(self) -> int:
        """Evaluations of a round's emitters."""
        step = emitting.POPULATION * emitting.OFFSPRING
        return self.candidates * (emitting.POPULATION + step * self.bootstrap) + self.chosen * step * self.steps

    def evaluations(self, emitters: bool) -> int:
        """Evaluations of a round."""
        return self.population * self.offspring * self.generations + (self.exploit if emitters else 0)

    def rounds(self, evaluations: int, emitters: bool = True) -> int:
        """How many rounds fit into that many evaluations, those of the first population not counted."""
        return max(evaluations - self.population, 0) // self.evaluations(emitters)

    def without_emitters(self) -> Sizes:
        """With as many more generations as make up for the emitters, rounded up."""
        return self._replace(generations=-(-self.evaluations(True) // (self.population * self.offspring)))


def genes_of(policy: Network) -> tuple[int, Callable[[Array], PyTree]]:
    """The size of a genome of ``policy``, and the function from one to the network's parameters."""
    params = jax.eval_shape(policy.init, jax.random.key(0))
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params))
    return flat.size, unravel


def evaluation(
    env: Env, policy: Network, view: Callable[[EnvState], Array] | None = None
) -> Callable[[Key, Array], Repertoire]:
    """``fn(key, genome [B, G]) -> rows [B]``, one episode of each, begun as a search of the member's ``key`` does.

    The outcome is ``view`` of the last state, ``[B, V]``, or nothing, ``[B, 0]``; ``extras["place"]`` is where it is,
    in a world with tasks.
    """
    unravel = genes_of(policy)[1]

    def evaluate(key: Key, genome: Array) -> Repertoire:
        params = jax.vmap(unravel)(genome)

        def act(observation: Array, key: Key) -> Array:
            return jax.vmap(policy.apply)(params, observation)

        play = final_states(env, len(genome), same_start=True)
        state, totals = play(act, jax.random.fold_in(key, EPISODE))
        extras = {} if env.tasks is None else {"place": env.tasks.place(env.tasks.physics(state))}
        outcome = jnp.zeros((len(genome), 0)) if view is None else jax.vmap(view)(state)
        return store.rows(genome, outcome, totals["return"], extras)

    return evaluate


def first_key(key: Key) -> Key:
    """With what every episode of a search is reset, from the member's key: as ``final_states`` does."""
    return jax.random.split(jax.random.split(jax.random.fold_in(key, EPISODE))[0], 1)[0]


class Search:
    """The functions of one search, which share what is static; nothing here changes."""

    def __init__(
        self,
        env: Env,
        policy: Network,
        method: str,
        sizes: Sizes,
        view: Callable[[EnvState], Array],
        encoder: Network | None,
        code: int,
        keep: bool,
    ):
        self.env, self.policy, self.sizes, self.view, self.keep = env, policy, sizes, view, keep
        self.learnt, self.emits, self.by_fitness = method in LEARNT, method in EMITTING, method == "fitness"
        self.genes = genes_of(policy)[0]
        self.objective: Objective | None = None
        if self.learnt:
            size = jax.eval_shape(lambda key: view(env.reset(key)), jax.random.key(0)).shape
            if len(size) != 1:
                raise UserError(f"a view of an episode's end is one vector, this one has shape {size}")
            self.objective = autoencoding(Spec(size[0], 0), encoder or outcomes.encoder(size[0], code), (64,))

    def evaluate(self, key: Key, genome: Array) -> Repertoire:
        """One episode of every genome ``[B, G]``; ``key`` is the member's."""
        return evaluation(self.env, self.policy, self.view if self.learnt else None)(key, genome)

    def code(self, state: SearchState, found: Repertoire) -> Array:
        """What novelty compares, ``[N, D]``; of a learnt outcome by the encoder as it is now."""
        if self.objective is not None:
            return self.objective.encode(state.encoder, found.outcome)
        return found.extras.get("place", jnp.zeros((found.fitness.shape[0], 1)))

    def noted(self, found: Found, rows: Repertoire, better: Array, distance: Array, fresh: float) -> Found:
        """``found`` with the ``rows [B]``; those that are ``better`` and rewarding enter the archive, ``fresh`` where
        they may become emitters, with the ``distance`` to the next genome."""
        flags = {"distance": distance, "fresh": jnp.full(distance.shape, fresh)}
        offered = rows._replace(extras={**rows.extras, **flags})
        elites, tried, all_rows = found.elites, found.tried, jnp.ones(distance.shape, bool)
        if elites is not None:
            place = rows.extras["place"]
            elites = store.insert(elites, rows.genome, rows.fitness, place, self.env.tasks.extent, all_rows)
        if tried is not None:
            tried = store.append(tried, self.plain(rows), all_rows)
        return Found(
            store.keep_best(found.rewarding, offered, better & (rows.fitness > 0)),
            elites,
            tried,
            jnp.maximum(found.fittest, rows.fitness.max()),
        )

    def plain(self, rows: Repertoire) -> Repertoire:
        return rows._replace(outcome=rows.extras.get("place", rows.outcome[:, :0]), extras={})

    def begin(self, key: Key, hyper: Hyper, rounds: int) -> SearchState:
        genome_key, encoder_key = jax.random.split(jax.random.fold_in(key, INIT))
        sizes = self.sizes
        genome = jnp.clip(
            jax.random.normal(genome_key, (sizes.population, self.genes)), -emitting.LIMIT, emitting.LIMIT
        )
        population = self.evaluate(key, genome)
        zeros = jnp.zeros(sizes.population)
        row = population._replace(extras={**population.extras, "distance": zeros, "fresh": zeros})
        total = sizes.population + rounds * sizes.evaluations(self.emits)
        found = Found(
            store.empty(row, sizes.rewarding),
            None if self.env.tasks is None else store.grid(self.genes, SIDE),
            store.empty(self.plain(population), total) if self.keep else None,
            population.fitness.max(),
        )
        found = self.noted(found, population, zeros == 0, zeros, 1.0)
        encoder, opt_state, emitters = (), (), ()
        if self.objective is not None:
            encoder = self.objective.init(encoder_key)
            opt_state = optax.adam(hyper.learning_rate).init(encoder)
        if self.emits:
            slots = jnp.zeros(sizes.emitters, jnp.int32)
            ancestor = store.take(jax.tree.map(jnp.zeros_like, row), slots)
            members = jnp.zeros((sizes.emitters, emitting.POPULATION))
            none = jnp.zeros(sizes.emitters)
            genomes = jnp.zeros((*members.shape, self.genes))
            emitters = Emitters(genomes, members, none, none, none, ancestor, none > 0)
        novel = store.empty(population, sizes.archived * sizes.generations * rounds)
        return SearchState(population, novel, found, encoder, opt_state, emitters, jnp.float32(sizes.population))

    def round(self, state: SearchState, key: Key, member: Key, hyper: Hyper) -> SearchState:
        explore_key, exploit_key, encoder_key = jax.random.split(key, 3)

        def body(state: SearchState, key: Key) -> tuple[SearchState, None]:
            return self.generation(state, key, member, hyper), None

        state, _ = jax.lax.scan(body, state, jax.random.split(explore_key, self.sizes.generations))
        if self.emits:
            state = self.exploit(state, exploit_key, member, hyper)
        if self.objective is not None:
            state = self.trained(state, encoder_key, hyper)
        return state._replace(evaluations=state.evaluations + self.sizes.evaluations(self.emits))

    def generation(self, state: SearchState, key: Key, member: Key, hyper: Hyper) -> SearchState:
        mutate_key, coin_key, archive_key = jax.random.split(key, 3)
        parents = state.population
        genome = emitting.mutate(mutate_key, jnp.repeat(parents.genome, self.sizes.offspring, axis=0), hyper.mutation)
        children = self.evaluate(member, genome)
        # Offspring first: among equals those win, or nothing would move where all are 0.
        both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]) if x.ndim else x + y, children, parents)
        criterion = both.fitness
        if not self.by_fitness:
            criterion = self.novelty(state, both, both)
        if self.objective is not None:
            surprising = jax.random.uniform(coin_key) < hyper.surprise
            criterion = jnp.where(surprising, self.errors(state.encoder, both.outcome), criterion)
        drawn = jax.lax.top_k(jax.random.uniform(archive_key, children.fitness.shape), self.sizes.archived)[1]
        novel = store.append(state.novel, store.take(children, drawn), jnp.ones(self.sizes.archived, bool))
        distance = jnp.zeros(children.fitness.shape)
        if self.emits:  # to the next genome that is not itself, the nearest of all
            apart = jnp.linalg.norm(children.genome[:, None] - both.genome, axis=-1)
            distance = -jax.lax.top_k(-apart, 2)[0][:, 1]
        found = self.noted(state.found, children, distance >= 0, distance, 1.0)
        population = store.take(both, jax.lax.top_k(criterion, self.sizes.population)[1])
        return state._replace(population=population, novel=novel, found=found)

    def novelty(self, state: SearchState, asked: Repertoire, others: Repertoire) -> Array:
        references = (others, state.novel, state.found.rewarding)
        codes = [self.code(state, one) for one in references]
        there = jnp.concatenate([store.filled(one) for one in references])
        return store.novelty(self.code(state, asked), jnp.concatenate(codes), there, self.sizes.neighbours)

    def errors(self, encoder: PyTree, outcome: Array) -> Array:
        """``[B]``, the encoder's own loss, row by row."""
        return jax.vmap(lambda row: self.loss(encoder, row[None]))(outcome)

    def loss(self, encoder: PyTree, outcome: Array) -> Array:
        assert self.objective is not None
        none = jnp.zeros(len(outcome))
        batch = Transition(outcome, none[:, None], none, none, outcome)
        return self.objective.loss(encoder, batch, jax.random.key(0))[0]  # it draws nothing without a bottleneck

    def exploit(self, state: SearchState, key: Key, member: Key, hyper: Hyper) -> SearchState:
        bootstrap_key, choose_key, climb_key = jax.random.split(key, 3)
        sizes, archive = self.sizes, state.found.rewarding

        def evaluate(genome: Array) -> Repertoire:
            return self.evaluate(member, genome)

        def keep(found: Found, rows: Repertoire, better: Array) -> Found:
            return self.noted(found, rows, better, jnp.zeros(better.shape), 0.0)

        def newness(state: SearchState, asked: Repertoire) -> Array:
            rewarding = state.found.rewarding
            codes = self.code(state, rewarding)
            return store.novelty(self.code(state, asked), codes, store.filled(rewarding), sizes.neighbours)

        fresh = store.filled(archive) & (archive.extras["fresh"] > 0)
        _, index = jax.lax.top_k(jnp.where(fresh, newness(state, archive), -1.0), sizes.candidates)
        ancestor = store.take(archive, index)
        used = {**archive.extras, "fresh": archive.extras["fresh"].at[index].set(0.0)}
        found = state.found._replace(rewarding=archive._replace(extras=used))
        distance = ancestor.extras["distance"]
        scale = jnp.where(distance > 0, distance * hyper.emitter_scale, LEAST_SCALE)
        new, found = emitting.bootstrap(
            bootstrap_key, ancestor, scale, fresh[index], evaluate, keep, found, sizes.bootstrap
        )
        state = state._replace(found=found)
        slots = emitting.best_of(state.emitters, new, sizes.emitters)
        chosen = emitting.choose(choose_key, newness(state, slots.ancestor), slots, sizes.chosen)
        moved, found = emitting.climb(climb_key, emitting.at(slots, chosen), evaluate, sizes.steps, keep, state.found)
        moved = moved._replace(filled=moved.filled & (moved.improvement > 0))
        slots = jax.tree.map(lambda all_, some: all_.at[chosen].set(some) if all_.ndim else all_, slots, moved)
        return state._replace(found=found, emitters=slots)

    def trained(self, state: SearchState, key: Key, hyper: Hyper) -> SearchState:
        """After the encoder's updates on what is known by now: population and archives."""
        known = (state.population, state.novel, state.found.rewarding)
        views = jnp.concatenate([one.outcome for one in known])
        there = jnp.cumsum(jnp.concatenate([store.filled(one) for one in known]))
        optimiser = optax.adam(hyper.learning_rate)

        def body(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], None]:
            encoder, opt_state = carry
            number = jax.random.randint(key, (BATCH,), 1, there[-1] + 1)
            batch = views[jnp.searchsorted(there, number)]
            changes, opt_state = optimiser.update(jax.grad(self.loss)(encoder, batch), opt_state, encoder)
            return (optax.apply_updates(encoder, changes), opt_state), None

        keys = jax.random.split(key, self.sizes.encoder_updates)
        (encoder, opt_state), _ = jax.lax.scan(body, (state.encoder, state.opt_state), keys)
        return state._replace(encoder=encoder, opt_state=opt_state)

    def metrics(self, state: SearchState) -> Metrics:
        found = state.found
        metrics = {
            "max_fitness": found.fittest,
            "rewarding": found.rewarding.size.astype(jnp.float32),
            "novel": state.novel.size.astype(jnp.float32),
            "evaluations": state.evaluations,
        }
        if found.elites is not None:
            metrics |= {"coverage": store.coverage(found.elites), "qd_score": store.qd_score(found.elites)}
        if self.emits:
            metrics["emitters"] = state.emitters.filled.sum().astype(jnp.float32)
        if self.objective is not None:
            metrics["reconstruction"] = self.errors(state.encoder, state.population.outcome).mean()
        return metrics
