"""Published data sets: small files in the published layout, and the real ones where they are at hand."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from tfrec.data import load
from tfrec.data.datasets import DATASETS, NAMES
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
    assert set(FILES) == set(DATASETS) == set(NAMES) - {"synthetic"}


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


def test_says_where_to_put_a_file_when_there_is_no_network(tmp_path, monkeypatch):
    from dataclasses import replace

    # An address on this machine where nobody listens.
    monkeypatch.setitem(DATASETS, "ml-1m", replace(DATASETS["ml-1m"], url="http://127.0.0.1:9/ml-1m.zip"))
    with pytest.raises(InputError, match=r"(?s)has neither.*could not be downloaded.*put it here.*ml-1m\.zip"):
        load("ml-1m", tmp_path)


def test_rejects(tmp_path):
    with pytest.raises(InputError, match="(?s)Unknown data set.*ml-20m"):
        load("ml-21m")
    with pytest.raises(InputError, match="does not exist"):
        load("ml-1m", tmp_path / "none")
    with pytest.raises(InputError, match="Only `synthetic`"):
        load("ml-1m", tmp_path, num_users=3)
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
