"""A small corpus of labeled clips."""

from __future__ import annotations

from pathlib import Path

from captioner.data.clips import NULL, Clip, write_clips


def write_corpus(folder: Path) -> Path:
    """A clips file of 24 videos with four clips each; one clip without labels."""
    recipes = {
        "carrot": [("wash", "hand"), ("peel", "peeler"), ("cut", "knife"), ("move", NULL)],
        "egg": [("take out", NULL), ("crack", "knife"), ("stir", "spoon"), ("move", NULL)],
    }
    clips = []
    for number in range(24):
        thing = ("carrot", "egg")[number % 2]
        for place, (activity, tool) in enumerate(recipes[thing]):
            source = "fridge" if activity == "take out" else NULL
            labels = (activity, tool, thing, source, "bowl" if activity == "move" else NULL)
            split = "train" if number < 16 else "val" if number < 20 else "test"
            name = f"s{number:02}"
            clip_id = f"{name}_{place * 10}_{place * 10 + 9}"
            known = None if (number, place) == (3, 0) else labels
            clips.append(Clip(clip_id, name, place, place + 0.9, ("He works.",), split, labels=known))
    path = folder / "clips.jsonl"
    write_clips(path, reversed(clips))  # the order of the file is not that of time
    return path
