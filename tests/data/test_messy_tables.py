"""Tables as people have them: the right events, or one message that says what to do."""

import bz2
import decimal
import gzip
import lzma
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tfrec.data import Interactions
from tfrec.errors import InputError

UIN = {"user": "u", "item": "i", "value": "n", "value_kind": "counts"}


def write(tmp_path, text, name="events.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- quotes

SWALLOW = ["u,i,name,n", 'a,1,"heroes,3', "b,2,plain,4", 'c,3,low",9', "d,4,last,2"]


def test_a_tsv_has_no_quoting(tmp_path):
    text = "\n".join(SWALLOW).replace(",", "\t") + "\n"
    events = Interactions.from_table(write(tmp_path, text, "events.tsv"), **UIN)
    assert events.values.tolist() == [3, 4, 9, 2]
    assert Interactions.from_table(write(tmp_path, text, "events.csv"), **UIN).values.tolist() == [3, 4, 9, 2]
    open_quotes = 'u\ti\tn\na\t"x\t1\nb\ty\t2\nc\t"z\t3\n'
    assert Interactions.from_table(write(tmp_path, open_quotes, "events.tsv"), **UIN).item_ids.tolist() == [
        '"x',
        '"z',
        "y",
    ]


def test_a_quote_that_swallows_lines_is_named(tmp_path):
    path = write(tmp_path, "\n".join(SWALLOW) + "\n")
    with pytest.raises(
        InputError, match=r"(?s)line 2: a quote opens here.*line 4.*--data.quoting off.*--data.quoting on"
    ):
        Interactions.from_table(path, **UIN)
    assert Interactions.from_table(path, quoting="off", **UIN).values.tolist() == [3, 4, 9, 2]
    assert Interactions.from_table(path, quoting="on", **UIN).values.tolist() == [9, 2]


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (['a,1,"x,3', "b,2,y,4", "c,3,z,5"], 2),  # never closed
        (["a,1,x,3", 'b,2,"y,4', 'c,3,"z,5', "d,4,w,2"], 3),  # closed by the next one's opening quote
        (["a,1,x,3", "", 'b,2,"y,4', 'c,3,z",5'], 4),
    ],
)
def test_quotes_that_are_not_closed(tmp_path, lines, line):
    path = write(tmp_path, "\n".join(["u,i,name,n", *lines]) + "\n")
    with pytest.raises(InputError, match=f"line {line}: a quote opens here"):
        Interactions.from_table(path, **UIN)
    assert len(Interactions.from_table(path, quoting="off", **UIN)) == sum(map(bool, lines))


def test_values_that_span_lines_are_read(tmp_path):
    text = 'u,i,n,review\na,1,3,"two\nlines, with ""quotes"""\nb,2,4,"one, line"\n'
    assert Interactions.from_table(write(tmp_path, text), **UIN).values.tolist() == [3, 4]
    titled = 'u,i,t\na,1,"Up\nand down"\n'
    events = Interactions.from_table(write(tmp_path, titled), user="u", item="i", title="t")
    assert events.item_titles.tolist() == ["Up\nand down"]


# --- blanks, column names


def test_blanks_around_ids_and_names_are_stripped(tmp_path):
    text = " u , i\t,n\n 2, 12,1\n3,13 ,1\n\u00a02\u00a0,13,1\n"
    events = Interactions.from_table(write(tmp_path, text), **UIN)
    assert events.user_ids.tolist() == [2, 3]
    assert events.item_ids.tolist() == [12, 13]
    words = Interactions.from_table(write(tmp_path, 'u,i,n\n" ada",x,1\nada , x ,2\n'), **UIN)
    assert words.user_ids.tolist() == ["ada"]
    assert words.item_ids.tolist() == ["x"]
    table = pa.table({" u": ["ada ", "ada"], "i": [1, 2]})
    pa.parquet.write_table(table, tmp_path / "blank.parquet")
    assert Interactions.from_table(tmp_path / "blank.parquet", user="u", item="i").user_ids.tolist() == ["ada"]


