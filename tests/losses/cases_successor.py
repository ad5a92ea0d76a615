"""NumPy versions of the losses of forward-backward representations, from their definitions, entry by entry."""

import numpy as np


def sphere(x):
    return np.sqrt(x.shape[-1]) * x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def beside_and_along(beside, along):
    size = len(beside)
    off = [beside[i, k] for i in range(size) for k in range(size) if i != k]
    return sum(off) / len(off), sum(along[i, i] for i in range(size)) / size


def fb(a, s):
    total = 0.0
    for measure in a.successor:
        off, on = beside_and_along((measure - a.gamma * s.target) ** 2, measure)
        total += off / 2 - on
    return total


def orthonormality(a, s):
    c = np.array([[x @ y for y in a.backward] for x in a.backward])
    off, on = beside_and_along(c**2, c)
    return off - 2 * on


def reward(a, s):
    covariance = sum(np.outer(b, b) for b in a.backward) / len(a.backward)
    inverse = np.linalg.inv(covariance + a.ridge * np.eye(len(covariance)))
    return np.array([b @ inverse @ z for b, z in zip(a.backward, a.z, strict=True)])


CASES = {
    "conservative_penalty": lambda a, s: np.log(np.exp(a.samples).sum(0)) - a.data,
    "fb_loss": fb,
    "implicit_reward": reward,
    "infer_z": lambda a, s: sphere(sum(r * b for r, b in zip(a.reward, a.backward, strict=True)) / len(a.reward)),
    "orthonormality_loss": orthonormality,
    "project_sphere": lambda a, s: sphere(a.x),
}
RANGES = {"ridge": (0.25, 1.0)}
