"""Recommend from a finished run: python -m tfrec.recommend RUN --items "Toy Story (1995)" -k 10"""

from __future__ import annotations

import difflib
import re
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tfrec import commands
from tfrec.errors import InputError
from tfrec.printing import printable

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
    """ALS: write the k most similar items of every item here, tab-separated, with a header: item_id, title, rank,
    similar_id, similar_title, score. Titles are written as they are, in quotes where they have tabs, line breaks or
    quotes. A spreadsheet takes one that begins with = + - or @ for a formula: import its column as text."""
    write_recommendations: Path | None = None
    """ALS: the same of the k best items of every user: user_id, rank, item_id, title, score."""
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

    from tfrec.serving import ServedHistories
    from tfrec.training.load_run import load_config, load_known_model, load_vocabulary
    from tfrec.training.run_folder import RunFolder

    folder = RunFolder.existing(arguments.run)
    check_files(arguments, folder)
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
    model = load_known_model(folder, vocabulary)
    recommender = ServedHistories(model, vocabulary.item_ids, vocabulary.labels, vocabulary.popularity, raw_ids=False)
    # What a user saw but did not like is no input, and no recommendation either.
    k = min(num_items, arguments.k + len(set(seen) - set(liked)))
    answer = recommender.recommend(tf.constant(liked, tf.int64), tf.constant([0, len(liked)], tf.int64), tf.constant(k))
    pairs = zip(answer["ids"][0].numpy(), answer["scores"][0].numpy(), strict=True)
    shown = [(i, s) for i, s in pairs if i >= 0 and i not in set(seen)][: arguments.k]
    if len(liked):
        reasons = because(model, liked, [int(i) for i, _ in shown])
        if reasons:
            print(f"Because of {', '.join(printable(vocabulary.labels[i]) for i in reasons)}")
    else:
        print("Nothing is known of this user's taste: the most popular items.")
    for place, (item, score) in enumerate(shown, start=1):
        print_item(place, score, item, vocabulary)
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
        found = model.scores(history)
        found = model.link(tf.gather(found, np.array(shown, np.int64), axis=1), found)
        return found.numpy().astype(np.float64).sum(axis=1)

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

    from tfrec.serving import ServedUsers
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
    assert isinstance(recommender, ServedUsers)
    answer = recommender.recommend(tf.constant([number], tf.int64), tf.constant(arguments.k))
    count = int(answer["counts"][0])
    mine = vocabulary.seen.indices[vocabulary.seen.indptr[number] : vocabulary.seen.indptr[number + 1]]
    print(
        f"{printable(vocabulary.user_ids[number])} has {len(mine):,} items, "
        f"{', '.join(printable(vocabulary.labels[i]) for i in mine[:3])} ..."
    )
    for place in range(count):
        item = int(np.asarray(answer["ids"])[0, place])
        score = float(np.asarray(answer["scores"])[0, place])
        print_item(place + 1, score, item, vocabulary)
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
    from tfrec.training.load_run import load_known_model

    if arguments.write_recommendations is not None and vocabulary.seen is None:
        raise InputError("This run's users were held out, so the model knows none.\nTrain with --data.split entries.")
    model = load_known_model(folder, vocabulary)
    if not isinstance(model, ALS) or model.num_users is None or model.num_items is None:
        raise InputError("Only ALS has factors to compare items by.\nTrain als, or use --user or --items.")
    if arguments.similar_to is not None:
        item = find_item(arguments.similar_to, vocabulary)
        # One more, as the item itself comes first.
        ids, scores = model.similar_items(item, k=min(model.num_items, arguments.k + 1))
        shown = [(i, s) for i, s in zip(ids, scores, strict=True) if i != item][: arguments.k]
        print(f"Similar to {printable(vocabulary.labels[item])}:" if shown else "Nothing is known of this item.")
        for place, (other, score) in enumerate(shown, start=1):
            print_item(place, score, other, vocabulary)
    if arguments.write_similar is not None:
        ids, scores = model.similar_items(np.arange(model.num_items), k=arguments.k)
        names = {"item_id": vocabulary.item_ids, "title": vocabulary.labels}
        columns = {"similar_id": vocabulary.item_ids, "similar_title": vocabulary.labels}
        write_lists(arguments.write_similar, names, columns, ids, scores)
    if arguments.write_recommendations is not None and vocabulary.user_ids is not None:
        ids, scores = model.recommend(np.arange(model.num_users), vocabulary.seen, k=arguments.k)
        columns = {"item_id": vocabulary.item_ids, "title": vocabulary.labels}
        write_lists(arguments.write_recommendations, {"user_id": vocabulary.user_ids}, columns, ids, scores)


