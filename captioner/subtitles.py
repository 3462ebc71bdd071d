"""Subtitles as text: SubRip (.srt) and WebVTT (.vtt, W3C 2019)."""

from __future__ import annotations

from collections.abc import Iterable

Cue = tuple[float, float, str]
"""Start and end in seconds, and the text."""


def srt(cues: Iterable[Cue]) -> str:
    """SubRip: numbered cues in order of time, with commas before the milliseconds. Cues without text are left out."""
    blocks = []
    for number, (start, end, text) in enumerate(_ordered(cues), start=1):
        blocks.append(f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n")
    return "\n".join(blocks)


def webvtt(cues: Iterable[Cue]) -> str:
    """WebVTT: its first line, then cues in order of time; &, < and > are escaped."""
    blocks = ["WEBVTT\n"]
    for start, end, text in _ordered(cues):
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{escaped}\n")
    return "\n".join(blocks)


def _ordered(cues: Iterable[Cue]) -> list[Cue]:
    """Cues with text, each on one line (an empty line would end it), by start and then by end."""
    lines = [(start, end, " ".join(text.split())) for start, end, text in cues]
    return sorted((cue for cue in lines if cue[2]), key=lambda cue: cue[:2])


def _clock(seconds: float, comma: str) -> str:
    """``01:02:03,450``: whole milliseconds, so that 59.9996 s is a minute."""
    thousandths = round(seconds * 1000)
    whole, rest = divmod(thousandths, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{comma}{rest:03}"
