"""The manifest of public files: complete, and a wrong or interrupted download never looks right."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from captioner.errors import DataError
from captioner.manifest import MANIFEST, Entry, download, find, problem, read_manifest
from tests.conftest import CHECKOUT

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def entry(**changes: object) -> Entry:
    base = Entry(name="x", kind="dataset", about="a", license="l", citation="c", homepage="h", file="x.bin")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("item", read_manifest().values(), ids=lambda item: item.name)
def test_every_entry_says_how_to_get_it_and_under_which_terms(item: Entry) -> None:
    """Would catch an entry nobody can fetch, and digests of a wrong length."""
    assert item.kind in ("dataset", "weights")
    assert item.about and item.license and item.citation and item.homepage.startswith("http")
    assert sum(map(bool, (item.url, item.hub, item.manual))) == 1
    assert item.file or not item.url
    assert len(item.sha256) in (0, 64) and len(item.md5) in (0, 32)
    assert not item.sha256_prefix or f"-{item.sha256_prefix}." in item.file  # torchvision's own convention


def test_the_packaged_manifest_is_the_one_at_the_top() -> None:
    assert MANIFEST.read_bytes() == (CHECKOUT / "data_manifest.yaml").read_bytes()


def test_problems_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    assert problem(entry(), path) == "missing"
    path.write_bytes(CONTENT)
    assert problem(entry(bytes=len(CONTENT), sha256=DIGEST, md5=hashlib.md5(CONTENT).hexdigest()), path) is None
    assert problem(entry(sha256_prefix=DIGEST[:8]), path) is None
    assert problem(entry(bytes=5), path) == f"{len(CONTENT)} bytes instead of 5"
    assert problem(entry(sha256="0" * 64), path) == f"SHA-256 {DIGEST} instead of {'0' * 64}"
    assert problem(entry(sha256_prefix="00000000"), path) == f"SHA-256 {DIGEST[:8]} instead of 00000000"
    assert "MD5" in str(problem(entry(md5="0" * 32), path))


HEAD = "format: captioner-data-manifest\nversion: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: other\nversion: 1\nentries: {}", "not a captioner-data-manifest of version 1"),
        ("format: captioner-data-manifest\nversion: 1\nentries: {a: {kin: x}}", "a: unknown field 'kin'"),
        ("format: captioner-data-manifest\nversion: 1\nentries: {a: {kind: x}}", "a: .*missing .* arguments"),
        ("a: [", "not YAML"),
        ("version: 1\nversion: 1", "the key 'version' occurs twice"),
        (f"{HEAD}entries: [a]", "entries must be a mapping"),
        (f"{HEAD}entries: {{a: [b]}}", "'a': expected a mapping of fields to texts"),
        (f"{HEAD}entries: {{a: {{bytes: 12:30}}}}", "bytes must be a whole number, not '12:30'"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data_manifest.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(path)


FIELDS = ("kind", "about", "license", "citation", "homepage")
TEXTS = st.dictionaries(st.sampled_from(["url", "manual", "sha256", "md5", "file", *FIELDS]), st.text())


@given(st.dictionaries(st.text(min_size=1), TEXTS, max_size=3))
@settings(max_examples=50, deadline=None)
def test_entries_come_back_as_they_were_written(entries: dict[str, dict[str, str]]) -> None:
    """Would catch fields exchanged or changed on the way through YAML, whatever characters they hold."""
    written = {name: dict.fromkeys(FIELDS, "") | fields for name, fields in entries.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data_manifest.yaml"
        document = {"format": "captioner-data-manifest", "version": 1, "entries": written}
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        manifest = read_manifest(path)
    assert list(manifest) == sorted(written)  # as safe_dump writes them
    for name, fields in written.items():
        assert manifest[name] == Entry(name=name, **fields)  # type: ignore[arg-type]


@given(st.text(min_size=1))
@settings(max_examples=50, deadline=None)
def test_unknown_fields_are_refused(field: str) -> None:
    """Would catch a misspelled field that is silently left out; ``name`` is the entry's key, not a field."""
    assume(field not in {item.name for item in dataclasses.fields(Entry)} - {"name"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data_manifest.yaml"
        entries = {"a": dict.fromkeys(FIELDS, "") | {field: ""}}
        path.write_text(yaml.safe_dump({"format": "captioner-data-manifest", "version": 1, "entries": entries}))
        with pytest.raises(DataError, match="a: "):
            read_manifest(path)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(DataError, match=r"did you mean .*flickr8k-text"):
        find(read_manifest(), "flickr8-text")


class Server(ThreadingHTTPServer):
    """Serves CONTENT on this machine; ``cut`` ends an answer early, ``ranges`` is what was asked for."""

    cut: int | None = None
    resumes = True
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.resumes else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.ranges = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def served(server: Server, **changes: object) -> Entry:
    return entry(**{"url": f"http://127.0.0.1:{server.server_port}/x.bin", "sha256": DIGEST} | changes)


@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_download_goes_on(tmp_path: Path, server: Server, resumes: bool) -> None:
    """Would catch a cut answer taken for the whole, and a restart appended to what was there."""
    path = tmp_path / "new" / "x.bin"
    server.cut, server.resumes = 70_000, resumes
    with pytest.raises(DataError, match="ended after 70000 of 256000 bytes"):
        download(served(server), path)
    assert not path.exists()
    server.cut = None
    seen: list[tuple[int, int | None]] = []
    assert download(served(server), path, lambda *state: seen.append(state)) == path
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=70000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in path.parent.iterdir()] == ["x.bin"]
    download(served(server), path)
    assert len(server.ranges) == 2  # a good copy is not fetched again


def test_a_complete_part_only_needs_its_name(tmp_path: Path, server: Server) -> None:
    """Would catch a download killed between the last byte and the renaming that can never finish."""
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    assert download(served(server), tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_wrong_file_never_gets_the_name(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match="gave a wrong file"):
        download(served(server, sha256="0" * 64), tmp_path / "x.bin")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_continued_that_cannot_be_checked(tmp_path: Path, server: Server) -> None:
    (tmp_path / "x.bin.part").write_bytes(b"of an older version")
    download(served(server, sha256=""), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_no_network_is_one_line_that_says_where_to_put_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot download .* or put the file at .*x\.bin") as caught:
        download(entry(url="http://192.0.2.1/x.bin"), tmp_path / "x.bin")
    assert "\n" not in str(caught.value)


def test_forms_are_for_people(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be downloaded automatically: fill in the form"):
        download(entry(manual="fill in the form"), tmp_path / "x.bin")
