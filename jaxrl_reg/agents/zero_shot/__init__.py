"""Agents that learn from a data set without rewards and serve any task afterwards."""
