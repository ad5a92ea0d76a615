"""Seeds x hyperparameters as one compiled program: settings, placement on the hardware, training, resume."""

from jaxrl_reg.population.grid import grid, setting_count, stack
from jaxrl_reg.population.placement import Plan, over_members
from jaxrl_reg.population.sweep import Interrupted, Progress, Result, sweep

__all__ = ["Interrupted", "Plan", "Progress", "Result", "grid", "over_members", "setting_count", "stack", "sweep"]
