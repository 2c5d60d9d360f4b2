// Which copy of the CPU kernels this processor takes. TFREC_CPU_KERNELS=baseline|avx2|avx512 asks for a smaller one.
#ifndef TFREC_COMMON_CPU_DISPATCH_H_
#define TFREC_COMMON_CPU_DISPATCH_H_

#include <cstdlib>
#include <string>

namespace tfrec {

enum class CpuKernels { kBaseline, kAvx2, kAvx512 };

inline CpuKernels ChooseCpuKernels() {
  const char* variable = std::getenv("TFREC_CPU_KERNELS");
  const std::string wish = variable == nullptr ? "avx512" : variable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && wish == "avx512") return CpuKernels::kAvx512;
  if (avx2 && wish != "baseline") return CpuKernels::kAvx2;
#endif
  return CpuKernels::kBaseline;
}

// Whether a processor with AVX-512 also has its instructions on 16-bit integers; the first ones lack them.
inline bool HasAvx512Shorts() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bw") != 0;
#else
  return false;
#endif
}

// This processor's copy of some kernels; only its function is called.
template <typename Kernels>
const Kernels* ChooseCopy(const Kernels* (*baseline)(), const Kernels* (*avx2)(), const Kernels* (*avx512)()) {
  switch (ChooseCpuKernels()) {
    case CpuKernels::kAvx512:
      return avx512();
    case CpuKernels::kAvx2:
      return avx2();
    default:
      return baseline();
  }
}

}  // namespace tfrec

#endif  // TFREC_COMMON_CPU_DISPATCH_H_
