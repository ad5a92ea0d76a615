"""Experiments on generative models and policies."""
