"""Operations in gradient and parameter space."""

from jaxrl_reg.transforms.trees import clamp_gradients, polyak

__all__ = ["clamp_gradients", "polyak"]
