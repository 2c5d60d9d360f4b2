#!/bin/sh
# Counts what the kernels' host code launches at FBTT-Embedding's headline shape, with nvcc and without a GPU: builds it
# on common/cuda_counting.cc and prints every launch with the registers, stack and spills that the compiler reports.
#
#   count_launches.sh [ids]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${TMPDIR:-/tmp}/tt_count_launches
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
mkdir -p "$build"
rm -f "$build"/*.o "$build"/*.txt
for file in tt_sort tt_ids tt_nodes tt_plan tt_forward tt_backward tt_update; do
  "$nvcc" -std=c++17 -O3 -arch=sm_90 --resource-usage -c "$here/$file.cu" -o "$build/$file.o" 2>"$build/$file.txt" || {
    cat "$build/$file.txt"
    exit 1
  }
done
cat "$build"/*.txt >"$build/report"
"$nvcc" -std=c++17 -O2 -c "$here/../common/cuda_counting.cc" -o "$build/cuda_counting.o"
"$nvcc" -std=c++17 -O2 -c "$here/count_launches.cc" -o "$build/count_launches.o"
"$nvcc" --cudart none "$build"/*.o -o "$build/count_launches"
exec "$build/count_launches" "$build/report" "$@"
