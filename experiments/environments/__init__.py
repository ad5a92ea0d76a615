"""Experiments on worlds whose reward is a proxy, that vary, or whose numbers are known."""
