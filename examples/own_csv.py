# %% [markdown]
# # From a CSV of your own to lists in Parquet
#
# You have a file of who played what. You want a list of recommendations for every listener, in a table that your own
# systems read.

# %%
from pathlib import Path

import pyarrow.parquet as pq

import tfrec

plays = next(folder / "plays.csv" for folder in (Path("examples"), Path()) if (folder / "plays.csv").is_file())
out = Path("runs/own-csv")

# %% [markdown]
# ## Read the file
#
# Name the columns. The report says what became of every row, and `value_kind` what the numbers mean: here they are
# counts, so several rows of one listener and track would be added up.

# %%
data = tfrec.Interactions.from_table(
    plays, user="listener", item="track", title="name", value="plays", time="when", time_format="%Y-%m-%d %H:%M"
)
print(data)
print(data.report)

# %% [markdown]
# ## Train and measure
#
# ALS on counts, with popularity as the model to beat. The first run holds out a random fifth of the pairs of listener
# and track. The second holds out what was played last, which is closer to what you will use the lists for.

# %%
random = tfrec.fit("als", data, factors=32, output_dir=out / "random")
later = tfrec.fit("als", data, factors=32, split="by_time", output_dir=out / "later")
for name, run in (("random pairs", random), ("by time", later)):
    test = run.metrics["test"]
    print(f"{name}: NDCG@100 {test['model']['ndcg@100']:.3f}, popularity {test['popularity']['ndcg@100']:.3f}")

# %% [markdown]
# ## Train on everything, and write the lists
#
# `refit` trains the settings again on all the data, the test too. That model is not measured, it is shipped.

# %%
shipped = tfrec.fit("als", data, factors=32, refit=True, output_dir=out / "shipped").recommender
lists = shipped.write(out / "lists.parquet", k=20)
print(pq.read_table(lists).slice(0, 3).to_pylist())

# %% [markdown]
# ## A listener who came in after training
#
# ALS solves for the factors of a new history, so no training is needed.

# %%
print(shipped.recommend_to([["Blue Harbour", "Slow Tide"]], k=3).to_pylist())
