"""Published files with damaged lines: every line becomes an event, is counted, or is named."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tfrec.data import load, published
from tfrec.data.ncf import load_ncf
from tfrec.data.published_sets import DATASETS
from tfrec.errors import InputError

NUMBERS = sorted(set(DATASETS) - {"lastfm-360k"})
#: What happens to a line: name -> (its fields -> its fields, whether it is an event then).
HARMLESS = {
    "none": lambda f: f,
    "carriage return": lambda f: [*f[:-1], f[-1] + b"\r"],
    "blanks": lambda f: [f[0], b" " + f[1], f[2] + b" ", *f[3:]],
    "whole number with .0": lambda f: [f[0] + b".0", *f[1:]],
    "zeros before": lambda f: [b"00" + f[0], *f[1:]],
    "plus": lambda f: [*f[:2], b"+" + f[2], *f[3:]],
    "exponent": lambda f: [*f[:2], b"25e-1", *f[3:]],
}
HARMFUL = {
    "too few": lambda f: f[:-1],
    "too many": lambda f: [*f, b"7"],
    "word": lambda f: [*f[:2], b"lots", *f[3:]],
    "nothing": lambda f: [*f[:2], b"", *f[3:]],
    "no user": lambda f: [b" ", *f[1:]],
    "below 0": lambda f: [b"-3", *f[1:]],
    "hexadecimal": lambda f: [f[0], b"0x1F", *f[2:]],
    "fraction of an item": lambda f: [f[0], b"1.5", *f[2:]],
    "too large": lambda f: [f[0], b"9" * 20, *f[2:]],
    "not a number": lambda f: [*f[:2], b"nan", *f[3:]],
    "infinite": lambda f: [*f[:2], b"inf", *f[3:]],
    "too large a value": lambda f: [*f[:2], b"1e39", *f[3:]],
    "underscore": lambda f: [*f[:2], b"1_0", *f[3:]],
    "NUL": lambda f: [*f[:2], b"4\0", *f[3:]],
    "not UTF-8": lambda f: [*f[:2], b"\xff", *f[3:]],
    "open quote": lambda f: [b'"' + f[0], *f[1:]],
    "date": lambda f: [*f[:2], b"2001-12-31", *f[3:]],
}


def lines_of(damages):
    line = st.tuples(
        st.integers(1, 9),
        st.integers(1, 9),
        st.sampled_from([b"1", b"2.5", b"4", b"0.5"]),
        st.integers(0, 10**9),
        st.one_of(st.just("none"), st.sampled_from(damages)),
        st.sampled_from([b"", b"", b"", b"\n", b"  \n", b"\r\n"]),
    )
    return st.lists(line, min_size=1, max_size=25)


def in_folder(name, content):
    """`load` of a file with ``content``, in blocks of a few lines."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(published, "_BLOCK_BYTES", 64):
        path = Path(folder) / DATASETS[name].layout.ratings
        path.write_bytes(content)
        return load(name, folder)


def hold_to_account(name, lines, end, mark):
    """Files of numbers: all lines are events, or the first one that is none is named."""
    layout = DATASETS[name].layout
    delimiter = layout.delimiter.encode()
    has_time = "time" in layout.columns
    header = [] if layout.names else [delimiter.join(c.encode() for c in layout.columns.values())]
    text = b"\xef\xbb\xbf" * mark + b"".join(h + b"\n" for h in header)
    number, bad, expected = len(header), None, []
    for user, item, value, time, damage, before in lines:
        fields = [b"%d" % user, b"%d" % item, value] + [b"%d" % time] * has_time
        damaged = damage in HARMFUL
        fields = {**HARMLESS, **HARMFUL}[damage](fields)
        number += 1 + bool(before)
        text += before + delimiter.join(fields) + b"\n"
        if damaged and bad is None:
            bad = number
        expected.append((user, item, 2.5 if damage == "exponent" else float(value), time))
    text = text if end else text.removesuffix(b"\n")
    if bad is not None:
        with pytest.raises(InputError, match=rf"{re.escape(layout.ratings)}, line {bad}: "):
            in_folder(name, text)
        return
    events = in_folder(name, text)
    assert events.user_ids[events.user_index].tolist() == [e[0] for e in expected]
    assert events.item_ids[events.item_index].tolist() == [e[1] for e in expected]
    assert events.values.tolist() == [e[2] for e in expected]
    if has_time:
        assert events.timestamps.tolist() == [e[3] for e in expected]
    report = events.report
    assert report.rows == len(lines) == report.kept + report.merged
    assert report.kept == len({e[:2] for e in expected})
    assert dict(report.dropped) == dict(events.left_out) == {}


