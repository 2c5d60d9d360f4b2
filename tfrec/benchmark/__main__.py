"""The command: which benchmark, and where its result goes."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfrec import commands


@dataclass(frozen=True)
class Arguments:
    """Measure a part of tfrec against its alternatives on this machine."""

    name: Annotated[
        Literal[
            "vae-cf",
            "neumf",
            "als",
            "als-float16",
            "als-sharded",
            "ease",
            "tt",
            "tt-quality",
            "quantization",
            "scaling",
            "sharded",
            "data",
            "first-list",
            "inference",
            "ann",
        ],
        tyro.conf.Positional,
    ]
    """vae-cf: the sparse training step against the same network with dense input and target.
    neumf: training with samples made on the device against a host pipeline; scoring; memory; lazy and dense Adam.
    als: training, recommending and memory against the implicit package (extra `benchmark`).
    als-float16: precision@10, time and memory of float16 against float32 factors.
    als-sharded: peak memory of a rank that holds its share of the tables and the matrix, on 1, 2 and 4 ranks.
    ease: the Gramian, the inverse and memory for a generated matrix, against the machine's matmul peak.
    quantization: NeuMF in int8, with and without a split final layer, and tfrec's best, three seeds (trains them).
    tt: tensor-train embeddings against their pure-TensorFlow twin and a dense table, at FBTT-Embedding's shape.
    tt-quality: NeuMF with tables of a tenth of the size against dense ones, three seeds (trains them).
    scaling: steps of NeuMF on 1, 2 and 4 ranks over links of 100 Mbit/s to 10 Gbit/s, whole and sharded tables, float32
    and float16; how well a model predicts those it was not fitted on; its plan for 8, 16 and 64 GPUs (Linux, root).
    sharded: a table of 16 million rows on two ranks: memory, bytes sent and seconds of a step, against whole tables.
    data: reading 20 million ratings from CSV and from the cache.
    first-list: from a pandas frame to ten recommendations, whole processes, against implicit and import tensorflow.
    inference: finished runs (name their folders) as SavedModel and as service: latency, throughput, start, memory.
    ann: indexes of generated vectors of items against a full search, hnswlib and usearch (extra `benchmark`)."""
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """inference: the folders of the runs."""
    json: Path | None = None
    """Write the result here too."""
    rounds: int = 5
    """How often each alternative is timed."""
    load_s: float = 10.0
    """inference: seconds that a service is asked at .8 of its peak."""
    parts: tuple[str, ...] = ()
    """als: of ml-1m, lastfm-2k, generated-10m, memory and balance; tt-quality: of low_rank, low_rank_5, low_rank_20,
    pairs and three_cores; ann: of the names of its results, such as ivf_float16. Default: all."""
    batch: int | None = None
    """vae-cf: users per step, default 2,000. scaling: samples per step of one GPU of the plan, default 2^18."""
    items: int | None = None
    """ease: number of items, default 5,000. ann: the same, default 1,000,000."""
    rows: int = 16_000_000
    """sharded: rows of the table."""
    samples_per_second: float = 6.2e6
    """scaling: of one GPU of the plan, from `tfrec benchmark neumf` on it. Default: one NVIDIA H200."""


def main() -> None:
    """Run one benchmark."""
    arguments = commands.arguments(Arguments, "benchmark")

    def measure() -> None:
        commands.quiet_tensorflow()
        if arguments.name == "vae-cf":
            from tfrec.benchmark.vae_cf import benchmark_vae_cf

            result = benchmark_vae_cf(arguments.batch or 2_000, arguments.rounds)
        elif arguments.name == "neumf":
            from tfrec.benchmark.neumf import benchmark_neumf

            result = benchmark_neumf(arguments.rounds)
        elif arguments.name == "als":
            # implicit asks for it, and reads it when it loads.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            from tfrec.benchmark.als import PARTS, benchmark_als

            result = benchmark_als(arguments.rounds, parts=arguments.parts or PARTS)
        elif arguments.name == "als-float16":
            from tfrec.benchmark.als_float16 import benchmark_als_float16

            result = benchmark_als_float16(arguments.rounds)
        elif arguments.name == "als-sharded":
            from tfrec.benchmark.als_sharded import benchmark_als_sharded

            result = benchmark_als_sharded()
        elif arguments.name == "ease":
            from tfrec.benchmark.ease import benchmark_ease

            result = benchmark_ease(arguments.items or 5_000, arguments.rounds)
        elif arguments.name == "quantization":
            from tfrec.benchmark.quantization import benchmark_quantization

            result = benchmark_quantization()
        elif arguments.name == "tt":
            from tfrec.benchmark.tt import benchmark_tt

            result = benchmark_tt(arguments.rounds)
        elif arguments.name == "tt-quality":
            from tfrec.benchmark.tt_quality import FORMS, benchmark_tt_quality

            result = benchmark_tt_quality(arguments.parts or tuple(FORMS), arguments.rounds)
        elif arguments.name == "scaling":
            from tfrec.benchmark.scaling import benchmark_scaling

            batch = 1 << 18 if arguments.batch is None else arguments.batch
            result = benchmark_scaling(arguments.rounds, arguments.samples_per_second, batch)
        elif arguments.name == "sharded":
            from tfrec.benchmark.sharded import benchmark_sharded

            result = benchmark_sharded(arguments.rows, rounds=arguments.rounds)
        elif arguments.name == "first-list":
            from tfrec.benchmark.first_list import benchmark_first_list

            result = benchmark_first_list(arguments.rounds)
        elif arguments.name == "ann":
            from tfrec.benchmark.ann import benchmark_ann

            result = benchmark_ann(arguments.items or 1_000_000, arguments.parts, arguments.rounds)
        elif arguments.name == "inference":
            from tfrec.benchmark.inference import benchmark_inference

            result = benchmark_inference(arguments.runs, arguments.rounds, load_seconds=arguments.load_s)
        else:
            from tfrec.benchmark.data import benchmark_data

            result = benchmark_data(arguments.rounds)
        from tfrec.runs.environment import hardware, versions
        from tfrec.runs.report import write_json

        result = {**result, "hardware": hardware(1), "versions": versions(), "command": " ".join(sys.argv)}
        print(json.dumps(result, indent=2))
        if arguments.json is not None:
            write_json(arguments.json, result)
            print(f"Written to {arguments.json}")

    commands.run(measure)


if __name__ == "__main__":
    main()
