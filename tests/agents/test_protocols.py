"""What papers do to data before training, as each module's ``PROTOCOL`` says it."""

import pytest

from jaxrl_reg import agents
from jaxrl_reg.types import Protocol

STANDARDISED = {"td3_bc", "prdc", "a2pr", "decision_transformer", "decision_mamba", "percent_bc", "beso"}
BY_RETURNS = {"iql", "xql", "sql", "eql", "odice", "idql"}


@pytest.mark.parametrize("name", agents.names())
def test_every_agent_says_what_its_paper_does(name):
    protocol = agents.load(name).PROTOCOL
    assert isinstance(protocol, Protocol)
    assert protocol.normalise == (name in STANDARDISED)
    assert (protocol.reward_scale == "returns") == (name in BY_RETURNS)
    unbudgeted = ("dm1", "awac", "preference")  # those name no budget for control from data alone
    if agents.load(name).KIND == "offline" and name not in unbudgeted:
        assert protocol.batch_size
        assert protocol.updates


def test_agents_without_use_for_rewards_say_so():
    blind = {name for name in agents.names() if not agents.load(name).PROTOCOL.rewards}
    zero_shot = {name for name in agents.names() if agents.family(name) == "zero_shot"}
    assert blind == zero_shot | {"gc_iql", "bc", "beso", "dm1", "rnd", "diayn"}


def test_goals_are_paid_for_as_published():
    paid = {name: agents.load(name).PROTOCOL.sparse for name in ("iql", "odice", "cql", "rebrac", "prdc")}
    assert paid == {
        "iql": (1.0, -1.0),
        "odice": (3.0, -3.0),
        "cql": (4.0, -2.0),
        "rebrac": (100.0, 0.0),
        "prdc": (10_000.0, -1.0),
    }
