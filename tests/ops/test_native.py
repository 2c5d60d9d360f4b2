"""The native library: what it was built for, and what is said where it is missing or another's."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.ops import native
from tfrec.ops.built_for import built_for, minor

needs_library = pytest.mark.skipif(ops.library() is None, reason="needs the native library, which launch/setup builds")


def written(path, tensorflow):
    """A file that contains, among other bytes, what the library of some ``tensorflow`` does."""
    text = f"tfrec_built_for\ntensorflow={tensorflow}\ncompiler=gcc 12.2.0\nprocessor=x86_64\n"
    text += "instruction_sets=baseline avx2\ncuda_toolkit=12.5\ncuda_architectures=80-real 90\n\0"
    path.write_bytes(b"\x7fELF" * 1000 + text.encode() + b"\xff" * 100)
    return path


@needs_library
def test_the_library_was_built_for_this_tensorflow():
    found = built_for(ops.library_path())
    assert found.tensorflow_minor == minor(tf.__version__)
    assert native.cpu_kernels() in found.instruction_sets


@needs_library
def test_the_kernels_that_are_asked_for_are_named():
    code = "from tfrec.ops import native; print(native.cpu_kernels())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TFREC_CPU_KERNELS": "baseline"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "baseline", done.stderr


def test_what_a_file_says(tmp_path):
    found = built_for(written(tmp_path / "a.so", "2.20.1"))
    assert (found.tensorflow, found.tensorflow_minor) == ("2.20.1", "2.20")
    assert found.instruction_sets == ("baseline", "avx2")
    assert "CUDA 12.5 (80-real, 90)" in str(found)
    for name, content in (("empty", b""), ("other", b"not a library"), ("cut", b"tfrec_built_for\ntensorflow=2.2")):
        (tmp_path / name).write_bytes(content)
        assert built_for(tmp_path / name) is None


def test_another_minor_version_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    other = written(tmp_path / "libtfrec_ops.so", "2.7.3")
    monkeypatch.setattr(native, "library_path", lambda: other)
    with pytest.raises(InputError) as raised:
        native.library.__wrapped__()
    said = str(raised.value)
    assert f"must be built for TensorFlow {minor(tf.__version__)}" in said
    assert "built for TensorFlow 2.7.3" in said
    assert "pip install 'tensorflow==2.7.*'" in said


def test_another_patch_version_is_not(tmp_path):
    assert native.wrong_tensorflow(written(tmp_path / "a.so", "2.7.3"), "2.7.0") is None


def test_a_missing_library_warns_once_and_the_twin_answers():
    code = (
        "import warnings, pathlib, tfrec.ops.native as n\n"
        "n.library_path = lambda: pathlib.Path('nowhere/libtfrec_ops.so')\n"
        "n.library.cache_clear()\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    assert n.library() is None and n.library() is None\n"
        "print(len(seen), n.how_to_build() in str(seen[0].message))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TFREC_OPS_LIBRARY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1 True", done.stderr


def test_how_to_build_depends_on_where_tfrec_is(tmp_path, monkeypatch):
    assert native.how_to_build().endswith("launch/setup --force")
    monkeypatch.setattr(native, "__file__", str(tmp_path / "site-packages" / "tfrec" / "ops" / "native.py"))
    assert "TFREC_BUILD_OPS=1 pip install" in native.how_to_build()


def test_a_file_that_is_no_library_says_how_to_build_one(tmp_path, monkeypatch):
    broken = tmp_path / "libtfrec_ops.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native, "library_path", lambda: broken)
    with pytest.raises(InputError, match="launch/setup --force"):
        native.library.__wrapped__()


def test_a_library_that_is_named_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TFREC_OPS_LIBRARY", str(tmp_path / "libtfrec_ops.so"))
    assert native.library_path() == tmp_path / "libtfrec_ops.so"
    with pytest.raises(InputError, match="TFREC_OPS_LIBRARY must name a library"):
        native.library.__wrapped__()
