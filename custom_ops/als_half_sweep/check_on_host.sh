#!/bin/sh
# Checks the logic of the CUDA kernels on a machine without a GPU: builds check_gpu.cu and the kernels as plain C++ on
# the emulation in common/cuda_on_host.h, with the undefined behaviour sanitizer, and runs `check_gpu quick`. It shows
# neither speed nor what the hardware does. Every run must pass, and runs that let the threads take turns in another
# order must give the same bits: where they do not, a barrier is missing. (The address sanitizer does not follow fibers;
# memory that ends at a forbidden page, and starts as NaN, takes its place.) Two runs at a time: about ten minutes on two
# cores, twenty of processor time.
#
#   check_on_host.sh [build folder]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-${TMPDIR:-/tmp}/als_check_on_host}
mkdir -p "$build"
flags="-std=c++17 -O2 -g1 -Wall -Wextra -Wno-unknown-pragmas -U_FORTIFY_SOURCE"
flags="$flags -fsanitize=undefined -fno-sanitize-recover=all"

compile() {  # program, more flags
  program=$1
  shift
  for file in als_half_sweep als_check als_cg als_direct als_gramian check_gpu check_gpu_times; do
    g++ $flags "$@" -x c++ -c "$here/$file.cu" -o "$build/$program.$file.o"
  done
  g++ -fsanitize=undefined "$build/$program".*.o -o "$build/$program"
}

run() {  # name, program, most factors, environment...
  name=$1 program=$2 factors=$3
  shift 3
  if ! env "$@" "$build/$program" quick "$factors" >"$build/$name.log"; then
    grep -v '^PASS' "$build/$name.log" || true
    echo "FAIL: $name, see $build/$name.log"
    exit 1
  fi
  echo "$name: $(tail -n 1 "$build/$name.log")"
}

# Two runs side by side that must give the same bits: name, its environment; other name, its environment; program, factors
pair() {
  run "$1" "$5" "$6" $2 &
  first=$!
  run "$3" "$5" "$6" $4
  wait "$first"
  if [ "$(tail -n 1 "$build/$1.log")" != "$(tail -n 1 "$build/$3.log")" ]; then
    echo "FAIL: $1 and $3 differ: a barrier is missing"
    exit 1
  fi
}

compile tensor
pair ascending CUDA_ON_HOST_ORDER=0 descending CUDA_ON_HOST_ORDER=1 tensor 1024
# As little shared memory as the smallest device has: matrices in scratch, fewer rows together. Sums as on Hopper.
small="CUDA_ON_HOST_SHARED=65536 CUDA_ON_HOST_TENSOR_CORES=hopper"
pair small_shared "$small" small_shared_shuffled "$small CUDA_ON_HOST_ORDER=9" tensor 1024
# Compute capability 7.5: no tensor cores for tf32.
compile plain -DTFREC_NO_TENSOR_CORES
small=CUDA_ON_HOST_SHARED=65536
pair plain "$small" plain_shuffled "$small CUDA_ON_HOST_ORDER=11" plain 100
echo PASS
