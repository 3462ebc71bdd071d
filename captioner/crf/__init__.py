"""A conditional random field over the labels of a clip (activity, tool, object, ...), and label-predictions files."""
