import pytest

from tfrec.errors import InputError
from tfrec.metrics import REGISTRY, Metric, TiedRanks, ranking_metric


def test_name_round_trip():
    for name in ("recall@20", "recall_relevant@5", "auc", "mrr", "mrr@10", "coverage@100", "novelty@10", "gini@10"):
        assert str(Metric.parse(name)) == name


@pytest.mark.parametrize("name", ["ndgc@10", "recall", "recall@", "auc@5", "ndcg@0", "recall@-1", "", "gini"])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="Received"):
        Metric.parse(name)


def test_a_new_metric_is_one_decorated_function(monkeypatch):
    monkeypatch.setattr("tfrec.metrics.registry.REGISTRY", dict(REGISTRY))

    @ranking_metric("targets", cutoff="none")
    def targets(ranks: TiedRanks):
        return ranks.num_targets

    assert not Metric.parse("targets").of_catalogue
    with pytest.raises(InputError, match="(?s)A metric must be one of .*targets"):
        Metric.parse("target")
    with pytest.raises(InputError, match="targets must have no cutoff"):
        Metric.parse("targets@5")
    with pytest.raises(ValueError, match="already"):
        ranking_metric("targets")(targets)
