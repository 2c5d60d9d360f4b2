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
    assert "no command 'trian'. Commands: train, recommend" in capsys.readouterr().err


def test_arguments_are_handed_on(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tfrec", "export", "--help"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 0
    assert "Export a finished run" in capsys.readouterr().out
