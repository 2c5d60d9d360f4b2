"""The parts, in order. What comes first tells most where a run is cut short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpu_parts import benchmarks, environment, kernels, library, nccl, tests, training
from gpu_parts.session import Session
from gpu_parts.work import Work

Run = Callable[[Session, Work], None]


@dataclass(frozen=True)
class Part:
    """One part.

    Args:
        name: for ``--part``.
        what: what it does, as a sentence without a subject.
        run: does it.
        needs: nvcc, tensorflow, library, or names of Python packages; what is missing is said, and the part not run.
        without_gpu: what can be done of it on a machine without a GPU, and what that is.
        rehearsed: whether ``--rehearse`` runs it on the CPU.
        always: run again at each start: it takes seconds where nothing has changed, and other parts rely on it.
        may_run_over: whether it is no fault when its time is up: what it printed until then is what was wanted.
        limit_s: seconds that it may take.
    """

    name: str
    what: str
    run: Run
    needs: tuple[str, ...] = ()
    without_gpu: tuple[Run, str] | None = None
    rehearsed: bool = False
    always: bool = False
    may_run_over: bool = False
    limit_s: int = 170


#: What tfrec.data imports, and what a training writes its folder with.
_TFREC = ("tensorflow", "library", "scipy", "pyarrow", "tqdm", "yaml")
_TRAINING = (*_TFREC, "matplotlib", "tensorboard")


def parts() -> list[Part]:
    """All of them."""
    tests_need = (*_TFREC, "pytest", "hypothesis")
    small = "runs the checks of small sizes under compute-sanitizer"
    trained = "trains on the embedded data on GPU, CPU and in 16 bits: finite, and of equal quality"
    return [
        Part(
            "environment",
            "reads card, driver, clocks and versions, and has TensorFlow find the GPU",
            environment.run,
            without_gpu=(environment.without_gpu, "reads versions"),
            always=True,
            rehearsed=True,
        ),
        Part(
            "library",
            "compiles the native library for this GPU and loads it",
            library.run,
            ("tensorflow",),
            without_gpu=(library.build, "compiles it, unless TFREC_OPS_LIBRARY names one"),
            always=True,
        ),
        *(
            Part(
                f"kernels-{kernel}",
                f"compiles custom_ops/{folder}/check_gpu.sh and compares every kernel with a float64 oracle",
                kernels.check(kernel),
                ("nvcc",),
                without_gpu=(kernels.compile_only(kernel), "compiles the checks"),
            )
            for kernel, folder in kernels.FOLDERS.items()
        ),
        *(
            Part(f"memcheck-{kernel}", f"{small} memcheck", kernels.sanitize(kernel, "memcheck"), ("nvcc",))
            for kernel in kernels.FOLDERS
        ),
        Part(
            "peaks",
            "measures what this card reaches in a matrix product and in a copy",
            benchmarks.peaks,
            ("tensorflow",),
            rehearsed=True,
        ),
        Part("tests", "runs the tests that need a GPU (pytest -m gpu)", tests.needing_a_gpu, tests_need),
        *(
            Part(f"train-{model}", trained, training.compare(model), _TRAINING, rehearsed=True)
            for model in training.MODELS
        ),
        Part(
            "nccl",
            "trains on as many ranks as there are GPUs, against one, and times an allreduce",
            nccl.run,
            _TFREC,
            rehearsed=True,
        ),
        *(Part(f"bench-{name}", what, run, _TFREC, rehearsed=True) for name, what, run in benchmarks.TABLES),
        *(
            Part(
                f"times-{kernel}",
                "runs all checks up to 128 factors and times each kernel alone",
                kernels.times(kernel),
                ("nvcc",),
                may_run_over=True,
            )
            for kernel in kernels.FOLDERS
        ),
        *(
            Part(
                f"racecheck-{kernel}",
                f"{small} racecheck, if that ends in time",
                kernels.sanitize(kernel, "racecheck"),
                ("nvcc",),
                may_run_over=True,
            )
            for kernel in kernels.FOLDERS
        ),
        Part(
            "tests-on-device",
            "runs the tests of ops, layers, models and evaluation with TensorFlow on the GPU",
            tests.on_device,
            tests_need,
        ),
    ]
