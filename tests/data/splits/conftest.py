import pytest


@pytest.fixture
def ratings(random):
    """Events of 60 users in no order, each pair once; some users have few positive ones."""
    pairs = random.permutation(60 * 40)[:900]
    user, item = pairs // 40 * 3 + 5, pairs % 40 * 7
    return user, item, random.integers(1, 11, len(user)) / 2
