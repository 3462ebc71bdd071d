"""Text files beside images, or in a tree like theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioner.data.images import ImageFile
from captioner.errors import ImageError, UsageError
from captioner.writing.sidecars import Sidecars


def test_places(tmp_path: Path) -> None:
    image = ImageFile(tmp_path / "in" / "a" / "b.c.jpg", "a/b.c.jpg")
    assert Sidecars().target(image) == tmp_path / "in/a/b.c.txt"
    assert Sidecars(".caption.md").target(image) == tmp_path / "in/a/b.c.caption.md"
    assert Sidecars(".txt", tmp_path / "out").target(image) == tmp_path / "out/a/b.c.txt"


def test_reading_and_writing(tmp_path: Path) -> None:
    """Would catch a folder that is not made, and an encoding that depends on the machine."""
    place, path = Sidecars(".txt", tmp_path / "out"), tmp_path / "out" / "a" / "b.txt"
    assert place.read(path) == ""
    place.write(path, "ein Hündchen")
    assert path.read_bytes() == "ein Hündchen\n".encode() and place.read(path) == "ein Hündchen"


@pytest.mark.parametrize("suffix", ["txt", ".jpg", ".PNG", ".xmp", "/../x.txt", ".", ".a/b", "", ".cap.webp"])
def test_suffixes_that_would_lose_something(suffix: str) -> None:
    """Would catch captions that are written over the images."""
    with pytest.raises(UsageError, match="--sidecar"):
        Sidecars(suffix)


def test_what_is_no_text(tmp_path: Path) -> None:
    """Would catch a stranger's folder whose link leads to the user's files."""
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ImageError, match="not UTF-8 text"):
        Sidecars().read(tmp_path / "a.txt")
    (tmp_path / "secret").write_text("kept")
    (tmp_path / "b.txt").symlink_to(tmp_path / "secret")
    for act in (lambda: Sidecars().read(tmp_path / "b.txt"), lambda: Sidecars().write(tmp_path / "b.txt", "x")):
        with pytest.raises(ImageError, match="is a link"):
            act()
    assert (tmp_path / "secret").read_text() == "kept"
