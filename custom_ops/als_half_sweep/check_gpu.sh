#!/bin/sh
# Builds check_gpu.cu with nvcc alone, for the GPU of this machine, and runs it: check_gpu.sh [check_gpu's arguments].
# Exits with 77 where there is no GPU. Set NVCC_FLAGS to, say, "-gencode arch=compute_90,code=sm_90" for another target.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${TMPDIR:-/tmp}/als_check_gpu
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
mkdir -p "$build"
rm -f "$build"/*.o "$build/check_gpu"
compilers=
for file in als_half_sweep als_check als_cg als_direct als_gramian check_gpu check_gpu_times; do
  "$nvcc" -std=c++17 -O3 -Xcompiler -Wall,-Wextra ${NVCC_FLAGS:--arch=native} -c "$here/$file.cu" -o "$build/$file.o" &
  compilers="$compilers $!"
done
for compiler in $compilers; do wait "$compiler"; done  # and end where one has failed
"$nvcc" ${NVCC_FLAGS:--arch=native} "$build"/*.o -o "$build/check_gpu"
exec "$build/check_gpu" "$@"
