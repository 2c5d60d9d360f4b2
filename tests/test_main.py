"""All commands under one name."""

import importlib

import pytest

from tfrec import __main__ as main


def test_every_command_is_there(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tfrec"])
    main.main()
    out = capsys.readouterr().out
    for command in main.COMMANDS:
        assert f"\n  {command} " in out
        importlib.import_module(f"tfrec.{command}")


def test_an_unknown_command(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tfrec", "trian", "als"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 2
    assert "no command 'trian'. Did you mean train? Commands: train, recommend" in capsys.readouterr().err


def test_a_command_like_no_other_has_no_suggestion(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tfrec", "xyzzy"])
    with pytest.raises(SystemExit):
        main.main()
    assert "no command 'xyzzy'. Commands: " in capsys.readouterr().err


def test_the_version_is_the_one_installed(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tfrec", "--version"])
    main.main()
    assert capsys.readouterr().out == f"tfrec {importlib.import_module('tfrec').__version__}\n"


def test_arguments_are_handed_on(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tfrec", "export", "--help"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 0
    assert "Export a finished run" in capsys.readouterr().out