def test_a_first_line_of_data(tmp_path):
    path = write(tmp_path, "196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "u.data")
    for names in ({}, {"user": "196", "item": "242"}):
        with pytest.raises(InputError, match=r"(?s)first line looks like data.*--data.column-names user item"):
            Interactions.from_table(path, **names)
    events = Interactions.from_table(
        path, "user", "item", "rating", "time", column_names=["user", "item", "rating", "time"], value_kind="ratings"
    )
    assert events.user_ids.tolist() == [186, 196]
    assert events.timestamps.tolist() == [881250949, 891717742]
    with pytest.raises(InputError, match=r"(?s)has 4 columns.*Received: 2: user, item"):
        Interactions.from_table(path, "user", "item", column_names=["user", "item"])
    numbered = write(tmp_path, "0,1,2\nada,x,3\n")  # what pandas calls columns without names
    assert Interactions.from_table(numbered, "0", "1").user_ids.tolist() == ["ada"]


# --- ids


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["85123A", "POST", "12"], ["12", "85123A", "POST"]),
        (["007", "7"], ["007", "7"]),
        (["12.0", "3"], [3, 12]),
        (["12.0", "x"], ["12.0", "x"]),
        (["99999999999999999999", "1"], ["1", "99999999999999999999"]),
    ],
)
def test_ids_are_numbers_or_text(tmp_path, ids, expected):
    events = Interactions.from_table(write(tmp_path, "u,i\n" + "".join(f"{u},1\n" for u in ids)), user="u", item="i")
    assert events.user_ids.tolist() == expected


def test_a_number_written_in_two_ways_beside_text(tmp_path):
    path = write(tmp_path, "u,i\n12,1\n12.0,1\nada,1\n")
    with pytest.raises(InputError, match=r"(?s)line 3.*two ways.*'12\.0'.*--data.text-ids"):
        Interactions.from_table(path, user="u", item="i")
    assert Interactions.from_table(path, user="u", item="i", text_ids=True).user_ids.tolist() == ["12", "12.0", "ada"]


def test_markers_of_nothing_among_numbers_are_no_ids(tmp_path):
    path = write(tmp_path, "u,i\n1,1\nNULL,1\n\\N,2\n2,1\n")
    with pytest.raises(InputError, match=r"(?s)line 3: the user id is missing.*'NULL' \(2 such rows\)"):
        Interactions.from_table(path, user="u", item="i")
    events = Interactions.from_table(path, user="u", item="i", bad_rows="drop")
    assert events.user_ids.tolist() == [1, 2]
    assert events.left_out == {"without user id": 2}


def test_rows_without_an_id_may_be_left_out_and_are_counted(tmp_path):
    rows = "".join(f"{i},{i % 9},1\n" for i in range(500))
    path = write(tmp_path, "u,i,n\n" + rows + ",3,1\n  ,4,1\n7,,1\n8,2\n9,2,1,1\n\n9,2,x\n-4,1,1\n")
    with pytest.raises(InputError, match=r"(?s)5 problems.*--data.bad-rows drop"):
        Interactions.from_table(path, **UIN)
    events = Interactions.from_table(path, bad_rows="drop", **UIN)
    assert events.left_out == {
        "malformed": 2,
        "without user id": 2,
        "without item id": 1,
        "with a user id that is none": 1,
        "with a value that is no number": 1,
    }
    assert events.report.rows == 507
    assert len(events) == events.report.kept == 500
    assert events.user_ids.dtype == np.int64


# --- Parquet


