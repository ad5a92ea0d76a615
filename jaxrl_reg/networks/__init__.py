"""Networks as ``Network(init, apply)``: plain parameter dicts in, arrays out. Flax stays inside this folder."""

from jaxrl_reg.networks.activations import ACTIVATIONS, activation, simplex
from jaxrl_reg.networks.feedforward import mlp, output_layer
from jaxrl_reg.networks.residual import gated_residual, residual_mlp
from jaxrl_reg.networks.sequence import SequenceModel, decision_mamba, decision_transformer
from jaxrl_reg.networks.stacked import ensemble, members, parameter_count
from jaxrl_reg.networks.values import BODIES, q_network, value_network
from jaxrl_reg.networks.variational import VariationalAutoencoder, action_vae

__all__ = [
    "ACTIVATIONS",
    "BODIES",
    "SequenceModel",
    "VariationalAutoencoder",
    "action_vae",
    "activation",
    "decision_mamba",
    "decision_transformer",
    "ensemble",
    "gated_residual",
    "members",
    "mlp",
    "output_layer",
    "parameter_count",
    "q_network",
    "residual_mlp",
    "simplex",
    "value_network",
]
