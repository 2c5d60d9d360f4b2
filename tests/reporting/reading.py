"""Reads a page back: its sections, its numbers, and whatever it would load."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_LOADS = ("src", "href", "srcset", "action", "data", "poster", "background", "xlink:href", "style")
_NO_END = ("meta", "br", "link", "img", "input")


@dataclass
class Page:
    """What is on a page.

    Args:
        sections: names, in their order.
        texts: name of the section -> its text.
        numbers: name of the section -> what its ``data`` elements have as values.
        tags: names of all elements.
        references: attributes that a browser could load something by, links within the page left out.
        handlers: attributes that hold scripts.
        unclosed: elements without an end, or ends without a beginning.
    """

    sections: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, list[float]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    references: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    unclosed: list[str] = field(default_factory=list)


def read(source: Path | str) -> Page:
    """A page, from its file or its text."""
    parser = _Parser()
    parser.feed(source if isinstance(source, str) else source.read_text(encoding="utf-8"))
    parser.close()
    parser.page.unclosed += parser.open
    return parser.page


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page, self.open, self._section = Page(), [], "opening"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        page, values = self.page, dict(attributes)
        page.tags.add(tag)
        page.handlers += [f"{tag} {name}" for name in values if name.startswith("on")]
        page.references += [
            f"{tag} {name}={values[name]}"
            for name in _LOADS
            if name in values and not (values[name] or "").startswith("#")
        ]
        if tag == "section":
            self._section = str(values["id"])
            page.sections.append(self._section)
        elif tag == "data":
            page.numbers.setdefault(self._section, []).append(float(str(values["value"])))
        if tag not in _NO_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.page.unclosed.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        texts = self.page.texts
        texts[self._section] = texts.get(self._section, "") + data
