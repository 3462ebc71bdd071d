"""The page in a real browser: Chromium, by playwright. Skipped where there is none.

CAPTIONER_CHROMIUM names the program (by default a chromium on the path), CAPTIONER_AXE the file axe.min.js of the npm
package axe-core, CAPTIONER_SCREENSHOTS a folder for a screenshot of each state.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captioner import load
from captioner.predictors.lrcn import LRCNCaptioner
from captioner.web.app import Settings, create_app
from tests.conftest import CHECKOUT
from tests.predictors.test_classifier import save_captioner
from tests.search.test_indexing import update
from tests.web.test_guard import Server

playwright = pytest.importorskip("playwright.sync_api")

DOG = CHECKOUT / "examples" / "dog.jpg"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
PASTE = """async ([selector, kind, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "photo.jpg", {type: "image/jpeg"}));
  const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
    : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
  document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = os.environ.get("CAPTIONER_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("needs chromium; CAPTIONER_CHROMIUM names it")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The default model, with the examples as its index."""
    folder = tmp_path_factory.mktemp("index")
    captioner: LRCNCaptioner = load()
    update(folder / "index", captioner, CHECKOUT / "examples")
    running = Server(create_app(captioner, Settings(folder / "index")))
    yield running
    running.close()


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Any]:
    """Open a page in a browser of some kind; whatever it asks another site for, or complains about, fails the test."""
    contexts, wrong = [], []

    def open_page(path: str = "/", **settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda one: wrong.append(one.url) if not one.url.startswith((server.url, "data:")) else None)
        page.on("console", lambda one: wrong.append(one.text) if is_complaint(one) else None)
        page.on("pageerror", lambda one: wrong.append(str(one)))
        page.goto(server.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def is_complaint(message: Any) -> bool:
    """Whether the console shows an error; an answer of 4xx, which the page shows itself, is none."""
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


def keep(page: Any, name: str) -> None:
    """Keep a screenshot of a state, if somebody wants to look."""
    folder = os.environ.get("CAPTIONER_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def caption_of(page: Any) -> str:
    """The caption on the page, once it is there."""
    page.wait_for_selector("figure img")
    heading: str = page.inner_text("h1")
    assert page.get_attribute("figure img", "alt") == heading
    assert page.evaluate("document.querySelector('figure img').naturalWidth") > 100
    return heading


def test_upload(visit: Any) -> None:
    """Would catch a form that does nothing, or a result that a screen reader does not hear of."""
    page = visit()
    keep(page, "home")
    page.set_input_files("#image", DOG)
    assert "shepherd" in caption_of(page)
    assert page.inner_text("#status") == f"Caption: {page.inner_text('h1')}"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.locator(".bars li").count() >= 3 and page.locator(".grid li").count() == 7
    assert "the same file" in page.inner_text(".grid li:first-child")
    keep(page, "result")
    page.go_back()
    page.wait_for_selector("#upload:not(.compact)")
    page.click("text=Caption >> nth=-1")
    assert "Choose a file first" in page.inner_text("#status")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_paste_and_drop(visit: Any, kind: str) -> None:
    """Would catch an image on the clipboard, or dragged onto the page, that nobody takes."""
    page = visit()
    page.evaluate(PASTE, ["#main", kind, list(DOG.read_bytes())])
    assert "shepherd" in caption_of(page)


def test_what_is_no_image_is_said(visit: Any, tmp_path: Path) -> None:
    """Would catch a page that waits for ever, and an error that only the console shows."""
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.jpg").write_text("text")
    page = visit()
    page.set_input_files("#image", tmp_path / "a.txt")
    assert "a.txt is neither an image nor a video" in page.inner_text("#status")
    page.set_input_files("#image", tmp_path / "a.jpg")
    page.wait_for_selector(".error")
    assert "This image cannot be read" in page.inner_text("main")
    keep(page, "error")
    page.set_input_files("#image", DOG)
    assert "shepherd" in caption_of(page)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Four seconds of a cat, then four of a dog."""
    pytest.importorskip("av", reason="needs the extra video")
    from tests.videos import save_video
    from tests.web.test_video import example

    return save_video(tmp_path / "film.mp4", [(500 * i, example("cat" if i < 8 else "dog")) for i in range(16)])


@pytest.mark.parametrize("script", [True, False])
def test_a_video(visit: Any, film: Path, script: bool) -> None:
    """Would catch a form that refuses videos, stills that cannot be seen, and times without what happens then."""
    page = visit(java_script_enabled=script)
    page.set_input_files("#image", film)
    if not script:
        page.click("form#upload button")
    page.wait_for_selector(".clips img")
    assert page.inner_text("h1") == "film.mp4"
    first, last = page.locator(".clips > li").first, page.locator(".clips > li").last
    assert first.inner_text().startswith("0:00–") and "cat" in first.inner_text()
    assert "0:04–0:08" in last.inner_text() and "shepherd" in last.inner_text()
    if script:
        assert page.inner_text("#status") == "Described: film.mp4"
        assert page.evaluate("document.activeElement.tagName") == "H1"
        widths = page.evaluate("[...document.querySelectorAll('.clips img')].map(one => one.naturalWidth)")
        assert set(widths) == {320}
        keep(page, "video")


def test_search_and_similar_images(visit: Any) -> None:
    """Would catch a search that finds nothing, links that lead nowhere, and downloads of another name."""
    page = visit()
    page.fill("#q", "a dog on the grass")
    page.press("#q", "Enter")
    page.wait_for_url("**/search?q=*")
    assert re.match(r"“a dog on the grass”: \d+ images?", page.inner_text("h1"))
    assert "caption has grass" in page.inner_text(".grid li:first-child small")
    keep(page, "search")
    page.click(".grid li:first-child a")
    assert "shepherd" in caption_of(page)
    with page.expect_download() as download:
        page.click("text=Download")
    assert download.value.suggested_filename == "dog.jpg"
    assert Path(download.value.path()).read_bytes() == DOG.read_bytes()
    first = page.url
    page.click(".grid li:first-child a")
    page.wait_for_url(lambda url: url != first)
    page.click("text=Gallery")
    page.wait_for_url("**/gallery")
    assert page.locator(".grid li").count() == 7
    keep(page, "gallery")


def test_copying_the_caption(visit: Any) -> None:
    """Would catch alt text that is not the caption."""
    page = visit("/gallery")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(".grid li:first-child a")
    caption = caption_of(page)
    page.click("text=Copy as alt text")
    page.wait_for_selector("#status:has-text('Copied.')")
    assert page.evaluate("navigator.clipboard.readText()") == caption


def test_by_keyboard_alone(visit: Any) -> None:
    """Would catch something that only a mouse reaches, and a focus that cannot be seen."""
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "the focused link is on the page"
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "(() => { const e = document.activeElement; return [e.id || e.textContent.trim(), e.tagName,"
            " getComputedStyle(e).outlineStyle, e.href || ''] })()"
        )
        if here[1] == "BODY":
            break
        assert here[2] != "none", f"the focus of {here[0]} cannot be seen"
        seen.append(here[0] or here[3])
    assert seen[:5] == ["captioner", "q", "Search", "Caption", "Gallery"] and "image" in seen
    assert seen.index("image") < seen.index("Caption", 4), "the button comes after what it sends"
    page.set_input_files("#image", DOG)
    caption_of(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Copy as alt text"


def test_without_javascript(visit: Any) -> None:
    """Would catch a feature that needs a script, or a button that does nothing without one."""
    page = visit(java_script_enabled=False)
    assert not page.is_visible("text=Take a photo") and not page.is_visible("text=paste one")
    page.set_input_files("#image", DOG)
    page.click("form#upload button")
    page.wait_for_selector("figure img")
    page.wait_for_load_state()  # with the style sheet
    assert "shepherd" in page.inner_text("h1") and not page.is_visible("text=Copy as alt text")
    keep(page, "without-javascript")
    page.fill("#q", "horses")
    page.press("#q", "Enter")
    page.wait_for_selector(".grid")
    page.click(".grid a >> nth=0")
    page.wait_for_selector("figure img")


@pytest.mark.parametrize("colors", ["light", "dark"])
def test_on_a_phone(visit: Any, film: Path, colors: str) -> None:
    """Would catch a page that must be scrolled sideways, or one without the phone's camera."""
    page = visit(**PHONE, color_scheme=colors)
    base = page.url.rstrip("/")
    for path in ("gallery", "search?q=dog", "images/1", ""):
        page.goto(f"{base}/{path}")
        wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= room, path
        keep(page, f"phone-{colors}-{path.partition('?')[0].replace('/', '-') or 'home'}")
    assert page.is_visible("text=Take a photo")
    page.set_input_files("#camera", DOG)
    assert "shepherd" in caption_of(page)
    keep(page, f"phone-{colors}-result")
    page.set_input_files("#image", film)
    page.wait_for_selector(".clips img")
    wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room
    keep(page, f"phone-{colors}-video")


def test_axe_finds_nothing(visit: Any, film: Path) -> None:
    """Would catch missing labels, low contrast, and headings or landmarks out of order (WCAG 2.2 AA)."""
    axe = os.environ.get("CAPTIONER_AXE")
    if not axe:
        pytest.skip("needs axe-core; CAPTIONER_AXE names its axe.min.js")
    script = Path(axe).read_text()
    for colors in ("light", "dark"):
        page = visit(color_scheme=colors, bypass_csp=True)
        base = page.url.rstrip("/")
        for path in ("/", "/gallery", "/search?q=dog", "/search?q=zzz", "/search", "/images/1", "upload", "film"):
            if path in ("upload", "film"):
                page.goto(base)
                page.set_input_files("#image", DOG if path == "upload" else film)
                page.wait_for_selector("figure img" if path == "upload" else ".clips img")
            else:
                page.goto(base + path)
            page.evaluate(script)
            found = page.evaluate("axe.run(document)")["violations"]
            assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found], (path, colors)


def test_the_first_layer_is_shown(visit: Any, browser: Any, tmp_path: Path) -> None:
    """Would catch kernels and maps that are there and cannot be seen."""
    captioner = load(save_captioner(tmp_path / "classes.safetensors"))
    running = Server(create_app(captioner, Settings(tmp_path / "index")))
    try:
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(running.url)
            page.set_input_files("#image", DOG)
            page.click("summary")
            for image in page.locator("img.layer").all():
                assert image.is_visible() and image.evaluate("one => one.naturalWidth") == 640
            assert page.locator("img.layer").count() == 2
            keep(page, "first-layer")
    finally:
        running.close()
