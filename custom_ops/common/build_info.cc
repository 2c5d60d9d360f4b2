// What this library was built for, as a text that stands in the file: tfrec/ops/built_for.py reads it without loading the
// library, which another TensorFlow could not; and which copy of the CPU kernels is used here, for tfrec doctor.
#include "cpu_dispatch.h"

#if defined(__clang__)
#define TFREC_COMPILER "clang " __clang_version__
#else
#define TFREC_COMPILER "gcc " __VERSION__
#endif

#if defined(__x86_64__)
#define TFREC_INSTRUCTION_SETS "baseline avx2 avx512"
#else
#define TFREC_INSTRUCTION_SETS "baseline"
#endif

// CMakeLists.txt defines what else stands here; these two only with CUDA kernels.
#ifndef TFREC_CUDA_TOOLKIT
#define TFREC_CUDA_TOOLKIT ""
#define TFREC_CUDA_ARCHITECTURES ""
#endif

extern "C" {

__attribute__((used, visibility("default"))) extern const char tfrec_built_for[] =
    "tfrec_built_for\n"
    "tensorflow=" TFREC_TENSORFLOW "\n"
    "compiler=" TFREC_COMPILER "\n"
    "processor=" TFREC_PROCESSOR "\n"
    "instruction_sets=" TFREC_INSTRUCTION_SETS "\n"
    "cuda_toolkit=" TFREC_CUDA_TOOLKIT "\n"
    "cuda_architectures=" TFREC_CUDA_ARCHITECTURES "\n";

__attribute__((used, visibility("default"))) const char* tfrec_cpu_kernels() {
  switch (tfrec::ChooseCpuKernels()) {
    case tfrec::CpuKernels::kAvx512:
      return "avx512";
    case tfrec::CpuKernels::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // extern "C"
