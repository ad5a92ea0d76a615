"""Loops that turn an agent into a ``Run``. Each is a short scan, meant to be read and copied."""

# Imported at once, because functions share the names of their modules: a lazy import could find the module instead.
from jaxrl_reg.loops.collect import collect, d4rl_style
from jaxrl_reg.loops.explore import explore
from jaxrl_reg.loops.finetune import finetune
from jaxrl_reg.loops.offline import offline
from jaxrl_reg.loops.online import online
from jaxrl_reg.loops.pretrain import pretrain
from jaxrl_reg.loops.rlvr import rlvr
from jaxrl_reg.loops.rollout import record, rollout
from jaxrl_reg.loops.search import diversify
from jaxrl_reg.loops.wandering import wander

__all__ = [
    "collect",
    "d4rl_style",
    "diversify",
    "explore",
    "finetune",
    "offline",
    "online",
    "pretrain",
    "record",
    "rlvr",
    "rollout",
    "wander",
]
