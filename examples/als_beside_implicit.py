# %% [markdown]
# # ALS, if you know implicit
#
# The same methods with the same meaning: `fit` on a sparse matrix, `recommend`, `similar_items`, `explain`. Install
# [implicit](https://pypi.org/project/implicit/) to run both on the same matrix; without it tfrec runs alone.

# %%
import os
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # implicit asks for it; before NumPy is imported

import numpy as np

import tfrec
from tfrec.data import confidence

try:
    from implicit.als import AlternatingLeastSquares
except ImportError:
    AlternatingLeastSquares = None

plays_file = next(folder / "plays.csv" for folder in (Path("examples"), Path()) if (folder / "plays.csv").is_file())
data = tfrec.Interactions.from_table(plays_file, user="listener", item="track", title="name", value="plays")
plays = confidence.bm25(data.to_csr(), k1=100, b=0.8)  # SciPy, [U, I]
print(f"{plays.shape[0]} users, {plays.shape[1]} items, {plays.nnz} entries")

# %% [markdown]
# ## Fit
#
# Both minimise the same loss (Hu, Koren, Volinsky, 2008). tfrec keeps the factors in float16 unless you say otherwise.

# %%
ours = tfrec.ALS(factors=32, regularization=0.01, iterations=15, factor_dtype="float16", seed=1)
started = time.perf_counter()
ours.fit(plays, verbose=0)
print(f"tfrec: {time.perf_counter() - started:.2f} s")
if AlternatingLeastSquares is not None:
    theirs = AlternatingLeastSquares(factors=32, regularization=0.01, iterations=15, random_state=1)
    started = time.perf_counter()
    theirs.fit(plays, show_progress=False)
    print(f"implicit: {time.perf_counter() - started:.2f} s")

# %% [markdown]
# ## Ask
#
# `recommend` gives ids and scores, for one user or for many. What the user has is left out.

# %%
user = int(np.flatnonzero(data.user_ids == "ada1")[0])
ids, scores = ours.recommend(user, plays[user], k=5)
print("tfrec:   ", data.item_titles[ids].tolist())
if AlternatingLeastSquares is not None:
    their_ids, _ = theirs.recommend(user, plays[user], N=5)
    print("implicit:", data.item_titles[their_ids].tolist())

# %%
all_ids, _ = ours.recommend(np.arange(data.num_users), plays, k=5)  # [U, 5]
print("shape for all users:", all_ids.shape)
like, _ = ours.similar_items(0, k=4)
print("similar to", data.item_titles[0], data.item_titles[like[1:]].tolist())
score, because, parts = ours.explain(plays, int(ids[0]), user=user)
print(f"{data.item_titles[ids[0]]} has {score:.2f}, most of it from {data.item_titles[because[0]]}")

# %% [markdown]
# ## New users
#
# `partial_fit_users` solves for some rows only.

# %%
ours.partial_fit_users([data.num_users], plays[user])
print(data.item_titles[ours.recommend(data.num_users, plays[user], k=3)[0]].tolist())
