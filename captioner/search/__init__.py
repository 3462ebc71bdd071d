"""An index of a person's images, found again by another image or by a sentence.

Importing this package loads neither torch nor any model.
"""
