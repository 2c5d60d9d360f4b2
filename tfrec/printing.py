"""Text that came from a file, made safe to print."""

from __future__ import annotations

import unicodedata

#: Zero width non-joiner and joiner: Persian and Indic spelling, and pictures that are made of several.
_JOINERS = "\u200c\u200d"
#: Control and format characters (terminal escapes, NUL, marks that turn the direction), halves of characters,
#: unassigned and private ones, separators of lines and paragraphs.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))


def printable(text: object, keep: str = "") -> str:
    """``str(text)`` with what would not be seen, or would do something to a terminal, as an escape like ``\\x1b``.

    Titles and ids come from other people's files: printed raw, they could clear the screen, colour it, forge a line,
    or turn the reading direction. Letters of all scripts, accents, pictures and blanks stay as they are.

    Args:
        text: a title, an id, a file's name, a message.
        keep: characters to leave alone, such as the line breaks of a message.

    Example:
        >>> printable("Alien\\x1b[2J")
        'Alien\\\\x1b[2J'
        >>> printable("Amélie 🎬")
        'Amélie 🎬'
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep or _is_seen(text, i) else c.encode("unicode_escape").decode() for i, c in enumerate(text)
    )


def _is_seen(text: str, place: int) -> bool:
    character = text[place]
    if unicodedata.category(character) not in _UNSEEN:
        return True
    # A joiner between two characters of a script that has a use for it.
    between = text[place - 1 : place + 2] if place else ""
    return (
        character in _JOINERS
        and len(between) == 3
        and all(not c.isascii() and unicodedata.category(c) not in _UNSEEN for c in (between[0], between[2]))
    )
