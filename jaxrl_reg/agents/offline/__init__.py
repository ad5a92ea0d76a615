"""Agents that learn a policy for one reward from a fixed data set."""
