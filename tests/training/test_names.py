"""Users and items by the names that a person types."""

import numpy as np
import pytest
from tfrec.training.vocabulary import Vocabulary

from tfrec.errors import InputError
from tfrec.recommend import find_item, find_user


def vocabulary(titles, ids=None):
    ids = np.arange(10, 10 + len(titles)) if ids is None else np.array(ids, dtype=object)
    return Vocabulary(ids, np.array(titles, dtype=object), np.ones(len(titles)))


def test_users_with_numbers():
    ids = np.array([-5, 3, 12, 9_223_372_036_854_775_807])
    for name, number in (("3", 1), (" 12 ", 2), ("-5", 0), ("9223372036854775807", 3), ("+3", 1)):
        assert find_user(name, ids) == number
    for name in ("", "4", "3.0", "1e1", "9" * 19, "9" * 400, "३", "-", "a\x1b[2J"):
        with pytest.raises(InputError, match="no such user") as caught:
            find_user(name, ids)
        assert "\x1b" not in str(caught.value)


def test_users_with_text():
    ids = np.array(["007", "12", "7", "ada b", " pad"], dtype=object)
    for name, number in (("007", 0), ("7", 2), ("12", 1), ("12 ", 1), ("ada b", 3), (" pad", 4)):
        assert find_user(name, ids) == number
    with pytest.raises(InputError, match="no such user"):
        find_user("07", ids)


def test_titles_and_ids():
    found = vocabulary(["Heat", "Crash", "Crash", "1984", "Amélie", "a\x1b[1m", "HEAT 2", "Tab\tbed"])
    assert find_item("Heat", found) == 0
    assert find_item(" heat ", found) == 0
    assert find_item("Ame\u0301lie", found) == 4  # the other way to write é
    assert find_item(r"a\x1b[1m", found) == 5  # as it is printed
    assert find_item(r"Tab\tbed", found) == 7
    assert find_item("12", found) == 2
    with pytest.raises(InputError, match="2 items have the title 'crash'.\nGive the raw id of one: 11, 12"):
        find_item("crash", found)
    with pytest.raises(InputError, match="must not be empty"):
        find_item("  ", found)
    with pytest.raises(InputError, match="no item with that title"):
        find_item("Cras", found)


def test_a_name_that_is_a_title_and_another_items_id():
    with pytest.raises(InputError, match="(?s)'11' is the title of item 10 and the id of 'Heat'"):
        find_item("11", vocabulary(["11", "Heat"]))
    # An id names its own item, whatever its title is.
    assert find_item("10", vocabulary(["10", "10"])) == 0
    assert find_item("b", vocabulary(["a", "b"], ["a", "b"])) == 1
