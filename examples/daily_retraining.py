# %% [markdown]
# # Retrain every day
#
# Every night: measure yesterday's model on what people played today, go on from it with today's data, write the lists,
# and switch to the new model in one step. Killed half-way, yesterday's model stays in use.

# %%
import datetime
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

import tfrec

plays = next(folder / "plays.csv" for folder in (Path("examples"), Path()) if (folder / "plays.csv").is_file())
out = Path("runs/daily")
out.mkdir(parents=True, exist_ok=True)
COLUMNS = {"user": "listener", "item": "track", "title": "name", "value": "plays", "time": "when"}

# %% [markdown]
# ## The data of each day
#
# Your warehouse would give these tables. Here they are parts of one file, two weeks each.

# %%
read = csv.ConvertOptions(column_types={"when": pa.timestamp("s")}, timestamp_parsers=["%Y-%m-%d %H:%M"])
everything = csv.read_csv(plays, convert_options=read)


def until(day):
    """All that was played before a day."""
    return everything.filter(pc.less(everything["when"], pa.scalar(day)))


def between(first, last):
    """What was played from one day to before another."""
    return until(last).filter(pc.greater_equal(until(last)["when"], pa.scalar(first)))


# %% [markdown]
# ## One night
#
# `continue_run` starts from the factors of yesterday's model, and new users and items begin as in any training, so
# fewer iterations are needed. `refit` ships a model trained on all of the data.


# %%
def night(day, since):
    """Retrain with the data before a day; what came since the last time measures the model in use.

    Args:
        day: the date of the new model.
        since: the date of the model in use.
    """
    current = out / "current"
    options = {}
    if current.exists():
        today = tfrec.Interactions.from_frame(between(since, day), **COLUMNS)
        found = tfrec.Recommender.load(current).evaluate(today, ["ndcg@10"])
        print(f"{since:%d %B}'s model on {found.users} users: NDCG@10 {found.metrics['ndcg@10']:.3f}; {found.left_out}")
        options = {"continue_run": current.resolve(), "iterations": 3}
    data = tfrec.Interactions.from_frame(until(day), **COLUMNS)
    run = tfrec.fit("als", data, factors=32, refit=True, output_dir=out / f"{day:%Y-%m-%d}", **options)
    run.recommender.write(run.folder / "lists.parquet", k=20)
    # A link is replaced in one step, so that whoever reads it sees the old model or the new one.
    waiting = out / "next"
    waiting.symlink_to(run.folder.resolve())
    os.replace(waiting, current)
    print(f"{day:%d %B}: {data.num_users} users, {data.num_items} items; in use: {current.resolve().name}")


days = [datetime.datetime(2026, 5, 15), datetime.datetime(2026, 6, 1), datetime.datetime(2026, 6, 15)]
for since, day in zip([days[0], *days], days, strict=False):
    night(day, since)
