#!/bin/sh
# Builds check_gpu.cu with nvcc alone, for the GPU of this machine, and runs it: check_gpu.sh [check_gpu's arguments]. Before that,
# `check_gpu quick` in two builds, one that sorts and plans however few ids as if they were many: the same bits.
# Exits with 77 where there is no GPU. Set NVCC_FLAGS to, say, "-gencode arch=compute_90,code=sm_90" for another target;
# for a GPU that is newer than the target, CUDA_CACHE_MAXSIZE=4294967296 keeps what its driver then compiles.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${TMPDIR:-/tmp}/tt_check_gpu
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
mkdir -p "$build"
rm -f "$build"/*.o "$build"/*.log "$build/check_gpu" "$build/check_gpu_many"
ask_how_many="tt_ids tt_nodes tt_plan tt_forward"  # the files that do
others="tt_sort tt_backward tt_update check_gpu check_gpu_times"
compiling=
compile() {  # object, file, more flags
  object=$1 file=$2
  shift 2
  "$nvcc" -std=c++17 -O3 -Xcompiler -Wall,-Wextra ${NVCC_FLAGS:--arch=native} "$@" -c "$here/$file.cu" \
    -o "$build/$object.o" &
  compiling="$compiling $!"
}
for file in $ask_how_many $others; do compile "$file" "$file"; done
for file in $ask_how_many; do compile "many.$file" "$file" -DTFREC_TT_FEW_PAIRS=0; done
for job in $compiling; do  # `wait` alone would forget that one failed
  wait "$job"
done
link() {  # program, prefix of the objects of those files
  objects=
  for file in $ask_how_many; do objects="$objects $build/$2$file.o"; done
  for file in $others; do objects="$objects $build/$file.o"; done
  "$nvcc" ${NVCC_FLAGS:--arch=native} $objects -o "$build/$1"
}
link check_gpu ""
link check_gpu_many many.
for program in check_gpu check_gpu_many; do
  status=0
  "$build/$program" quick >"$build/$program.log" || status=$?
  if [ "$status" != 0 ]; then
    grep -v '^PASS' "$build/$program.log" || true
    exit "$status"
  fi
done
if [ "$(tail -n 1 "$build/check_gpu.log")" != "$(tail -n 1 "$build/check_gpu_many.log")" ]; then
  tail -n 1 "$build/check_gpu.log" "$build/check_gpu_many.log"
  echo "FAIL: few and many ids give other bits"
  exit 1
fi
exec "$build/check_gpu" "$@"
