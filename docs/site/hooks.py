"""Pages of the site that are files elsewhere in the repository, so that each text stands once."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
#: Page of the site -> file of the repository.
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "license.md": "LICENSE",
    "custom_ops.md": "custom_ops/README.md",
    "tests.md": "tests/README.md",
}
_SOURCES = {source: page for page, source in PAGES.items()}
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=_page(source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links from docs/ to the repository's own pages at their place in the site."""
    if page.file.src_uri in PAGES:
        return markdown
    return _LINK.sub(lambda link: f"]({_in_site(link[1], 'docs/' + page.file.src_uri, page.file.src_uri)}", markdown)


def _page(source: str) -> str:
    text = (ROOT / source).read_text(encoding="utf-8")
    if not source.endswith(".md"):
        return f"# {source}\n\n```text\n{text}```\n"
    return _LINK.sub(lambda link: f"]({_in_site(link[1], source, _SOURCES[source])}", text)


def _in_site(target: str, source: str, page: str) -> str:
    """A link of a file, as a link of the site; a file that is no page of it stays as it is and fails the build."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    place = _SOURCES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if place is None:
        return target
    return posixpath.relpath(place, posixpath.dirname(page) or ".")