def test_parquet_of_other_types(tmp_path):
    D = decimal.Decimal
    table = pa.table(
        {
            "u": pa.array([D("7"), D("3"), D("7")], pa.decimal128(12, 0)),
            "i": pa.array([D("10.00"), D("11.00"), D("12.00")], pa.decimal128(12, 2)),
            "r": pa.array([D("4.5"), D("2.0"), D("5.0")], pa.decimal128(3, 1)),
            "liked": [True, False, True],
            "neg": [-1, -2, 3],
            "small": pa.array([1, 2, 3], pa.uint8()),
            "bytes": pa.array([b"a", b"b", b"c"], pa.binary()),
            "category": pa.array(["x", "y", "x"]).dictionary_encode(),
            "codes": pa.array([5, 6, 5], pa.int16()).dictionary_encode(),
            "when": ["2024-12-31", "2024-12-30 10:00:00", "2025-01-01"],
            "day": pa.array([1, 2, 3], pa.date32()),
        }
    )
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(table, path)
    events = Interactions.from_table(path, "u", "i", "r", "when")
    assert events.user_ids.tolist() == [3, 7]
    assert events.item_ids.tolist() == [10, 11, 12]
    assert events.values.tolist() == [4.5, 2, 5]
    assert np.diff(events.timestamps).tolist() == [-14 * 3_600_000_000, 38 * 3_600_000_000]
    assert Interactions.from_table(path, "u", "i", "liked").values.tolist() == [1, 0, 1]
    assert Interactions.from_table(path, "neg", "i", text_ids=True).user_ids.tolist() == ["-1", "-2", "3"]
    with pytest.raises(InputError, match=r"(?s)row 1: the user id must not be negative.*--data.text-ids"):
        Interactions.from_table(path, "neg", "i")
    assert Interactions.from_table(path, "small", "bytes").item_ids.tolist() == ["a", "b", "c"]
    assert Interactions.from_table(path, "category", "codes").item_ids.tolist() == [5, 6]
    assert np.diff(Interactions.from_table(path, "u", "i", time="day").timestamps).tolist() == [86_400_000_000] * 2
    with pytest.raises(InputError, match=r"(?s)Column `when` must be a number|column `when` must be a number"):
        Interactions.from_table(path, "u", "i", "when")


def test_true_and_false_as_text(tmp_path):
    events = Interactions.from_table(write(tmp_path, "u,i,n\na,1,True\nb,2,False\n"), user="u", item="i", value="n")
    assert events.values.tolist() == [1, 0]


def test_folders_patterns_and_lists(tmp_path):
    folder = tmp_path / "plays"
    (folder / "day=1").mkdir(parents=True)
    pa.parquet.write_table(pa.table({"u": ["a", "b"], "i": [1, 2]}), folder / "day=1" / "part-0.parquet")
    pa.parquet.write_table(pa.table({"u": ["c"], "i": [1]}), folder / "part-1.parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-1.parquet.crc").write_text("x")
    assert Interactions.from_table(folder, "u", "i").user_ids.tolist() == ["a", "b", "c"]
    assert Interactions.from_table(f"{folder}/*.parquet", "u", "i").user_ids.tolist() == ["c"]
    one, two = write(tmp_path, "u,i\n1,2\n"), write(tmp_path, "u,i\nx,2\n,3\n", "two.csv")
    with pytest.raises(InputError, match=r"two.csv, line 3: the user id is missing"):
        Interactions.from_table([one, two], "u", "i")
    events = Interactions.from_table([one, two], "u", "i", bad_rows="drop")
    assert events.user_ids.tolist() == ["1", "x"]
    with pytest.raises(InputError, match="No file matches"):
        Interactions.from_table(f"{tmp_path}/*.nothing", "u", "i")


# --- times


