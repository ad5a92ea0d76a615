"""NumPy versions of the residuals of partial differential equations."""

import numpy as np


def hamilton_jacobi(a, s):
    kinetic = np.array([sum(g * g for g in row) / 2 for row in a.gradient])
    return (a.time_slope + kinetic) ** 2


CASES = {
    "hamilton_jacobi_loss": hamilton_jacobi,
    "wave_loss": lambda a, s: (a.time_curvature - a.speed * a.speed * a.laplacian) ** 2,
}
