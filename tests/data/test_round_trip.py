"""Random tables, written by others, come back equal; and every row of a damaged one is accounted for."""

import csv
import random
import re

import pandas
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfrec.data import Interactions, Report
from tfrec.errors import InputError

#: Ids and titles: quotes, tabs, delimiters, blanks inside, line breaks, unicode; never blank around, never empty.
TEXT = st.text(
    st.one_of(
        st.sampled_from(list("ab\"',;\t|\n 0éЖ日🎬\u200f=")),
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]),
    ),
    min_size=1,
    max_size=12,
).filter(lambda text: text == text.strip() and not text.isspace() and len(text.strip()) > 0 and "\r" not in text)
NUMBERS = st.integers(0, 2**63 - 1)
HUGE = st.integers(2**63, 2**80).map(str)
FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))


def rows(ids):
    row = st.tuples(ids, ids, st.integers(1, 400), TEXT)
    return st.lists(row, min_size=1, max_size=12)


TABLES = st.one_of(rows(TEXT.map(lambda t: "x" + t)), rows(NUMBERS), rows(HUGE))


def by_csv(path, table, delimiter):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["user_id", "item_id", "qty", "title"])
        writer.writerows(table)


def by_pandas(path, table, delimiter):
    frame = pandas.DataFrame(table, columns=["user_id", "item_id", "qty", "title"])
    frame.to_csv(path, sep=delimiter, index=False)


def by_pyarrow(path, table, delimiter):
    with path.open("wb") as stream:
        pa.csv.write_csv(arrow(table), stream, pa.csv.WriteOptions(delimiter=delimiter))


def by_parquet(path, table, delimiter):
    pa.parquet.write_table(arrow(table), path)


def arrow(table):
    user, item, qty, title = zip(*table, strict=True)
    return pa.table({"user_id": list(user), "item_id": list(item), "qty": list(qty), "title": list(title)})


def check_round_trip(folder, write, delimiter, table):
    path = folder / "table.data"
    write(path, table, delimiter)
    # quoting is said, since auto asks where a value spans lines that look like rows, and leaves tabs unquoted.
    events = Interactions.from_table(
        path, value="qty", title="title", delimiter=delimiter, quoting="on", value_kind="counts"
    )
    assert [events.user_ids[k] for k in events.user_index] == [row[0] for row in table]
    assert [events.item_ids[k] for k in events.item_index] == [row[1] for row in table]
    assert events.values.tolist() == [row[2] for row in table]
    first_title = {}
    for row in table:
        first_title.setdefault(row[1], row[3])
    assert events.item_titles.tolist() == [first_title[item] for item in events.item_ids]
    assert events.report.rows == len(table)
    assert events.report.kept == len({row[:2] for row in table})


WRITERS = [
    (by_csv, ","),
    (by_csv, "\t"),
    (by_csv, ";"),
    (by_pandas, ","),
    (by_pandas, "\t"),
    (by_pyarrow, ","),
    (by_parquet, ","),
]


@pytest.mark.parametrize(("write", "delimiter"), WRITERS)
@FEW
@given(table=TABLES)
def test_tables_come_back_equal(tmp_path_factory, write, delimiter, table):
    check_round_trip(tmp_path_factory.getbasetemp(), write, delimiter, table)


@pytest.mark.slow
@pytest.mark.parametrize(("write", "delimiter"), WRITERS)
@MANY
@given(table=TABLES)
def test_a_thousand_tables_come_back_equal(tmp_path_factory, write, delimiter, table):
    check_round_trip(tmp_path_factory.getbasetemp(), write, delimiter, table)


# --- the account


