"""What experiments share: a claim, its statistics, running it, its files, the command line."""

from experiments.harness.claim import Claim
from experiments.harness.statistics import CONFIDENCE

__all__ = ["CONFIDENCE", "Claim"]
