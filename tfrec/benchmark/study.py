"""The runs that the studies of quantization and of tensor trains share: NeuMF of the reference sizes on MovieLens-1M, a
run a seed, trained in ``TFREC_STUDY_RUNS`` (default: ``runs/quantization``), or taken from there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfrec.errors import InputError
from tfrec.evaluation import Report
from tfrec.families import family_of
from tfrec.fitting import load_config, read_split
from tfrec.runs.folder import RunFolder
from tfrec.runs.loading import load_run_model
from tfrec.tasks.measure import Measure

RECIPE = "neumf-reference-ml1m"
SEEDS = (1, 2, 3)
METRICS = ("hit_rate@10", "ndcg@10")


def seed_folder(seed: int) -> Path:
    """Where the run of a seed is."""
    return Path(os.environ.get("TFREC_STUDY_RUNS", "runs/quantization")) / f"seed-{seed}"


def train_seed(seed: int, data_dir: Path | None = None) -> RunFolder:
    """The folder of the float run of a seed, trained if it is not there.

    Raises:
        InputError: the training failed.
    """
    path = seed_folder(seed)
    command = [sys.executable, "-m", "tfrec.train", RECIPE, "--seed", str(seed), "--output-dir", str(path)]
    if data_dir is not None:
        command += ["--data.dir", str(data_dir)]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise InputError(f"The training of seed {seed} failed; its error is above.\nCommand: {' '.join(command)}")
    return RunFolder.existing(path)


class StudyRun:
    """A finished run with its data, on which models are measured.

    Args:
        folder: of the run.
        data_dir: where the data set is, if not in ``$TFREC_DATA``.
    """

    def __init__(self, folder: RunFolder, data_dir: Path | None = None) -> None:
        self.folder = folder
        self.config: Any = load_config(folder, data_dir)
        family = family_of(self.config)
        self.model: Any = load_run_model(folder, family.models)
        self.split = read_split(folder, self.config)
        self.train = self.split.train
        self._rows = family.rows(self.config, self.train)
        self._measures: dict[int, Measure] = {}

    def among(self, negatives: int | None = None) -> Measure:
        """What measures among so many negatives; default: the run's."""
        evaluation = self.config.evaluation
        negatives = negatives or evaluation.negatives
        if negatives not in self._measures:
            self._measures[negatives] = Measure(self.split, replace(evaluation, negatives=negatives))
        return self._measures[negatives]

    def test(self, model: Any, negatives: int | None = None) -> Report:
        """A model's test metrics."""
        return self.among(negatives).model(model, "test", self._rows)
