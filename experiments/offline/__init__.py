"""Experiments on regularised agents on fixed data."""
