"""Small folders like those that finished runs leave, without a model."""

import json

import numpy as np

from tfrec.data.arrow import write_table

USERS = 400


def per_user(seed=0, users=USERS, lead=0.0):
    """Metrics of each user: a common part, one of this model, and ``lead``; some users are left out."""
    common, own = np.random.default_rng(99), np.random.default_rng(seed)
    ndcg = np.clip(common.random(users) + 0.1 * own.normal(size=users) + lead, 0, 1)
    hit = (common.random(users) + 0.2 * own.normal(size=users) + lead > 0.5).astype(float)
    found = {"ndcg@10": ndcg, "hit_rate@10": hit}
    for values in found.values():
        values[::50] = np.nan
    return found


def write_run(
    path,
    values=None,
    *,
    ids=None,
    recipe="ease-ml1m",
    split=None,
    data=None,
    evaluation=None,
    test=None,
    others=None,
):
    """A run's ``metrics.json`` and ``test_users.arrow``; the last four are changes of what is there otherwise."""
    path.mkdir(parents=True)
    values = per_user() if values is None else values
    users = len(next(iter(values.values())))
    ids = np.arange(users) * 3 if ids is None else ids
    model = {name: float(np.nanmean(v)) for name, v in values.items()}
    model |= {"coverage@10": 0.25, "users": users, "users_without_targets": 8, "ties": "expected"}
    popularity = {**{name: 0.125 for name in (*values, "coverage@10")}, "users": users, "ties": "expected"}
    report = {
        "recipe": recipe,
        "family": "ease",
        "config": {
            "data": {"split": "by_time", "min_user_events": 0, "dir": str(path), **(data or {})},
            "evaluation": {"monitor": "hit_rate@10", "metrics": list(values), "ties": "auto"},
        },
        "evaluation": {
            "metrics": list(values), "monitor": "hit_rate@10", "protocol": "all", "negatives": 99, "seed": 0,
            "ties": "expected", "gains": "binary", "block_users": 512, **(evaluation or {}),
        },
        "split": {"name": "by_time", "sha256": "ab" * 32, "users": users, **(split or {})},
        "test": {"model": {**model, **(test or {})}, "popularity": popularity, **(others or {})},
        "training": {"seconds": 1.5},
    }  # fmt: skip
    (path / "metrics.json").write_text(json.dumps(report))
    ids = ids.astype(object) if ids.dtype.kind == "U" else ids
    write_table(path / "test_users.arrow", {"user": ids, **values})
    return path
