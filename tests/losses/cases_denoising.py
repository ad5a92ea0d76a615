"""NumPy versions of the losses of generative policies; ``s`` is what stands still when derivatives are taken."""

import numpy as np


def distilled(a, s):
    bounded = np.minimum(np.maximum(s.target, -1), 1)
    return ((a.action - bounded) ** 2).sum(-1) / a.action.shape[-1]


CASES = {
    "diffusion_ql_loss": lambda a, s: a.error - s.eta / max(np.abs(s.other_q).mean(), s.floor) * a.q,
    "fql_actor_loss": lambda a, s: a.flow_error + a.alpha * distilled(a, s) - a.q_scale * a.q,
    "one_step_distillation_loss": distilled,
    "weighted_denoising_loss": lambda a, s: s.weight * a.error,
}
RANGES = {"error": (0.0, 3.0), "eta": (0.0, 2.0), "flow_error": (0.0, 3.0), "q_scale": (0.0, 2.0)}
