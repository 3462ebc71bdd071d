"""Pages and API: what they show, what they refuse, and that the description of the API is true."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from captioner import load
from captioner.errors import SearchIndexError
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.web import engine
from captioner.web.app import HERE, Settings, create_app, percent
from captioner.web.fetch import Fetcher, FetchError
from tests import tiny
from tests.conftest import CHECKOUT
from tests.predictors.test_classifier import save_captioner
from tests.search.test_indexing import update

ADDRESS = "http://localhost:8000"


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> LRCNCaptioner:
    """One whose network has classes."""
    return load(save_captioner(tmp_path_factory.mktemp("model") / "classes.safetensors"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    tiny.save_images(tmp_path / "photos", 5)
    return tmp_path / "photos"


@pytest.fixture
def client(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> Iterator[TestClient]:
    update(tmp_path / "index", captioner, photos)
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        yield client


def open_client(captioner: LRCNCaptioner, settings: Settings) -> TestClient:
    return TestClient(create_app(captioner, settings), ADDRESS, follow_redirects=False)


def content(seed: int = 90, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    tiny.make_image(seed).save(stream, format, **options)
    return stream.getvalue()


def upload(client: TestClient, sent: bytes, where: str = "/api/caption", **settings: Any) -> Any:
    return client.post(where, files={"image": ("photo.png", sent)}, **settings)


def test_an_upload_is_captioned_classified_and_compared(
    client: TestClient, captioner: LRCNCaptioner, photos: Path
) -> None:
    """Would catch a page that shows another image's captions, and an upload that is not recognized in the index."""
    sent = (photos / "02.png").read_bytes()
    answer = upload(client, sent).json()
    (result,) = captioner.results([photos / "02.png"])
    assert answer["captions"][0]["text"] == result.captions[0].text
    assert answer["captions"][0]["log_prob"] == pytest.approx(result.captions[0].log_prob, abs=1e-3)
    assert len(answer["classes"]) == 5 and len(answer["similar"]) == 5
    assert (answer["similar"][0]["name"], answer["similar"][0]["why"]) == ("02.png", "the same file")
    page = upload(client, sent, "/caption")
    assert page.status_code == 200 and result.captions[0].text in page.text and "data:image/jpeg;base64" in page.text
    assert answer["classes"][0]["name"] in page.text and "feature maps" in page.text and "photo.png" in page.text


def test_captions_are_in_the_order_of_what_is_shown(tmp_path: Path) -> None:
    """Would catch captions that seem to be in no order: ranked by one number, shown with another."""
    default = load()
    with open_client(default, Settings(tmp_path / "index")) as client:
        sent = (CHECKOUT / "examples" / "horses.jpg").read_bytes()
        captions = upload(client, sent).json()["captions"]
        page = upload(client, sent, "/caption").text
    assert len(captions) == 3 and captions[0]["text"] == default.caption(CHECKOUT / "examples" / "horses.jpg")
    words = [len(one["text"].split()) + 1 for one in captions]
    means = [math.exp(one["log_prob"] / count) for one, count in zip(captions, words, strict=True)]
    assert default.checkpoint.decoding.length_penalty == 1.0
    assert [one["score"] for one in captions] == pytest.approx(means) and means == sorted(means, reverse=True)
    places = [page.index(f'<span class="number">{percent(mean)}<') for mean in means]
    assert places == sorted(places) and "the mean probability of a word" in page


def test_the_index_is_shown_and_searched(client: TestClient, photos: Path) -> None:
    """Would catch a gallery without images, files that are altered, and paths of this machine on a page."""
    listed = client.get("/api/images").json()
    assert listed["count"] == len(listed["images"]) == 5
    one = listed["images"][0]
    assert client.get(one["file"]).content == (photos / one["name"]).read_bytes()
    assert client.get(one["file"]).headers["content-type"] == "image/png"
    assert client.get(f"{one['file']}?download").headers["content-disposition"].startswith("attachment")
    with Image.open(io.BytesIO(client.get(one["thumbnail"]).content)) as small:
        assert small.format == "JPEG" and max(small.size) <= 320
    similar = client.get(f"/api/images/{one['id']}/similar?top=2").json()["results"]
    assert len(similar) == 2 and one["id"] not in [match["id"] for match in similar]
    assert client.post("/api/search", files={"image": content()}).json()["results"][0]["why"] == "similar features"
    word = one["classes"][0]["name"].split()[-1]
    found = client.get("/api/search", params={"q": f"the {word}"}).json()["results"]
    assert found[0]["why"].startswith(f"its classes have {word.lower()}")
    for path in ("/", "/gallery", f"/images/{one['id']}", "/search?q=a+dog", "/search"):
        page = client.get(path)
        assert page.status_code == 200 and str(photos) not in page.text
        assert not re.search(r"<script(?![^>]*src)|\sstyle=|\son\w+=|https?://(?!example)", page.text), (
            "inline code or requests"
        )


