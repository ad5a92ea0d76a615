"""Seeds x hyperparameters as one compiled program: settings, placement on the hardware, training, resume."""

from jaxrl_reg.population import hosts, stopping
from jaxrl_reg.population.checkpointing import Interrupted, Restored, restore
from jaxrl_reg.population.evolution import Evolution, ancestry, evolve, exploit, explore
from jaxrl_reg.population.forecast import Forecast, plan_for
from jaxrl_reg.population.generations import Generations
from jaxrl_reg.population.grid import grid, setting_count, stack
from jaxrl_reg.population.placement import Plan, megabytes, over_members
from jaxrl_reg.population.programs import ALIVE, EVALUATION_CHUNK
from jaxrl_reg.population.race import Round, race
from jaxrl_reg.population.results import Progress, Result
from jaxrl_reg.population.search import Range, draw, parse_range, sample
from jaxrl_reg.population.sweep import outline, sweep

__all__ = [
    "ALIVE",
    "EVALUATION_CHUNK",
    "Evolution",
    "Forecast",
    "Generations",
    "Interrupted",
    "Plan",
    "Progress",
    "Range",
    "Restored",
    "Result",
    "Round",
    "ancestry",
    "draw",
    "evolve",
    "exploit",
    "explore",
    "grid",
    "hosts",
    "megabytes",
    "outline",
    "over_members",
    "parse_range",
    "plan_for",
    "race",
    "restore",
    "sample",
    "setting_count",
    "stack",
    "stopping",
    "sweep",
]
