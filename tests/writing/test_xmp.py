"""XMP is changed in place: only the description and its writer are others afterwards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from captioner.data.images import ImageFile
from captioner.errors import DataError, ImageError
from captioner.writing.xmp import EMPTY, XMPSidecars, read_description, set_description

LIGHTROOM = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 5.6">
 <!-- a comment > that stays -->
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:d="http://purl.org/dc/elements/1.1/"
    xmlns:ps="http://ns.adobe.com/photoshop/1.0/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   xmp:Rating="4" crs:Note="a > b" ps:CaptionWriter='Ann' xmp:CreatorTool="Camera">
   <d:description>
    <rdf:Alt>
     <rdf:li xml:lang="de">Ein Hund</rdf:li>
     <rdf:li xml:lang="x-default">A dog &amp; a <![CDATA[<ball>]]></rdf:li>
    </rdf:Alt>
   </d:description>
   <d:subject><rdf:Bag><rdf:li>dog</rdf:li></rdf:Bag></d:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'


def wrapped(inside: str) -> bytes:
    return f"<rdf:RDF {RDF} {DC}>{inside}</rdf:RDF>".encode()


def test_only_the_description_changes() -> None:
    """Would catch ratings, comments, prefixes or develop settings that are lost on the way through a parser."""
    assert read_description(LIGHTROOM) == "A dog & a <ball>"
    changed = set_description(LIGHTROOM, 'Two <dogs> & "cats"', "captioner")
    assert read_description(changed) == 'Two <dogs> & "cats"'
    ours = re.compile(rb"<dc:description.*?</photoshop:CaptionWriter>", re.DOTALL)
    theirs = re.compile(rb"<d:description>.*?</d:description>| ps:CaptionWriter='Ann'", re.DOTALL)
    assert len(ours.findall(changed)) == 1
    assert ours.sub(b"", changed) == theirs.sub(b"", LIGHTROOM)
    assert set_description(changed, "x", "y").count(b"CaptionWriter>") == 1


@pytest.mark.parametrize(
    ("data", "old"),
    [
        (EMPTY, ""),
        (wrapped("<rdf:Description/>"), ""),
        (wrapped('<rdf:Description dc:description="old"/>'), "old"),
        (wrapped("<rdf:Description><dc:description/></rdf:Description>"), ""),
        (wrapped("<rdf:Description><dc:description>old</dc:description></rdf:Description>"), "old"),
        (wrapped("<rdf:Description/><rdf:Description dc:description='old'/>"), "old"),
        (wrapped(f'<Description xmlns="{RDF[11:-1]}"/>'), ""),
        (EMPTY + b"\0\0", ""),
    ],
)
def test_forms_of_xmp(data: bytes, old: str) -> None:
    assert read_description(data) == old
    for text in ("new", "zwei Hündchen 👩\u200d🍳", "]]> <x/>"):
        assert read_description(set_description(data, text, "me")) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged"),
        (b"<a>", "damaged"),
        (b"\xff\xfe<\0a\0", "not UTF-8"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><x/>', "document type"),
        (f"<rdf:RDF {RDF}/>".encode(), "no rdf:Description"),
    ],
)
def test_what_is_no_xmp(data: bytes, reason: str) -> None:
    """Would catch entities that fill the memory, and a traceback of the parser."""
    with pytest.raises(DataError, match=reason):
        set_description(data, "new", "me")


def test_sidecars(tmp_path: Path) -> None:
    """Would catch a second sidecar beside darktable's, and links that lead out of the folder."""
    place, image = XMPSidecars("me"), ImageFile(tmp_path / "a.jpg", "a.jpg")
    assert place.target(image) == tmp_path / "a.xmp"
    place.write(tmp_path / "a.xmp", "A dog.")
    assert place.read(tmp_path / "a.xmp") == "A dog." and b"CreatorTool" in (tmp_path / "a.xmp").read_bytes()
    (tmp_path / "a.jpg.xmp").write_bytes(LIGHTROOM)
    assert place.target(image) == tmp_path / "a.jpg.xmp"
    assert (
        XMPSidecars("me", tmp_path / "out").target(ImageFile(tmp_path / "x/b.jpg", "x/b.jpg"))
        == tmp_path / "out/x/b.xmp"
    )
    (tmp_path / "link.xmp").symlink_to(tmp_path / "a.xmp")
    with pytest.raises(ImageError, match="is a link"):
        place.write(tmp_path / "link.xmp", "new")
    (tmp_path / "bad.xmp").write_text("<")
    with pytest.raises(ImageError, match=r"bad.xmp: its XMP is damaged"):
        place.read(tmp_path / "bad.xmp")
