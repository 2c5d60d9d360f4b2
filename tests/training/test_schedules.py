"""The learning rate of every update, against its formula; and what is checked before the first."""

import math

import pytest
from tfrec.configs import NeuMFTrainingConfig, TrainingConfig
from tfrec.training.fitting import check_updates, learning_rate, noise_seed
from tfrec.training.neumf import is_lazy

from tfrec import distributed
from tfrec.errors import InputError

PEAK = 0.4


def rates(updates, steps=1, **options):
    """What the optimizer takes as learning rate in its first updates."""
    found = learning_rate(TrainingConfig(**{"learning_rate": PEAK, "epochs": 10} | options), steps)
    return [float(found(t)) if callable(found) else found for t in range(updates)]


def test_constant():
    assert rates(3) == [PEAK] * 3


@pytest.mark.parametrize(("warmup", "shares"), [(1, [1, 1, 1]), (2, [1 / 2, 1, 1]), (4, [1 / 4, 2 / 4, 3 / 4, 1, 1])])
def test_warm_up_is_linear_and_its_last_step_has_the_whole_rate(warmup, shares):
    assert rates(len(shares), warmup_steps=warmup) == pytest.approx([PEAK * s for s in shares])


def test_cosine_begins_at_the_peak_and_would_be_0_after_the_last_update():
    # 10 epochs of 3 batches.
    wanted = [PEAK * (1 + math.cos(math.pi * t / 30)) / 2 for t in range(31)]
    assert rates(31, steps=3, schedule="cosine") == pytest.approx(wanted, abs=1e-7)
    assert wanted[0] == PEAK
    assert wanted[30] == 0


def test_cosine_counts_updates_where_gradients_of_several_batches_are_added_up():
    # 10 epochs of 3 batches, 2 to an update: 15 updates.
    wanted = [PEAK * (1 + math.cos(math.pi * t / 15)) / 2 for t in range(16)]
    assert rates(16, steps=3, schedule="cosine", backward_passes_per_step=2) == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("warmup", [1, 2, 5])
def test_cosine_after_a_warm_up(warmup):
    """The warm-up is that of a constant rate: no update has the rate 0, and the peak comes once."""
    rising = [PEAK * (t + 1) / warmup for t in range(warmup - 1)]
    falling = 30 - len(rising)
    wanted = rising + [PEAK * (1 + math.cos(math.pi * t / falling)) / 2 for t in range(falling + 1)]
    assert rates(31, steps=3, schedule="cosine", warmup_steps=warmup) == pytest.approx(wanted, abs=1e-7)
    assert min(wanted[:30]) > 0


def test_a_warm_up_as_long_as_the_training_is_refused():
    training = TrainingConfig(epochs=2, warmup_steps=5, backward_passes_per_step=2)
    check_updates(training, 6)  # 6 updates
    with pytest.raises(InputError, match="less than the number of updates, 5"):
        check_updates(training, 5)
    with pytest.raises(InputError, match="No update would be made: 2 epochs have 0 steps"):
        check_updates(training, 0)


def test_no_two_ranks_and_seeds_share_their_noise(monkeypatch):
    found = set()
    for rank in range(5):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found |= {noise_seed(seed) for seed in range(20)}
    assert len(found) == 5 * 20
    assert all(0 <= s < 2**31 for s in found)


def test_a_table_is_updated_by_rows_where_a_batch_has_few_of_them():
    auto = NeuMFTrainingConfig()
    # Of 1,000 rows 100 draws reach 1,000 (1 - exp(-.1)) = 95, 2,000 draws 865.
    assert is_lazy(auto, 100, 1_000)
    assert not is_lazy(auto, 2_000, 1_000)
    # 431 draws reach .35; 440 a little more.
    assert is_lazy(auto, 425, 1_000)
    assert not is_lazy(auto, 440, 1_000)
    assert is_lazy(NeuMFTrainingConfig(embedding_update="lazy"), 2_000, 1_000)
    assert not is_lazy(NeuMFTrainingConfig(embedding_update="dense"), 1, 1_000)
