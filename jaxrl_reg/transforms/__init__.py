"""Operations in gradient and parameter space."""

from jaxrl_reg.transforms.anchoring import anchored, sgld
from jaxrl_reg.transforms.bilevel import Constants, hypergradient, maid, solve_lower
from jaxrl_reg.transforms.optimisers import adam
from jaxrl_reg.transforms.projection import Projection, add_orthogonal, orthogonal_combine
from jaxrl_reg.transforms.refinement import refine
from jaxrl_reg.transforms.trees import clamp_gradients, polyak

__all__ = [
    "Constants",
    "Projection",
    "adam",
    "add_orthogonal",
    "anchored",
    "clamp_gradients",
    "hypergradient",
    "maid",
    "orthogonal_combine",
    "polyak",
    "refine",
    "sgld",
    "solve_lower",
]
