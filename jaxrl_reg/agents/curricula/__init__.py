"""Agents that choose the levels that they learn on: proximal policy optimisation under a curriculum each."""
