#!/bin/sh
# Checks the logic of the CUDA kernels on a machine without a GPU: builds check_gpu.cu and the kernels as plain C++ on
# the emulation in common/cuda_on_host.h, with the undefined behaviour sanitizer, and runs `check_gpu quick`. It shows
# neither speed nor what the hardware does, and CUB's sort is the standard library's here. Every run must pass, and runs
# that let the threads take turns in another order must give the same bits: where they do not, a barrier is missing or a
# sum depends on who comes first. A few minutes on one core.
#
#   check_on_host.sh [build folder]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-${TMPDIR:-/tmp}/tt_check_on_host}
mkdir -p "$build"
flags="-std=c++17 -O2 -g1 -Wall -Wextra -Wno-unknown-pragmas -U_FORTIFY_SOURCE"
flags="$flags -fsanitize=undefined -fno-sanitize-recover=all"

compile() {  # program, more flags
  program=$1
  shift
  for file in tt_sort tt_ids tt_nodes tt_plan tt_forward tt_backward tt_update check_gpu check_gpu_times; do
    g++ $flags "$@" -x c++ -c "$here/$file.cu" -o "$build/$program.$file.o"
  done
  g++ -fsanitize=undefined "$build/$program".*.o -o "$build/$program"
}

run() {  # name, program, environment...
  name=$1 program=$2
  shift 2
  if ! env "$@" "$build/$program" quick >"$build/$name.log"; then
    grep -v '^PASS' "$build/$name.log" || true
    echo "FAIL: $name, see $build/$name.log"
    exit 1
  fi
  echo "$name: $(tail -n 1 "$build/$name.log")"
}

same() {
  if [ "$(tail -n 1 "$build/$1.log")" != "$(tail -n 1 "$build/$2.log")" ]; then
    echo "FAIL: $1 and $2 differ: ${3:-a barrier is missing}"
    exit 1
  fi
}

# However many ids there are, as for few; and however few, as for many: the same bits.
compile few "-DTFREC_TT_FEW_PAIRS=(1ll<<40)"
run few few CUDA_ON_HOST_ORDER=0
run few_descending few CUDA_ON_HOST_ORDER=1
same few few_descending
compile many -DTFREC_TT_FEW_PAIRS=0
run many many CUDA_ON_HOST_ORDER=0
run many_shuffled many CUDA_ON_HOST_ORDER=5
same many many_shuffled
same few many "both ways to sort and plan must give the same bits"
# Scratch memory for a few hundred ids: several rounds in most checks.
compile rounds -DTFREC_TT_ROUND_BYTES=65536
run rounds rounds CUDA_ON_HOST_ORDER=0
run rounds_shuffled rounds CUDA_ON_HOST_ORDER=9
same rounds rounds_shuffled
# Compute capability 7.5: no tensor cores for tf32.
compile plain -DTFREC_NO_TENSOR_CORES
run plain plain CUDA_ON_HOST_ORDER=0
run plain_shuffled plain CUDA_ON_HOST_ORDER=11
same plain plain_shuffled
echo PASS