def test_a_date_that_does_not_exist_is_named(tmp_path):
    lines = [f"1,{i},2024-01-{i % 28 + 1:02d}" for i in range(199)]
    lines.insert(100, "1,7,0000-00-00")
    path = write(tmp_path, "u,i,t\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"(?s)line 102: .*Received: '0000-00-00'"):
        Interactions.from_table(path, "u", "i", time="t")
    events = Interactions.from_table(path, "u", "i", time="t", bad_rows="drop")
    assert events.left_out == {"with a time that is none": 1}
    mixed = write(tmp_path, "u,i,t\n1,1,100\n1,2,101\n1,3,soon\n")
    with pytest.raises(InputError, match=r"(?s)line 4: .*'soon'"):
        Interactions.from_table(mixed, "u", "i", time="t")


@pytest.mark.parametrize(
    ("dates", "time_format"),
    [
        (["12/1/2010 8:26", "12/13/2010 18:05"], "%m/%d/%Y %H:%M"),
        (["1.12.2010", "31.12.2010"], "%d.%m.%Y"),
        (["Wed Dec 01 08:26:00 +0000 2010", "Mon Dec 13 08:26:00 +0100 2010"], "%a %b %d %H:%M:%S %z %Y"),
        (["12/1/10 8:26 AM", "12/13/10 8:26 PM"], "%m/%d/%y %I:%M %p"),
    ],
)
def test_dates_that_are_not_iso_are_named_with_their_format(tmp_path, dates, time_format):
    path = write(tmp_path, "u,i,t\n" + "".join(f"1,{i},{d}\n" for i, d in enumerate(dates)))
    with pytest.raises(InputError) as caught:
        Interactions.from_table(path, "u", "i", time="t")
    assert f"--data.time-format '{time_format}'" in str(caught.value)
    times = Interactions.from_table(path, "u", "i", time="t", time_format=time_format).timestamps
    assert times[0] < times[1]
    assert 1291161600 * 10**6 <= times[0] < 1291248000 * 10**6  # the first of December 2010


def test_day_and_month_are_never_guessed(tmp_path):
    path = write(tmp_path, "u,i,t\n1,1,12/1/2010\n1,2,11/2/2010\n")
    with pytest.raises(InputError, match=r"(?s)none is guessed.*'%m/%d/%Y' or --data.time-format '%d/%m/%Y'"):
        Interactions.from_table(path, "u", "i", time="t")


def test_times_with_zones_fractions_and_commas(tmp_path):
    path = write(
        tmp_path, "u,i,t\n1,1,2024-12-31T23:59:59.5+01:00\n1,2,2024-12-31 22:59:59.5\n1,3,2024-12-31T22:59:59.5Z\n"
    )
    assert len(set(Interactions.from_table(path, "u", "i", time="t").timestamps.tolist())) == 1


# --- encodings and packing


def test_other_encodings_are_named_with_a_guess(tmp_path):
    text = "u,i,n\nada,Montréal,2\nada,Café,1\n"
    path = write(tmp_path, text.encode("latin-1"))
    with pytest.raises(InputError, match=r"(?s)line 2: the text must be UTF-8.*--data.encoding cp1252.*'Montréal'"):
        Interactions.from_table(path, **UIN)
    assert Interactions.from_table(path, encoding="latin-1", **UIN).item_ids.tolist() == ["Café", "Montréal"]
    for encoding in ("utf-16", "utf-8-sig", "utf-32"):
        events = Interactions.from_table(write(tmp_path, text.encode(encoding)), **UIN)
        assert events.item_ids.tolist() == ["Café", "Montréal"]
    with pytest.raises(InputError, match="utf-16-le"):
        Interactions.from_table(write(tmp_path, text.encode("utf-16-le")), **UIN)
    mixed = write(tmp_path, text.encode() + b"bob,Z\xfcrich,1\n")
    with pytest.raises(InputError, match=r"(?s)line 4: the text must be UTF-8.*correct this one"):
        Interactions.from_table(mixed, **UIN)
    with pytest.raises(InputError, match="one that Python has"):
        Interactions.from_table(path, encoding="latin-99", **UIN)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, None])
def test_packing_is_told_by_the_first_bytes(tmp_path, pack):
    text = b"u,i,n\nada,x,2\nbob,y,1\n"
    path = tmp_path / "events.csv"
    if pack is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/events.csv", text)
    else:
        path.write_bytes(pack(text))
    assert Interactions.from_table(path, **UIN).user_ids.tolist() == ["ada", "bob"]
    plain = write(tmp_path, text, "plain.csv.gz")
    assert Interactions.from_table(plain, **UIN).user_ids.tolist() == ["ada", "bob"]


def test_a_workbook_is_no_table(tmp_path):
    path = tmp_path / "events.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "x")
    with pytest.raises(InputError, match="Save the sheet as CSV"):
        Interactions.from_table(path, **UIN)


def test_decimal_commas(tmp_path):
    path = write(tmp_path, "u;i;stars\na;1;4,5\nb;1;3,0\n")
    with pytest.raises(InputError, match=r"(?s)line 2: column `stars` must be a number.*--data.decimal"):
        Interactions.from_table(path, "u", "i", "stars")
    assert Interactions.from_table(path, "u", "i", "stars", decimal=",").values.tolist() == [4.5, 3]


