// What the CUDA kernels of all operations share: launches, threads, numbers as they are stored.
// Compiles without a CUDA compiler too, against cuda_on_host.h, to check the kernels' logic on a machine without a GPU.
#ifndef TFREC_CUDA_DEVICE_CUH_
#define TFREC_CUDA_DEVICE_CUH_

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define TFREC_DYNAMIC_SHARED(name)            \
  extern __shared__ float4 name##_of_block[]; \
  float* const name = reinterpret_cast<float*>(name##_of_block)
#else
#include "cuda_on_host.h"
#define TFREC_DYNAMIC_SHARED(name) float* const name = static_cast<float*>(cuda_on_host::shared_memory)
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tfrec {

constexpr unsigned kAllLanes = 0xffffffffu;

inline const char* ErrorMessage(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// The device that the calling thread uses.
struct Device {
  int shared_bytes;  // the most one block can have
  int processors;

  Device() : shared_bytes(48 * 1024), processors(1) {
    int id = 0;
    if (cudaGetDevice(&id) != cudaSuccess) return;  // whoever launches next says so
    cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, id);
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, id);
  }
};

// Launches a kernel and returns what went wrong, or nullptr.
template <typename... Params, typename... Args>
const char* Launch(void (*kernel)(Params...), dim3 grid, int threads, size_t shared_bytes, void* stream, Args... args) {
#ifdef __CUDACC__
  if (shared_bytes > 48 * 1024) {  // what a block gets without asking
    // The most that the device has, not what this launch takes: another thread may set the same kernel's limit between
    // here and the launch. No kernel launched so has shared memory next to it.
    const char* error = ErrorMessage(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Device().shared_bytes));
    if (error != nullptr) {
      cudaGetLastError();  // so that no later call finds it
      return error;
    }
  }
  kernel<<<grid, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(static_cast<Params>(args)...);
  return ErrorMessage(cudaGetLastError());
#else
  static_cast<void>(stream);
  cuda_on_host::RunGrid(grid, threads, shared_bytes, [=] { kernel(static_cast<Params>(args)...); });
  return nullptr;
#endif
}

template <typename T>
__host__ __device__ constexpr T RoundUp(T n, T multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// ---- Threads -------------------------------------------------------------------------------------------------------

__device__ inline int Lane() { return threadIdx.x % 32; }
__device__ inline int Warp() { return threadIdx.x / 32; }
__device__ inline int Warps() { return blockDim.x / 32; }

// ---- Storage -------------------------------------------------------------------------------------------------------

__device__ inline float ToFloat(float v) { return v; }
__device__ inline float ToFloat(__half v) { return __half2float(v); }
__device__ inline void FromFloat(float v, float* out) { *out = v; }
__device__ inline void FromFloat(float v, __half* out) { *out = __float2half_rn(v); }

// The upper half of a float. Converted by integer arithmetic, which every GPU has and the host too.
struct Bfloat16 {
  uint16_t bits;
};
__device__ inline float FloatOfBits(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float v;
  memcpy(&v, &bits, sizeof(v));
  return v;
#endif
}
__device__ inline uint32_t BitsOfFloat(float v) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(v);
#else
  uint32_t bits;
  memcpy(&bits, &v, sizeof(v));
  return bits;
#endif
}
__device__ inline float ToFloat(Bfloat16 v) { return FloatOfBits(static_cast<uint32_t>(v.bits) << 16); }
__device__ inline void FromFloat(float v, Bfloat16* out) {  // to the nearest, ties to even
  const uint32_t bits = BitsOfFloat(v);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out->bits = static_cast<uint16_t>(nan ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline float2 HalvesToFloats(unsigned bits) {
  return make_float2(__half2float(__ushort_as_half(static_cast<unsigned short>(bits))),
                     __half2float(__ushort_as_half(static_cast<unsigned short>(bits >> 16))));
}

// Two and four neighbours, aligned to their size, from memory that no kernel in flight writes.
__device__ inline float2 Load2(const float* p) { return __ldg(reinterpret_cast<const float2*>(p)); }
__device__ inline float2 Load2(const __half* p) { return HalvesToFloats(__ldg(reinterpret_cast<const unsigned*>(p))); }
__device__ inline float4 Load4(const float* p) { return __ldg(reinterpret_cast<const float4*>(p)); }
__device__ inline float4 Load4(const __half* p) {
  const uint2 bits = __ldg(reinterpret_cast<const uint2*>(p));
  const float2 low = HalvesToFloats(bits.x), high = HalvesToFloats(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ inline float4 Load4(const Bfloat16* p) {
  const uint2 bits = __ldg(reinterpret_cast<const uint2*>(p));
  return make_float4(FloatOfBits(bits.x << 16), FloatOfBits(bits.x & 0xffff0000u), FloatOfBits(bits.y << 16),
                     FloatOfBits(bits.y & 0xffff0000u));
}

// The same from shared memory.
__device__ inline float4 SharedLoad4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline float4 SharedLoad4(const __half* p) {
  const uint2 bits = *reinterpret_cast<const uint2*>(p);
  const float2 low = HalvesToFloats(bits.x), high = HalvesToFloats(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}

// Writes four neighbours, aligned likewise.
__device__ inline unsigned StoredBits(float v, const __half*) { return __half_as_ushort(__float2half_rn(v)); }
__device__ inline unsigned StoredBits(float v, const Bfloat16*) {
  Bfloat16 stored;
  FromFloat(v, &stored);
  return stored.bits;
}
__device__ inline void Store4(float4 v, float* p) { *reinterpret_cast<float4*>(p) = v; }
template <typename T>
__device__ inline void Store4(float4 v, T* p) {
  *reinterpret_cast<uint2*>(p) = make_uint2(StoredBits(v.x, p) | StoredBits(v.y, p) << 16,
                                            StoredBits(v.z, p) | StoredBits(v.w, p) << 16);
}

}  // namespace tfrec

#endif  // TFREC_CUDA_DEVICE_CUH_
