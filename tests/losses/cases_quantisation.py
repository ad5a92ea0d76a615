"""NumPy version of the loss of a codebook; ``s`` holds what stands still under each pull."""


def quantisation(a, s):
    size = a.features.shape[-1]
    pull = ((s.features - a.code) ** 2).sum(-1) / size
    return pull + a.commitment * ((a.features - s.code) ** 2).sum(-1) / size


CASES = {"vector_quantisation_loss": quantisation}
RANGES = {"commitment": (0.0, 1.0)}
