"""Encoders learnt before the task: objectives, labels for videos, rewards from pairs, and what features know."""

from jaxrl_reg.representation.alignment import SensorAlignment, sensor_alignment
from jaxrl_reg.representation.bottlenecks import Bottleneck, LatentCodes, gaussian, latent_quantised, vector_quantised
from jaxrl_reg.representation.content_behaviour import ContentBehaviour, content_behaviour, two_way_masks
from jaxrl_reg.representation.events import EventModel, event_model, event_tokens, lesion_influence
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
    "ContentBehaviour",
    "EventModel",
    "Labeller",
    "LatentCodes",
    "Objective",
    "RewardModel",
    "SensorAlignment",
    "SensorModel",
    "StateActionVae",
    "augmented_contrast",
    "autoencoding",
    "classifier_probe",
    "cloning",
    "content_behaviour",
    "context_and_targets",
    "contrastive_dynamics",
    "control_function",
    "dirichlet_mask",
    "event_model",
    "event_tokens",
    "forward_dynamics",
    "gaussian",
    "invariant_regression",
    "inverse_dynamics",
    "label",
    "labeller",
    "latent_quantised",
    "lesion_influence",
    "linear_probe",
    "linear_response",
    "masked_prediction",
    "masked_sensors",
    "random_teacher",
    "reward_model",
    "sensor_alignment",
    "state_action_vae",
    "temporal_classification",
    "temporal_contrast",
    "two_way_masks",
    "vector_quantised",
    "with_reward",
]
