"""Pure losses: functions of arrays and scalars, to be borrowed by any JAX code.

Each is per example over any leading axes (``[...]``) and the caller takes the mean, so masks and weights are the
caller's. Where a batch is coupled the shape says ``[B]`` and the docstring says how. Every scalar may be traced, so
hyperparameters can be vmapped. Wrong shapes raise ``ValueError`` and are never broadcast. Arithmetic is in float32 at
least; results have the dtype of the array arguments. Gradients are stopped only where a docstring says DETACHED.
"""

from jaxrl_reg.losses.aggregation import constant_mean, masked_mean, sequence_mean
from jaxrl_reg.losses.anchored import kl_regularised_value, log_barrier_cloning_loss
from jaxrl_reg.losses.conservative import (
    calibrated_value,
    conservative_penalty,
    cql_lagrange_loss,
    cql_lagrange_weight,
    cql_penalty,
    gradient_diversity_loss,
)
from jaxrl_reg.losses.contrastive import supervised_contrastive_loss
from jaxrl_reg.losses.counterfactual import counterfactual_perturbation, personal_space_loss
from jaxrl_reg.losses.denoising import (
    diffusion_ql_loss,
    fql_actor_loss,
    one_step_distillation_loss,
    weighted_denoising_loss,
)
from jaxrl_reg.losses.dice import (
    pearson_conjugate,
    pearson_weight,
    reverse_kl_conjugate,
    reverse_kl_weight,
    v_dice_losses,
)
from jaxrl_reg.losses.direct_preference import (
    dpo_hinge_loss,
    dpo_loss,
    dpo_positive_loss,
    flex_dpo_loss,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    robust_dpo_loss,
    rpo_loss,
)
from jaxrl_reg.losses.discrepancy import energy_distance_loss, mmd_loss, reward_generator_loss
from jaxrl_reg.losses.dispersive import (
    dispersive_cosine_loss,
    dispersive_covariance_loss,
    dispersive_hinge_loss,
    dispersive_l2_loss,
)
from jaxrl_reg.losses.distillation import (
    binary_distillation_loss,
    feature_distillation_loss,
    prediction_distillation_loss,
    self_evolution_target,
)
from jaxrl_reg.losses.divergence import categorical_kl, cross_entropy_loss, gaussian_kl, sampled_kl, switched_kl
from jaxrl_reg.losses.entropy import (
    anchored_entropy_loss,
    categorical_entropy,
    masked_quantile,
    nucleus_entropy,
    peak_mask,
    soft_actor_loss,
    temperature_loss,
)
from jaxrl_reg.losses.ftrl import log_barrier_policy, magnitude_reduced
from jaxrl_reg.losses.goal import goal_value_loss
from jaxrl_reg.losses.groups import group_advantage, informative, leave_one_out_advantage, overlong_penalty, whitened
from jaxrl_reg.losses.invariance import irm_penalty, vrex_penalty
from jaxrl_reg.losses.judge import expected_score, self_judge_loss
from jaxrl_reg.losses.policy import (
    adaptive_q_scale,
    advantage_select,
    awr_weight,
    behaviour_cloning_loss,
    behaviour_cloning_nll,
    rebrac_actor_loss,
    regularised_actor_loss,
    sparse_weight,
    weighted_log_prob_loss,
)
from jaxrl_reg.losses.policy_gradient import (
    cispo_loss,
    clipped_value_loss,
    gspo_loss,
    policy_gradient_loss,
    ppo_clip_loss,
)
from jaxrl_reg.losses.potential import hamilton_jacobi_loss, wave_loss
from jaxrl_reg.losses.preference import bradley_terry_loss, reward_model_loss
from jaxrl_reg.losses.pretraining import info_nce_loss, nt_xent_loss, prediction_loss, temporal_classification_loss
from jaxrl_reg.losses.quantisation import vector_quantisation_loss
from jaxrl_reg.losses.reference_free import cpo_loss, odds_ratio_loss, simpo_loss, slic_loss
from jaxrl_reg.losses.representation import (
    beer_bound,
    beer_loss,
    dormant_fraction,
    effective_rank,
    feature_cosine,
    srank,
    violation_fraction,
)
from jaxrl_reg.losses.self_play import (
    consistency_rate,
    cream_loss,
    geometric_mixture,
    inpo_loss,
    nash_md_advantage,
    sppo_loss,
)
from jaxrl_reg.losses.successor import fb_loss, implicit_reward, infer_z, orthonormality_loss, project_sphere
from jaxrl_reg.losses.token_preference import contrastive_token_reward, rrpo_loss, tdpo_loss, treg_loss
from jaxrl_reg.losses.tokens import sequence_logprobs
from jaxrl_reg.losses.value import (
    clipped_double_q_target,
    ensemble_td_error,
    expectile_loss,
    exponential_value_loss,
    generalised_advantage_estimation,
    gumbel_loss,
    huber_loss,
    lambda_return,
    n_step_return,
    rebrac_target,
    soft_td_target,
    sparse_value_loss,
    squared_td_error,
    td_target,
)
from jaxrl_reg.losses.variational import vae_losses
from jaxrl_reg.losses.verified import (
    difficulty_weight,
    lp_reg_loss,
    one_sided_reinforce_loss,
    oreal_loss,
    outcome_score_loss,
    overthinking_weight,
    progress_reward,
    regulating_temperature,
    score_weights,
)

