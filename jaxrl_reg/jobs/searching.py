"""Data sets of a search without gradients: every episode that it played, and those that were rewarded."""

from __future__ import annotations

import dataclasses
import io
import pathlib
from typing import TYPE_CHECKING, Any

from jaxrl_reg.errors import UserError, need
from jaxrl_reg.io.files import write_bytes
from jaxrl_reg.jobs.collected import as_collected, place, provenance, whole_steps
from jaxrl_reg.jobs.collection import WRITTEN_WITH, carried_out, references_beside
from jaxrl_reg.jobs.learners import make_env
from jaxrl_reg.jobs.progress import OnTick, Say, silent
from jaxrl_reg.jobs.settings import SEARCHED, SweepConfig, resolve

if TYPE_CHECKING:
    from jaxrl_reg.types import Env

HIDDEN = (8, 8)  # of a policy whose every weight is mutated; --collect-hidden changes it


def search(config: SweepConfig, name: str, *, say: Say = silent, on_tick: OnTick = silent) -> pathlib.Path:
    """Search by STAX for at most ``config.collect_steps`` steps, unless that is done; returns the file of ``name``.

    ``stax.hdf5`` holds every step of every episode, ``stax-rewarding.hdf5`` those of the archive of rewarding
    solutions, where there are any; ``stax.npz`` the solutions: ``genome``, ``fitness`` and ``place`` of all in order of
    time, and ``rewarding``, the genomes of the archive. For an environment with tasks, ``stax.png`` shows how the
    repertoire grew. Episodes begin with the same key, and the policy is a small network (8x8) unless
    ``config.collect_hidden`` says otherwise.

    Raises:
      UserError: for too few steps, or if ``stax-rewarding`` is asked for and nothing was rewarded.
      population.Interrupted: when stopped; the same call goes on from the last checkpoint.
    """
    import jax

    from jaxrl_reg import data
    from jaxrl_reg.loops import search as searching
    from jaxrl_reg.loops.solutions import episodes
    from jaxrl_reg.search import outcomes

    config = resolve(as_collected(dataclasses.replace(config, dataset=name)))
    every, rewarding = (place(config, one) for one in SEARCHED)
    asked = every if name == SEARCHED[0] else rewarding
    if every.is_file():
        if not asked.is_file():
            raise UserError(f"{every} is of a search that found nothing rewarding; search with more --collect-steps")
        say(f"{asked} is already there; remove it and {every.name} to search again")
        return asked
    env = make_env(config)
    need(*WRITTEN_WITH, *(("matplotlib",) if env.tasks is not None else ()))
    hidden, length = config.collect_hidden or HIDDEN, env.spec.max_episode_steps
    policy = outcomes.policy(env.spec, hidden)
    steps = whole_steps(config.collect_steps)
    try:
        sizes, rounds = searching.within(steps // length)
    except UserError as error:
        raise UserError(
            f"{error}: {steps:,} steps of {config.env}, whose episodes are up to {length:,} long; give more "
            "--collect-steps"
        ) from None
    run = searching.diversify(env, policy, rounds=rounds, segments=rounds, sizes=sizes, keep=True)
    say(
        f"searching {config.env} by STAX: {rounds} rounds of {sizes.evaluations(True):,} episodes, a population of "
        f"{sizes.population} policies of layers {'x'.join(map(str, hidden))}"
    )
    state, _, done = carried_out(run, searching.Hyper(), "stax", config, every, say, on_tick, "max_fitness")
    found, about = state.found, {**provenance(config), "hidden": "x".join(map(str, hidden)), "behavior": "stax"}
    key = jax.random.key(about["seed"])
    every.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(every.with_suffix(".npz"), _solutions(found))
    if env.tasks is not None:
        say(_drawn(state, env, config, every.with_suffix(".png")))
    count = int(found.rewarding.size)
    if count:
        rows = episodes(env, policy, key, found.rewarding.genome[:count], name=f"{every.parent.name}-{rewarding.stem}")
        data.save(references_beside(rewarding, rows, "stax"), rewarding, about)
        say(f"wrote {rewarding}: {rows.size:,} rows, {count:,} rewarding solutions, best {float(found.fittest):,.3g}")
    else:
        say(f"no solution was rewarded, so there is no {rewarding.name}")
    rows = episodes(env, policy, key, found.tried.genome, name=f"{every.parent.name}-stax")
    data.save(references_beside(every, rows, "stax"), every, about)  # last: where it is, all is there
    say(f"wrote {every}: {rows.size:,} rows, {int(rows.last.sum()):,} episodes")
    done()
    if not asked.is_file():
        raise UserError(f"{every} is of a search that found nothing rewarding; search with more --collect-steps")
    return asked


def _solutions(found: Any) -> bytes:
    import numpy as np

    buffer, tried, count = io.BytesIO(), found.tried, int(found.rewarding.size)
    np.savez_compressed(
        buffer,
        genome=np.asarray(tried.genome),
        fitness=np.asarray(tried.fitness),
        place=np.asarray(tried.outcome),
        rewarding=np.asarray(found.rewarding.genome)[:count],
    )
    return buffer.getvalue()


def _drawn(state: Any, env: Env, config: SweepConfig, path: pathlib.Path) -> str:
    """Writes the picture, and says where it is."""
    import numpy as np

    from jaxrl_reg.evaluation import plots
    from jaxrl_reg.search import repertoire

    tasks, found = env.tasks, state.found
    assert tasks is not None
    share = float(repertoire.coverage(found.elites))
    words = f"{share:.0%} of {found.elites.fitness.size} cells of ({', '.join(tasks.axes)}) reached by an episode's end"
    ancestors = np.asarray(state.emitters.ancestor.extras["place"])[np.asarray(state.emitters.filled)]
    figure = plots.repertoire(
        found.tried.outcome,
        found.tried.fitness,
        tasks.extent,
        tasks.axes,
        title=f"{config.env}, STAX: {words}",
        ancestors=ancestors,
    )
    write_bytes(path, plots.encode(figure))
    return f"{words}, see {path}"
