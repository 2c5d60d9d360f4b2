"""Train a recommender: tfrec train [RECIPE] [--section.option VALUE ...]

On several processes: horovodrun -np 8 python -m tfrec.train RECIPE ...
"""

from __future__ import annotations

import sys
import time

from tfrec import commands
from tfrec.families import DEFAULT_RECIPE, RECIPES, RunConfig


def parse(arguments: list[str]) -> tuple[str, RunConfig]:
    """The recipe and its settings, from the command line. Exits with a message on a wrong option."""
    import tyro

    # Without a recipe: the default one. Asked for help only: all of them.
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = [DEFAULT_RECIPE, *arguments]
    return arguments[0], tyro.extras.overridable_config_cli(
        {name: (make.__doc__ or "", make()) for name, make in RECIPES.items()},
        prog="tfrec train",
        description=f"Train a recommender. Without a recipe: {DEFAULT_RECIPE}.",
        args=arguments,
    )


def train(recipe: str, config: RunConfig, started: float) -> None:
    """Run it from data to report."""
    commands.quiet_tensorflow()
    if config.plan is not None:
        from tfrec.planning import print_plan

        print_plan(recipe, config)
        return
    from tfrec.fitting import run

    run(recipe, config, started)


def main() -> None:
    """The command."""
    started = time.perf_counter()
    recipe, config = commands.parsed(lambda: parse(sys.argv[1:]))
    commands.run(
        lambda: train(recipe, config, started),
        interrupted="The same command continues after the last checkpoint.",
    )


if __name__ == "__main__":
    main()