__all__ = [
    "adaptive_q_scale",
    "advantage_select",
    "anchored_entropy_loss",
    "awr_weight",
    "beer_bound",
    "beer_loss",
    "behaviour_cloning_loss",
    "behaviour_cloning_nll",
    "binary_distillation_loss",
    "bradley_terry_loss",
    "calibrated_value",
    "categorical_entropy",
    "categorical_kl",
    "cispo_loss",
    "clipped_double_q_target",
    "clipped_value_loss",
    "conservative_penalty",
    "consistency_rate",
    "constant_mean",
    "contrastive_token_reward",
    "counterfactual_perturbation",
    "cpo_loss",
    "cql_lagrange_loss",
    "cql_lagrange_weight",
    "cql_penalty",
    "cream_loss",
    "cross_entropy_loss",
    "difficulty_weight",
    "diffusion_ql_loss",
    "dispersive_cosine_loss",
    "dispersive_covariance_loss",
    "dispersive_hinge_loss",
    "dispersive_l2_loss",
    "dormant_fraction",
    "dpo_hinge_loss",
    "dpo_loss",
    "dpo_positive_loss",
    "effective_rank",
    "energy_distance_loss",
    "ensemble_td_error",
    "expected_score",
    "expectile_loss",
    "exponential_value_loss",
    "fb_loss",
    "feature_cosine",
    "feature_distillation_loss",
    "flex_dpo_loss",
    "fql_actor_loss",
    "gaussian_kl",
    "generalised_advantage_estimation",
    "geometric_mixture",
    "goal_value_loss",
    "gradient_diversity_loss",
    "group_advantage",
    "gspo_loss",
    "gumbel_loss",
    "hamilton_jacobi_loss",
    "huber_loss",
    "implicit_reward",
    "infer_z",
    "info_nce_loss",
    "informative",
    "inpo_loss",
    "ipo_loss",
    "irm_penalty",
    "kl_regularised_value",
    "kto_loss",
    "kto_reference_point",
    "lambda_return",
    "leave_one_out_advantage",
    "log_barrier_cloning_loss",
    "log_barrier_policy",
    "lp_reg_loss",
    "magnitude_reduced",
    "masked_mean",
    "masked_quantile",
    "mmd_loss",
    "n_step_return",
    "nash_md_advantage",
    "nt_xent_loss",
    "nucleus_entropy",
    "odds_ratio_loss",
    "one_sided_reinforce_loss",
    "one_step_distillation_loss",
    "oreal_loss",
    "orthonormality_loss",
    "outcome_score_loss",
    "overlong_penalty",
    "overthinking_weight",
    "peak_mask",
    "pearson_conjugate",
    "pearson_weight",
    "personal_space_loss",
    "policy_gradient_loss",
    "ppo_clip_loss",
    "prediction_distillation_loss",
    "prediction_loss",
    "progress_reward",
    "project_sphere",
    "rebrac_actor_loss",
    "rebrac_target",
    "regularised_actor_loss",
    "regulating_temperature",
    "reverse_kl_conjugate",
    "reverse_kl_weight",
    "reward_generator_loss",
    "reward_model_loss",
    "robust_dpo_loss",
    "rpo_loss",
    "rrpo_loss",
    "sampled_kl",
    "score_weights",
    "self_evolution_target",
    "self_judge_loss",
    "sequence_logprobs",
    "sequence_mean",
    "simpo_loss",
    "slic_loss",
    "soft_actor_loss",
    "soft_td_target",
    "sparse_value_loss",
    "sparse_weight",
    "sppo_loss",
    "squared_td_error",
    "srank",
    "supervised_contrastive_loss",
    "switched_kl",
    "td_target",
    "tdpo_loss",
    "temperature_loss",
    "temporal_classification_loss",
    "treg_loss",
    "v_dice_losses",
    "vae_losses",
    "vector_quantisation_loss",
    "violation_fraction",
    "vrex_penalty",
    "wave_loss",
    "weighted_denoising_loss",
    "weighted_log_prob_loss",
    "whitened",
]
