"""Operations in gradient and parameter space."""

from jaxrl_reg.transforms.projection import Projection, add_orthogonal, orthogonal_combine
from jaxrl_reg.transforms.trees import clamp_gradients, polyak

__all__ = ["Projection", "add_orthogonal", "clamp_gradients", "orthogonal_combine", "polyak"]
