"""Experiments on encoders learnt before the task."""
