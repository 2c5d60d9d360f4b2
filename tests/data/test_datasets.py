"""Published data sets: small files in the published layout, and the real ones where they are at hand."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from tfrec.data import NAMES, Synthetic, SyntheticCatalog, load, load_source
from tfrec.data.published_sets import DATASETS
from tfrec.data.registry import Loaded, data_set
from tfrec.errors import InputError

CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n2,10,4,835355493\n",
    "movies.csv": 'movieId,title,genres\n10,"GoldenEye (1995)",Action\n31,"American President, The (1995)",Comedy\n',
}
#: name -> files as their publisher writes them: header or none, delimiter, column order, encoding
FILES = {
    "ml-100k": {
        "u.data": "1\t31\t2\t881250949\n2\t10\t4\t891717742\n",
        "u.item": "10|GoldenEye (1995)|01-Jan-1995||http://x|0\n31|Misérables, Les (1995)|01-Jan-1995||http://x|0\n".encode(
            "latin-1"
        ),
    },
    "ml-1m": {
        "ratings.dat": "1::31::2::978300760\n2::10::4::978302109\n",
        "movies.dat": "10::GoldenEye (1995)::Action\n31::Misérables, Les (1995)::Drama|Musical\n".encode("latin-1"),
    },
    "ml-10m": {
        "ratings.dat": "1::31::2.5::838985046\n2::10::4::838983525\n",
        "movies.dat": "10::GoldenEye (1995)::Action\n31::Misérables, Les (1995)::Drama\n",
    },
    "ml-20m": CSV,
    "ml-25m": CSV,
    "ml-32m": CSV,
    "ml-latest-small": CSV,
    "lastfm-2k": {
        "user_artists.dat": "userID\tartistID\tweight\n1\t31\t13883\n2\t10\t11690\n",
        "artists.dat": 'id\tname\turl\tpictureURL\n10\t"Weird" Al\thttp://x\t\n31\tSigur Rós\thttp://y\thttp://z\n',
    },
    "lastfm-360k": {
        "usersha1-artmbid-artname-plays.tsv": (
            "00000c28\t3bd73256\tbetty blowtorch\t2137\n"
            '00000c28\t\t"weird" al\t1099\n'
            "0001bd96\ta3cb23fc\t\t5\n"
            "0001bd96\ta3cb23fc\tbetty blowtorch\t706\n"
        )
    },
}


def contents(name):
    return {f: c if isinstance(c, bytes) else c.encode() for f, c in FILES[name].items()}


def unpacked(tmp_path, name, folder):
    (tmp_path / folder).mkdir(parents=True)
    for file, content in contents(name).items():
        (tmp_path / folder / file).write_bytes(content)
    return tmp_path


def archived(tmp_path, dataset):
    path = tmp_path / dataset.archive
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file, content in contents(dataset.name).items():
                archive.writestr(f"{dataset.folder}/{file}", content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for file, content in contents(dataset.name).items():
                info = tarfile.TarInfo(f"{dataset.folder}/{file}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return tmp_path


def check(name, events):
    if name == "lastfm-360k":
        assert events.user_ids.tolist() == ["00000c28", "0001bd96"]
        assert events.item_ids.tolist() == ['"weird" al', "betty blowtorch"]
        assert events.values.tolist() == [2137, 1099, 706]
        assert events.left_out == {"no artist": 1}
        assert events.kind == "counts"
        return
    assert events.user_ids.tolist() == [1, 2]
    assert events.item_ids.tolist() == [10, 31]
    assert events.item_index.tolist() == [1, 0]
    assert events.kind == ("counts" if name == "lastfm-2k" else "ratings")
    assert (events.timestamps is None) == (name == "lastfm-2k")
    expected = {
        "lastfm-2k": ['"Weird" Al', "Sigur Rós"],
        **{n: ["GoldenEye (1995)", "Misérables, Les (1995)"] for n in ("ml-100k", "ml-1m", "ml-10m")},
    }
    csv_titles = ["GoldenEye (1995)", "American President, The (1995)"]
    assert events.item_titles.tolist() == expected.get(name, csv_titles)


def test_every_data_set_has_a_layout_here():
    assert set(FILES) == set(DATASETS) == set(NAMES) - {"synthetic", "synthetic-catalog", "ncf-ml-1m"}


def test_a_new_data_set_is_one_decorated_function(monkeypatch):
    monkeypatch.setattr("tfrec.data.registry.REGISTRY", {})

    @data_set("nobody", settings=Synthetic)
    def read(data_dir, **settings):
        return Loaded(Synthetic(**settings).interactions())

    from tfrec.data import registry

    assert registry.REGISTRY["nobody"].load("nobody", None, {"num_users": 3}).events.num_users == 3
    with pytest.raises(ValueError, match="already"):
        data_set("nobody")(read)


def test_what_a_data_set_has_beside_its_events():
    found = load_source("synthetic", num_users=9, num_items=8)
    assert found.oracle == Synthetic(num_users=9, num_items=8)
    assert found.test_items is None
    found = load_source("synthetic-catalog", num_users=9, num_items=80, category_size=10)
    assert found.oracle == SyntheticCatalog(num_users=9, num_items=80, category_size=10)
    assert found.events.num_items == load("synthetic-catalog", num_users=9, num_items=80).num_items == 80


def test_held_out_items_of_the_ncf_paper(real_data):
    found = load_source("ncf-ml-1m", real_data("ncf-ml-1m"))
    assert found.test_negatives.shape == (6040, 99)
    assert len(found.events) == 1_000_209 - 6040


@pytest.mark.parametrize("name", FILES)
def test_unpacked_folder(tmp_path, name):
    check(name, load(name, unpacked(tmp_path, name, name)))


@pytest.mark.parametrize("name", FILES)
def test_archive(tmp_path, name, monkeypatch):
    dataset = DATASETS[name]
    root = archived(tmp_path, dataset)
    if dataset.md5 is not None:
        with pytest.raises(InputError, match="Expected MD5"):
            load(name, root)
    from dataclasses import replace

    monkeypatch.setitem(DATASETS, name, replace(dataset, md5=None))
    check(name, load(name, root))


@pytest.mark.parametrize(
    "folder", ["ml-10M100K", "ml-10m", "ML-10M100K", "ML-10M", "ml-10m/ml-10M100K", "ML-10m/ml-10m100k", "."]
)
@pytest.mark.parametrize("upper", [False, True])
def test_names_of_folders_and_files(tmp_path, folder, upper):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for file, content in contents("ml-10m").items():
        (tmp_path / folder / (file.upper() if upper else file)).write_bytes(content)
    check("ml-10m", load("ml-10m", tmp_path))


def test_archive_in_upper_case_without_titles(tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(DATASETS, "ml-1m", replace(DATASETS["ml-1m"], md5=None))
    with zipfile.ZipFile(tmp_path / "ML-1M.ZIP", "w") as archive:
        archive.writestr("ML-1M/RATINGS.DAT", contents("ml-1m")["ratings.dat"])
    events = load("ml-1m", tmp_path)
    assert len(events) == 2
    assert events.item_titles is None
    assert events.labels().tolist() == ["10", "31"]
    assert events.source["titles"] == {"file": None, "items_without_title": 2}


def test_an_archive_of_something_else(tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(DATASETS, "ml-1m", replace(DATASETS["ml-1m"], md5=None))
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-20m/ratings.csv", contents("ml-20m")["ratings.csv"])
    with pytest.raises(InputError, match=r"(?s)does not hold ratings\.dat.*right archive"):
        load("ml-1m", tmp_path)


def titled(tmp_path, name, titles):
    """The data set's items 10 and 31 with another file of titles."""
    dataset = DATASETS[name]
    root = unpacked(tmp_path, name, name)
    (root / name / dataset.layout.titles).write_bytes(titles)
    events = load(name, root)
    return events.item_titles.tolist(), events.source["titles"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ml-100k", "{0}|{1}|01-Jan-1995||http://x|0"),
        ("ml-1m", "{0}::{1}::Drama"),
        ("ml-10m", "{0}::{1}::Drama"),
        ("ml-20m", '{0},"{1}",Drama'),
        ("lastfm-2k", "{0}\t{1}\thttp://x\thttp://y"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_titles_in_every_encoding(tmp_path, name, line, encoding, end):
    header = {"ml-20m": "movieId,title,genres\n", "lastfm-2k": "id\tname\turl\tpictureURL\n"}.get(name, "")
    # 0x85 is no end of a line in latin-1.
    wanted = ["Misérables, Les (1995)", "Ça commence\x85 aujourd'hui"]
    text = header + line.format(10, wanted[0]) + "\n\n" + line.format(31, wanted[1]) + "\n"
    titles, about = titled(tmp_path, name, text.replace("\n", end).encode(encoding))
    assert titles == wanted
    assert about["encoding"] == encoding.removesuffix("-sig")
    assert about["items_without_title"] == about["lines_left_out"] == about["lines_with_another_title"] == 0


def test_one_line_of_titles_in_another_encoding(tmp_path):
    """A file put together of two: only the line that is not UTF-8 is latin-1."""
    titles, about = titled(tmp_path, "ml-1m", "10::Amélie::Drama\n".encode() + "31::Léon::Drama\n".encode("latin-1"))
    assert titles == ["Amélie", "Léon"]
    assert about["encoding"] == "latin-1"


@pytest.mark.parametrize(
    ("name", "line", "title"),
    [
        ("ml-1m", "10::Mission::Impossible (1996)::Action", "Mission::Impossible (1996)"),
        ("ml-1m", "10::Alien:::Horror", "Alien:"),
        ("ml-1m", "10::No genres", "No genres"),
        ("ml-1m", "10::  Blanks  ::Drama", "Blanks"),
        ("ml-1m", '10::"Quoted" and, more::Drama', '"Quoted" and, more'),
        ("ml-100k", "10|Either|Or (1995)|01-Jan-1995||http://x|0", "Either|Or (1995)"),
        ("ml-100k", "10|unknown||||" + "|".join("1" * 19), "unknown"),
        ("ml-100k", "10|Either|Or||||" + "|".join("1" * 19), "Either|Or"),
        ("ml-20m", '10,"He said ""no"", twice (1995)",Drama', 'He said "no", twice (1995)'),
        ("ml-20m", "10,Plain (1995),Drama", "Plain (1995)"),
        ("lastfm-2k", '10\t"Weird" Al\thttp://x\thttp://y', '"Weird" Al'),
        ("lastfm-2k", "10\tAl\tGreen\thttp://x\thttp://y", "Al Green"),
    ],
)
def test_delimiters_in_titles(tmp_path, name, line, title):
    header = {"ml-20m": "movieId,title,genres\n", "lastfm-2k": "id\tname\turl\tpictureURL\n"}.get(name, "")
    assert titled(tmp_path, name, (header + line + "\n").encode())[0] == [title, "31"]


@pytest.mark.parametrize(
    ("name", "text", "titles", "without", "left_out", "other"),
    [
        ("ml-1m", "10::A::x\n10::A::x\n31::B::x\n", ["A", "B"], 0, 0, 0),
        ("ml-1m", "10::A::x\n10::C::x\n31::B::x\n", ["C", "B"], 0, 0, 1),
        ("ml-1m", "10::A::x\n", ["A", "31"], 1, 0, 0),
        ("ml-1m", "10::A::x\n31::  ::x\n", ["A", "31"], 1, 1, 0),
        ("ml-1m", "10::A::x\nten::B::x\nrubbish\n99::Not rated::x\n", ["A", "31"], 1, 2, 0),
        ("ml-20m", 'movieId,title,genres\n10,"A, not closed,x\n31,B,x\n', ["10", "B"], 1, 1, 0),
        ("ml-20m", "title,genres,movieId\nA,x,10\nB,x,31\n", ["A", "B"], 0, 0, 0),
        ("ml-1m", "", ["10", "31"], 2, 0, 0),
    ],
)
def test_titles_that_are_missing_or_given_twice(tmp_path, name, text, titles, without, left_out, other):
    found, about = titled(tmp_path, name, text.encode())
    assert found == titles
    assert about["items_without_title"] == without
    assert about["lines_left_out"] == left_out
    assert about["lines_with_another_title"] == other


def test_says_where_to_put_a_file_when_there_is_no_network(tmp_path, monkeypatch):
    from dataclasses import replace

    # An address on this machine where nobody listens.
    monkeypatch.setitem(DATASETS, "ml-1m", replace(DATASETS["ml-1m"], url="http://127.0.0.1:9/ml-1m.zip"))
    with pytest.raises(InputError, match=r"(?s)has neither.*could not be downloaded.*put it here.*ml-1m\.zip"):
        load("ml-1m", tmp_path)


def test_rejects(tmp_path):
    with pytest.raises(InputError, match="(?s)The data set must be one of.*ml-20m"):
        load("ml-21m")
    with pytest.raises(InputError, match="does not exist"):
        load("ml-1m", tmp_path / "none")
    with pytest.raises(InputError, match="(?s)The settings of ml-1m are none.*num_users"):
        load("ml-1m", tmp_path, num_users=3)
    with pytest.raises(InputError, match="(?s)settings of synthetic are num_users, .*users"):
        load("synthetic", users=3)
    root = unpacked(tmp_path, "ml-20m", "ml-20m")
    (root / "ml-20m" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,31,lots,1\n")
    with pytest.raises(InputError, match=r"(?s)ratings\.csv, line 2.*must be a number.*'lots'"):
        load("ml-20m", root)
    (root / "ml-20m" / "ratings.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        load("ml-20m", root)


@pytest.mark.parametrize(
    ("name", "events", "users", "items", "first_title"),
    [
        ("ml-100k", 100_000, 943, 1_682, "Toy Story (1995)"),
        ("ml-1m", 1_000_209, 6_040, 3_706, "Toy Story (1995)"),
        ("ml-latest-small", 100_004, 671, 9_066, "Toy Story (1995)"),
        ("lastfm-2k", 92_834, 1_892, 17_632, "MALICE MIZER"),
    ],
)
def test_real(real_data, name, events, users, items, first_title):
    found = load(name, real_data(name))
    assert (len(found), found.num_users, found.num_items) == (events, users, items)
    assert found.item_titles[0] == first_title
    assert np.isfinite(found.values).all()
