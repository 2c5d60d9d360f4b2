"""The page in a browser: a user is searched for, items are clicked, two runs compared, and titles stay text."""

import numpy as np
import pandas
import pytest

import tfrec
from tests.browser import CHROMIUM, Browser
from tests.reporting.test_browser import BEYOND
from tests.service.conftest import listening
from tfrec import Interactions
from tfrec.service.page import HEADERS, files

TITLES = [
    "Amélie", "Amour", "<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "\u202egnp.exe", "نور",
    "a\x00b\x1b[2J", "L" + "o" * 300 + "ng", "🎬 💜", "&lt;b&gt;", "'\"`${1}", " ",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    chances = np.where(np.arange(110) < len(TITLES), 0.8, 0.2)
    rows = [(f"user {u}", i) for u in range(60) for i in np.flatnonzero(rng.random(110) < chances)]
    frame = pandas.DataFrame(rows, columns=["user", "item"])
    frame["title"] = [TITLES[i] if i < len(TITLES) else f"Item {i}" for i in frame["item"]]
    data = Interactions.from_frame(frame, user="user", item="item", title="title")
    tfrec.fit("vae-cf", data, epochs=2, output_dir=folder / "vae")
    tfrec.fit("ease", data, output_dir=folder / "ease")
    return folder


@pytest.fixture(scope="module")
def address(runs):
    with listening({"vae": runs / "vae", "ease": runs / "ease"}) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is not installed")
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


READY = "document.querySelectorAll('#list-a ol > li').length > 0 && document.querySelectorAll('#facts td').length > 0"
ROWS = "[...document.querySelectorAll('#list-{} ol > li .item-title bdi')].map(e => e.textContent)"
#: What can be used has a name.
NAMED = {"button", "combobox", "textbox", "radio", "slider", "img", "listbox", "option", "link", "heading", "region"}


def check(browser, seen, address, width):
    assert seen.messages == []
    assert all(request.startswith(address) for request in seen.requests)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(BEYOND) == []
    assert [role for role, name in browser.names() if role in NAMED and not name] == []


@pytest.mark.parametrize("width", [390, 1_280])
def test_two_runs_next_to_each_other(browser, address, width):
    seen = browser.open(f"{address}#user=user 1&a=vae&b=ease&k=5", width, dark=width == 390)
    browser.wait(READY)
    assert browser.value("document.getElementById('user').value") == "user 1"
    assert [len(browser.value(ROWS.format(side))) for side in "ab"] == [5, 5]
    both = len(set(browser.value(ROWS.format("a"))) & set(browser.value(ROWS.format("b"))))
    assert browser.value("document.getElementById('status').textContent").startswith(f"{both} item")
    assert browser.value("document.querySelectorAll('#facts svg').length") == 2  # loss and validation of VAE-CF
    browser.value("document.querySelector('#list-b [aria-label^=Why]').click()")
    browser.wait("document.querySelector('#list-b .why li') !== null")
    assert browser.value("document.querySelector('#list-b [aria-label^=Why]').getAttribute('aria-expanded')") == "true"
    browser.value("document.querySelector('#list-a [aria-label^=Similar]').click()")
    browser.wait("document.activeElement.id === 'similar'")
    assert len(browser.value("[...document.querySelectorAll('#similar ol > li')].map(e => e.textContent)")) == 10
    left_out = browser.value(ROWS.format("a"))[0]
    browser.value("document.querySelector('#list-a [aria-label^=\"Leave out\"]').click()")
    browser.wait(f"!{ROWS.format('a')}.includes({left_out!r}) && {ROWS.format('a')}.length === 5")
    assert "exclude=" in browser.value("location.hash")
    check(browser, seen, address, width)


def test_with_the_keyboard_alone(browser, address):
    """A new user: two titles are typed, the list is made longer, and the address brings all of it back."""
    seen = browser.open(f"{address}#who=history&a=ease&b=", 1_280)
    browser.wait("document.getElementById('status').textContent.startsWith('Add an item')")
    browser.value("document.getElementById('history').focus()")
    for text in ("amelie", "item 20"):  # without the accent
        browser.type(text)
        browser.wait("document.getElementById('history').getAttribute('aria-expanded') === 'true'")
        browser.press("ArrowDown")
        assert browser.value("document.getElementById('history').getAttribute('aria-activedescendant')") is not None
        browser.press("Enter")
        browser.wait("document.getElementById('history').value === ''")
    browser.wait(READY)
    chips = "[...document.querySelectorAll('#history-chips bdi')].map(e => e.textContent)"
    assert browser.value(chips) == ["Amélie", "Item 20"]
    browser.value("document.getElementById('k').focus()")
    browser.press("ArrowRight")
    browser.wait("document.querySelectorAll('#list-a ol > li').length === 11")
    rows, found = browser.value(ROWS.format("a")), browser.value("location.href")
    assert not set(rows) & {"Amélie", "Item 20"}
    browser.open(found, 1_280)
    browser.wait(READY)
    assert browser.value(ROWS.format("a")) == rows
    assert browser.value(chips) == ["Amélie", "Item 20"]
    browser.press("Escape")
    check(browser, seen, address, 1_280)


def test_titles_are_text(browser, address):
    seen = browser.open(f"{address}#user=stranger&a=ease&b=vae&k=12", 390)
    browser.wait("document.querySelectorAll('#list-a ol > li').length === 12")
    browser.wait("document.getElementById('user-about').textContent === 'The data does not have this user.'")
    assert "popular" in browser.value("document.querySelector('#list-a .about').textContent")
    rows = browser.value(ROWS.format("a"))
    assert {"<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "&lt;b&gt;", "'\"`${1}"} <= set(rows)
    assert {"\\u{202e}gnp.exe", "a\\u{0}b\\u{1b}[2J"} <= set(rows)
    assert browser.value("document.querySelectorAll('main img, main script').length") == 0
    check(browser, seen, address, 390)


def test_a_token_is_asked_for(browser, runs):
    with listening({"ease": runs / "ease"}, token="secret") as address:
        seen = browser.open(address, 390)
        browser.wait("document.activeElement.id === 'token'")
        browser.type("secret")
        browser.press("Enter")
        browser.wait(READY)
        # One run: nothing to stand next to it.
        assert browser.value("document.getElementById('list-b').hidden")
        assert [m for m in seen.messages if "401" not in m] == []


def test_the_files_are_what_the_page_asks_for(address):
    """And nothing else: no file of the host is at an address."""
    import httpx

    for path, (content, kind) in files().items():
        answer = httpx.get(address.rstrip("/") + path)
        assert (answer.content, answer.headers["content-type"]) == (content, kind)
        assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]
    for path in ("page/__init__.py", "page/../routes.py", "page/%2e%2e/routes.py", "page/", "page/style.css/"):
        assert httpx.get(address + path).status_code in (307, 404)
