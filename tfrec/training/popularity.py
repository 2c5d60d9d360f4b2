"""Fit and measure the popularity baseline."""

from __future__ import annotations

from typing import Any

from tfrec import distributed
from tfrec.configs import PopularityRun
from tfrec.models import Popularity
from tfrec.training.agreement import agree_on_data
from tfrec.training.claim import on_rank_zero
from tfrec.training.finish import finish
from tfrec.training.prepare import Prepared, announce_data, check_evaluation, prepare
from tfrec.training.report import measure_all
from tfrec.training.run_folder import RunFolder


def train_popularity(recipe: str, config: PopularityRun, folder: RunFolder, started: float) -> dict[str, Any]:
    """Count, validate, test, and write everything into ``folder``; returns the content of metrics.json."""
    data = distributed.together(lambda: _prepare(config), "preparing data")
    agree_on_data(config, data)
    model = Popularity(data.split.train.shape[1])
    model.adapt(data.split.train)
    on_rank_zero(lambda: folder.claim(recipe, config, data.sha256))
    announce_data(data)
    if distributed.rank() == 0:
        print(f"{recipe}: counted {data.split.train.nnz:,} interactions into {folder.path}.", flush=True)
    reports = measure_all(model, data, config.evaluation)
    return finish(recipe, config, folder, data, model, reports, {"epochs": 0}, history=[])


def _prepare(config: PopularityRun) -> Prepared:
    data = prepare(config.data)
    check_evaluation(config.evaluation, data.split.train.shape[1])
    return data
