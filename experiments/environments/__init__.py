"""Experiments on worlds whose reward is a proxy, or that vary."""
