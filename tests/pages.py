"""Runs what a page of documentation shows, as a reader would, and compares what is printed with what the page prints.

A page is run in a folder of its own, which has the repository's ``examples/``, block by block, from top to bottom.

- ``python``: run in one namespace for the whole page.
- ``sh``: a command a line. A command that begins with ``tfrec`` runs in this process, any other in bash.
- ``text`` right after one of these is what that block prints.
- A block after ``<!-- file: NAME -->`` is written to that file.
- A block after ``<!-- not run: REASON -->`` is left out, one after ``<!-- slow -->`` is run by ``pytest -m slow`` only.
- ``<!-- needs: NAME ... -->``: the page needs these data sets in ``$TFREC_DATA`` and is skipped without them.
- Other blocks (``text``, ``json``, ``yaml``, ...) are only shown.

A printed line agrees when its words are equal and its numbers are close (`agree`): whole numbers are equal, fractions
differ by at most .005 or 2 %, and numbers with a unit of time, speed or memory may be anything. ``...`` stands for any
lines.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import starting

ROOT = Path(__file__).parent.parent
_FENCE = re.compile(
    r"(?P<comments>(?:^[ ]*<!--[^\n]*-->[ ]*\n\s*)*)"
    r"^(?P<indent>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"<!--\s*(?P<key>file|not run|slow|needs)\s*(?::\s*(?P<value>[^\n]*?))?\s*-->")
_UNIT = r"(?:ns|us|µs|ms|s|seconds?|min|minutes?|h|hours?|[a-z]+/s|[KMG]i?B(?:/s)?|GFLOPS|x)"
_MEASURED = re.compile(rf"\d[\d,.:]*(?= ?{_UNIT}\b)")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?")
#: Blocks that are only shown.
SHOWN_ONLY = frozenset(("text", "json", "yaml", "toml", "ini", "bibtex", "cpp", "cmake", "csv", "html", "protobuf"))
#: Blocks that are run.
RUN = frozenset({"python", "sh"})


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int  #: of the page, from 1
    file: str | None
    not_run: str | None
    slow: bool


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        marks = {mark["key"]: mark["value"] or "" for mark in _COMMENT.finditer(fence["comments"])}
        indent = len(fence["indent"])
        body = "".join(line[indent:] if line.strip() else line for line in fence["text"].splitlines(keepends=True))
        line = text.count("\n", 0, fence.start("text")) + 1
        found.append(Block(fence["language"], body, line, marks.get("file"), marks.get("not run"), "slow" in marks))
    return found


def needs(page: Path) -> list[str]:
    """The data sets that a page reads."""
    marks = _COMMENT.finditer(page.read_text(encoding="utf-8"))
    return [name for mark in marks if mark["key"] == "needs" for name in mark["value"].split()]


def agree(expected: str, printed: str) -> str | None:
    """Whether a text is what a page prints; else the first difference, in words."""
    want = [line.rstrip() for line in expected.strip("\n").splitlines()]
    have = [line.rstrip() for line in printed.strip("\n").splitlines()]
    return _agree(want, have)


def _agree(want: list[str], have: list[str]) -> str | None:
    for place, line in enumerate(want):
        if line.strip() == "...":
            rest = want[place + 1 :]
            if not rest or any(_agree(rest, have[start:]) is None for start in range(place, len(have))):
                return None
            return f"nothing printed after `...` agrees with {rest[0]!r}"
        if place >= len(have):
            return f"the page prints {line!r}, the command ended"
        if not _same_line(line, have[place]):
            return f"the page prints {line!r}, the command {have[place]!r}"
    return None if len(have) == len(want) else f"the command prints more: {have[len(want)]!r}"


def _same_line(want: str, have: str) -> bool:
    want, have = (" ".join(_MEASURED.sub("TIME", line).split()) for line in (want, have))
    if _NUMBER.sub("N", want) != _NUMBER.sub("N", have):
        return False
    return all(_close(left, right) for left, right in zip(_NUMBER.findall(want), _NUMBER.findall(have), strict=True))


def _close(want: str, have: str) -> bool:
    if "." not in want and "." not in have:
        return want == have
    left, right = float(want.replace(",", "")), float(have.replace(",", ""))
    return abs(left - right) <= max(0.005, 0.02 * abs(left))


def commands_of(block: Block) -> list[str]:
    """The commands of a block, without comments and blank lines."""
    lines = re.sub(r"[ ]*\\\n\s*", " ", block.text).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


class Reader:
    """Reads a page as a person with a terminal and a Python prompt, both in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def read(self, page: Path, slow: bool) -> None:
        """Run a page's blocks.

        Args:
            page: the Markdown file.
            slow: run the blocks that are marked slow, too.
        """
        blocks = blocks_of(page)
        for number, block in enumerate(blocks):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.file is not None:
                path = self.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            if block.not_run is not None or (block.slow and not slow):
                continue
            if block.language not in RUN:
                continue
            if block.language == "python":
                printed = self.python(block, where)
            else:
                printed = "".join(self.command(command, where) for command in commands_of(block))
            after = blocks[number + 1] if number + 1 < len(blocks) else None
            if after is not None and after.language == "text" and after.file is None and _adjacent(page, block, after):
                difference = agree(after.text, printed)
                assert difference is None, f"{where}: {difference}\n\nprinted:\n{printed}"

    def python(self, block: Block, where: str) -> str:
        """Run a block of Python and return what it printed."""
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.text, where, "exec")
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
            exec(code, self.names)
        return printed.getvalue()

    def command(self, command: str, where: str) -> str:
        """Run a command and return what it printed."""
        words = shlex.split(command, comments=True)
        if words[0] == "tfrec" and len(words) > 1 and not words[1].startswith("-") and not set(words) & {"|", ">", ";"}:
            out, err = starting.run(words[1], *words[2:], cwd=self.folder)
            return out + err
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
        return done.stdout


def _adjacent(page: Path, block: Block, after: Block) -> bool:
    """Whether there is nothing but blank lines between two blocks."""
    lines = page.read_text(encoding="utf-8").splitlines()
    end = block.line - 1 + block.text.count("\n") + 1
    return not any(line.strip() for line in lines[end : after.line - 2])
