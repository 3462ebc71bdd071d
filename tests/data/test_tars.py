from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest

from captioner.data import tars
from captioner.data.images import SUFFIXES
from captioner.data.tars import read_tar
from captioner.errors import DataError
from tests.scale.toy import write_tar


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def test_images_come_in_order_with_their_bytes(tmp_path: Path) -> None:
    """Would catch other members of a sample taken for images, and hidden files of a Mac."""
    path = write_tar(tmp_path / "a.tar", {"b/2.jpg": b"two", "b/2.txt": b"text", "b/._2.jpg": b"x", "b/1.PNG": b"one"})
    assert [tuple(row) for row in read_tar(str(path), SUFFIXES)] == [
        ("b/2.jpg", b"two", ""),
        ("b/1.PNG", b"one", ""),
    ]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_tar(str(tmp_path / "a.tar.gz"), SUFFIXES)) == list(read_tar(str(path), SUFFIXES))


def test_hostile_members_are_errors_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a link that is followed, a name that is trusted, a huge member in memory, a key twice."""
    monkeypatch.setattr(tars, "MOST_BYTES", 1000)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.png", type=tarfile.LNKTYPE, linkname="good.png")
        add(tar, "device.png", type=tarfile.CHRTYPE)
        add(tar, "/etc/absolute.png", b"x")
        add(tar, "../../up.png", b"x")
        add(tar, "large.png", b"x" * 1001)
        add(tar, "empty.png")
        add(tar, "good.png", b"good")
        add(tar, "good.png", b"again")
        add(tar, "last.png", b"last")
    found = list(read_tar(str(tmp_path / "a.tar"), SUFFIXES))
    assert [row.name for row in found if not row.error] == ["good.png", "last.png"]
    reasons = [row.error for row in found if row.error]
    assert [reason.split()[0:2] for reason in reasons] == [
        *[["a", "link,"]] * 3,
        *[["a", "name"]] * 2,
        ["1,001", "bytes,"],
        ["the", "file"],
        ["a", "second"],
    ]
    assert not any(row.data for row in found if row.error)


def test_a_damaged_tar_is_an_error(tmp_path: Path) -> None:
    """Would catch a tar that was cut off and passes for a shorter one."""
    noise = random.Random(0).randbytes(2000)
    whole = write_tar(tmp_path / "a.tar", {"1.png": noise, "2.png": noise}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:4000])
    (tmp_path / "between.tar").write_bytes(whole[: 512 + 2048])  # a header and its data
    (tmp_path / "text.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(whole)[:1000])
    for name in ("cut.tar", "between.tar", "text.tar", "cut.tar.gz", "missing.tar"):
        with pytest.raises(DataError, match=name):
            list(read_tar(str(tmp_path / name), SUFFIXES))


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a long name that fills the memory."""
    monkeypatch.setattr(tars, "LONGEST_HEADER", 1000)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "x" * 2000 + ".png", b"x")
    with pytest.raises(DataError, match="more than the 1,000"):
        list(read_tar(str(tmp_path / "a.tar"), SUFFIXES))


def test_headers_that_python_does_not_check_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a Python whose tarfile calls neither of our methods, so that no limit holds."""
    path = write_tar(tmp_path / "a.tar", {"1.png": b"one"})
    for name in ("frombuf", "_frombuf"):
        monkeypatch.delattr(tars._Header, name)
    with pytest.raises(DataError, match="tarfile does not check headers"):
        list(read_tar(str(path), SUFFIXES))
