"""NumPy version of the autoencoder's losses."""

import numpy as np

SIZES = {"Z": 3}
RANGES = {"log_std": (-2.0, 1.0)}


def vae(a, s):
    error = np.zeros(len(a.mean))
    divergence = np.zeros(len(a.mean))
    for i in range(len(a.mean)):
        error[i] = s.weight[i] * np.mean([(x - y) ** 2 for x, y in zip(a.reconstruction[i], a.target[i], strict=True)])
        sigma = np.exp(a.log_std[i])
        divergence[i] = np.mean(np.log(1 / sigma) + (sigma**2 + a.mean[i] ** 2) / 2 - 0.5)
    return error, divergence


CASES = {"vae_losses": vae}
