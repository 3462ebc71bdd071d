"""The web page and JSON API of ``captioner serve``.

Importing this package loads neither the server nor any model.
"""
