"""What `--plan` says, against what a training holds."""

import numpy as np
import pytest
import tensorflow as tf

from tests.starting import run
from tfrec.data.device_integers import DeviceIntegers
from tfrec.data.published_sets import published_sizes
from tfrec.errors import InputError
from tfrec.families import FAMILIES, Memory, Sizes, check_fits, family_of
from tfrec.fitting import named, resolved, with_options
from tfrec.tasks import TASKS, read_source

DATA = {"synthetic.num_users": 300, "synthetic.num_items": 120}
CASES = [
    ("popularity", {}),
    ("ease", {}),
    ("als", {"factors": 8}),
    ("als", {"factors": 24, "factor_dtype": "float32", "sharded": True}),
    ("vae-cf", {"hidden_dims": (24,), "latent_dim": 10, "pipeline": "host"}),
    ("vae-cf", {"hidden_dims": (), "latent_dim": 7, "l2": 1e-3, "backward_passes_per_step": 2}),
    ("neumf", {"mf_dim": 8, "layer_dims": (16, 8)}),
    ("neumf", {"mf_dim": 6, "branch": "gmf", "gmf_weights": "ones", "item_embedding": "sharded"}),
    ("neumf", {"layer_dims": (16, 8, 4), "branch": "mlp", "user_embedding": "tt"}),
    ("neumf", {"mf_dim": 8, "layer_dims": (16, 8), "item_embedding": "tt", "embedding_group": 1,
               "backward_passes_per_step": 2}),
]  # fmt: skip


def trained(recipe, options):
    """The settings, the training matrix, and a trainer that has made everything and fitted nothing."""
    config = resolved(with_options(named(recipe)[1], {**DATA, **options}))
    train = TASKS[config.data.split].split(config.data, read_source(config.data)).train
    return config, train.matrix, family_of(config).trainer(config, train)


def nbytes(variables):
    return sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in variables)


@pytest.mark.parametrize(
    ("recipe", "options"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x) or "plain"
)
def test_tables_slots_and_matrix_are_exact(recipe, options):
    config, matrix, trainer = trained(recipe, options)
    liked = int((matrix.data > 0).sum())
    found = family_of(config).memory(config, Sizes(*matrix.shape, liked), ranks=1)
    model = trainer.model
    if recipe == "popularity":
        trainer.model.adapt(matrix)
    # Counters and the like are a few numbers.
    assert found.tables == pytest.approx(nbytes(model.weights), abs=64)
    assert found.model == found.tables
    if not hasattr(trainer, "batches"):
        assert found.slots == 0
        return
    # The sum over several batches is made by the first of them.
    summed = nbytes(model.trainable_variables) if config.training.backward_passes_per_step > 1 else 0
    assert found.slots == pytest.approx(nbytes(model.optimizer.variables) + summed, abs=256)
    if recipe == "neumf":
        sampler = trainer.batches.__closure__[0].cell_contents
        kept = [*vars(sampler).values(), *vars(sampler._complement).values()]
        kept = [x._bits if isinstance(x, DeviceIntegers) else x for x in kept]
        assert found.matrix == pytest.approx(sum(x.numpy().nbytes for x in kept if tf.is_tensor(x)), abs=64)


def test_a_rank_holds_its_share_of_sharded_tables():
    """1/N of the rows, the last of them whole; all ranks hold the rest."""
    config = resolved(with_options(named("neumf")[1], {"mf_dim": 8, "branch": "gmf", "item_embedding": "sharded"}))
    family, sizes = FAMILIES["neumf"], Sizes(1_000, 4_001, 50_000)
    alone, four = (family.memory(config, sizes, ranks) for ranks in (1, 4))
    assert alone.tables - four.tables == 4 * 8 * (4_001 - 1_001)
    assert alone.slots - four.slots == 2 * (alone.tables - four.tables)
    assert four.model == alone.model == alone.tables
    dense = family.memory(with_options(config, {"item_embedding": "dense"}), sizes, 4)
    assert dense.tables == alone.tables
    # Rank 0 puts the tables together.
    assert four.peak_of_first - four.peak > dense.peak_of_first - dense.peak


def test_the_matrix_of_als_is_divided():
    config = resolved(named("als")[1])
    one, four = (FAMILIES["als"].memory(config, Sizes(1_000, 1_000, 100_000), ranks) for ranks in (1, 4))
    assert four.matrix == one.matrix // 4
    assert four.tables == one.tables


def test_what_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    gib = 1 << 30
    found = Memory(Sizes(1, 1, 1), tables=2 * gib, model=2 * gib, slots=4 * gib)
    monkeypatch.setattr("tfrec.layers.memory.free_bytes", lambda: 13.0 * gib)
    check_fits(found, 2)
    with pytest.raises(InputError, match=r"of 3 ranks must fit .*: 18\.0 GiB\.\nReceived: .* 13\.0 GiB available"):
        check_fits(found, 3)


def test_the_command_prints_a_plan_and_writes_nothing(tmp_path):
    out, _ = run("train", "neumf-ml20m", "--plan", "8", cwd=tmp_path)
    assert "138,493 users, 26,744 items, 20,000,263 interactions; 8 ranks." in out
    assert "peak of a rank" in out
    assert not list(tmp_path.iterdir())
    out, _ = run("train", "als", "--plan", "2", "--plan-sizes", "1000000", "1000000", "9", cwd=tmp_path)
    # 2 million rows of 32 float16.
    assert ["tables", "(weights)", f"{2e6 * 64 / 2**30:.3f}"] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--plan", "0"], "`plan` must be a number of ranks from 1"),
        (["--plan", "2", "--plan-sizes", "5", "0", "7"], "`plan_sizes` must be three numbers from 1"),
    ],
)
def test_a_plan_for_nothing_is_refused(tmp_path, arguments, expected):
    _, err = run("train", "als", *arguments, cwd=tmp_path, code=2)
    assert expected in err


def test_published_sizes_are_those_of_the_files(real_data):
    from tfrec.data import load

    for name in ("ml-100k", "ml-1m", "lastfm-2k"):
        data = load(name, data_dir=real_data(name))
        assert published_sizes(name) == (data.num_users, data.num_items, len(data)), name
