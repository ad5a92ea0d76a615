"""Partial differential equations as losses: residuals that a learned potential ``u(z, t)`` should bring to zero.

The derivatives come from ``generative.derivatives``; these functions only put them together.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl_reg.losses.checks import shapes

Array = jax.Array


@shapes(time_curvature="...", laplacian="...", speed="")
def wave_loss(time_curvature: Array, laplacian: Array, speed: Array | float) -> Array:
    """``(u_tt - c^2 lap u)^2``: how far a potential is from a wave of speed c.

    The Laplacian is the TRACE of the Hessian. The released code of the paper takes the gradient of the sum of the
    gradient's entries instead, which is the Hessian's row sums, a vector: its loss is not zero on a wave. Such a
    vector does not fit the layout here and is refused.

    Args:
      time_curvature: ``[...]``, second derivative of u by time.
      laplacian: ``[...]``, sum of the second derivatives of u by the coordinates of z.
      speed: scalar c, distance per time; may be learned, its sign does not matter.
    Returns:
      ``[...]``, squared units of u per time to the fourth.
    Raises:
      ValueError: shapes differ, among them a Laplacian with an axis of coordinates.
    Edges: at speed 0 every u linear in time fits, so a learned speed may collapse; start it at 1 and look at it.
    Source: Song et al., 2023, Latent Traversals in Generative Models as Potential Flows, the wave equation.
    """
    return jnp.square(time_curvature - jnp.square(speed) * laplacian)


@shapes(time_slope="...", gradient="... D")
def hamilton_jacobi_loss(time_slope: Array, gradient: Array) -> Array:
    """``(u_t + |grad u|^2 / 2)^2``: zero where following ``grad u`` transports without acceleration.

    Args:
      time_slope: ``[...]``, derivative of u by time.
      gradient: ``[..., D]``, of u by z.
    Returns:
      ``[...]``, squared units of u per time squared.
    Raises:
      ValueError: shapes do not match.
    Edges: finite for gradients up to 1e9 in float32.
    Source: Benamou and Brenier, 2000, A computational fluid mechanics solution to the Monge-Kantorovich mass transfer
      problem, optimality conditions.
    """
    return jnp.square(time_slope + 0.5 * jnp.square(gradient).sum(-1))