USERS = (b"00000c28", b"0001bd96", b"12", b"0x1F")
ARTISTS = (b"betty blowtorch", b'"weird" al', b"NA", b"null", b"nan", "Sigur Rós".encode(), b'"open', b"12")
#: Name -> (the four fields -> the fields, why the line is left out).
LINES = {
    "none": (lambda f: f, None),
    "carriage return": (lambda f: [*f[:3], f[3] + b"\r"], None),
    "carriage return in a name": (lambda f: [*f[:2], f[2] + b"\r", f[3]], None),
    "no MusicBrainz id": (lambda f: [f[0], b"", *f[2:]], None),
    "MusicBrainz id that is not UTF-8": (lambda f: [f[0], b"\xff", *f[2:]], None),
    "0 plays": (lambda f: [*f[:3], b"0"], None),
    "blank after plays": (lambda f: [*f[:3], f[3] + b" "], None),
    "three": (lambda f: [f[0], *f[2:]], "malformed (not 4 columns)"),
    "five": (lambda f: [*f, b"1"], "malformed (not 4 columns)"),
    "one": (lambda f: [f[0] + f[2]], "malformed (not 4 columns)"),
    "three, not UTF-8": (lambda f: [f[0], b"\xff", f[3]], "malformed (not 4 columns)"),
    "name that is not UTF-8": (lambda f: [*f[:2], b"Sigur R\xf3s", f[3]], "malformed (not UTF-8)"),
    "NUL": (lambda f: [*f[:2], f[2] + b"\0", f[3]], "malformed (NUL)"),
    "word": (lambda f: [*f[:3], b"many"], "malformed (plays)"),
    "below 0": (lambda f: [*f[:3], b"-1"], "malformed (plays)"),
    "fraction": (lambda f: [*f[:3], b"2.5"], "malformed (plays)"),
    "hexadecimal": (lambda f: [*f[:3], b"0x1F"], "malformed (plays)"),
    "no plays": (lambda f: [*f[:3], b""], "malformed (plays)"),
    "no artist": (lambda f: [*f[:2], b"", f[3]], "no artist"),
    "blank artist": (lambda f: [*f[:2], b"  ", f[3]], "no artist"),
    "no user": (lambda f: [b"", *f[1:]], "no user"),
    "neither artist nor plays": (lambda f: [*f[:2], b"", b""], "no artist"),
}


def hold_plays_to_account(lines, end):
    text, expected, reasons = b"", [], Counter()
    for user, artist, plays, damage, before in lines:
        change, reason = LINES[damage]
        text += before + b"\t".join(change([USERS[user], b"mb", ARTISTS[artist], b"%d" % plays])) + b"\n"
        if reason:
            reasons[reason] += 1
        else:
            expected.append((USERS[user].decode(), ARTISTS[artist].decode(), 0 if damage == "0 plays" else plays))
    text = text if end else text.removesuffix(b"\n")
    if not expected:
        with pytest.raises(InputError, match="has no rows"):
            in_folder("lastfm-360k", text)
        return
    events = in_folder("lastfm-360k", text)
    assert events.user_ids[events.user_index].tolist() == [e[0] for e in expected]
    assert events.item_ids[events.item_index].tolist() == [e[1] for e in expected]
    assert events.values.tolist() == [e[2] for e in expected]
    report = events.report
    assert dict(report.dropped) == dict(events.left_out) == dict(reasons)
    assert report.rows == len(lines) == report.kept + report.merged + sum(reasons.values())
    assert report.kept == len({e[:2] for e in expected})


