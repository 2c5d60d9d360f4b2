"""Every family in one batch of different questions, beside `Recommender`."""

import numpy as np
import pytest

from tests.models.test_contract import SIZE
from tests.serving.test_signatures import ITEM_IDS, MODELS, USER_IDS, recommender
from tests.test_recommender import als, models, vocabulary  # noqa: F401
from tfrec.service.engine import Engine, ListQuestion


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_questions_has_the_answers_of_python(name):
    python = recommender(name)
    engine = Engine(python)
    engine.warm_up()
    exclude, among = (2, 5), (1, 4, 6, 7)
    questions = [
        ListQuestion(3, user=0),
        ListQuestion(6, user=3, exclude=exclude),
        ListQuestion(4, user=7, among=among),
        ListQuestion(2),
        ListQuestion(SIZE, user=1),
    ]
    wanted = [
        python.recommend([USER_IDS[0]], 3),
        python.recommend([USER_IDS[3]], 6, exclude=ITEM_IDS[list(exclude)]),
        python.recommend([USER_IDS[7]], 4, among=ITEM_IDS[list(among)]),
        python.recommend(["nobody"], 2),
        python.recommend([USER_IDS[1]], SIZE),
    ]
    if engine.takes_histories:
        questions.append(ListQuestion(5, history=(1, 8)))
        wanted.append(python.recommend_to([ITEM_IDS[[1, 8]]], 5))
    if engine.compares_items:
        questions.append(ListQuestion(5, similar_to=4))
        wanted.append(python.similar_items([ITEM_IDS[4]], 5))
    for answer, table in zip(engine.answer_lists(questions), wanted, strict=True):
        scores = table["score"].to_numpy()
        assert len(answer.items) == len(scores)
        np.testing.assert_allclose(answer.scores, scores, rtol=1e-4, atol=1e-5)


def test_a_model_that_knows_some_of_the_users_by_number(als):  # noqa: F811
    """By factors who has them, by history who has not, and of what is popular who has nothing."""
    users = ["käufer 3", "new with one", "new without", "käufer 0"]
    numbers = [als.vocabulary.user_ids.tolist().index(user) for user in users]
    assert als.model.num_users == numbers[1]
    engine = Engine(als)
    for answer, user in zip(engine.answer_lists([ListQuestion(4, user=n) for n in numbers]), users, strict=True):
        table = als.recommend([user], 4)
        assert als.vocabulary.item_ids[answer.items].tolist() == table["item"].to_pylist()
        np.testing.assert_allclose(answer.scores, table["score"].to_numpy(), rtol=1e-4, atol=1e-5)
        assert answer.known == (user != "new without")
