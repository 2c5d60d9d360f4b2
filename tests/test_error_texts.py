"""Errors speak with one voice: the argument, the constraint, what was received, how to fix it."""

import ast
import os
import re
from pathlib import Path

import pytest
import yaml

from tests import error_texts
from tfrec.errors import InputError

ROOT = Path(__file__).parent.parent
TEXTS = yaml.safe_load((Path(__file__).parent / "error_texts.yaml").read_text(encoding="utf-8"))
CASES = [(section, name) for section, mistakes in error_texts.MISTAKES.items() for name in mistakes]


def told(mistake, folder):
    """What a mistake is told, with the folder of the test left out."""
    try:
        text = mistake()
    except InputError as error:
        text = str(error)
    assert isinstance(text, str), "there was no error"
    return text.replace(f"{folder}{os.sep}", "").replace(str(folder), "FOLDER").strip()


@pytest.mark.parametrize(("section", "name"), CASES)
def test_a_mistake_is_told_word_by_word(section, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told(error_texts.MISTAKES[section][name], tmp_path) == TEXTS[section][name].strip()


def test_the_table_has_each_mistake_and_no_other():
    assert {s: list(texts) for s, texts in TEXTS.items()} == {s: list(m) for s, m in error_texts.MISTAKES.items()}
    assert len(CASES) >= 100


#: Phrase -> what to write instead.
BANNED = {
    r"\bbeside\b": "next to, with, besides",
    r"\bmend(s|ed)?\b": "fix",
    r"\b(she|her|hers)\b": "they, their",
    r"\bat hand\b": "available",
    r"\bin turns\b": "alternating",
    r"\bsomebody\b|\bnobody\b": "a user, no user",
    r"\bis there already\b|\bare there already\b": "exists already",
    r"\bspeaks? for\b|\bspeaks? of\b": "contributes to, is for",
    r"\bof one's own\b": "of your own",
    r"\blook of Python\b|\bthe better form\b|\bhas the questions\b|\bstands? in the way\b": "what is meant",
    r"\bfor ever\b": "forever",
}


@pytest.mark.parametrize("folder", ["tfrec", "launch", "docs", "examples", "custom_ops"])
def test_plain_english(folder):
    found = []
    for path in sorted((ROOT / folder).rglob("*")):
        if not (path.suffix in (".py", ".md") or (folder == "launch" and path.is_file() and path.suffix == "")):
            continue
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for phrase, instead in BANNED.items():
                for match in re.finditer(phrase, text, re.IGNORECASE):
                    found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]!r}; write {instead}")
    assert not found, "\n".join(found)


#: What is wrong with a file, to which the caller adds the fix.
WITHOUT_FIX = {"tfrec/runs/vocabulary.py"}


def raised(path):
    """Line -> text of what a module raises as InputError; a value stands as ``{}``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else None
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "InputError" or not call.args:
            continue
        if isinstance(call.args[0], ast.JoinedStr | ast.Constant | ast.BinOp):
            yield node.lineno, _plain(call.args[0])


def _plain(node):
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_plain(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _plain(node.left) + _plain(node.right)
    return "{}"


def test_one_voice():
    """An error ends its sentence, and has what was received or how to fix it, on a line of its own."""
    found = []
    for path in sorted((ROOT / "tfrec").rglob("*.py")):
        for line, text in raised(path):
            where = f"{path.relative_to(ROOT)}:{line}: {text!r}"
            if re.fullmatch(r"(\{\}[:\n ]*)+", text):
                continue  # another error's text
            if not re.search(r"[.?:]$|\{\}$", text.rstrip()):
                found.append(f"{where} has no full stop")
            of_file = str(path.relative_to(ROOT)) in WITHOUT_FIX
            if "\n" not in text and not text.endswith(".{}") and not of_file:
                found.append(f"{where} has neither what was received nor a fix")
            if re.search(r"Received: ?\.", text) or re.search(r"\breceived:", text):
                found.append(f"{where}: write Received: VALUE")
    assert not found, "\n".join(found)
