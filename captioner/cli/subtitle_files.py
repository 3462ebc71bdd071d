"""The kinds of subtitle files that commands write, and may replace."""

from __future__ import annotations

from captioner.files import Kind

SRT = Kind("a file of SubRip subtitles", rb"\d+\r?\n\d+:\d\d:\d\d,\d{3} --> ")
VTT = Kind("a file of WebVTT subtitles", rb"WEBVTT")
