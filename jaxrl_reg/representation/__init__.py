"""Encoders learnt before the task: objectives, labels for videos, rewards from pairs, and what features know."""

from jaxrl_reg.representation.bottlenecks import Bottleneck, LatentCodes, gaussian, latent_quantised, vector_quantised
from jaxrl_reg.representation.labelling import Labeller, label, labeller
from jaxrl_reg.representation.masked import SensorModel, masked_prediction, masked_sensors
from jaxrl_reg.representation.masking import context_and_targets, dirichlet_mask
from jaxrl_reg.representation.objectives import (
    Objective,
    augmented_contrast,
    autoencoding,
    cloning,
    contrastive_dynamics,
    forward_dynamics,
    inverse_dynamics,
    linear_response,
    random_teacher,
    temporal_classification,
    temporal_contrast,
)
from jaxrl_reg.representation.probes import classifier_probe, control_function, invariant_regression, linear_probe
from jaxrl_reg.representation.rewards import RewardModel, reward_model, with_reward
from jaxrl_reg.representation.variational import StateActionVae, state_action_vae

__all__ = [
    "Bottleneck",
    "Labeller",
    "LatentCodes",
    "Objective",
    "RewardModel",
    "SensorModel",
    "StateActionVae",
    "augmented_contrast",
    "autoencoding",
    "classifier_probe",
    "cloning",
    "context_and_targets",
    "contrastive_dynamics",
    "control_function",
    "dirichlet_mask",
    "forward_dynamics",
    "gaussian",
    "invariant_regression",
    "inverse_dynamics",
    "label",
    "labeller",
    "latent_quantised",
    "linear_probe",
    "linear_response",
    "masked_prediction",
    "masked_sensors",
    "random_teacher",
    "reward_model",
    "state_action_vae",
    "temporal_classification",
    "temporal_contrast",
    "vector_quantised",
    "with_reward",
]
