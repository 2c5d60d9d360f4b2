"""Recommend from a finished run: python -m tfrec.recommend RUN --items "Toy Story (1995)" -k 10"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tfrec import commands
from tfrec.errors import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfrec.configs import Run
    from tfrec.training.run_folder import RunFolder
    from tfrec.training.vocabulary import Vocabulary


@dataclass(frozen=True)
class Arguments:
    """Recommend items to a user of the data, or to whoever has the items named; or show similar items."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    user: str | None = None
    """Raw id of a user in the run's data."""
    items: tuple[str, ...] = ()
    """Titles or raw ids of what a user has."""
    similar_to: str | None = None
    """ALS: title or raw id of an item; shows the items most similar to it."""
    write_similar: Path | None = None
    """ALS: write the k most similar items of every item here: item, other item and score, tab-separated."""
    write_recommendations: Path | None = None
    """ALS: write the k best items of every user here: user id, item and score, tab-separated."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many to recommend."""
    data_dir: Path | None = None
    """With --user: folder with the data set, if it is not where $TFREC_DATA says."""


def recommend(arguments: Arguments) -> None:
    """Load, score, print."""
    files = arguments.write_similar is not None or arguments.write_recommendations is not None
    given = [arguments.user is not None, bool(arguments.items), arguments.similar_to is not None, files]
    if sum(given) != 1:
        raise InputError("Give one of --user RAW_ID, --items TITLE [TITLE ...], --similar-to TITLE, or files to write.")
    commands.quiet_tensorflow()
    import numpy as np
    import tensorflow as tf

    from tfrec.serving import Recommender
    from tfrec.training.load_run import load_config, load_model, load_vocabulary
    from tfrec.training.run_folder import RunFolder

    folder = RunFolder.existing(arguments.run)
    vocabulary = load_vocabulary(folder)
    num_items = len(vocabulary.item_ids)
    if not 1 <= arguments.k <= num_items:
        raise InputError(f"`k` must lie in [1, {num_items}], the number of items.\nReceived: -k {arguments.k}.")
    if arguments.similar_to is not None or files:
        recommend_by_factors(arguments, folder, vocabulary)
        return
    if vocabulary.user_ids is not None:
        recommend_to_known_user(arguments, folder, vocabulary)
        return
    if arguments.items:
        liked = seen = np.array([find_item(name, vocabulary) for name in arguments.items])
    else:
        assert arguments.user is not None
        liked, seen = history(folder, load_config(folder, arguments.data_dir), arguments.user, vocabulary)
    model = load_model(folder)
    recommender = Recommender(model, vocabulary.item_ids, vocabulary.labels, vocabulary.popularity, raw_ids=False)
    # What a user saw but did not like is no input, and no recommendation either.
    k = min(num_items, arguments.k + len(set(seen) - set(liked)))
    answer = recommender.recommend(tf.constant(liked, tf.int64), tf.constant([0, len(liked)], tf.int64), tf.constant(k))
    pairs = zip(answer["ids"][0].numpy(), answer["scores"][0].numpy(), strict=True)
    shown = [(i, s) for i, s in pairs if i >= 0 and i not in set(seen)][: arguments.k]
    if len(liked):
        reasons = because(model, liked, [int(i) for i, _ in shown])
        if reasons:
            print(f"Because of {', '.join(str(vocabulary.labels[i]) for i in reasons)}")
    else:
        print("Nothing is known of this user's taste: the most popular items.")
    for place, (item, score) in enumerate(shown, start=1):
        print(f"{place:>4}  {score:.4f}  {vocabulary.labels[item]}  [{vocabulary.item_ids[item]}]")
    if len(shown) < arguments.k:
        print(f"Only {len(shown)} items are left that were not seen.")


def because(model: keras.Model, liked: np.ndarray, shown: list[int]) -> list[int]:
    """Up to three liked items without which the model would score what is shown lower, the largest fall first."""
    import numpy as np
    import tensorflow as tf

    items, num_items = np.unique(liked), model.num_items

    def scores(histories: np.ndarray) -> np.ndarray:
        """The sum over what is shown, for histories that are rows of a mask over ``items``."""
        row, column = np.nonzero(histories)
        index = np.stack([row, items[column]], axis=1).astype(np.int64)
        history = tf.SparseTensor(index, np.ones(len(index), np.float32), [len(histories), num_items])
        return (
            tf.gather(model.probabilities(history), np.array(shown, np.int64), axis=1)
            .numpy()
            .astype(np.float64)
            .sum(axis=1)
        )

    whole = scores(np.ones([1, len(items)], bool))
    left_out = [scores(~np.eye(len(items), dtype=bool)[k : k + 256]) for k in range(0, len(items), 256)]
    falls = whole - np.concatenate(left_out)
    # Less than rounding is no reason.
    order = [i for i in np.argsort(-falls, kind="stable")[:3] if falls[i] > 1e-5 * abs(whole[0])]
    return [int(items[i]) for i in order]


