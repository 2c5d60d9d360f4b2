"""Who is named when ranks wait in vain, with a store and a clock of the test's own."""

from unittest import mock

import pytest

from tfrec.distributed import watch
from tfrec.distributed.watch import Watch


@pytest.fixture
def watching(monkeypatch):
    """Makes rank 0 of 3, whose store has what ``beats`` gives for a second: by rank, how often it signed in."""
    monkeypatch.delenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", raising=False)
    seconds = [0.0]

    def sleep(duration):
        seconds[0] += duration

    clock = mock.Mock(sleep=sleep, monotonic=lambda: seconds[0])
    monkeypatch.setattr(watch, "time", clock)

    def make(beats):
        made = Watch(0, 3, lambda: 0.0)
        made._url = "of the test"
        made._everyone = lambda: beats(seconds[0])
        return made, seconds

    return make


def test_the_one_that_is_silent(watching):
    made, seconds = watching(lambda s: {1: {"beats": s}, 2: {"beats": 7}})
    found = made.lost()
    assert found.ranks == [2]
    assert found.text.startswith("has not answered for 30 s, or has ended. Is its process")
    assert made.first_left() == 0
    assert seconds[0] == 3


def test_one_that_is_slow_is_not_blamed(watching):
    """On a busy machine a rank that is there signs in late."""
    made, seconds = watching(lambda s: {1: {"beats": s // 8}, 2: {"beats": 7}})
    assert made.lost().ranks == [2]
    assert seconds[0] == 8


def test_two_that_are_silent(watching):
    made, seconds = watching(lambda s: {1: {"beats": 5}, 2: {"beats": 7}})
    found = made.lost()
    assert found.ranks == [1, 2]
    assert found.text.startswith("have not answered for 30 s, or have ended. Is their process")
    assert seconds[0] < 15


def test_nobody_is_silent(watching):
    made, _ = watching(lambda s: {1: {"beats": s}, 2: {"beats": s}})
    assert made.lost() is None


def test_one_that_has_said_so(watching):
    made, seconds = watching(lambda s: {1: {"beats": 5}, 2: {"end": "told"}})
    found = made.lost()
    assert (found.ranks, found.told) == ([2], True)
    assert seconds[0] == 0
