"""The inputs of each layer of a stack: one line per wiring, one tuple per layer, from the first layer to the softmax.

A layer reads any of "word" (the embedded word), "image" (the image input, the same at every step) and "below" (the
output of the layer below). u is unfactored, f is factored: the layers below the image model language alone.
1u, 2u and 2f are figure 3 of Donahue et al., "Long-term Recurrent Convolutional Networks" (arXiv 1411.4389v4); 4f is
the four-layer stack in the text of its CVPR 2015 version. 2e is the decoder of an encoder-decoder, whose only input
besides words is the state that it starts from.
"""

from __future__ import annotations

from captioner.config import choose

Wiring = tuple[tuple[str, ...], ...]

WIRINGS: dict[str, Wiring] = {
    "1u": (("word", "image"),),
    "2u": (("word", "image"), ("below",)),
    "2f": (("word",), ("below", "image")),
    "2e": (("word",), ("below",)),
    "4f": (("word",), ("below", "image"), ("below",), ("below",)),
}


def find_wiring(name: str) -> Wiring:
    """The wiring called ``name``; raises ``ConfigError``, which lists the wirings, for any other name."""
    choose("model.wiring", name, WIRINGS)
    return WIRINGS[name]