def test_the_gallery_has_pages(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch images that are on no page, or on two."""
    from captioner.web import app

    monkeypatch.setattr(app, "PAGE", 2)
    update(tmp_path / "index", captioner, photos)
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        pages = [client.get(f"/gallery?page={number}") for number in (1, 2, 3)]
        assert len({found for page in pages for found in re.findall(r"/images/\d+/thumbnail", page.text)}) == 5
        assert 'rel="next"' in pages[0].text and 'rel="next"' not in pages[2].text
        assert client.get("/gallery?page=4").status_code == 404


def test_changes_of_the_index_are_seen(
    tmp_path: Path, captioner: LRCNCaptioner, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a server that must be started again after each captioner index, or that needs an index to start."""
    monkeypatch.setattr(engine, "CHECK_SECONDS", 0.0)
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        assert "captioner index FOLDER" in client.get("/").text and client.get("/gallery").status_code == 200
        assert client.get("/api/images").status_code == 404
        assert upload(client, content()).json()["similar"] == []
        update(tmp_path / "index", captioner, photos)
        assert client.get("/api/images").json()["count"] == 5
        tiny.make_image(77).save(photos / "new.png")
        update(tmp_path / "index", captioner)
        assert client.get("/api/images").json()["count"] == 6
        shutil.rmtree(tmp_path / "index")
        assert client.get("/api/images").status_code == 404


def test_an_index_of_another_model_is_refused(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch similar images by the features of two networks."""
    update(tmp_path / "index", load(tiny.save_tiny(tmp_path / "other.safetensors")), photos)
    with pytest.raises(SearchIndexError, match="made by"):
        create_app(captioner, Settings(tmp_path / "index"))


def test_a_model_without_classes_shows_none(tmp_path: Path) -> None:
    """Would catch a page that fails because a network has no layer of classes."""
    with open_client(load(tiny.save_tiny(tmp_path / "tiny.safetensors")), Settings(tmp_path / "index")) as client:
        page = upload(client, content(), "/caption")
        assert page.status_code == 200 and "Classes" not in page.text and "first layer" not in page.text


def test_bad_requests_are_one_sentence(client: TestClient) -> None:
    """Would catch a traceback, or a page where a program expects JSON."""
    assert upload(client, b"no image").status_code == 422
    assert "cannot be read" in upload(client, b"no image", "/caption").text
    assert upload(client, b"").status_code == client.post("/api/caption", files={"other": b"x"}).status_code == 400
    assert client.post("/api/caption", content=content()).status_code == 415
    assert client.post("/api/caption", data={"url": "http://example.org/a.jpg"}, files={"x": b""}).status_code == 403
    bad_form = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/caption", content=b"--y\r\n", headers=bad_form).status_code == 400
    bad_form = {"content-type": "multipart/form-data"}
    assert client.post("/api/caption", content=b"--y\r\n", headers=bad_form).status_code == 400
    two = [("image", ("a.png", content())), ("image", ("b.png", content()))]
    assert client.post("/api/caption", files=two).status_code == 400
    for path in ("search", "search?q=+", "search?q=a&top=0", "search?q=dog&top=x", "search?q=dog&min_score=2"):
        answer = client.get(f"/api/{path}")
        assert answer.status_code == 400 and set(answer.json()) == {"error"}
    assert client.get("/api/search?q=dog&min_score=nan").status_code == 400
    assert client.get("/search", params={"q": "dog " * 200}).status_code == 400
    for path in ("/api/images/999", f"/api/images/{10**30}", "/api/nothing", "/images/x", "/images/1/other"):
        assert client.get(path).status_code == 404
    assert client.get("/caption").headers["location"] == "/"
    assert client.put("/api/caption").status_code == 405


def test_every_answer_has_the_headers(client: TestClient) -> None:
    """Would catch a page, file or error that may be framed, sniffed or run other code."""
    for path in ("/", "/static/app.js", "/images/1/file", "/api/images", "/nowhere", "/api/search"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:")
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin", "by no-referrer, forms without JavaScript have no origin"
        assert "access-control-allow-origin" not in headers and "cache-control" in headers


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "10.0.0.5", ""]
)
def test_other_host_names_are_refused(client: TestClient, host: str) -> None:
    """Would catch DNS rebinding: a stranger's name that leads here."""
    assert client.get("/", headers={"host": host}).status_code == 400
    assert upload(client, content(), headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://localhost:1"},
    ],
)
def test_other_sites_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    """Would catch a page elsewhere that makes the visitor's browser upload, or fetch an address."""
    assert upload(client, content(), headers=headers).status_code == 403
    own = {"origin": ADDRESS, "sec-fetch-site": "same-origin"}
    assert upload(client, content(), headers=own).status_code == 200


def test_uploads_have_limits(tmp_path: Path, captioner: LRCNCaptioner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch bytes beyond the limit, said or unsaid, fields that fill the memory, and a bomb of pixels."""
    with open_client(captioner, Settings(tmp_path / "index", most_bytes=100_000)) as client:
        assert upload(client, content()).status_code == 200
        assert upload(client, b"x" * 200_000).status_code == 413

        def endless() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            for _ in range(30):
                yield b"x" * 10_000

        bare = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post("/api/caption", content=endless(), headers=bare).status_code == 413
        assert client.post("/api/caption", data={"url": "x" * 50_000}, files={"y": b""}).status_code == 400
        assert client.post("/api/caption", headers={**bare, "content-length": "-5"}).status_code == 413
    monkeypatch.setattr(engine, "IMAGE_MEMORY", 1000)
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        assert "memory" in upload(client, content()).json()["error"]


def test_nothing_but_the_index_can_be_read(client: TestClient, tmp_path: Path, photos: Path) -> None:
    """Would catch traversal, and a photo that became a link to something else since it was indexed."""
    secret = tmp_path / "secret.png"
    tiny.make_image(42).save(secret)
    for path in (
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        f"/static/{'../' * 12}etc/passwd",
        f"/images/..%2f..%2f{secret}",
        "/images/1/../../../etc/passwd",
        f"/images/1/file?path={secret}",
    ):
        answer = client.get(path)
        assert answer.status_code in (200, 404) and b"root:" not in answer.content
        assert answer.content != secret.read_bytes() and b"create_app" not in answer.content
    one = client.get("/api/images").json()["images"][0]
    photo, before = photos / one["name"], os.stat(photos / one["name"])
    photo.unlink()
    photo.symlink_to(secret)
    os.utime(secret, ns=(before.st_atime_ns, before.st_mtime_ns))
    for path in (one["file"], one["thumbnail"], f"/images/{one['id']}"):
        assert client.get(path).status_code == 422
    photo.unlink()
    os.mkfifo(photo)
    assert client.get(one["file"]).status_code == 422, "and a pipe is not waited for"


def test_addresses_are_fetched_where_that_is_allowed(tmp_path: Path, captioner: LRCNCaptioner) -> None:
    """Would catch an address that is fetched without --allow-urls, and a failed one that is no sentence."""

    class Known(Fetcher):
        def fetch(self, address: str) -> bytes:
            if address != "http://photos.example/a.jpg":
                raise FetchError(f"{address}: cannot be fetched: no route")
            return content(5)

    with open_client(captioner, Settings(tmp_path / "index", fetcher=Known())) as client:
        assert 'name="url"' in client.get("/").text
        sent = {"url": " http://photos.example/a.jpg "}
        assert client.post("/api/caption", data=sent, files={"image": b""}).json()["captions"]
        page = client.post("/caption", data={"url": "http://<b>/"}, files={"image": b""})
        assert page.status_code == 400 and "&lt;b&gt;" in page.text and "<b>" not in page.text
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        assert 'name="url"' not in client.get("/").text
        assert client.post("/caption", data=sent, files={"image": b""}).status_code == 403


def test_names_and_captions_are_text(tmp_path: Path, captioner: LRCNCaptioner, photos: Path) -> None:
    """Would catch a file name or a query that becomes part of the page."""
    name = '<img src=x onerror=alert(1)>".png'
    (photos / "00.png").rename(photos / name)
    (photos / "01.png").rename(photos / os.fsdecode(b"\xff\n.png"))
    update(tmp_path / "index", captioner, photos)
    with open_client(captioner, Settings(tmp_path / "index")) as client:
        listed = {one["name"]: one for one in client.get("/api/images").json()["images"]}
        assert "<img src=x" not in client.get(f"/images/{listed[name]['id']}").text
        for one in listed.values():
            assert client.get(one["file"]).status_code == 200
        assert "<script>" not in client.get("/search?q=<script>alert(1)</script>").text
        files = {"image": ("<script>.png", content())}
        assert "<script>" not in client.post("/caption", files=files).text


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def mismatch(document: dict[str, Any], schema: dict[str, Any], value: Any, where: str = "") -> str:
    """Where a value is not as an OpenAPI schema says, as far as ours use it; empty where it is."""
    schema = resolved(document, schema)
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
    kinds["null"] = type(None)
    wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, kinds[kind]) for kind in wanted):
        return f"{where} is {type(value)}"
    if schema["type"] == "array":
        return next(filter(None, (mismatch(document, schema["items"], one, f"{where}[]") for one in value)), "")
    if schema["type"] == "object" and "properties" in schema:
        if set(schema["required"]) - set(value) or set(value) - set(schema["properties"]):
            return f"{where} has {sorted(value)}"
        parts = (mismatch(document, schema["properties"][name], one, f"{where}.{name}") for name, one in value.items())
        return next(filter(None, parts), "")
    return ""


def test_the_description_of_the_api_is_true(client: TestClient, tmp_path: Path) -> None:
    """Would catch a path, method or field that is described and not there, or there and not described."""
    pytest.importorskip("av", reason="needs the extra video")
    from tests.videos import plain, save_video

    document = client.get("/api/openapi.json").json()
    assert document == json.loads((HERE / "openapi.json").read_text())
    routes = [route for route in client.app.routes if route.path.startswith("/api/")]  # type: ignore[attr-defined]
    served = {
        (route.path.replace(":int", ""), method.lower()) for route in routes for method in route.methods - {"HEAD"}
    }
    assert served == {(path, method) for path, methods in document["paths"].items() for method in methods}
    files = {"image": content()}
    film = {"video": save_video(tmp_path / "film.mp4", [(0, plain("red")), (40, plain("green"))]).read_bytes()}
    answers = {
        ("/api/video", "post"): client.post("/api/video", files=film),
        ("/api/caption", "post"): client.post("/api/caption", files=files),
        ("/api/search", "get"): client.get("/api/search?q=a+dog&top=2&min_score=0"),
        ("/api/search", "post"): client.post("/api/search?top=2", files=files),
        ("/api/images", "get"): client.get("/api/images?page=1"),
        ("/api/images/{id}", "get"): client.get("/api/images/1"),
        ("/api/images/{id}/similar", "get"): client.get("/api/images/1/similar"),
        ("/api/openapi.json", "get"): client.get("/api/openapi.json"),
    }
    assert set(answers) == served
    for (path, method), answer in answers.items():
        response = resolved(document, document["paths"][path][method]["responses"]["200"])
        assert answer.status_code == 200
        assert mismatch(document, response["content"]["application/json"]["schema"], answer.json()) == ""
    error = document["components"]["schemas"]["Error"]
    assert mismatch(document, error, client.get("/api/images/999").json()) == ""
    assert mismatch(document, error, {"errors": 1}) and mismatch(document, error, {"error": 1}), "the check can fail"


def test_percentages() -> None:
    """Would catch "0 %" for every caption."""
    assert [percent(x) for x in (0, 1, 0.123, 0.0123, 0.00001, 1e-12)] == [
        "0 %",
        "100 %",
        "12 %",
        "1.2 %",
        "0.0010 %",
        "0.000000 %",
    ]
