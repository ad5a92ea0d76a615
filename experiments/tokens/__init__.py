"""Experiments on token policies with verified rewards: small transformers, exact judges."""
