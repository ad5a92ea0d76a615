"""The contract's checks that compile, of the token agents that have a loss, a state or an update of their own.

The others are ``grpo`` with other switches, for which tests/test_contract.py compiles; of these it asks what compiles
nothing. One test for an agent: its checks share programs, and whichever ran first would seem to cost what all do.
"""

import pytest

from jaxrl_reg.contract import CHECKS, check_agent
from tests.test_contract import TRACED

OWN = ("aepo", "apo", "lp_reg", "oreal", "score", "siren")
# lp_reg learns once from each batch: no ratio leaves 1, and its clips bind nothing before passes are set. aepo: a batch
# whose entropy is far above the target is followed by one temperature, which leaves no trace of the other; that updates
# depend on both is seen in their trace. siren: which tokens are the nucleus and above the quantile is decided by
# thresholds, and for a policy that knows nothing many tokens lie at them: rounding moves them across.
UNSEEN = {"aepo": ("hypers",), "lp_reg": ("hypers",), "siren": ("members",)}


@pytest.mark.parametrize("name", OWN)
def test_it_keeps_the_contract_when_it_is_compiled(name):
    asked = [check for check in CHECKS if check not in (*TRACED, *UNSEEN.get(name, ()))]
    assert [(one.check, one.message) for one in check_agent(name, checks=asked) if not one.passed] == []
