"""Conditional random field over the nodes of a clip (activity, tool, object, ...), and the file of its potentials."""
