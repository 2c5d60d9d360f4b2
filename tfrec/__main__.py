"""The commands under one name: tfrec train als ... is python -m tfrec.train als ..."""

from __future__ import annotations

import difflib
import importlib
import sys

#: Command -> what it does, in the order of a first day.
COMMANDS = {
    "train": "train a recipe, validate, test, and write a run folder",
    "recommend": "recommend from a run to users, or to who has some items; similar items, reasons, tables",
    "evaluate": "measure a run again",
    "compare": "runs side by side, with intervals and p-values",
    "index": "build an index of a run's items, for large catalogues",
    "export": "write a run as a SavedModel",
    "serve": "answer over HTTP from runs",
    "quantize": "make a run's model int8",
    "compress": "make NeuMF's tables tensor trains",
    "benchmark": "measure parts of tfrec on this machine",
    "doctor": "show what is installed, what the machine offers, and what is wrong",
}


def main() -> None:
    """Hand the arguments to the command that the first one names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: tfrec COMMAND [OPTION ...]\n       tfrec --version\n\nCommands, each with a --help of its own:")
        for command, about in COMMANDS.items():
            print(f"  {command:<10} {about}")
        return
    if name == "--version":
        import tfrec

        print(f"tfrec {tfrec.__version__}")
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"tfrec: there is no command {name!r}.{hint} Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"tfrec {name}", *sys.argv[2:]]
    module = "tfrec.benchmark.__main__" if name == "benchmark" else f"tfrec.{name}"
    importlib.import_module(module).main()


if __name__ == "__main__":
    main()