#: Lines of an NCF training file: name -> (user, item -> the line, what it is).
NCF_LINES = {
    "event": (lambda u, i: b"%d\t%d\t5\t9" % (u, i), "event"),
    "no time": (lambda u, i: b"%d\t%d\t5" % (u, i), "event"),
    "trailing tab": (lambda u, i: b"%d\t%d\t5.0\t9.0\t" % (u, i), "event"),
    "carriage return": (lambda u, i: b" %d\t%d.0\t5\t9\r" % (u, i), "event"),
    "pair alone": (lambda u, i: b"%d\t%d" % (u, i), "event"),
    "rating of 0": (lambda u, i: b"%d\t%d\t0\t9" % (u, i), "rating of 0 or less"),
    "rating below 0": (lambda u, i: b"%d\t%d\t-1\t9" % (u, i), "rating of 0 or less"),
    "held out": (lambda u, i: b"0\t50\t5\t9", "held out for the test"),
    "blank": (lambda u, i: b"  ", "blank"),
    "user alone": (lambda u, i: b"%d" % u, "bad"),
    "word": (lambda u, i: b"%d\t%d\tlots\t9" % (u, i), "bad"),
    "below 0": (lambda u, i: b"%d\t-%d\t5\t9" % (u, i + 1), "bad"),
    "hexadecimal": (lambda u, i: b"%d\t0x%d\t5\t9" % (u, i), "bad"),
}


def hold_ncf_to_account(lines):
    text = [(NCF_LINES[what][0](user, item), NCF_LINES[what][1]) for user, item, what in lines]
    bad = next((number for number, (_, what) in enumerate(text, start=1) if what == "bad"), None)
    what = Counter(what for _, what in text)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(published, "_BLOCK_BYTES", 64):
        for suffix, content in (
            ("train.rating", b"\n".join(line for line, _ in text) + b"\n"),
            ("test.rating", b"0\t50\t5\t9\n"),
            ("test.negative", b"(0,50)\t1\t60\n"),
        ):
            (Path(folder) / f"x.{suffix}").write_bytes(content)
        if bad is not None or not what["event"]:
            with pytest.raises(InputError, match=f"line {bad}: " if bad else "no event to train on|has no rows"):
                load_ncf(folder)
            return
        train = load_ncf(folder).train
    pairs = [(user, item) for user, item, name in lines if NCF_LINES[name][1] == "event"]
    assert list(zip(train.user_index.tolist(), train.item_index.tolist(), strict=True)) == pairs
    report = train.report
    assert report.rows == len(lines) - what["blank"] == report.kept + report.merged + sum(report.dropped.values())
    assert report.kept == len(set(pairs))
    assert dict(report.dropped) == {r: what[r] for r in ("rating of 0 or less", "held out for the test") if what[r]}
    assert train.num_items == 61


ncf_lines = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.integers(0, 9),
        st.one_of(
            st.just("event"),
            st.sampled_from([k for k in NCF_LINES if NCF_LINES[k][1] != "bad"]),
            st.sampled_from(sorted(NCF_LINES)),
        ),
    ),
    min_size=1,
    max_size=25,
)
number_lines = st.one_of(lines_of(sorted(HARMLESS)), lines_of(sorted({**HARMLESS, **HARMFUL})))
play_lines = st.lists(
    st.tuples(
        st.integers(0, len(USERS) - 1),
        st.integers(0, len(ARTISTS) - 1),
        st.integers(1, 9_999),
        st.one_of(st.just("none"), st.sampled_from(sorted(LINES))),
        st.sampled_from([b"", b"", b"\n", b"  \n", b"\r\n"]),
    ),
    min_size=1,
    max_size=25,
)


def few(test):
    return hypothesis.settings(max_examples=60, deadline=None)(test)


