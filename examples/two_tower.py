# %% [markdown]
# # A two-tower model of your own, with a categorical feature
#
# tfrec's parts work without its models. Here you write a Keras model: a vector for each listener, and for each track
# the sum of its own vector and that of its theme. tfrec makes the samples, measures, and exports.

# %%
from pathlib import Path

import keras
import numpy as np
import pyarrow.csv as pc
import tensorflow as tf

import tfrec
from tfrec.data import leave_one_out
from tfrec.data.pointwise import PointwiseSampler
from tfrec.evaluation import Candidates, evaluate_candidates
from tfrec.models.recommends import Recommends

plays = next(folder / "plays.csv" for folder in (Path("examples"), Path()) if (folder / "plays.csv").is_file())
keras.utils.set_random_seed(1)

# %% [markdown]
# ## Interactions, and the theme of each track
#
# `data.item_ids` has the tracks in the order of the model's rows. The feature must have the same order.

# %%
data = tfrec.Interactions.from_table(
    plays, user="listener", item="track", title="name", value="plays", time="when", time_format="%Y-%m-%d %H:%M"
)
table = pc.read_csv(plays)
theme_of_track = dict(zip(table["track"].to_pylist(), table["theme"].to_pylist(), strict=True))
themes = sorted(set(theme_of_track.values()))
track_themes = np.array([themes.index(theme_of_track[track]) for track in data.item_ids], np.int32)

# %% [markdown]
# ## The model
#
# `Recommends` asks for two hooks, `query_vectors` and `item_vectors`. `recommend`, `similar_items` and the
# export follow.


# %%
@keras.saving.register_keras_serializable(package="examples")
class TwoTower(Recommends, keras.Model):
    """Logit of a listener and a track: the inner product of their vectors, plus the track's bias.

    Args:
        num_users: U.
        item_themes: int [I], the theme of each item.
        dim: width of the vectors.
    """

    def __init__(self, num_users, item_themes, dim=16, **kwargs):
        super().__init__(**kwargs)
        self.num_users, self.num_items, self.dim = num_users, len(item_themes), dim
        self.item_themes = [int(theme) for theme in item_themes]
        self.users = keras.layers.Embedding(num_users, dim)
        self.items = keras.layers.Embedding(self.num_items, dim)
        self.themes = keras.layers.Embedding(max(self.item_themes) + 1, dim)
        self.bias = keras.layers.Embedding(self.num_items, 1, embeddings_initializer="zeros")
        for layer in (self.users, self.items, self.themes, self.bias):
            layer.build()
        self.built = True

    def query_vectors(self, users):
        """Vectors [B, D] of listeners."""
        return self.users(users)

    def item_vectors(self):
        """Vectors [I, D] and biases [I] of all tracks."""
        vectors = self.items.embeddings + tf.gather(self.themes.embeddings, self.item_themes)
        return vectors, self.bias.embeddings[:, 0]

    def call(self, pairs):
        """Logits [B, C] of users [B] and items [B, C]."""
        users, items = pairs
        vectors = self.items(items) + self.themes(tf.gather(self.item_themes, items))
        return tf.einsum("bd,bcd->bc", self.users(users), vectors) + self.bias(items)[..., 0]

    def get_config(self):
        """Arguments of the constructor."""
        return {"num_users": self.num_users, "item_themes": self.item_themes, "dim": self.dim}


# %% [markdown]
# ## Train
#
# Each listener's latest track is the test, the one before it validation. The sampler makes each positive with four
# negatives; column 0 is the positive.

# %%
EPOCHS = 10
split = leave_one_out(data, min_user_events=3, validation=True)
sampler = PointwiseSampler(split.train, global_batch_size=2_000, num_negatives=4, seed=1)


def samples(step):
    """Inputs and labels of a step."""
    users, items = sampler.batch(step)
    return (users, items), tf.one_hot(tf.zeros_like(users), 5)


batches = tf.data.Dataset.range(EPOCHS * sampler.steps_per_epoch).map(samples)
model = TwoTower(data.num_users, track_themes)
model.compile(keras.optimizers.Adam(0.02), keras.losses.BinaryCrossentropy(from_logits=True))
model.fit(batches, epochs=EPOCHS, steps_per_epoch=sampler.steps_per_epoch, shuffle=False, verbose=0)

# %% [markdown]
# ## Measure
#
# The held-out track among 50 others that the listener has not played. Guessing would
# put one in five into the first ten.

# %%
for name, held_out in (("validation", split.validation_items), ("test", split.test_items)):
    candidates = Candidates(split.train, held_out, num_negatives=50)
    print(name, evaluate_candidates(model.scores, candidates, ["hit_rate@10", "ndcg@10"]).metrics)

# %% [markdown]
# ## Recommend, and export for serving
#
# A `Recommender` adds ids, titles, and what each listener has played.

# %%
recommender = tfrec.Recommender(model, data)
print(recommender.recommend(["ada1"], k=3).to_pylist())
print(recommender.similar_items(["Blue Harbour"], k=3)["similar_title"].to_pylist())
model.save("two_tower.keras")
recommender.export("served/two-tower/1")
serve = tf.saved_model.load("served/two-tower/1").signatures["serving_default"]
print(serve(user_ids=tf.constant(["ada1"]), k=tf.constant(3))["ids"].numpy())
