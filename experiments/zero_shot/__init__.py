"""Experiments on agents that are given tasks after training."""
