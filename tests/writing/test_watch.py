"""Images that arrive in a folder are seen once, and when they are whole."""

from __future__ import annotations

from pathlib import Path

from captioner.data.images import ImageFile
from captioner.writing.watch import arrivals
from tests.tiny import make_image


def test_images_arrive(tmp_path: Path) -> None:
    """Would catch an image that is captioned half copied, twice, or never because it was there before."""
    log: list[str] = []
    make_image(0).save(tmp_path / "before.png")
    whole = tmp_path / "before.png"

    def sleep(seconds: float) -> None:
        """What happens between two looks."""
        assert seconds == 7
        look = len(log)
        log.append("look")
        if look == 2:
            (tmp_path / "new.png").write_bytes(whole.read_bytes()[:100])
        elif look == 3:
            (tmp_path / "new.png").write_bytes(whole.read_bytes())
            (tmp_path / "empty.png").touch()
        elif look == 6:
            (tmp_path / "sub").mkdir()
            make_image(3).save(tmp_path / "sub" / "deep.png")
        elif look == 9:
            make_image(4).save(whole)  # another image under an old name
        elif look == 12:
            raise KeyboardInterrupt

    found: list[tuple[int, list[str]]] = []

    def take(images: list[ImageFile]) -> None:
        found.append((len(log), [one.id for one in images]))
        for one in images:  # as --embed does
            one.path.write_bytes(one.path.read_bytes() + b"caption")

    try:
        for images in arrivals([str(tmp_path)], 7, sleep):
            take(images)
    except KeyboardInterrupt:
        pass
    assert found == [(1, ["before.png"]), (5, ["new.png"]), (8, ["sub/deep.png"]), (11, ["before.png"])]
