"""Losses that trl has too, value and gradient against its own code; runs where trl is installed, in an environment of
its own: it brings PyTorch. Only trl's loss is called, with log-probabilities in the place of a language model."""

import collections
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reg import losses

pytest.importorskip("trl", reason="compares with trl; in an environment apart: pip install trl")
torch = pytest.importorskip("torch")

from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402
from trl.trainer.rloo_trainer import RLOOTrainer  # noqa: E402

ROWS, T = 6, 5
RANDOM = np.random.default_rng(0)
OLD = np.log(RANDOM.uniform(0.1, 0.9, (ROWS, T)))
NEW, REFERENCE = (OLD + RANDOM.normal(0, 0.4, (ROWS, T)) for _ in range(2))
ADVANTAGE = RANDOM.normal(0, 1, ROWS)
LENGTH = np.array([5, 3, 1, 4, 2, 5])
MASK = (np.arange(T) < LENGTH[:, None]).astype(np.float64)
EACH = np.broadcast_to(ADVANTAGE[:, None], (ROWS, T))


def trainer(**settings):
    """What a trainer's loss looks at besides its inputs; log-probabilities are those of ``model``."""
    whole = types.SimpleNamespace(
        num_processes=1,
        device="cpu",
        sync_gradients=True,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
    )
    arguments = {"use_bias_correction_kl": False, "delta": settings.pop("delta", None), "steps_per_generation": 1}
    usual = {
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "beta": 0.0,
        "importance_sampling_level": "token",
        "epsilon_low": 0.2,
        "epsilon_high": 0.28,
        "use_vllm": False,
        "max_completion_length": T,
        "current_gradient_accumulation_steps": 1,
        "_entropy_bonus_enabled": False,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "use_weighting": False,
        "precompute_ref_logps": True,
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "loss_weights": [1.0],
        "label_smoothing": 0.1,
        "model": types.SimpleNamespace(training=True),
        "args": types.SimpleNamespace(**arguments),
        "accelerator": whole,
        "_metrics": collections.defaultdict(lambda: collections.defaultdict(list)),
        "_get_per_token_logps_and_entropies": lambda model, *_, **__: (model, torch.zeros_like(model), None),
    }
    return types.SimpleNamespace(**{**usual, **settings})


def theirs(loss, asked, **inputs):
    """Their loss of ``NEW`` and its gradient."""
    ids = torch.zeros((ROWS, T), dtype=torch.long)
    shared = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": torch.tensor(MASK),
        "advantages": torch.tensor(ADVANTAGE),
        "old_per_token_logps": torch.tensor(OLD),
        "ref_per_token_logps": torch.tensor(REFERENCE),
        "num_items_in_batch": torch.tensor(MASK.sum()),
    }
    model = torch.tensor(NEW, requires_grad=True)
    value = loss(asked, model, {**shared, **inputs})
    value.backward()
    return value.item(), model.grad.numpy()


def agree(ours, found, tolerance=2e-6):
    value, slope = jax.jit(jax.value_and_grad(ours))(jnp.asarray(NEW, jnp.float32))
    np.testing.assert_allclose(value, found[0], atol=tolerance)
    np.testing.assert_allclose(slope, found[1], atol=tolerance)


TOKENS = {
    "ppo": lambda lp: losses.ppo_clip_loss(lp, OLD, EACH, 0.2, 0.28),
    "dual": lambda lp: losses.ppo_clip_loss(lp, OLD, EACH, 0.2, 0.28, 1.5),
    "gspo": lambda lp: losses.gspo_loss(lp, OLD, ADVANTAGE, MASK, 0.2, 0.28),
    "kl": lambda lp: losses.ppo_clip_loss(lp, OLD, EACH, 0.2, 0.28) + 0.1 * losses.sampled_kl(lp, REFERENCE, "k3"),
    "cispo": lambda lp: losses.cispo_loss(lp, OLD, EACH, jnp.inf, 0.28),
}
MEANS = {
    "grpo": lambda loss: losses.sequence_mean(loss, MASK),
    "bnpo": lambda loss: losses.masked_mean(loss, MASK),
    "dapo": lambda loss: losses.masked_mean(loss, MASK),
    "cispo": lambda loss: losses.masked_mean(loss, MASK),
    "dr_grpo": lambda loss: losses.constant_mean(loss, MASK, float(T)),
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ppo", {"loss_type": "grpo"}),
        ("ppo", {"loss_type": "bnpo"}),
        ("ppo", {"loss_type": "dapo"}),
        ("ppo", {"loss_type": "dr_grpo"}),
        ("dual", {"loss_type": "dapo", "delta": 1.5}),
        ("gspo", {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
        ("kl", {"loss_type": "grpo", "beta": 0.1}),
        ("cispo", {"loss_type": "cispo", "epsilon_high": 1.28}),  # theirs is the bound itself
    ],
)
def test_losses_of_tokens_are_those_of_trl(name, settings):
    found = theirs(GRPOTrainer._compute_loss, trainer(**settings))
    assert np.abs(found[1]).max() > 1e-3
    agree(lambda lp: MEANS[settings["loss_type"]](TOKENS[name](lp)), found)


def test_the_gradient_of_rloo_is_that_of_trl_on_its_policy():
    before = torch.tensor((NEW * MASK).sum(-1))
    _, slope = theirs(RLOOTrainer._compute_loss, trainer(), old_logps=before)

    def ours(lp):
        return T * losses.constant_mean(losses.policy_gradient_loss(lp, EACH), MASK, float(T))

    np.testing.assert_allclose(jax.grad(ours)(jnp.asarray(NEW, jnp.float32)), slope, atol=2e-6)


DIRECT = {
    "sigmoid": losses.dpo_loss,
    "hinge": losses.dpo_hinge_loss,
    "ipo": losses.ipo_loss,
    "robust": lambda *pair: losses.robust_dpo_loss(*pair, 0.1),
}


@pytest.mark.parametrize("name", DIRECT)
def test_losses_of_pairs_are_those_of_trl(name):
    """Rows are three chosen completions, then three rejected ones; the prompt is one column."""
    count, weight = ROWS // 2, MASK / LENGTH[:, None] if name == "ipo" else MASK  # theirs averages for IPO alone
    ref = (REFERENCE * MASK).sum(-1)

    def called(asked, model, inputs):
        blank = torch.zeros((ROWS, T))
        outputs = {"log_probs": model * torch.tensor(MASK), "entropy": blank, "mean_logits": blank}
        outputs["is_top1"] = blank > 0
        given = {**inputs, "input_ids": torch.zeros((ROWS, T + 1), dtype=torch.long), "attention_mask": blank}
        given["completion_mask"] = torch.tensor(np.pad(MASK, ((0, 0), (1, 0)))).long()
        return DPOTrainer._compute_loss(asked, lambda **_: types.SimpleNamespace(**outputs), given, False)

    halves = {"ref_chosen_logps": torch.tensor(ref[:count]), "ref_rejected_logps": torch.tensor(ref[count:])}
    found = theirs(called, trainer(loss_types=[name], beta=0.5), **halves)

    def ours(lp):
        new, old = (lp * weight).sum(-1), (REFERENCE * weight).sum(-1)
        return DIRECT[name](new[:count], new[count:], old[:count], old[count:], 0.5).mean()

    agree(ours, found, 1e-5)