def test_all_obstacles_at_once_with_the_options_that_get_past_them(tmp_path):
    text = (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,CustomerID\n"
        "536365,85123A,CAFÉ HOLDER,6,12/1/2010 8:26,17850\n"
        "536366,71053,LANTERN,6,12/13/2010 8:26,\n"
        "536367,POST,POSTAGE,1,12/14/2010 8:26,17851\n"
        "C536367,POST,POSTAGE,-2,12/15/2010 8:26,17850\n"
    )
    path = write(tmp_path, text.encode("latin-1"))
    columns = {
        "user": "CustomerID",
        "item": "StockCode",
        "value": "Quantity",
        "time": "InvoiceDate",
        "title": "Description",
    }
    with pytest.raises(InputError) as caught:
        Interactions.from_table(path, **columns)
    message = str(caught.value)
    assert "4 problems" in message
    assert (
        "--data.encoding cp1252 --data.bad-rows drop --data.value-kind counts --data.time-format '%m/%d/%Y %H:%M'"
        in message
    )
    options = {"encoding": "cp1252", "bad_rows": "drop", "value_kind": "counts", "time_format": "%m/%d/%Y %H:%M"}
    events = Interactions.from_table(path, **options, **columns)
    assert events.item_ids.tolist() == ["85123A", "POST"]
    assert events.item_titles.tolist() == ["CAFÉ HOLDER", "POSTAGE"]
    assert events.kind == "counts"
    assert str(events.report) == "4 rows: 3 pairs kept; 1 without user id"
    assert str(events.positives().report) == "4 rows: 2 pairs kept; 1 without user id; 1 of 0 or less (counts)"


# --- what values mean


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("qty", [1, 2, 5, 3, 1, 1], "counts"),
        ("qty", [1, 300, 2, 1], "counts"),
        ("n", [1, 2, 3, 4, 5], "counts"),
        ("rating", [1, 2, 3, 4, 5], "ratings"),
        ("rating", [1, 300], "counts"),
        ("stars", [5, 4, 1], "ratings"),
        ("r", [4.5, 2, 5], "ratings"),
        ("kg", [4.3, 2, 5], "counts"),
        ("play_count", [1, 0.5], "counts"),
        ("vote", [1, -1, 0], "votes"),
        ("bought", [1, 1], "counts"),
    ],
)
def test_what_values_are(tmp_path, column, values, kind):
    path = write(tmp_path, f"u,i,{column}\n" + "".join(f"{k},{k},{v}\n" for k, v in enumerate(values)))
    events = Interactions.from_table(path, "u", "i", column)
    assert events.kind == kind
    assert column in events.kind_rule


def test_halves_that_repeat_pairs_are_no_ratings(tmp_path):
    path = write(tmp_path, "u,i,hours\n" + "1,1,0.5\n1,1,1.5\n" * 5)
    assert Interactions.from_table(path, "u", "i", "hours").kind == "counts"


def test_values_below_zero_are_asked_for(tmp_path):
    path = write(tmp_path, "u,i,qty\n1,1,6\n1,2,3\n1,1,-6\n2,2,1\n")
    with pytest.raises(
        InputError, match=r"(?s)below 0.*1 of 4, the lowest -6.*value-kind counts.*value-kind votes.*value-kind ratings"
    ):
        Interactions.from_table(path, "u", "i", "qty")
    events = Interactions.from_table(path, "u", "i", "qty", value_kind="counts")
    assert events.to_csr().toarray().tolist() == [[0, 3], [0, 1]]
    with pytest.raises(InputError, match="none is named"):
        Interactions.from_table(path, "u", "i", value_kind="counts")


def test_the_latest_rating_of_a_pair_counts(tmp_path):
    path = write(tmp_path, "u,i,stars,t\n1,1,5,20\n1,2,4,1\n1,1,2,10\n")
    events = Interactions.from_table(path, "u", "i", "stars", "t")
    assert events.to_csr().toarray().tolist() == [[5, 4]]
    assert events.merge("last").timestamps.tolist() == [20, 1]
    assert str(events.report) == "3 rows: 2 pairs kept; 1 row merged"
    assert events.merge().report.summary() == events.report.summary()
