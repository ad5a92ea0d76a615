"""Experiments on learning from preferences, most of them with exact answers."""
