"""A contact sheet: thumbnails with their captions in one self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from captioner.data.images import open_image
from captioner.errors import ImageError, printable, warn
from captioner.files import Kind
from captioner.search.query import Match

SIDE = 320
"""Largest side of a thumbnail in pixels."""
START = "<!doctype html>\n<!-- contact sheet of captioner -->\n"
SHEET = Kind("a contact sheet of this program", START.encode())
STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 2rem; color: #1c2126; background: #fff }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.5rem; padding: 0; margin: 0 }
li { list-style: none } img { width: 100%; height: 11rem; object-fit: contain; background: #eef1f4 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 2rem 0 1rem } small { color: #4c5762; overflow-wrap: anywhere }
"""


def contact_sheet(title: str, groups: Sequence[Sequence[Match]]) -> str:
    """The HTML page of groups of matches; an image that cannot be read is replaced by a note."""
    parts = [f'{START}<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">']
    parts.append(f"<title>{escape(printable(title))}</title><style>{STYLE}</style><h1>{escape(printable(title))}</h1>")
    for number, group in enumerate(groups, 1):
        if len(groups) > 1:
            parts.append(f"<h2>{number}</h2>")
        parts.append(f"<ul>{''.join(map(_item, group))}</ul>")
    return "\n".join(parts) + "\n"


def to_jpeg(image: Image.Image, side: int = SIDE) -> bytes:
    """A JPEG of an RGB image, scaled down so that its larger side has at most ``side`` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()


def _item(match: Match) -> str:
    entry = match.entry
    try:
        source = base64.b64encode(to_jpeg(open_image(entry.path))).decode()
    except ImageError as error:
        warn(error)
        return ""
    caption, path = (escape(printable(text.encode(errors="replace").decode())) for text in (entry.caption, entry.path))
    image = f'<img src="data:image/jpeg;base64,{source}" alt="{caption}">'
    return f"<li>{image}<br>{caption}<br><small>{match.score:.3f} · {escape(match.why)}<br>{path}</small></li>"
