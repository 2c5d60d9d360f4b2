# %% [markdown]
# # Make an embedding table smaller
#
# A table of N rows of D numbers becomes a tensor train: a few small cores whose product is a row. Here a trained NeuMF
# becomes smaller in three steps: see what a rank costs, decompose the tables, train on.

# %%
import subprocess
import sys
from pathlib import Path

import tfrec
from tfrec.layers import TTEmbedding

plays = next(folder / "plays.csv" for folder in (Path("examples"), Path()) if (folder / "plays.csv").is_file())
out = Path("runs/compress")

# %% [markdown]
# ## A dense model
#
# The data is named by its path, so that the command below finds it again.

# %%
options = {"path": plays, "user": "listener", "item": "track", "title": "name", "value": "plays", "protocol": "all"}
run = tfrec.fit(
    "neumf", **options, epochs=20, mf_dim=16, layer_dims=(32, 16), learning_rate=0.01, output_dir=out / "dense"
)
print(f"dense: HR@10 {run.metrics['test']['model']['hit_rate@10']:.3f}")

# %% [markdown]
# ## What a rank costs
#
# `TTEmbedding.from_dense` decomposes a table with the SVD. These two cores give each row `ranks` numbers of its own and
# all rows one map to their width: a low-rank table, which is right where rows are few. `--group 1` below is this.

# %%
table = run.recommender.model.user_embedding.numpy()
for ranks in (2, 4, 8):
    small = TTEmbedding.from_dense(table, ranks, row_factors=(len(table), 1), column_factors=(1, table.shape[1]))
    numbers = sum(int(weight.shape.num_elements()) for weight in small.weights)
    print(f"rank {ranks}: {numbers:,} of {table.size:,} numbers, relative error {small.approximation_error:.3f}")

# %% [markdown]
# ## Decompose all tables of the run, train on, measure
#
# The same from a terminal: `tfrec compress runs/compress/dense runs/compress/small --ranks 8 --group 1 --fine-tune 4`.

# %%
command = ["compress", out / "dense", out / "small", "--ranks", "8", "--group", "1", "--fine-tune", "4"]
subprocess.run([sys.executable, "-m", "tfrec", *map(str, command)], check=True)
