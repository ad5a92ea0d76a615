"""Experiments on learning from what others do."""
