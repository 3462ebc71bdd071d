"""Readers of data sets: each a function from a folder to records."""
