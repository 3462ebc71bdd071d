"""A small made-up corpus of cooking in the text format of TACoS, so that everything can be tried without the real one.

    python -m scripts.kitchen_corpus data/kitchen

Videos are recipes: something is fetched, prepared in a few steps and served. Each step is a clip that three people tell
in their own words. Scores on it say that the programs run, and nothing about describing videos.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from captioner.errors import exit_status
from captioner.files import write_text

FOODS = ("carrot", "onion", "potato", "cucumber", "tomato", "orange", "mango", "leek", "garlic", "egg")
STEPS = {
    "fetch": (
        "takes out {a} from the {store}",
        "gets {a} from the {store}",
        "opens the {store} and takes out {a}",
    ),
    "wash": ("washes the {food} in the sink", "rinses the {food}", "washes the {food}"),
    "peel": ("peels the {food} with a peeler", "peels the {food}", "uses a peeler to peel the {food}"),
    "cut": (
        "cuts the {food} with a knife",
        "cuts the {food} on the cutting board",
        "uses a knife to cut the {food} into slices",
    ),
    "put": ("puts the {food} into the {place}", "puts the {food} in the {place}", "adds the {food} to the {place}"),
    "stir": ("stirs the {food} in the {place}", "stirs the {food} with a spoon", "stirs the {food}"),
    "throw": ("throws the peel into the trash", "throws away the peel", "puts the peel in the trash"),
}
STORES = ("fridge", "drawer", "cupboard")
PLACES = ("bowl", "pan", "pot")
PEOPLE = ("the person", "the man", "she", "he")
RATE = 29.4  # frames a second
VIDEOS = {"train": 24, "val": 8, "test": 8}
TELLERS = 3


def recipe(draw: random.Random) -> Iterator[tuple[str, dict[str, str]]]:
    """Steps with what they are done to: ("cut", {"food": "leek", ...})."""
    store, place = draw.choice(STORES), draw.choice(PLACES)
    for food in draw.sample(FOODS, 2):
        words = {"food": food, "a": f"{'an' if food[0] in 'aeio' else 'a'} {food}", "store": store, "place": place}
        middle = [step for step in ("wash", "peel", "throw", "cut") if draw.random() < 0.7]
        for step in ("fetch", *middle, "put"):
            yield step, words
    yield "stir", words


def corpus(seed: int) -> dict[str, list[str]]:
    """Lines ``VIDEO.avi_START_END:sentence#sentence#sentence`` by split."""
    draw = random.Random(seed)
    lines: dict[str, list[str]] = {split: [] for split in VIDEOS}
    for number, split in enumerate(split for split, count in VIDEOS.items() for _ in range(count)):
        end = 0
        for step, words in recipe(draw):
            start, end = end, end + draw.randint(60, 300)
            told = [f"{draw.choice(PEOPLE)} {draw.choice(STEPS[step])}.".format(**words) for _ in range(TELLERS)]
            told = [sentence[0].upper() + sentence[1:] for sentence in told]
            lines[split].append(f"k{number:02d}-d01.avi_{start}_{end}:{'#'.join(told)}")
    return lines


def write(folder: Path, seed: int) -> None:
    """A text file for each split, and ``video_info.json``, the last of all."""
    lines = corpus(seed)
    for split, rows in lines.items():
        write_text(folder / f"kitchen_{split}.txt", "".join(f"{row}\n" for row in rows))
    videos = sorted({row.split(".avi")[0] for rows in lines.values() for row in rows})
    write_text(folder / "video_info.json", json.dumps(dict.fromkeys(videos, RATE), indent=0) + "\n")
    print(f"{folder}: a made-up corpus of {sum(map(len, lines.values()))} clips", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return exit_status(lambda: write(options.folder, options.seed))


if __name__ == "__main__":
    sys.exit(main())
