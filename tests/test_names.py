"""Users and items by the names that a person types."""

import numpy as np
import pytest

from tfrec.errors import InputError
from tfrec.names import ItemNames, UserNames


def items(titles, ids=None):
    ids = np.arange(10, 10 + len(titles)) if ids is None else np.array(ids, dtype=object)
    return ItemNames(ids, np.array(titles, dtype=object))


def test_users_with_numbers():
    names = UserNames(np.array([-5, 3, 12, 9_223_372_036_854_775_807]))
    for name, number in (("3", 1), (" 12 ", 2), ("-5", 0), ("9223372036854775807", 3), ("+3", 1)):
        assert names.number(name) == names.find(name) == number
    for name in ("", "4", "3.0", "1e1", "9" * 19, "9" * 400, "३", "-", "a\x1b[2J"):
        assert names.find(name) is None
        with pytest.raises(InputError, match="must be one of the data's") as caught:
            names.number(name)
        assert "\x1b" not in str(caught.value)


def test_users_with_text():
    names = UserNames(np.array(["007", "12", "7", "ada b", " pad"], dtype=object))
    for name, number in (("007", 0), ("7", 2), ("12", 1), ("12 ", 1), ("ada b", 3), (" pad", 4)):
        assert names.number(name) == names.find(name) == number
    with pytest.raises(InputError, match="must be one of the data's"):
        names.number("07")


def test_titles_and_ids():
    found = items(["Heat", "Crash", "Crash", "1984", "Amélie", "a\x1b[1m", "HEAT 2", "Tab\tbed"])
    assert found.number("Heat") == 0
    assert found.number(" heat ") == 0
    assert found.number("Ame\u0301lie") == 4  # the other way to write é
    assert found.number(r"a\x1b[1m") == 5  # as it is printed
    assert found.number(r"Tab\tbed") == 7
    assert found.number("12") == 2
    with pytest.raises(InputError, match="2 items have the title 'crash'.\nGive the raw id of one: 11, 12"):
        found.number("crash")
    with pytest.raises(InputError, match="must not be empty"):
        found.number("  ")
    with pytest.raises(InputError, match="must be the title or id of one of the model's items"):
        found.number("Cras")


def test_a_name_that_is_a_title_and_another_items_id():
    with pytest.raises(InputError, match="(?s)'11' is the title of item 10 and the id of 'Heat'"):
        items(["11", "Heat"]).number("11")
    # An id names its own item, whatever its title is.
    assert items(["10", "10"]).number("10") == 0
    assert items(["a", "b"], ["a", "b"]).number("b") == 1


def test_a_number_in_python_is_an_id():
    """Whatever items are called."""
    found = items(["11", "10", "Heat"])
    assert found.number(11) == found.number(np.int32(11)) == 1
    with pytest.raises(InputError, match="must be one of the model's.\nReceived: 3."):
        found.number(3)
    users = UserNames(np.array([7, 8]))
    assert users.find(8) == users.find(np.int64(8)) == users.find("8") == 1
    assert UserNames(np.array(["7", "8"], dtype=object)).find(8) == 1
