"""Numbers that papers print, so that ours stand beside them: BLEU-1 to BLEU-4 in percent, CIDEr-D as coco-caption's.

None means that the paper does not say. "CVPR" is Donahue et al., CVPR 2015; "v4" is arXiv 1411.4389v4.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    system: str
    bleu: tuple[float | None, float | None, float | None, float | None]
    cider: float | None
    source: str


TABLES: dict[str, tuple[Published, ...]] = {
    "flickr8k": (
        Published("Karpathy & Fei-Fei", (57.9, 38.3, 24.5, 16.0), None, "Karpathy & Fei-Fei 2015, table 2"),
        Published("Google NIC", (63.0, 41.0, 27.0, None), None, "Xu et al. 2015, table 1"),
        Published("Soft attention", (67.0, 44.8, 29.9, 19.5), None, "Xu et al. 2015, table 1"),
        Published("Hard attention", (67.0, 45.7, 31.4, 21.3), None, "Xu et al. 2015, table 1"),
    ),
    "flickr30k": (
        Published("m-RNN", (54.79, 23.92, 19.52, None), None, "CVPR, table 3"),
        Published("1-NN fc8", (37.34, 18.66, 9.39, 4.88), None, "CVPR, table 3"),
        Published("1-NN fc7", (38.81, 20.16, 10.37, 5.54), None, "CVPR, table 3"),
        Published("LRCN", (58.72, 39.06, 25.12, 16.46), None, "CVPR, table 3"),
    ),
    "coco": (
        Published("CaffeNet 1u", (65.4, 47.5, 33.3, 23.1), 0.661, "v4, table 6"),
        Published("CaffeNet 2u", (65.3, 47.0, 32.8, 23.0), 0.682, "v4, table 6"),
        Published("CaffeNet 2f", (64.6, 46.2, 32.1, 22.4), 0.674, "v4, table 6"),
        Published("VGG-16 2f", (67.4, 49.4, 35.1, 24.8), 0.773, "v4, table 6"),
        Published("VGG-16 2f, fine-tuned", (69.5, 51.9, 37.4, 26.8), 0.839, "v4, table 6"),
    ),
}
