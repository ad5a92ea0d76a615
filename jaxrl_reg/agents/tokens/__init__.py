"""Agents whose actions are whole completions of prompts, trained on verified rewards."""
