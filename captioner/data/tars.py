"""Read WebDataset's tars as a stream: nothing is unpacked, and no member's name is used as a path."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple, Self

from captioner.errors import DataError
from captioner.places import open_source

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Suffixes of tars."""
MOST_BYTES = 2**28
"""Most bytes of a member, as of any image file in a table or an object store."""
LONGEST_HEADER = 2**20
"""Most bytes of a member's long name or attributes, which are read into memory."""
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Member(NamedTuple):
    """A file in a tar, or the reason why it is not read."""

    name: str
    data: bytes = b""
    error: str = ""


class _Header(tarfile.TarInfo):
    """A member whose headers are limited in size, in a tar that has an end marker."""

    is_checked = False

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        return cls._check(buf, super().frombuf, encoding, errors)

    @classmethod
    def _frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str, **options: bool) -> Self:
        """What tarfile calls instead of ``frombuf`` from Python 3.14 on."""
        return cls._check(buf, super()._frombuf, encoding, errors, **options)  # type: ignore[misc]

    @classmethod
    def _check(cls, buf: bytes | bytearray, parse: Callable[..., Self], *arguments: str, **options: bool) -> Self:
        if not buf:  # tarfile would take this for the end
            raise DataError("cut off: the zeros at the end of a tar are missing; fetch or write it again")
        member = parse(buf, *arguments, **options)
        if member.type in HEADERS and not 0 <= member.size <= LONGEST_HEADER:
            raise DataError(f"a header of {member.size:,} bytes, more than the {LONGEST_HEADER:,} that are read")
        member.is_checked = True
        return member


def read_tar(source: str, suffixes: Collection[str]) -> Iterator[Member]:
    """The members whose names end with one of ``suffixes``, in order; the tar may be compressed.

    Links, devices, names that lead elsewhere, huge members and repeated names are not read but give an error; hidden
    files are skipped. Raises ``DataError`` if the tar is damaged or cut off.
    """
    seen: set[str] = set()
    with open_source(source) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # otherwise the list would grow with the tar
                    if not member.is_checked:  # type: ignore[attr-defined]
                        raise DataError("this Python's tarfile does not check headers; use Python 3.11 to 3.14")
                    if _is_wanted(member.name, suffixes):
                        yield _read(tar, member, seen)
                        seen.add(member.name)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, MemoryError) as error:
            raise DataError(f"{source}: damaged, cut off or not a tar ({error})") from error


def too_large(size: int) -> str:
    """Why a file of ``size`` bytes is not read; empty if it is."""
    return f"{size:,} bytes, more than the {MOST_BYTES:,} that are read" if size > MOST_BYTES else ""


def _is_wanted(name: str, suffixes: Collection[str]) -> bool:
    base = name.rpartition("/")[2]
    return os.path.splitext(base)[1].lower() in suffixes and not base.startswith(".")


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, seen: set[str]) -> Member:
    error = _refusal(member, seen)
    if error:
        return Member(member.name, error=error)
    file = tar.extractfile(member)
    assert file is not None, "a regular file"
    data = file.read()
    if len(data) < member.size:
        raise DataError(f"cut off in the member {member.name}")
    return Member(member.name, data)


def _refusal(member: tarfile.TarInfo, seen: set[str]) -> str:
    parts = PurePosixPath(member.name).parts
    if member.name in seen:
        return "a second member of this name"
    if parts[:1] == ("/",) or ".." in parts or "\\" in member.name:
        return "a name that leads out of the tar"
    if not member.isreg() or member.issparse():
        return "a link, folder, device or sparse file"
    return too_large(member.size) or ("" if member.size else "the file is empty")
