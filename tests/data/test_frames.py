"""Frames of every kind become the same interactions as a file with the same rows, and go back."""

import datetime
import subprocess
import sys

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest

from tfrec import Interactions
from tfrec.data.frames import Frame
from tfrec.errors import InputError

ROWS = {
    "customer": ["ada", "bob", "ada", "cleo", "bob"],
    "sku": [7, 9, 9, 12, 7],
    "qty": [1.0, 2.0, 3.0, 1.0, 9.0],
    "when": [datetime.datetime(2026, 1, day) for day in (3, 1, 2, 5, 4)],
    "name": ["Märchen", "夏 🎬", "夏 🎬", "<b>x</b>", "Märchen"],
    "unused": [object()] * 5,
}
NAMES = {"user": "customer", "item": "sku", "value": "qty", "time": "when", "title": "name", "value_kind": "counts"}
USED = {name: values for name, values in ROWS.items() if name != "unused"}


def duck(_):
    duckdb = pytest.importorskip("duckdb")
    plays = pa.table(USED)  # noqa: F841  DuckDB finds it by its name
    return duckdb.sql("select * from plays")


class Interchange:
    """A frame that has the dataframe interchange protocol alone."""

    def __init__(self, frame):
        self._frame = frame

    def __dataframe__(self, **kwargs):
        return self._frame.__dataframe__(**kwargs)


FRAMES = {
    "pandas": lambda rows: pandas.DataFrame(rows),
    "pandas, categories": lambda rows: pandas.DataFrame(rows).astype({"customer": "category", "sku": "category"}),
    "pandas, objects": lambda rows: pandas.DataFrame(rows).astype({"customer": object, "sku": object, "name": object}),
    "pandas, nullable": lambda rows: pandas.DataFrame(rows).astype({"sku": "Int64", "qty": "Float64"}),
    "polars": lambda rows: polars.DataFrame(USED),
    "polars, categories": lambda rows: polars.DataFrame(USED).with_columns(
        polars.col("customer").cast(polars.Categorical)
    ),
    "pyarrow": lambda rows: pa.table(USED),
    "pyarrow, batches": lambda rows: pa.concat_tables([pa.table(USED).slice(0, 2), pa.table(USED).slice(2)]),
    "pyarrow, reader": lambda rows: pa.table(USED).to_reader(max_chunksize=2),
    "duckdb": duck,
    "lists": lambda rows: rows,
    "arrays": lambda rows: {name: np.array(values) for name, values in rows.items()},
    "series": lambda rows: {name: pandas.Series(values) for name, values in USED.items()},
    "structured": lambda rows: np.array(
        list(zip(ROWS["customer"], ROWS["sku"], ROWS["qty"], ROWS["when"], ROWS["name"], strict=True)),
        dtype=[("customer", "U9"), ("sku", "i8"), ("qty", "f4"), ("when", "M8[us]"), ("name", "U9")],
    ),
    "interchange": lambda rows: Interchange(pa.table(USED)),
}


