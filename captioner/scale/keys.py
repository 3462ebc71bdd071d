"""Keys that occur in several shards of a finished run: two images of the same name, or an image given twice."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator

import numpy as np

from captioner.errors import DataError
from captioner.optional import require
from captioner.places import Folder


def repeated_keys(output: str, most: int = 10) -> tuple[int, dict[str, list[str]]]:
    """The number of keys that occur in several shards, and the first ``most`` of them with their shards.

    Uses 8 bytes of memory for each image. If there are such keys, the output is read twice.
    """
    folder = Folder(output)
    names = sorted(name for name in folder.names() if name.partition(".")[0].isdecimal() and _is_output(name))
    parts = [np.fromiter(map(_number, _keys(folder, name)), np.uint64) for name in names]
    numbers, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *parts]), return_counts=True)
    wanted = numbers[counts > 1]
    found: dict[str, list[str]] = {}
    for name in names if len(wanted) else ():
        for key in sorted(_keys(folder, name)):
            if (key in found or len(found) < most) and _holds(wanted, _number(key)):
                found.setdefault(key, []).append(name.partition(".")[0])
    return len(wanted), found


def _is_output(name: str) -> bool:
    return name.count(".") == 1 and name.endswith((".jsonl", ".parquet"))


def _holds(numbers: np.ndarray, number: int) -> bool:
    place = int(np.searchsorted(numbers, np.uint64(number)))
    return place < len(numbers) and int(numbers[place]) == number


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest())


def _keys(folder: Folder, name: str) -> set[str]:
    """The distinct keys of a shard."""
    return set(_read_keys(folder, name))


def _read_keys(folder: Folder, name: str) -> Iterator[str]:
    data = folder.read(name)
    try:
        if name.endswith(".parquet"):
            table = require("pyarrow.parquet", "scale").read_table(io.BytesIO(data), columns=["key"])
            yield from table["key"].to_pylist()
        else:
            yield from (str(json.loads(line)["key"]) for line in data.splitlines())
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow raises ValueErrors for damaged files
        raise DataError(f"{folder.name}/{name}: damaged ({error}); remove {name.partition('.')[0]}.json") from error
