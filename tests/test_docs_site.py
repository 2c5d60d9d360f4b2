"""What the documentation makes from the code: the options of the commands, and the picture of the rooms."""

import importlib.util
from pathlib import Path

import pytest

from tfrec.__main__ import COMMANDS
from tfrec.families import RECIPES

SITE = Path(__file__).parent.parent / "docs" / "site"


def module(name):
    spec = importlib.util.spec_from_file_location(name, SITE / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def pages():
    return module("command_pages")


@pytest.fixture(scope="module")
def options(pages):
    return pages.commands()


def test_every_command_and_recipe_has_its_place(pages, options):
    for name in COMMANDS:
        assert f"\n## tfrec {name}\n" in f"\n{options}"
    for name in RECIPES:
        assert f"| `{name}` |" in options
    assert pages.MARK in (SITE.parent / pages.PAGE).read_text(encoding="utf-8")


def test_options_are_those_of_the_help(options):
    lines = {line.split(" |")[0]: line for line in options.splitlines() if line.startswith("| `")}
    assert "| `--data.split`" in lines
    assert "`by_time`" in lines["| `--data.split`"]
    assert "by recipe" in lines["| `--data.split`"]  # NeuMF holds out the latest item
    assert "required" in lines["| `run`"]
    assert "| `32` |" in lines["| `--model.factors`"]
    assert "\x1b" not in options


def test_the_picture_of_the_rooms_is_the_one_of_the_imports():
    rooms = module("rooms")
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.draw(), "run python docs/site/rooms.py"
