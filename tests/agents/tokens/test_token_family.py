"""What each named agent of the family fixes, and what it leaves to be set."""

import dataclasses

import pytest

from jaxrl_reg import agents
from jaxrl_reg.agents.tokens import _group, _switches
from jaxrl_reg.types import TokenSpec

FAMILY = {  # advantage, surrogate, aggregation, kl, mask_truncated
    "apo": ("group", "ppo", "token", "k3", False),
    "cispo": ("group", "cispo", "token", "none", False),
    "dapo": ("group", "ppo", "token", "none", True),
    "dr_grpo": ("centred", "ppo", "constant", "none", False),
    "gspo": ("group", "gspo", "sequence", "none", False),
    "reinforce": ("batch", "reinforce", "constant", "none", False),
    "rloo": ("leave_one_out", "reinforce", "constant", "reward", False),
}


@pytest.mark.parametrize("name", FAMILY)
def test_a_named_agent_fixes_what_its_paper_says(name, monkeypatch):
    seen = []
    monkeypatch.setattr(_group, "make", lambda config, spec, *more: seen.append(config))
    module = agents.load(name)
    module.make(module.Config(hidden=(16,), epochs=3), TokenSpec(6, 3, 4))
    (found,) = seen
    switches = ("advantage", "surrogate", "aggregation", "kl", "mask_truncated")
    assert tuple(getattr(found, switch) for switch in switches) == FAMILY[name]
    assert (found.hidden, found.epochs, found.dual_clip, found.overlong_buffer) == ((16,), 3, None, 0)
    traced = {field.name for field in dataclasses.fields(module.Hyper)}
    assert ("clip_low" in traced) == (found.surrogate != "reinforce")
    assert ("kl_coef" in traced) == (found.kl != "none")


def test_grpo_passes_its_switches_on_and_has_the_defaults_of_trl(monkeypatch):
    seen = []
    monkeypatch.setattr(_group, "make", lambda config, spec: seen.append(config))
    agents.make("grpo", TokenSpec(6, 3, 4), surrogate="cispo", dual_clip=3.0)
    assert seen == [_switches.Config(surrogate="cispo", dual_clip=3.0)]
    hyper = agents.grpo.Hyper()
    assert (hyper.clip_low, hyper.clip_high, hyper.kl_coef, hyper.temperature) == (0.2, 0.2, 0.0, 1.0)
    assert (agents.dapo.Hyper().clip_low, agents.dapo.Hyper().clip_high, agents.dapo.OVERSAMPLE) == (0.2, 0.28, 2)
    assert agents.rloo.Hyper().kl_coef == 0.05
    assert agents.rloo.Config().epochs == agents.reinforce.Config().epochs == 1
