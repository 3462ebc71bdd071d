"""Subtitle files, character for character."""

from __future__ import annotations

from captioner.subtitles import srt, webvtt

CUES = [(3661.5, 3670.0, "He  cuts\n\nthe <b> & stirs."), (0.0, 5.2, "The man takes out a knife."), (6, 7, " ")]


def test_subrip() -> None:
    """Would catch cues out of order, an empty line inside one, or a full stop before the milliseconds."""
    assert srt(CUES) == (
        "1\n00:00:00,000 --> 00:00:05,200\nThe man takes out a knife.\n\n"
        "2\n01:01:01,500 --> 01:01:10,000\nHe cuts the <b> & stirs.\n"
    )


def test_webvtt() -> None:
    """Would catch text that players take for markup, and a missing first line."""
    assert webvtt(CUES) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:05.200\nThe man takes out a knife.\n\n"
        "01:01:01.500 --> 01:01:10.000\nHe cuts the &lt;b&gt; &amp; stirs.\n"
    )


def test_rounding_carries_over() -> None:
    """Would catch 59.9996 seconds written as 00:00:60,000 or 00:00:59,1000."""
    assert "00:00:59,999 --> 00:01:00,000" in srt([(59.9994, 59.9996, "x")])


def test_no_cues() -> None:
    assert (srt([]), webvtt([])) == ("", "WEBVTT\n")