def recommend_to_known_user(arguments: Arguments, folder: RunFolder, vocabulary: Vocabulary) -> None:
    """Print what a model of users and items recommends to one of its users.

    Raises:
        InputError: items were named instead of a user, or the model does not know the user.
    """
    import numpy as np
    import tensorflow as tf

    from tfrec.serving import UserItemRecommender
    from tfrec.training.load_run import load_recommender

    assert vocabulary.user_ids is not None
    assert vocabulary.seen is not None
    if arguments.user is None:
        raise InputError(
            "This run's model knows users by their ids and cannot take somebody else's items.\n"
            "Give --user RAW_ID; for --items train VAE-CF."
        )
    number = find_user(arguments.user, vocabulary.user_ids)
    recommender = load_recommender(folder, vocabulary, raw_ids=False)
    assert isinstance(recommender, UserItemRecommender)
    answer = recommender.recommend(tf.constant([number], tf.int64), tf.constant(arguments.k))
    count = int(answer["counts"][0])
    mine = vocabulary.seen.indices[vocabulary.seen.indptr[number] : vocabulary.seen.indptr[number + 1]]
    print(f"{arguments.user} has {len(mine):,} items, {', '.join(str(vocabulary.labels[i]) for i in mine[:3])} ...")
    for place in range(count):
        item = int(np.asarray(answer["ids"])[0, place])
        score = float(np.asarray(answer["scores"])[0, place])
        print(f"{place + 1:>4}  {score:.4f}  {vocabulary.labels[item]}  [{vocabulary.item_ids[item]}]")
    if count < arguments.k:
        print(f"Only {count} items are left that were not seen.")


def recommend_by_factors(arguments: Arguments, folder: RunFolder, vocabulary: Vocabulary) -> None:
    """Similar items, on the screen or of all items in a file; and all users' recommendations in a file.

    Raises:
        InputError: the run's model has no factors of items, or none of users.
    """
    import numpy as np

    from tfrec.models import ALS
    from tfrec.training.lists import write_lists
    from tfrec.training.load_run import load_model

    if arguments.write_recommendations is not None and vocabulary.seen is None:
        raise InputError("This run's users were held out, so the model knows none.\nTrain with --data.split entries.")
    model = load_model(folder)
    if not isinstance(model, ALS) or model.num_users is None or model.num_items is None:
        raise InputError("Only ALS has factors to compare items by.\nTrain als, or use --user or --items.")
    if arguments.similar_to is not None:
        item = find_item(arguments.similar_to, vocabulary)
        # One more, as the item itself comes first.
        ids, scores = model.similar_items(item, k=min(model.num_items, arguments.k + 1))
        shown = [(i, s) for i, s in zip(ids, scores, strict=True) if i != item][: arguments.k]
        print(f"Similar to {vocabulary.labels[item]}:" if shown else "Nothing is known of this item.")
        for place, (other, score) in enumerate(shown, start=1):
            print(f"{place:>4}  {score:.4f}  {vocabulary.labels[other]}  [{vocabulary.item_ids[other]}]")
    if arguments.write_similar is not None:
        ids, scores = model.similar_items(np.arange(model.num_items), k=arguments.k)
        write_lists(arguments.write_similar, vocabulary.labels, vocabulary.labels, ids, scores)
    if arguments.write_recommendations is not None and vocabulary.user_ids is not None:
        ids, scores = model.recommend(np.arange(model.num_users), vocabulary.seen, k=arguments.k)
        write_lists(arguments.write_recommendations, vocabulary.user_ids, vocabulary.labels, ids, scores)


def find_user(user: str, user_ids: np.ndarray) -> int:
    """The number of the user with this raw id.

    Raises:
        InputError: there is none.
    """
    import numpy as np

    wanted = user if user_ids.dtype == object else (int(user) if user.isascii() and user.isdigit() else None)
    found = np.flatnonzero(user_ids == wanted) if wanted is not None else np.zeros(0, int)
    if len(found) == 0:
        some = ", ".join(str(u) for u in user_ids[:3])
        raise InputError(f"The data has no such user.\nReceived: --user {user}.\nIts ids look like {some}.")
    return int(found[0])


def find_item(name: str, vocabulary: Vocabulary) -> int:
    """The number of the item with this title or raw id.

    Raises:
        InputError: there is none, or several; the message names near ones.
    """
    if not name:
        raise InputError("An item's title or id must not be empty.\nReceived: ''.")
    labels = [str(label) for label in vocabulary.labels]
    for candidates in (
        [i for i, label in enumerate(labels) if label == name],
        [i for i, label in enumerate(labels) if label.casefold() == name.casefold()],
        [i for i, raw in enumerate(vocabulary.item_ids) if str(raw) == name],
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            ids = ", ".join(str(vocabulary.item_ids[i]) for i in candidates[:5])
            raise InputError(f"{len(candidates)} items have the title {name!r}.\nGive the raw id of one: {ids}.")
    near = difflib.get_close_matches(name, labels, n=3, cutoff=0.5)
    part = [label for label in labels if name.casefold() in label.casefold()][:3]
    hint = (
        f"Did you mean {' or '.join(repr(m) for m in dict.fromkeys(part + near))}?"
        if part or near
        else ("It must occur in the training users' interactions.")
    )
    raise InputError(f"The run's model has no item with that title or id.\nReceived: {name!r}.\n{hint}")


def history(folder: RunFolder, config: Run, user: str, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The model's numbers of the items a user liked, and of all that she interacted with.

    Raises:
        InputError: the data has no such user.
    """
    import numpy as np

    from tfrec.data.value_kinds import threshold
    from tfrec.training.prepare import load_interactions

    events = load_interactions(config.data)
    folder.check_data(events.source.get("sha256"))
    user_index = find_user(user, events.user_ids)
    number = {raw: i for i, raw in enumerate(vocabulary.item_ids.tolist())}

    def numbers(mask: np.ndarray) -> np.ndarray:
        raw = pairs.item_ids[pairs.item_index[mask]].tolist()
        return np.array([number[r] for r in raw if r in number], np.int64)

    pairs = events.merge()
    mine = pairs.user_index == user_index
    liked = mine & (pairs.values > threshold(events, config.data.min_rating))
    return numbers(liked), numbers(mine)


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, prog="python -m tfrec.recommend", args=sys.argv[1:])
    commands.run(lambda: recommend(arguments))


if __name__ == "__main__":
    main()
