"""Build an index over a run's items: tfrec index RUN"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfrec import commands
from tfrec.printing import printable


@dataclass(frozen=True)
class Arguments:
    """Build an index of a run's items, for catalogues where scoring all of them takes too long.

    `tfrec recommend`, `tfrec serve` and tfrec.Recommender.load answer from it. It is written into the run's folder.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    kind: Literal["auto", "hnsw", "ivf", "exact"] = "auto"
    """A graph of neighbours (hnsw), lists around centroids (ivf; auto: from 500,000 items on), or no index again."""
    dtype: Literal["float32", "float16", "int8"] = "float16"
    """How the index stores vectors."""
    recall: float = 0.95
    """Share of the ten best items that is to be found, mean over 512 users; more takes longer to ask."""
    seed: int = 0
    """Which users these are, and where the lists start."""


def index(arguments: Arguments) -> None:
    """Load, build, write."""
    commands.quiet_tensorflow()
    from tqdm import tqdm

    from tfrec.fitting import load_recommender
    from tfrec.runs.folder import RunFolder

    a = arguments
    folder = RunFolder.existing(a.run)
    with folder.locked():
        if a.kind == "exact":
            gone = folder.remove_index()
            print(f"{'Removed the index of' if gone else 'There was no index in'} {printable(a.run)}.")
            return
        recommender = load_recommender(folder, with_index=False)
        num_items = len(recommender.vocabulary.item_ids)
        with tqdm(
            total=num_items, desc="adding", unit="item", unit_scale=True, leave=False, disable=not sys.stderr.isatty()
        ) as bar:
            report = recommender.index(
                a.kind, a.dtype, recall=a.recall, seed=a.seed, progress=lambda done, _: bar.update(done - bar.n)
            )
        recommender.write_index(folder.path)
    size = sum(path.stat().st_size for path in folder.index)
    print(f"{report}\nWrote {', '.join(p.name for p in folder.index)} to {printable(a.run)} ({size / 2**20:.1f} MiB).")


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "index")
    commands.run(lambda: index(arguments))


if __name__ == "__main__":
    main()
