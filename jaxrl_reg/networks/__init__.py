"""Networks as ``Network(init, apply)``: plain parameter dicts in, arrays out. Flax stays inside this folder."""

from jaxrl_reg.networks.activations import ACTIVATIONS, activation
from jaxrl_reg.networks.feedforward import mlp, q_network, value_network
from jaxrl_reg.networks.stacked import ensemble, members, parameter_count

__all__ = [
    "ACTIVATIONS",
    "activation",
    "ensemble",
    "members",
    "mlp",
    "parameter_count",
    "q_network",
    "value_network",
]
