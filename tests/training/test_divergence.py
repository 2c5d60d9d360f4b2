"""A loss that is no number ends training at its epoch."""

import pytest
from tfrec.recipes import RECIPES
from tfrec.training.recorder import check_loss

from tfrec.errors import InputError


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_the_epoch_and_the_learning_rate_are_named(loss):
    training = RECIPES["vae-cf"]().training
    with pytest.raises(InputError, match=rf"epoch 3(?s:.*)--training.learning-rate {training.learning_rate:g}"):
        check_loss(loss, 3, training)
    check_loss(0.5, 3, training)
