"""Conditional random field over the labels of a clip (activity, tool, object, ...), and files of label predictions."""
