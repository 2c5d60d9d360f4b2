// The tensor core instruction for tf32, numbers of float's range and 11 bits of precision: a half and a bfloat16 are
// exact, and a float is the sum of two to 22 bits. Compute capability 7.5 has none: TFREC_TENSOR_CORES is 0 there.
#ifndef TFREC_CUDA_TF32_CUH_
#define TFREC_CUDA_TF32_CUH_

#include "cuda_device.cuh"

// TFREC_NO_TENSOR_CORES lets check_on_host.sh check the path of compute capability 7.5.
#if !defined(TFREC_NO_TENSOR_CORES) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800)
#define TFREC_TENSOR_CORES 1
#else
#define TFREC_TENSOR_CORES 0
#endif

namespace tfrec {

#if TFREC_TENSOR_CORES
// The nearest tf32 number, as the bits of a float.
__device__ inline unsigned ToTf32(float v) {
#ifdef __CUDACC__
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return bits;
#else
  unsigned bits;
  memcpy(&bits, &v, 4);
  return std::isfinite(v) ? (bits + 0x1000u) & 0xffffe000u : bits;
#endif
}

__device__ inline float BitsToFloat(unsigned bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float v;
  memcpy(&v, &bits, 4);
  return v;
#endif
}

__device__ inline void Split(float v, unsigned* high, unsigned* low) {
  *high = ToTf32(v);
  *low = ToTf32(v - BitsToFloat(*high));
}

// c[16, 8] += a[16, 8] b[8, 8] by one warp.
__device__ inline void MultiplyAdd(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  cuda_on_host::MmaTf32(c, a, b);
#endif
}
#endif

}  // namespace tfrec

#endif  // TFREC_CUDA_TF32_CUH_