def check_files(arguments: Arguments, folder: RunFolder) -> None:
    """Raise InputError unless the files that are asked for can be written, before anything is computed."""
    from tfrec.data.files import check_file

    paths = [p for p in (arguments.write_similar, arguments.write_recommendations) if p is not None]
    for path in paths:
        check_file(path)
        folder.check_not_inside(path)
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(
            f"Two tables cannot be written to one file.\nReceived: {paths[0]} and {paths[1]}.\nName two files."
        )


def print_item(place: int, score: float, item: int, vocabulary: Vocabulary) -> None:
    """A line with an item's title and raw id."""
    print(f"{place:>4}  {score:.4f}  {printable(vocabulary.labels[item])}  [{printable(vocabulary.item_ids[item])}]")


def find_user(user: str, user_ids: np.ndarray) -> int:
    """The number of the user with this raw id; blanks around it do not count where no id has them.

    Raises:
        InputError: there is none.
    """
    import numpy as np

    for wanted in dict.fromkeys((user, user.strip())):
        if user_ids.dtype == object:
            found = np.flatnonzero(user_ids == wanted)
        else:
            number = int(wanted) if re.fullmatch("[+-]?[0-9]{1,19}", wanted) else 2**63
            found = np.flatnonzero(user_ids == number) if -(2**63) <= number < 2**63 else np.zeros(0, int)
        if len(found):
            return int(found[0])
    some = ", ".join(printable(u) for u in user_ids[:3])
    raise InputError(f"The data has no such user.\nReceived: --user {printable(user)}.\nIts ids look like {some}.")


def find_item(name: str, vocabulary: Vocabulary) -> int:
    """The number of the item with this title or raw id.

    A title is taken as it is, as it is printed (with escapes), and without regard to capitals and to the ways in which
    Unicode writes one letter. Blanks around the name do not count where nothing has them.

    Raises:
        InputError: there is none, or several; the message names near ones.
    """
    if not name.strip():
        raise InputError(f"An item's title or id must not be empty.\nReceived: {name!r}.")
    labels = [str(label) for label in vocabulary.labels]
    for wanted in dict.fromkeys((name, name.strip())):
        by_id = [i for i, raw in enumerate(vocabulary.item_ids) if str(raw) == wanted]
        folded = _folded(wanted)
        for by_title in (
            [i for i, label in enumerate(labels) if label == wanted],
            [i for i, label in enumerate(labels) if printable(label) == wanted],
            [i for i, label in enumerate(labels) if _folded(label) == folded] if not by_id else [],
        ):
            found = sorted({*by_title, *by_id}) if by_title else []
            if len(found) == 1:
                return found[0]
            if by_title and by_id and by_id[0] in by_title:
                return by_id[0]  # several of that title, of which the id names one
            if by_title and by_id and len(by_title) == 1:
                raise InputError(
                    f"{name!r} is the title of item {printable(vocabulary.item_ids[by_title[0]])} and the id of "
                    f"{labels[by_id[0]]!r}.\nGive the former's id, or the latter's title."
                )
            if found:
                ids = ", ".join(printable(vocabulary.item_ids[i]) for i in by_title[:5]) + ", ..." * (len(by_title) > 5)
                raise InputError(f"{len(by_title)} items have the title {name!r}.\nGive the raw id of one: {ids}.")
        if by_id:
            return by_id[0]
    near = difflib.get_close_matches(name, labels, n=3, cutoff=0.5)
    part = [label for label in labels if name.casefold() in label.casefold()][:3]
    hint = (
        f"Did you mean {' or '.join(repr(m) for m in dict.fromkeys(part + near))}?"
        if part or near
        else ("It must occur in the training users' interactions.")
    )
    raise InputError(f"The run's model has no item with that title or id.\nReceived: {name!r}.\n{hint}")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


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
