"""The tables of a lexer that JFlex 1.4 made, read out of its Java class without Java."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path


class Tables:
    """``symbol[code]`` numbers the character classes, ``start`` is a state; states are numbers, -1 is none."""

    def __init__(self, jar: Path, name: str, lexical_state: int) -> None:
        packed = _constants(zipfile.ZipFile(jar).read(name))
        joined = {}
        for key in sorted(key for key in packed if key.startswith("ZZ_")):
            kind = key.split("_PACKED")[0].removeprefix("ZZ_")
            joined[kind] = joined.get(kind, []) + _pairs(packed[key])
        self.symbol = _unrolled(joined["CMAP"])
        self.action = _unrolled(joined["ACTION"])
        self.attribute = _unrolled(joined["ATTRIBUTE"])
        self.row = [high << 16 | low for high, low in joined["ROWMAP"]]
        self.target = [number - 1 for number in _unrolled(joined["TRANS"])]
        self.start = lexical_state

    def follow(self, state: int, code: int) -> int:
        return -1 if state < 0 else self.target[self.row[state] + self.symbol[code]]

    def accepts(self, state: int) -> int:
        """The number of the action that a match ending here has, 0 for none."""
        return self.action[state] if state >= 0 and self.attribute[state] & 1 else 0


def _pairs(text: str) -> list[tuple[int, int]]:
    codes = [ord(character) for character in text]
    return list(zip(codes[::2], codes[1::2], strict=True))


def _unrolled(runs: list[tuple[int, int]]) -> list[int]:
    return [value for count, value in runs for _ in range(count)]


def _constants(data: bytes) -> dict[str, str]:
    """The static final strings of a class file (Java Virtual Machine Specification, chapter 4)."""
    pool: dict[int, bytes | int] = {}
    index, at = 1, 10
    while index < struct.unpack_from(">H", data, 8)[0]:
        tag = data[at]
        if tag == 1:  # text
            length = struct.unpack_from(">H", data, at + 1)[0]
            pool[index] = data[at + 3 : at + 3 + length]
            at += 3 + length
        else:
            if tag == 8:  # a string: the number of its text
                pool[index] = struct.unpack_from(">H", data, at + 1)[0]
            at += {3: 5, 4: 5, 5: 9, 6: 9, 7: 3, 8: 3, 15: 4, 16: 3}.get(tag, 5)
            index += tag in (5, 6)  # long and double count twice
        index += 1
    at += 8 + 2 * struct.unpack_from(">H", data, at + 6)[0]  # access, names, interfaces
    found = {}
    for _ in range(struct.unpack_from(">H", data, at)[0]):
        name, attributes = struct.unpack_from(">2xH2xH", data, at + 2)
        at += 8
        for _ in range(attributes):
            kind, length = struct.unpack_from(">HI", data, at + 2)
            value = pool.get(struct.unpack_from(">H", data, at + 8)[0]) if length == 2 else None
            if pool[kind] == b"ConstantValue" and isinstance(value, int):
                found[_text(pool[name])] = _text(pool[value])
            at += 6 + length
    return found


def _text(data: bytes | int) -> str:
    assert isinstance(data, bytes)
    return data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
