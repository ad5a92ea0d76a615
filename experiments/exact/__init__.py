"""Experiments on processes small enough for exact answers."""
