"""Operations in gradient and parameter space."""

from jaxrl_reg.transforms.alignment import (
    alignguard_penalty,
    fit_forgetting_law,
    forgetting_law,
    overlap_penalty,
    sensitive_directions,
    sensitive_penalty,
    separation_penalty,
    split,
)
from jaxrl_reg.transforms.anchoring import anchored, consolidate, pulled, sgld, synaptic_intelligence
from jaxrl_reg.transforms.attacks import (
    directed,
    project,
    projected_ascent,
    signed_step,
    weight_hypergradient,
)
from jaxrl_reg.transforms.bilevel import Constants, hypergradient, maid, solve_lower
from jaxrl_reg.transforms.companding import compand, companded, expand
from jaxrl_reg.transforms.low_rank import (
    adapted,
    is_kernel,
    kernel_norm,
    low_rank,
    low_rank_change,
    merged,
    orthogonality,
)
from jaxrl_reg.transforms.optimisers import adam
from jaxrl_reg.transforms.projection import Projection, add_orthogonal, orthogonal_combine
from jaxrl_reg.transforms.pruning import kept_units, prune_units
from jaxrl_reg.transforms.recycling import Usage, recycle, replace_units, usage_start, utility_step
from jaxrl_reg.transforms.refinement import refine
from jaxrl_reg.transforms.sensitivity import (
    accumulate,
    bernoulli_metric,
    categorical_metric,
    fisher_diagonal,
    fisher_factors,
    gaussian_metric,
    kronecker_quadratic,
    normalised_importance,
    output_sensitivity,
    squared_gradients,
)
from jaxrl_reg.transforms.spectral import normalised, power_start, power_step, spectrally_normalised, stepped
from jaxrl_reg.transforms.surgery import edit_units, mean_hidden, opposed_units
from jaxrl_reg.transforms.tables import update_rows
from jaxrl_reg.transforms.trees import (
    averaged,
    clamp_gradients,
    interpolate_initial,
    interpolated,
    largest_change,
    polyak,
    shrink_perturb,
)

__all__ = [
    "Constants",
    "Projection",
    "Usage",
    "accumulate",
    "adam",
    "adapted",
    "add_orthogonal",
    "alignguard_penalty",
    "anchored",
    "averaged",
    "bernoulli_metric",
    "categorical_metric",
    "clamp_gradients",
    "compand",
    "companded",
    "consolidate",
    "directed",
    "edit_units",
    "expand",
    "fisher_diagonal",
    "fisher_factors",
    "fit_forgetting_law",
    "forgetting_law",
    "gaussian_metric",
    "hypergradient",
    "interpolate_initial",
    "interpolated",
    "is_kernel",
    "kept_units",
    "kernel_norm",
    "kronecker_quadratic",
    "largest_change",
    "low_rank",
    "low_rank_change",
    "maid",
    "mean_hidden",
    "merged",
    "normalised",
    "normalised_importance",
    "opposed_units",
    "orthogonal_combine",
    "orthogonality",
    "output_sensitivity",
    "overlap_penalty",
    "polyak",
    "power_start",
    "power_step",
    "project",
    "projected_ascent",
    "prune_units",
    "pulled",
    "recycle",
    "refine",
    "replace_units",
    "sensitive_directions",
    "sensitive_penalty",
    "separation_penalty",
    "sgld",
    "shrink_perturb",
    "signed_step",
    "solve_lower",
    "spectrally_normalised",
    "split",
    "squared_gradients",
    "stepped",
    "synaptic_intelligence",
    "update_rows",
    "usage_start",
    "utility_step",
    "weight_hypergradient",
]
