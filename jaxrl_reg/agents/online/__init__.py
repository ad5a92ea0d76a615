"""Agents that learn in the environment itself."""
