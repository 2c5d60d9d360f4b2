"""The whole page: one file that loads nothing and runs no script."""

from __future__ import annotations

from pathlib import Path

from tfrec.reporting.facts import RunFacts
from tfrec.reporting.sections.coverage import coverage
from tfrec.reporting.sections.data import data
from tfrec.reporting.sections.examples import examples
from tfrec.reporting.sections.opening import opening
from tfrec.reporting.sections.settings import settings
from tfrec.reporting.sections.training import training
from tfrec.reporting.sections.verdict import verdict
from tfrec.reporting.sections.where import where
from tfrec.reporting.style import STYLE
from tfrec.reporting.text import plain

#: Section -> its name in the navigation, and its function, in the order of the page.
_SECTIONS = {
    "test": ("Test metrics", verdict),
    "training": ("Training", training),
    "where": ("Where it is good", where),
    "coverage": ("Catalogue", coverage),
    "examples": ("Example users", examples),
    "data": ("Data", data),
    "settings": ("How it was made", settings),
}


def draw(facts: RunFacts) -> str:
    """A run as HTML.

    Args:
        facts: what the page shows.
    """
    drawn = {name: section(facts) for name, (_, section) in _SECTIONS.items()}
    links = "".join(f'<li><a href="#{name}">{_SECTIONS[name][0]}</a></li>' for name, text in drawn.items() if text)
    title = f"{facts.metrics['recipe']} on {Path(facts.metrics['data']['name']).name}"
    body = "\n".join(text for text in drawn.values() if text)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{plain(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{opening(facts)}\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )
