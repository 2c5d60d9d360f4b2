"""Settings as they are saved, and as they are read back: the same, or an error that names the setting."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrec.errors import InputError
from tfrec.settings import differences, from_json, to_json


@dataclass(frozen=True)
class Training:
    epochs: int = 100
    learning_rate: float = 1e-3
    clip_norm: float | None = None
    deterministic: bool = False
    precision: Literal["float32", "mixed_float16"] = "float32"
    hidden_dims: tuple[int, ...] = (600,)
    span: tuple[str, float] = ("a", 0.5)


@dataclass(frozen=True)
class LongTraining(Training):
    epochs: int = 1000
    patience: Optional[int] = 5  # noqa: UP045


@dataclass(frozen=True)
class Run:
    training: Training = field(default_factory=Training)
    other: LongTraining | None = None
    name: str = "x"
    path: Path | None = None
    min_rating: float | Literal["auto", "all"] = "auto"
    size: int | float = 1
    places: tuple[Path, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    grid: tuple[Training, ...] = ()


finite = st.floats(allow_nan=False, allow_infinity=False)
trainings = st.builds(
    Training,
    st.integers(),
    finite,
    st.none() | finite,
    st.booleans(),
    st.sampled_from(["float32", "mixed_float16"]),
    st.lists(st.integers()).map(tuple),
    st.tuples(st.text(), finite),
)
runs = st.builds(
    Run,
    trainings,
    st.none() | st.builds(LongTraining, patience=st.none() | st.integers()),
    st.text(),
    st.none() | st.sampled_from([Path("a/b"), Path("/c"), Path("ü \x1b")]),
    finite | st.sampled_from(["auto", "all"]),
    st.integers() | finite,
    st.lists(st.just(Path("p"))).map(tuple),
    st.lists(st.tuples(st.integers(), st.integers())).map(tuple),
    st.lists(trainings, max_size=2).map(tuple),
)


@given(runs)
def test_what_is_read_is_what_was_written(run):
    saved = json.loads(json.dumps(to_json(run), allow_nan=False))
    read = from_json(Run, saved)
    assert read == run
    assert type(read.size) is type(run.size)
    assert to_json(read) == saved


def test_a_whole_number_is_a_float_but_a_float_is_no_whole_number():
    run = Run(training=Training(learning_rate=1), min_rating=3)
    assert json.dumps(to_json(run)) == json.dumps(to_json(Run(training=Training(learning_rate=1.0), min_rating=3.0)))
    saved = to_json(Run())
    saved["training"]["clip_norm"] = 5
    assert type(from_json(Run, saved).training.clip_norm) is float
    saved["training"]["epochs"] = 5.0
    with pytest.raises(TypeError, match=re.escape("`training.epochs` must be a whole number. Received: 5.0.")):
        from_json(Run, saved)


@pytest.mark.parametrize(
    ("place", "value", "kind", "message"),
    [
        ("training.epochs", "3", TypeError, "`training.epochs` must be a whole number. Received: '3'."),
        ("training.epochs", True, TypeError, "`training.epochs` must be a whole number. Received: True."),
        ("training.epochs", None, TypeError, "`training.epochs` must be a whole number. Received: None."),
        ("training.learning_rate", True, TypeError, "`training.learning_rate` must be a number. Received: True."),
        ("training.learning_rate", "1e-3", TypeError, "`training.learning_rate` must be a number. Received: '1e-3'."),
        ("training.learning_rate", float("nan"), ValueError, "`training.learning_rate` must be a finite number"),
        ("training.learning_rate", float("-inf"), ValueError, "Received: -inf."),
        (
            "training.clip_norm",
            float("nan"),
            ValueError,
            "`training.clip_norm` must be a number or null. Received: nan.",
        ),
        ("training.clip_norm", "5", TypeError, "`training.clip_norm` must be a number or null. Received: '5'."),
        ("training.deterministic", 1, TypeError, "`training.deterministic` must be true or false. Received: 1."),
        ("training.precision", "float64", ValueError, "must be 'float32' or 'mixed_float16'. Received: 'float64'."),
        ("training.precision", None, ValueError, "`training.precision` must be 'float32'"),
        ("training.hidden_dims", 600, TypeError, "`training.hidden_dims` must be a list. Received: 600."),
        ("training.hidden_dims", "600", TypeError, "`training.hidden_dims` must be a list. Received: '600'."),
        (
            "training.hidden_dims",
            [600, 2.0],
            TypeError,
            "`training.hidden_dims[1]` must be a whole number. Received: 2.0.",
        ),
        ("training.span", ["a"], ValueError, "`training.span` must have 2 entries. Received: ['a']."),
        ("training.span", ["a", "b"], TypeError, "`training.span[1]` must be a number. Received: 'b'."),
        ("training", [], TypeError, "`training` must be an object with the settings epochs, learning_rate"),
        ("other", {"epochs": 3}, KeyError, "`other.learning_rate` is missing."),
        ("name", 3, TypeError, "`name` must be text. Received: 3."),
        ("path", 3, TypeError, "`path` must be a path or null. Received: 3."),
        ("min_rating", "most", ValueError, "`min_rating` must be a number or 'auto' or 'all'. Received: 'most'."),
        ("min_rating", False, TypeError, "`min_rating` must be a number or 'auto' or 'all'. Received: False."),
        ("pairs", [[1, 2], [1]], ValueError, "`pairs[1]` must have 2 entries. Received: [1]."),
        ("pairs", [[1, 2], [1, "2"]], TypeError, "`pairs[1][1]` must be a whole number. Received: '2'."),
        ("grid", [{"epochs": 3}], KeyError, "`grid[0].learning_rate` is missing."),
    ],
)
def test_a_wrong_value_is_named(place, value, kind, message):
    saved = to_json(Run())
    *rooms, name = place.split(".")
    where = saved
    for room in rooms:
        where = where[room]
    where[name] = value
    with pytest.raises(kind, match=re.escape(message)):
        from_json(Run, saved)


def test_a_setting_that_nobody_knows_and_one_that_is_missing():
    saved = to_json(Run())
    saved["training"]["epoch"] = 3
    with pytest.raises(KeyError, match=r"`training\.epoch` is no setting of Training. Received: 3. Did .*`epochs`\?"):
        from_json(Run, saved)
    with pytest.raises(KeyError, match="`colour` is no setting of Run. Received: 'red'."):
        from_json(Run, {**to_json(Run()), "colour": "red"})
    del saved["training"]["epoch"], saved["training"]["epochs"]
    with pytest.raises(KeyError, match=r"`training\.epochs` is missing"):
        from_json(Run, saved)
    with pytest.raises(KeyError, match="`training` is missing. Received: no settings."):
        from_json(Run, {})
    with pytest.raises(TypeError, match="must be an object"):
        from_json(Run, [])


def test_what_could_not_be_read_back_is_not_written():
    with pytest.raises(TypeError, match=re.escape("`training.epochs` must be a whole number. Received: '64'.")):
        to_json(Run(training=replace(Training(), epochs="64")))
    with pytest.raises(ValueError, match="`min_rating`"):
        to_json(Run(min_rating=float("nan")))


@dataclass(frozen=True)
class Checked:
    factors: int = 8

    def __post_init__(self):
        if self.factors < 1:
            raise InputError(f"`factors` must be 1 or more. Received: {self.factors}.")


@dataclass(frozen=True)
class Holder:
    model: Checked = field(default_factory=Checked)


def test_a_check_of_the_config_itself():
    with pytest.raises(InputError, match=r"`model`.*`factors` must be 1 or more. Received: 0."):
        from_json(Holder, {"model": {"factors": 0}})


@dataclass(frozen=True)
class Odd:
    table: dict[str, int] = field(default_factory=dict)


def test_a_type_that_settings_cannot_have():
    with pytest.raises(TypeError, match="`table` has a type that settings cannot have: dict"):
        from_json(Odd, {"table": {}})


def test_differences():
    old = to_json(Run())
    new = to_json(Run(training=Training(epochs=20, hidden_dims=(5,)), path=Path("p")))
    assert differences(old, new) == [
        'path: null -> "p"',
        "training.epochs: 100 -> 20",
        "training.hidden_dims: [600] -> [5]",
    ]
    assert differences(old, old) == []


def test_it_does_not_load_tensorflow():
    code = "import sys, tfrec.settings; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
