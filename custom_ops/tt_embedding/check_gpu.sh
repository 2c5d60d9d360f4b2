#!/bin/sh
# Builds check_gpu.cu with nvcc alone, for the GPU at hand, and runs it: check_gpu.sh [check_gpu's arguments].
# Exits with 77 where there is no GPU. Set NVCC_FLAGS to, say, "-gencode arch=compute_90,code=sm_90" for another target;
# for a GPU that is newer than the target, CUDA_CACHE_MAXSIZE=4294967296 keeps what its driver then compiles.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${TMPDIR:-/tmp}/tt_check_gpu
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
mkdir -p "$build"
rm -f "$build"/*.o
compiling=
for file in tt_sort tt_ids tt_nodes tt_plan tt_forward tt_backward tt_update check_gpu check_gpu_times; do
  "$nvcc" -std=c++17 -O3 -Xcompiler -Wall,-Wextra ${NVCC_FLAGS:--arch=native} -c "$here/$file.cu" -o "$build/$file.o" &
  compiling="$compiling $!"
done
for job in $compiling; do  # `wait` alone would forget that one failed
  wait "$job"
done
"$nvcc" ${NVCC_FLAGS:--arch=native} "$build"/*.o -o "$build/check_gpu"
exec "$build/check_gpu" "$@"
