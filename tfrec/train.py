"""Train a recommender: python -m tfrec.train [RECIPE] [--section.option VALUE ...]

On several processes: horovodrun -np 8 python -m tfrec.train RECIPE ...
"""

from __future__ import annotations

import json
import sys
import time

from tfrec import commands
from tfrec.configs import Run, VAECFRun
from tfrec.recipes import DEFAULT, RECIPES


def parse(arguments: list[str]) -> tuple[str, Run]:
    """The recipe and its config, from the command line. Exits with a message on a wrong option."""
    import tyro

    # Without a recipe: the default one. Asked for help only: all of them.
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = [DEFAULT, *arguments]
    return arguments[0], tyro.extras.overridable_config_cli(
        {name: (make.__doc__ or "", make()) for name, make in RECIPES.items()},
        prog="python -m tfrec.train",
        description=f"Train a recommender. Without a recipe: {DEFAULT}.",
        args=arguments,
    )


def train(recipe: str, config: Run, started: float) -> None:
    """Run a config from data to report."""
    commands.quiet_tensorflow()
    from tfrec import distributed
    from tfrec.errors import InputError
    from tfrec.training.finish import print_summary
    from tfrec.training.popularity import train_popularity
    from tfrec.training.run_folder import RunFolder
    from tfrec.training.vae_cf import train_vae_cf

    distributed.init()
    folder = RunFolder.of(recipe, config)
    # Rank 0 alone touches the folder; the others learn how it went.
    outcome, problem = "", None
    if distributed.rank() == 0:
        try:
            outcome = "complete" if folder.claim(recipe, config) else "ready"
        except InputError as error:
            outcome, problem = "rejected", error
    outcome = distributed.broadcast_json(outcome)
    if outcome == "rejected":
        raise problem or InputError("Rank 0 rejected the output folder; see its message.")
    if outcome == "complete":
        if distributed.rank() == 0:
            print(f"{folder.path} has this run already; train it again with --no-resume.")
            print_summary(folder, json.loads(folder.metrics.read_text(encoding="utf-8")))
        return
    if isinstance(config, VAECFRun):
        train_vae_cf(recipe, config, folder, started)
    else:
        train_popularity(recipe, config, folder, started)


def main() -> None:
    """The command."""
    started = time.perf_counter()
    recipe, config = parse(sys.argv[1:])
    commands.run(
        lambda: train(recipe, config, started),
        interrupted="The same command goes on after the last checkpoint.",
    )


if __name__ == "__main__":
    main()