def damaged(seed):
    """Lines of a table with damage, and what must become of them, counted here by other means."""
    draw = random.Random(seed)
    lines, pairs = [], []
    expected = dict.fromkeys(
        (
            "malformed",
            "without user id",
            "without item id",
            "with a value that is no number",
            "with a time that is none",
        ),
        0,
    )
    for number in range(draw.randrange(1, 60)):
        user, item = f"u{draw.randrange(6)}", f"i{draw.randrange(8)}"
        value, time = str(draw.randrange(-2, 9)), f"2024-01-{draw.randrange(1, 29):02d}"
        match draw.randrange(16):
            case 0:
                lines.append(f"{user},{item},{value}")
                expected["malformed"] += 1
            case 1:
                lines.append(f"{user},{item},{value},{time},more")
                expected["malformed"] += 1
            case 2:
                lines.append(f"{draw.choice(['', ' ', '  '])},{draw.choice([item, ''])},{value},{time}")
                expected["without user id"] += 1
            case 3:
                lines.append(f"{user},,{draw.choice([value, 'x'])},{time}")
                expected["without item id"] += 1
            case 4:
                lines.append(f"{user},{item},{draw.choice(['', 'x', 'nan', 'inf', '1e999', '4,5'[:1] + '..5'])},{time}")
                expected["with a value that is no number"] += 1
            case 5:
                lines.append(f"{user},{item},{value},{draw.choice(['', '0000-00-00', '2024-02-31', 'soon'])}")
                expected["with a time that is none"] += 1
            case 6:
                lines.append(draw.choice(["", "   ", "\t"]))
            case _:
                lines.append(f"{draw.choice(['', ' '])}{user},{item} ,{value},{time}")
                pairs.append((user, item, float(value), time, number))
    # So few dates that are none that the column is one of dates.
    while sum(len(line.split(",")) == 4 for line in lines) < 3 * expected["with a time that is none"] + 1:
        lines.append("u0,i0,1,2024-01-01")
        pairs.append(("u0", "i0", 1.0, "2024-01-01", len(lines)))
    if not pairs:
        lines.append("u0,i0,1,2024-01-01")
        pairs.append(("u0", "i0", 1.0, "2024-01-01", 99))
    return lines, pairs, {reason: count for reason, count in expected.items() if count}


def check_account(path, seed):
    lines, pairs, expected = damaged(seed)
    path.write_text("user_id,item_id,n,t\n" + "\n".join(lines) + random.Random(seed).choice(["", "\n", "\n\n"]))
    options = {"value": "n", "time": "t", "value_kind": "counts"}
    if expected:
        with pytest.raises(InputError, match="--data.bad-rows drop"):
            Interactions.from_table(path, **options)
    events = Interactions.from_table(path, bad_rows="drop", **options)
    assert events.left_out == expected
    assert events.report.rows == sum(bool(line.strip()) for line in lines)
    assert len(events) == len(pairs)
    assert events.report.kept == len({pair[:2] for pair in pairs})
    total = {}
    for user, item, value, *_ in pairs:
        total[user, item] = total.get((user, item), 0) + value
    left = events.positives()
    assert len(left) == left.report.kept == sum(value > 0 for value in total.values())
    assert left.report.rows == events.report.rows
    # The latest of a pair, for ratings.
    graded = Interactions.from_table(path, bad_rows="drop", **{**options, "value_kind": "ratings"})
    latest = {}
    for user, item, value, _, _ in sorted(pairs, key=lambda pair: (pair[3], pair[4])):
        latest[user, item] = value
    threshold = 2.5
    good = graded.positives(threshold)
    assert {(good.user_ids[u], good.item_ids[i]) for u, i in zip(good.user_index, good.item_index, strict=True)} == {
        pair for pair, value in latest.items() if value > threshold
    }
    assert good.report.dropped.get("below the threshold 2.5 (ratings)", 0) == sum(
        v <= threshold for v in latest.values()
    )
    numbers = [int(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= (?:row|pair|below|with|mal))", str(good.report))]
    assert numbers[0] == sum(numbers[1:])


@pytest.mark.parametrize("seed", range(40))
def test_every_row_is_accounted_for(tmp_path, seed):
    check_account(tmp_path / "t.csv", seed)


@pytest.mark.slow
def test_every_row_of_a_thousand_files_is_accounted_for(tmp_path):
    for seed in range(1_000, 2_000):
        check_account(tmp_path / "t.csv", seed)


def test_numbers_that_do_not_add_up_are_no_report():
    with pytest.raises(ValueError, match="must be kept, merged or dropped"):
        Report(rows=3, kept=1, merged=1)
    with pytest.raises(ValueError, match="must be kept"):
        Report(rows=3, kept=3).drop("too many", 4)
