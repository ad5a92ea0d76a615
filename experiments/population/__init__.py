"""Experiments on tuning many members at once."""
