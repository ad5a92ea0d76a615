"""Agents that learn to do what the data show, without looking at rewards."""
