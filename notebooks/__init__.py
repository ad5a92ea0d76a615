"""Notebooks with their text pairs; ``python -m notebooks.execute`` runs them."""
