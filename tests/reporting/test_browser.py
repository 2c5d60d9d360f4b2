"""The page as a browser shows it: nothing is asked for, nothing complained of, nothing wider than a phone."""

import pytest

from tests.browser import CHROMIUM, Browser
from tests.reporting.made import facts
from tests.reporting.test_page import HOSTILE, STRANGE
from tfrec.reporting import Example, draw

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, which is not installed")

#: Elements that end beyond the right border; those in boxes that scroll are fine.
BEYOND = """[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll") && !e.closest(".hidden")
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
#: Labels of charts that lie on one another or leave their chart.
COLLIDING = """[...document.querySelectorAll("svg[role=img]")].flatMap(svg => {
    const box = svg.getBoundingClientRect(), labels = [...svg.querySelectorAll("text")].map(
        e => [e.textContent, e.getBoundingClientRect()]).filter(([_, r]) => r.width);
    const outside = labels.filter(([_, r]) => r.left < box.left - 1 || r.right > box.right + 1
        || r.top < box.top - 1 || r.bottom > box.bottom + 1).map(([text]) => text + " is outside");
    const across = labels.flatMap(([a, r], i) => labels.slice(0, i).filter(([_, q]) =>
        r.left < q.right - 1 && q.left < r.right - 1 && r.top < q.bottom - 1 && q.top < r.bottom - 1
    ).map(([b]) => a + " is on " + b));
    return [...outside, ...across].map(text => svg.getAttribute("aria-label") + ": " + text) })"""
#: Charts without marks, sections without height.
EMPTY = """[...document.querySelectorAll("section, figure, svg[role=img], table")].filter(
    e => e.getBoundingClientRect().height < 20).map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def hostile():
    people = [
        Example(text, 3, HOSTILE, [(title, i % 2 == 0) for i, title in enumerate(HOSTILE)], 2) for text in HOSTILE
    ]
    return facts(examples=people, place="x/" * 400, held_out="holds out " + "y" * 300)


PAGES = {"a usual run": facts, "hostile titles": hostile} | {name: lambda n=name: STRANGE[n] for name in STRANGE}


def test_every_page_in_a_browser(browser, tmp_path):
    """One test, as each page needs some hundredths of a second."""
    found = {}
    for number, (name, made) in enumerate(PAGES.items()):
        page = tmp_path / f"{number}.html"
        page.write_text(draw(made()), encoding="utf-8")
        for width in (400, 1_280):
            seen = browser.open(page, width)
            wrong = [*seen.messages, *seen.requests[1:]]
            if browser.value("document.documentElement.scrollWidth") > width:
                wrong.append("it is wider than the window")
            for check in (BEYOND, COLLIDING, EMPTY):
                wrong += browser.value(check)
            if wrong:
                found[name, width] = wrong
            assert seen.requests[0] == page.as_uri()
    assert not found, found


def test_light_and_dark(browser, tmp_path):
    """The scheme is the reader's, and text is readable in both."""
    page = tmp_path / "page.html"
    page.write_text(draw(facts()), encoding="utf-8")
    colours = {}
    for dark in (False, True):
        browser.open(page, 800, dark=dark)
        colours[dark] = browser.value(
            """["body", "svg text", ".note", "a", "td small"].map(s => getComputedStyle(document.querySelector(s)))
            .map((style, i) => (i == 1 ? style.fill : style.color))
            .concat(getComputedStyle(document.body).backgroundColor)"""
        )
    assert colours[False][-1] != colours[True][-1]
    for *texts, background in colours.values():
        for text in texts:
            assert contrast(text, background) > 4.5, (text, background)  # WCAG 2.1, 1.4.3


def contrast(one, other):
    """The ratio of two colours' relative luminances, WCAG 2.1."""
    levels = []
    for colour in (one, other):
        channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        levels.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(levels) + 0.05) / (min(levels) + 0.05)
