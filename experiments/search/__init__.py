"""Experiments on search without gradients."""
