"""Write a small synthetic cooking corpus in the text format of TACoS, for trials without the real one.

    python -m scripts.kitchen_corpus data/kitchen

Each video is a recipe: something is fetched, prepared in a few steps and served. Each step is a clip with three
sentences. Scores on it show only that the programs run; they say nothing about captioning real videos.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from captioner.cli.program import create_app, run
from captioner.files import Kind, check_output, write_text

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
RATE = 29.4  # frames per second
VIDEOS = {"train": 24, "val": 8, "test": 8}
SENTENCES = 3
LINES = Kind("lines of this corpus", rb"k\d\d-d01\.avi_")
RATES = Kind("rates of this corpus", rb'\{\s*"k\d\d-d01')


def recipe(generator: random.Random) -> Iterator[tuple[str, dict[str, str]]]:
    """Names of steps with the words of their sentences: ("cut", {"food": "leek", ...})."""
    store, place = generator.choice(STORES), generator.choice(PLACES)
    for food in generator.sample(FOODS, 2):
        words = {"food": food, "a": f"{'an' if food[0] in 'aeio' else 'a'} {food}", "store": store, "place": place}
        middle = [step for step in ("wash", "peel", "throw", "cut") if generator.random() < 0.7]
        for step in ("fetch", *middle, "put"):
            yield step, words
    yield "stir", words


def corpus(seed: int) -> dict[str, list[str]]:
    """Lines ``VIDEO.avi_START_END:sentence#sentence#sentence`` by split."""
    generator = random.Random(seed)
    lines: dict[str, list[str]] = {split: [] for split in VIDEOS}
    for number, split in enumerate(split for split, count in VIDEOS.items() for _ in range(count)):
        end = 0
        for step, words in recipe(generator):
            start, end = end, end + generator.randint(60, 300)
            sentences = [
                f"{generator.choice(PEOPLE)} {generator.choice(STEPS[step])}.".format(**words) for _ in range(SENTENCES)
            ]
            sentences = [sentence[0].upper() + sentence[1:] for sentence in sentences]
            lines[split].append(f"k{number:02d}-d01.avi_{start}_{end}:{'#'.join(sentences)}")
    return lines


def write_corpus(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    seed: Annotated[int, typer.Option(help="Seed of recipes, times and sentences.")] = 0,
) -> None:
    """Write a small made-up cooking corpus in the text format of TACoS."""
    lines = corpus(seed)
    for name, kind in (*((f"kitchen_{split}.txt", LINES) for split in lines), ("video_info.json", RATES)):
        check_output("FOLDER", folder / name, kind)
    for split, rows in lines.items():
        write_text(folder / f"kitchen_{split}.txt", "".join(f"{row}\n" for row in rows))
    videos = sorted({row.split(".avi")[0] for rows in lines.values() for row in rows})
    rates = json.dumps(dict.fromkeys(videos, RATE), indent=0)
    write_text(folder / "video_info.json", f"{rates}\n")  # last: a folder that has it is complete
    print(f"{folder}: a made-up corpus of {sum(map(len, lines.values()))} clips", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(create_app(__doc__, write_corpus), arguments)


if __name__ == "__main__":
    sys.exit(main())