def test_files_of_numbers():
    @few
    @hypothesis.given(st.sampled_from(NUMBERS), number_lines, st.booleans(), st.booleans())
    def check(name, lines, end, mark):
        hold_to_account(name, lines, end, mark)

    check()


def test_files_of_plays():
    few(hypothesis.given(play_lines, st.booleans())(hold_plays_to_account))()


def test_ncf_files():
    few(hypothesis.given(ncf_lines)(hold_ncf_to_account))()


@pytest.mark.slow
def test_many_ncf_files():
    hypothesis.settings(max_examples=1_000, deadline=None)(hypothesis.given(ncf_lines)(hold_ncf_to_account))()


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_many_files_of_numbers(name):
    @hypothesis.settings(max_examples=1_000, deadline=None)
    @hypothesis.given(number_lines, st.booleans(), st.booleans())
    def check(lines, end, mark):
        hold_to_account(name, lines, end, mark)

    check()


@pytest.mark.slow
def test_many_files_of_plays():
    hypothesis.settings(max_examples=1_000, deadline=None)(
        hypothesis.given(play_lines, st.booleans())(hold_plays_to_account)
    )()


@pytest.mark.parametrize("damage", sorted(HARMFUL))
@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-20m", "lastfm-2k"])
def test_each_damage_is_named(name, damage):
    good = (1, 2, b"4", 9, "none", b"")
    hold_to_account(name, [good, good, (3, 4, b"5", 8, damage, b"\n"), good], True, False)


@pytest.mark.parametrize("damage", sorted(LINES))
def test_each_damage_is_counted(damage):
    hold_plays_to_account([(0, 1, 7, "none", b""), (1, 2, 8, damage, b""), (0, 1, 5, "none", b"")], True)


def test_quoted_numbers_other_order_and_further_columns():
    text = b'"timestamp","movieId","tag","userId","rating"\n"9","31","a, b","1","2.5"\n8,10,c,2,4\n'
    events = in_folder("ml-latest-small", text)
    assert events.user_ids[events.user_index].tolist() == [1, 2]
    assert events.item_ids[events.item_index].tolist() == [31, 10]
    assert events.timestamps.tolist() == [9, 8]


def test_wrong_files():
    for name, text, match in (
        ("ml-20m", b"1,31,2.5,9\n", "(?s)line 1: no column userId.*column names"),
        ("lastfm-2k", b"userID,artistID,weight\n1,2,3\n", "line 1: no column"),
        ("ml-100k", b"user\titem\trating\ttimestamp\n1\t2\t3\t4\n", "(?s)line 1: .*whole number.*'user'"),
        ("ml-1m", b"1\t2\t3\t4\n", "line 1: malformed \\(not 4 columns\\)"),
        ("ml-20m", b"userId,movieId,rating,timestamp\n\n", "has no rows"),
        ("lastfm-360k", b"a\tb\tc\n\n", "has no rows that can be read \\(1 malformed"),
    ):
        with pytest.raises(InputError, match=match):
            in_folder(name, text)


def test_old_line_ends_and_fractions_of_a_second():
    events = in_folder("ml-100k", b"1\t31\t2\t9\r2\t10\t4\t8.5\r")
    assert events.timestamps.tolist() == [9_000_000, 8_500_000]
    events = in_folder("ml-100k", b"1\t31\t2\t9.0\n2\t10\t4\t8\n")
    assert events.timestamps.tolist() == [9, 8]


def test_a_long_file_is_one_of_its_parts():
    """Blocks are cut at lines, and the lines before a damaged one are counted over all of them."""
    lines = [b"%d::%d::4::%d" % (i % 50, i % 70, i) for i in range(5_000)]
    events = in_folder("ml-10m", b"\n".join(lines))
    assert len(events) == 5_000
    assert events.timestamps.tolist() == list(range(5_000))
    np.testing.assert_array_equal(events.user_ids[events.user_index], np.arange(5_000) % 50)
    lines[4_321] = b"1::2::3"
    with pytest.raises(InputError, match="line 4322: malformed"):
        in_folder("ml-10m", b"\n".join(lines))
