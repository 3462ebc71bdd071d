"""Tokens and the vocabulary."""
