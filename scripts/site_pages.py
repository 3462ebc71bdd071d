"""Hooks of mkdocs: generated pages, their place in the navigation, and links to files outside docs/.

The pages: Python modules (mkdocstrings fills them), tutorials (notebooks as Markdown), CONTRIBUTING and CHANGELOG.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "captioner"
COPIED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages outside docs/, and their names on the site."""
LINK = re.compile(r"\[([^]\n]+(?:\n[^]\n]+)*)\]\(([^)#\s]+\.?[^)#\s]*)(#[^)\s]*)?\)")


def api_pages() -> dict[str, str]:
    """A page for each package of captioner, and one for its top-level modules; the commands have their own pages."""
    packages = [PACKAGE, *(path.parent for path in sorted(PACKAGE.glob("*/__init__.py")) if path.parent.name != "cli")]
    found = {}
    for package in packages:
        modules = sorted(package.glob("*.py") if package == PACKAGE else package.rglob("*.py"))
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
        names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
        title = ".".join(package.relative_to(ROOT).parts)
        body = "\n\n".join(f"::: {name}" for name in sorted(names))
        found[f"api/{title}.md"] = f"# {title}\n\n{body}\n"
    return found


def tutorials() -> dict[str, str]:
    """The notebooks of docs/ as Markdown."""
    return {
        path.relative_to(DOCS).with_suffix(".md").as_posix(): as_markdown(path)
        for path in sorted(DOCS.glob("notebooks/*.ipynb"))
    }


def as_markdown(notebook: Path) -> str:
    """A notebook's cells: prose as it is, Python and shell in fences."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "code":
            shell = re.match(r"%%bash.*\n", text)
            text = f"```sh\n{text[shell.end() :]}\n```" if shell else f"```python\n{text}\n```"
        parts.append(text)
    return "\n\n".join(parts) + "\n"


def on_config(config: Any) -> Any:
    """Add the generated pages to the navigation, where it names their folder."""
    groups = {
        "api": list(api_pages()),
        "notebooks": list(tutorials()),
        "commands": ["commands.md", *_pages_of("commands")],
        "tree": ["tree.md", *_pages_of("tree")],
    }
    for section in config.nav:
        for title, content in section.items():
            section[title] = list(_expand(content, groups)) if isinstance(content, list) else content
    return config


def _pages_of(folder: str) -> list[str]:
    return [path.relative_to(DOCS).as_posix() for path in sorted((DOCS / folder).glob("*.md"))]


def _expand(content: list[Any], groups: dict[str, list[str]]) -> Iterator[Any]:
    for item in content:
        if isinstance(item, dict):
            yield {title: groups[inner[0]] if isinstance(inner, list) else inner for title, inner in item.items()}
        elif item in groups:
            yield from groups[item]
        else:
            yield item


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    copied = {name: (ROOT / source).read_text(encoding="utf-8") for source, name in COPIED.items()}
    for name, content in (api_pages() | tutorials() | copied).items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links point to the page's place on the site; links to pages that the site lacks become plain text."""
    return LINK.sub(lambda found: _link(found, page.file.src_uri, files), markdown)


def _link(found: re.Match[str], source: str, files: Files) -> str:
    text, target, anchor = found[1], found[2], found[3] or ""
    if re.match(r"\w+:", target):
        return found[0]
    if target.endswith(".ipynb"):
        return f"[{text}]({target.removesuffix('ipynb')}md{anchor})"
    if source in COPIED.values():
        target = target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"
    outside = re.fullmatch(r"(?:\.\./)+(.*)", target)
    if outside is None or (Path(source).parent / target).as_posix() in files.src_uris:
        return f"[{text}]({target}{anchor})"
    if outside[1] in COPIED:
        up = "../" * source.count("/")
        return f"[{text}]({up}{COPIED[outside[1]]}{anchor})"
    return text
