"""Lists from an index: the same as without one where the index misses nothing, in Python and in the service."""

import numpy as np
import pytest
import scipy.sparse

from tests.models.test_als import checkerboard
from tests.models.test_contract import BOARD, SIZE
from tests.serving.test_signatures import ITEM_IDS, MODELS, USER_IDS, history, recommender
from tests.test_recommender import als, models, vocabulary  # noqa: F401
from tfrec import Recommender
from tfrec.errors import InputError
from tfrec.runs.vocabulary import Vocabulary
from tfrec.service.engine import Engine, ListQuestion

EXCLUDE, AMONG = ITEM_IDS[[2, 5]].tolist(), ITEM_IDS[[1, 4, 6, 7]].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_finds_the_highest_inner_products(name):
    """Without ids, as many scores are equal: `tests.ann` has ties."""
    python = recommender(name)
    if name.startswith("neumf") or name.endswith("int8"):
        with pytest.raises(InputError, match="no inner product"):
            python.index()
        return
    report = python.index("ivf", "float32", recall=1.0)
    assert (report.kind, report.items, report.recall) == ("ivf", SIZE, 1.0)
    vectors, items = python.query_vectors(USER_IDS.tolist()), python.item_vectors()
    numbers = {raw: number for number, raw in enumerate(ITEM_IDS.tolist())}
    for chosen, left_out in (
        ({"k": 5}, []),
        ({"k": 5, "exclude": EXCLUDE}, EXCLUDE),
        ({"k": 3, "among": AMONG}, [i for i in ITEM_IDS if i not in AMONG]),
        ({"k": SIZE}, []),
    ):
        rows = python.recommend(USER_IDS.tolist(), **chosen).to_pylist()
        for user, raw in enumerate(USER_IDS.tolist()):
            found = [(numbers[row["item"]], row["score"]) for row in rows if row["user"] == raw]
            scores = items @ vectors[user]
            scores[[*BOARD[user].indices, *(numbers[i] for i in left_out)]] = -np.inf
            wanted = np.sort(scores[np.isfinite(scores)])[::-1][: chosen["k"]]
            np.testing.assert_allclose([score for _, score in found], wanted, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose([score for _, score in found], scores[[i for i, _ in found]], 1e-4, 1e-5)
    assert python.recommend(["nobody"], 4).equals(recommender(name).recommend(["nobody"], 4))
    if python.model.takes_histories:
        scores = python.query_vectors(histories=[history(3)])[0] @ items.T
        scores[BOARD[3].indices] = -np.inf
        found = python.recommend_to([history(3), []], 5).to_pylist()
        np.testing.assert_allclose([row["score"] for row in found[:5]], np.sort(scores)[::-1][:5], 1e-4, 1e-5)
        assert [row["user"] for row in found] == [0] * 5 + [1] * 5


@pytest.mark.parametrize("name", ["als", "vae"])
def test_the_service_answers_from_it(name):
    name = next(p.values[0] for p in MODELS if p.values[0].startswith(name))
    python = recommender(name)
    python.index("hnsw", recall=1.0)
    engine = Engine(python)
    engine.warm_up()
    questions = [
        ListQuestion(3, user=0),
        ListQuestion(6, user=3, exclude=(2, 5)),
        ListQuestion(4, user=7, among=(1, 4, 6, 7)),
        ListQuestion(2),
        ListQuestion(SIZE, user=1),
        ListQuestion(5, history=(1, 8)),
        ListQuestion(5, similar_to=4),
    ]
    wanted = [
        python.recommend([USER_IDS[0]], 3),
        python.recommend([USER_IDS[3]], 6, exclude=EXCLUDE),
        python.recommend([USER_IDS[7]], 4, among=AMONG),
        python.recommend(["nobody"], 2),
        python.recommend([USER_IDS[1]], SIZE),
        python.recommend_to([ITEM_IDS[[1, 8]]], 5),
        python.similar_items([ITEM_IDS[4]], 5),
    ]
    answers = engine.answer_lists(questions)
    for answer, table in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(answer.scores, table["score"].to_numpy(), rtol=1e-4, atol=1e-5)
    assert [answer.known for answer in answers[:6]] == [True, True, True, False, True, True]


def test_saved_and_read_with_the_model(als, tmp_path):  # noqa: F811
    assert als.indexed is None
    report = als.index(recall=1.0)
    lists = als.recommend(["käufer 3", "nobody"])
    read = Recommender.load(als.save(tmp_path / "saved"))
    assert read.indexed == report == als.indexed
    assert read.recommend(["käufer 3", "nobody"]).equals(lists)
    # Trained on, it is another model.
    read.model.fit(scipy.sparse.csr_matrix(checkerboard()[:, ::-1]), verbose=0)
    with pytest.raises(InputError, match="another model"):
        read.read_index(tmp_path / "saved")
    assert als.index("exact").kind == "exact"
    assert Recommender.load(als.save(tmp_path / "exact")).indexed is None


def test_nobody_to_try_it_on(models):  # noqa: F811
    items = np.arange(models["ease"].num_items)
    histories = scipy.sparse.csr_matrix((1, len(items)), dtype=np.float32)
    nobody = Recommender(models["ease"], Vocabulary(items, items.astype(str).astype(object), items, [7], histories))
    with pytest.raises(InputError, match="taste"):
        nobody.index()
