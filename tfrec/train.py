"""Train a recommender: python -m tfrec.train [RECIPE] [--section.option VALUE ...]

On several processes: horovodrun -np 8 python -m tfrec.train RECIPE ...
"""

from __future__ import annotations

import sys
import time

from tfrec import commands
from tfrec.configs import ALSRun, NeuMFRun, Run, VAECFRun, with_data
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
    from tfrec.training.agreement import agree_on_settings
    from tfrec.training.als import train_als
    from tfrec.training.claim import on_rank_zero
    from tfrec.training.finish import print_summary
    from tfrec.training.neumf import train_neumf
    from tfrec.training.popularity import train_popularity
    from tfrec.training.prepare_items import source_checksum
    from tfrec.training.run_folder import RunFolder
    from tfrec.training.vae_cf import train_vae_cf

    distributed.init()
    agree_on_settings(recipe, config)
    if config.data.path is not None:
        # The run can then be evaluated from any folder.
        config = with_data(config, path=config.data.path.absolute())
    folder = RunFolder.of(recipe, config)
    if on_rank_zero(lambda: folder.look(recipe, config)):
        if distributed.rank() == 0:
            if config.data.path is not None:
                folder.check_data(source_checksum(config.data))
            result = folder.read_metrics()
            print(f"{folder.path} has this run already; train it again with --no-resume.")
            print_summary(folder, result)
        return
    if isinstance(config, VAECFRun):
        train_vae_cf(recipe, config, folder, started)
    elif isinstance(config, NeuMFRun):
        train_neumf(recipe, config, folder, started)
    elif isinstance(config, ALSRun):
        train_als(recipe, config, folder, started)
    else:
        train_popularity(recipe, config, folder, started)


def main() -> None:
    """The command."""
    started = time.perf_counter()
    recipe, config = commands.parsed(lambda: parse(sys.argv[1:]))
    commands.run(
        lambda: train(recipe, config, started),
        interrupted="The same command goes on after the last checkpoint.",
    )


if __name__ == "__main__":
    main()