def rows_of(events):
    """The events in raw ids."""
    titles = events.labels()
    return [
        (events.user_ids[u], events.item_ids[i], float(v), int(t), titles[i])
        for u, i, v, t in zip(events.user_index, events.item_index, events.values, events.timestamps, strict=True)
    ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "plays.csv"
    pandas.DataFrame(USED).to_csv(path, index=False)
    return rows_of(Interactions.from_table(path, **NAMES))


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_gives_what_a_file_gives(name, expected):
    events = Interactions.from_frame(FRAMES[name](ROWS), **NAMES)
    assert rows_of(events) == expected
    assert (events.report.rows, events.report.kept) == (5, 5)
    assert events.name == "the frame"


@pytest.mark.parametrize(
    "back", [lambda t: t, lambda t: t.to_pandas(), polars.from_arrow], ids=["arrow", "pandas", "polars"]
)
def test_there_and_back(back, expected):
    events = Interactions.from_frame(pa.table(USED), **NAMES)
    table = events.to_frame()
    assert table.column_names == ["user_id", "item_id", "value", "time", "title"]
    assert rows_of(Interactions.from_frame(back(table))) == expected
    plain = Interactions.from_frame({"user_id": [1], "item_id": [2]})
    assert plain.to_frame().to_pydict() == {"user_id": [1], "item_id": [2]}
    assert Interactions.from_frame(back(plain.to_frame())).kind == "events"


def test_the_kind_of_the_values_comes_back():
    """Whole grades in a column `value` would be counts."""
    frame = {"user_id": [1, 1, 2], "item_id": [1, 2, 2], "stars": [5, 1, 4]}
    events = Interactions.from_frame(frame, value="stars")
    assert events.kind == "ratings"
    assert Interactions.from_frame(events.to_frame()).kind == "ratings"
    pandas_frame = events.to_frame().to_pandas()
    assert Interactions.from_frame(pandas_frame).kind == "counts"
    assert Interactions.from_frame(pandas_frame, value_kind=events.kind).kind == "ratings"


def test_columns_of_the_usual_names_can_be_left_out_or_named():
    frame = {"user_id": [1], "item_id": [2], "value": [3], "time": [4], "title": ["x"], "plays": [7]}
    events = Interactions.from_frame(frame, value=None, time=None, title=None)
    assert (events.kind, events.timestamps, events.item_titles) == ("events", None, None)
    assert Interactions.from_frame(frame, value="plays").values.tolist() == [7]
    assert Interactions.from_frame(frame, item="title").item_titles is None
    with pytest.raises(InputError, match="`value_kind` needs a column"):
        Interactions.from_frame({"user_id": [1], "item_id": [2]}, value_kind="counts")


def test_a_column_that_arrow_cannot_hold_does_not_matter_unless_it_is_named():
    objects = polars.Series([object(), object()], dtype=polars.Object)
    frame = polars.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "unused": objects})
    assert Interactions.from_frame(frame).num_users == 2
    with pytest.raises(InputError, match="(?s)Column `unused` holds what Arrow cannot"):
        Interactions.from_frame(frame, user="unused")


def test_odd_names_of_columns():
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.sql('select 1 as "the ""user""", 2 as item_id, [1] as unused')
    assert Interactions.from_frame(relation, user='the "user"').user_ids.tolist() == [1]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.string_view()])
def test_bytes_are_text_in_a_dictionary_too(kind):
    texts = pa.array(["ada", "bob", "ada"], pa.string())
    plain = texts.cast(kind)
    encoded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["ada", "bob"]).cast(kind))
    for column in (plain, encoded):
        events = Interactions.from_frame(pa.table({"user_id": column, "item_id": [1, 2, 3]}))
        assert events.user_ids.tolist() == ["ada", "bob"]


#: Columns with numbers among text, as spreadsheets have them.
MIXED = [85123, "POST", "85123A", 85123, "007", None, 12]


@pytest.mark.parametrize(
    "frame",
    [
        lambda rows: pandas.DataFrame(rows).astype({"sku": object}),
        lambda rows: polars.DataFrame({**rows, "sku": polars.Series(rows["sku"], dtype=polars.Object)}),
        lambda rows: {**rows, "sku": np.array(rows["sku"], object)},
        lambda rows: rows,
    ],
    ids=["pandas", "polars", "numpy", "lists"],
)
def test_numbers_among_text_are_read_as_from_a_file(frame, tmp_path):
    rows = {"user_id": [1, 1, 1, 2, 2, 2, 2], "sku": MIXED}
    pandas.DataFrame(rows).to_csv(tmp_path / "plays.csv", index=False)
    file = Interactions.from_table(tmp_path / "plays.csv", item="sku", bad_rows="drop")
    found = Interactions.from_frame(frame(rows), item="sku", bad_rows="drop")
    assert found.item_ids.tolist() == file.item_ids.tolist() == ["007", "12", "85123", "85123A", "POST"]
    assert found.item_index.tolist() == file.item_index.tolist()
    assert str(found.report) == str(file.report)


def test_one_number_in_two_spellings_is_not_guessed_in_a_frame_either():
    with pytest.raises(InputError, match="with and without .0"):
        Interactions.from_frame({"user_id": [1, 2, 3], "item_id": [12, 12.0, "POST"]})


