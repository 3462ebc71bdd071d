"""XMP (ISO 16684-1): the description of an image in XML, changed in place without changing any other byte.

``dc:description`` holds the caption; ``photoshop:CaptionWriter`` says who wrote it, as that field is meant to.
Nothing marks the image itself as made by a machine, because it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from captioner.data.images import ImageFile
from captioner.errors import DataError, ImageError
from captioner.files import atomic_path, require_regular
from captioner.writing.base import check_target
from captioner.writing.sidecars import place

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
XML = "http://www.w3.org/XML/1998/namespace"
EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">\n'
    '<rdf:Description rdf:about=""></rdf:Description>\n'
    '</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>\n'
).encode()
TOOL = '<xmp:CreatorTool xmlns:xmp="http://ns.adobe.com/xap/1.0/">captioner</xmp:CreatorTool>\n'
"""The program's name in new files."""
LARGEST = 2**24
"""Most bytes of a file that is read."""
_TAG = re.compile(rb"""<[^>"']*(?:"[^"]*"[^>"']*|'[^']*'[^>"']*)*>""")


@dataclass
class Packet:
    """The parsed parts of an XMP packet, with the positions of their bytes."""

    description: str = ""
    """Text of ``dc:description``: the default language, else the first."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of the elements ``dc:description`` and ``photoshop:CaptionWriter``."""
    attributes: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of the same properties as attributes, which may hold simple values."""
    inside: int | None = None
    """Where elements can be inserted into the first ``rdf:Description``, after its start tag; None if there is none."""
    start: tuple[int, int, bytes] | None = None
    """Range and name of that start tag, if it is self-closing."""


def read_description(data: bytes) -> str:
    """The caption in a packet; raises ``DataError`` if it is not XMP."""
    return _parse(data).description


def set_description(data: bytes, text: str, writer: str) -> bytes:
    """``data`` with the caption ``text`` by ``writer``, as the only language; everything else stays."""
    packet = _parse(data)
    if packet.inside is None:
        raise DataError("its XMP has no rdf:Description")
    new = (
        f'<dc:description xmlns:dc="{DC}"><rdf:Alt xmlns:rdf="{RDF}"><rdf:li xml:lang="x-default">{escape(text)}'
        f"</rdf:li></rdf:Alt></dc:description>"
        f'<photoshop:CaptionWriter xmlns:photoshop="{PHOTOSHOP}">{escape(writer)}</photoshop:CaptionWriter>'
    ).encode()
    edits = [(start, end, b"") for start, end in [*packet.spans, *packet.attributes]]
    if packet.start is None:
        edits.append((packet.inside, packet.inside, new))
    else:  # <rdf:Description .../>
        _, closed, name = packet.start
        edits.append((closed - 2, closed, b">" + new + b"</" + name + b">"))
    for start, end, replacement in sorted(edits, reverse=True):
        data = data[:start] + replacement + data[end:]
    if read_description(data) != text:
        raise DataError("its XMP could not be changed")
    return data


@dataclass(frozen=True)
class XMPSidecars:
    """``photo.xmp`` beside ``photo.jpg``, or ``photo.jpg.xmp`` if that exists; see ``Sidecars`` for ``folder``."""

    writer: str
    """The writer to record: this program and the model."""
    folder: Path | None = None

    def target(self, image: ImageFile) -> Path:
        path = place(image, self.folder)
        beside = path.with_name(f"{path.name}.xmp")  # darktable's name; the other is Lightroom's
        return beside if beside.exists() else path.with_suffix(".xmp")

    def read(self, path: Path) -> str:
        check_target(path)
        try:
            return read_description(_bytes(path)) if path.exists() else ""
        except DataError as error:
            raise ImageError(path, str(error)) from error

    def write(self, path: Path, text: str) -> None:
        check_target(path)
        try:
            data = _bytes(path) if path.exists() else EMPTY.replace(b"></rdf:D", b">\n" + TOOL.encode() + b"</rdf:D")
            data = set_description(data, text, self.writer)
        except DataError as error:
            raise ImageError(path, str(error)) from error
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)


def _bytes(path: Path) -> bytes:
    require_regular(path, DataError)
    with path.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise DataError(f"more than {LARGEST} bytes of XMP")
    return data


class _Reader:
    """Collects a ``Packet`` from expat's events."""

    def __init__(self, data: bytes) -> None:
        self.data, self.packet = data, Packet()
        self.path: list[str] = []
        self.begun: list[int] = []
        self.texts: list[tuple[str, str]] = []
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.namespace_prefixes = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        self.parser = parser

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        parts = name.split(" ")
        self.path.append(" ".join(parts[:2]))
        at = self.parser.CurrentByteIndex
        self.begun.append(at)
        if self._is_top():
            self._description(at, parts[2] if len(parts) > 2 else "", attributes)
        elif self.path[-1] == f"{RDF} li" and f"{DC} description" in self.path:
            language = next((value for key, value in attributes.items() if key.startswith(f"{XML} lang")), "")
            self.texts.append((language, ""))

    def _is_top(self) -> bool:
        return self.path[-2:] == [f"{RDF} RDF", f"{RDF} Description"] and self.path.count(f"{RDF} Description") == 1

    def _description(self, at: int, prefix: str, attributes: dict[str, str]) -> None:
        match = _TAG.match(self.data, at)
        if match is None:
            raise DataError("its XMP is damaged")
        if self.packet.inside is None:
            self.packet.inside = match.end()
            if match[0].endswith(b"/>"):
                name = f"{prefix}:Description" if prefix else "Description"
                self.packet.start = (at, match.end(), name.encode())
        for key, value in attributes.items():
            uri, local, *rest = key.split(" ") if " " in key else ("", key)
            if (uri, local) in ((DC, "description"), (PHOTOSHOP, "CaptionWriter")):
                if local == "description":
                    self.texts.append(("", value))
                spelled = re.escape(f"{rest[0]}:{local}".encode())
                found = re.search(rb"""\s""" + spelled + rb"""\s*=\s*("[^"]*"|'[^']*')""", match[0])
                if found is not None:
                    self.packet.attributes.append((at + found.start(), at + found.end()))

    def _end(self, _: str) -> None:
        start, name = self.begun.pop(), self.path.pop()
        if name in (f"{DC} description", f"{PHOTOSHOP} CaptionWriter") and self._is_top():
            tag = _TAG.match(self.data, start)
            if tag is not None and not tag[0].endswith(b"/>"):
                tag = _TAG.match(self.data, self.parser.CurrentByteIndex)
            if tag is None:
                raise DataError("its XMP is damaged")
            self.packet.spans.append((start, tag.end()))

    def _text(self, text: str) -> None:
        if self.path[-1:] == [f"{DC} description"]:
            self.texts.append(("", text.strip()))
        elif self.texts and self.path[-1:] == [f"{RDF} li"] and f"{DC} description" in self.path:
            language, before = self.texts[-1]
            self.texts[-1] = (language, before + text)

    def _doctype(self, *_: object) -> None:
        raise DataError("its XMP declares a document type, which is refused: entities could fill the memory")


def _parse(data: bytes) -> Packet:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError("its XMP is not UTF-8") from None
    reader = _Reader(data)
    try:
        reader.parser.Parse(data.rstrip(b"\0"), True)
    except expat.ExpatError as error:
        raise DataError(f"its XMP is damaged: {error}") from None
    texts = [(language, text) for language, text in reader.texts if text.strip()]
    default = [text for language, text in texts if language == "x-default"]
    reader.packet.description = (default or [text for _, text in texts] or [""])[0].strip()
    return reader.packet
