"""What titles and ids from files do to a terminal: nothing."""

import unicodedata

import pytest

from tfrec.printing import printable


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("Alien\x1b[2J\x1b[31m", r"Alien\x1b[2J\x1b[31m"),
        ("a\0b", r"a\x00b"),
        ("two\nlines\r", r"two\nlines\r"),
        ("a\tb", r"a\tb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u200fx\u2066y\u2069", r"\u200fx\u2066y\u2069"),
        ("\x9b31m", r"\x9b31m"),  # the one-byte form of ESC [
        ("\ufeffBOM", r"\ufeffBOM"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
        ("soft\xadhyphen", r"soft\xadhyphen"),
        ("half \udc80", r"half \udc80"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("private \ue000", r"private \ue000"),
        ("a\u200db", r"a\u200db"),  # joins nothing
        ("=cmd()", "=cmd()"),
        ("AC\\DC", "AC\\DC"),
    ],
)
def test_what_is_not_seen_is_escaped(text, printed):
    assert printable(text) == printed


@pytest.mark.parametrize(
    "text",
    [
        "Amélie",
        "千と千尋\u3000の神隠し",
        "می‌خواهم",
        "👨‍👩‍👧 ❤️‍🔥",
        "Sigur Rós ( )",
        "न्‍",
        "e\u0301",
        "עברית العربية",
        "a b",
        "",
    ],
)
def test_what_people_write_stays(text):
    assert printable(text) == (text if text != "न्‍" else "न्\\u200d")


def test_no_character_of_another_kind_gets_through():
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            assert printable(character).isascii(), hex(code)
            assert printable(f"a{character}b").isascii(), hex(code)


def test_numbers_and_messages():
    assert printable(12) == "12"
    assert printable("error: x\n\x1b[0m", keep="\n") == "error: x\n\\x1b[0m"
