"""An index of a person's images, which can be searched by an image or a sentence.

Importing this package loads neither torch nor any model.
"""