@pytest.mark.parametrize("library", [pandas.DataFrame, pa.table])
def test_text_is_shared_with_the_frame(library):
    """The bytes of the texts lie where the frame has them."""
    frame = library({"customer": ["a user with a name that is not short", "another user"] * 50, "sku": range(100)})
    ours = Frame(frame).table({"user": "customer"})["user"].chunk(0).buffers()
    source = pa.array(frame["customer"]) if library is pandas.DataFrame else pa.table(frame)["customer"]
    theirs = (source.chunk(0) if isinstance(source, pa.ChunkedArray) else source).buffers()
    assert ours[-1].address == theirs[-1].address


def test_a_stream_is_read_once_also_where_columns_are_found_by_their_names():
    table = pa.table({"user_id": ["a", "b"], "item_id": [1, 2], "value": [3.0, 4.0]})
    events = Interactions.from_frame(table.to_reader(max_chunksize=1))
    assert events.values.tolist() == [3, 4]


@pytest.mark.parametrize("missing", [None, float("nan"), pandas.NA, pandas.NaT])
def test_rows_without_an_id_are_named_or_counted(missing):
    frame = pandas.DataFrame({"user_id": ["a", missing, "b"], "item_id": [1, 2, 3]}).astype({"user_id": object})
    with pytest.raises(InputError, match=r"(?s)the frame, row 2: the user id is missing.*bad_rows='drop'"):
        Interactions.from_frame(frame)
    report = Interactions.from_frame(frame, bad_rows="drop").report
    assert (report.rows, report.kept, dict(report.dropped)) == (3, 2, {"without user id": 1})


#: A frame, and what is said.
REFUSED = {
    "no such column": ({"u": [1], "item_id": [2]}, r"no column `user_id` \(for the user\).*columns: u, item_id"),
    "no rows": ({"user_id": [], "item_id": []}, "the frame has column names but no rows"),
    "lengths": ({"user_id": [1, 2], "item_id": [2]}, "the same length.*2 of `user_id`, 1 of `item_id`"),
    "text in place of a column": ({"user_id": "abc", "item_id": [2]}, "`user_id` must be an array or a list.*'abc'"),
    "mixed types": ({"user_id": [1, b"a"], "item_id": [2, 3]}, "must hold values of one type.*bytes, int"),
    "two dimensions": ({"user_id": np.ones((2, 2)), "item_id": [2, 3]}, r"must have one dimension.*\(2, 2\)"),
    "lists as ids": ({"user_id": [[1], [2]], "item_id": [2, 3]}, "`user_id` must hold ids"),
    "a matrix": (np.ones((3, 2)), "must have named fields.*mapping of columns"),
    "a list": ([(1, 2)], "A frame must be of pandas.*builtins.list"),
    "not collected": (polars.LazyFrame({"user_id": [1], "item_id": [2]}), r"LazyFrame.*\.collect\(\)"),
    "in the index": (
        pandas.DataFrame({"user_id": [1], "item_id": [2]}).set_index("user_id"),
        r"`user_id` \(for the user\) is in the index.*reset_index",
    ),
    "a column twice": (
        pandas.DataFrame([[1, 2, 3]], columns=["user_id", "user_id", "item_id"]), "`user_id` more than once"
    ),
    "negative ids": ({"user_id": [-1], "item_id": [2]}, "row 1: the user id must not be negative.*text_ids=True"),
    "a matrix as a frame": ("plays.csv", "A frame must be of pandas.*builtins.str"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name):
    frame, message = REFUSED[name]
    with pytest.raises(InputError, match=f"(?s){message}"):
        Interactions.from_frame(frame)


def test_a_column_must_be_named_by_text():
    with pytest.raises(InputError, match="(?s)`value` must be the name of a column.*Received: 5"):
        Interactions.from_frame({"user_id": [1], "item_id": [2]}, value=5)


def test_no_library_of_frames_is_needed():
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('pandas', 'polars'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import pyarrow as pa, tfrec\n"
        "events = tfrec.Interactions.from_frame(pa.table({'user_id': ['a'], 'item_id': [1]}))\n"
        "print(events.to_frame().to_pydict(), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'user_id': ['a'], 'item_id': [1]} False"
