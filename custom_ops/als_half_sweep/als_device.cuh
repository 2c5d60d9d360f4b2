// What the CUDA kernels of the half-sweep share: rows and entries of a sweep, products with the Gramian.
#ifndef TFREC_ALS_DEVICE_CUH_
#define TFREC_ALS_DEVICE_CUH_

#include "../common/cuda_device.cuh"
#include "als_half_sweep.h"

namespace tfrec {
namespace als {

// ---- Threads and storage --------------------------------------------------------------------------------------------

// Sum over each aligned group of `lanes` lanes, to all of them, in a fixed order.
__device__ inline float GroupSum(float v, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}

// Whether rows of `factors` elements start at multiples of `count` elements.
inline bool RowsAligned(const HalfSweep& s, int count) {
  const uintptr_t bytes = static_cast<uintptr_t>(count) * (s.half_storage ? 2 : 4);
  return s.factors % count == 0 && reinterpret_cast<uintptr_t>(s.fixed) % bytes == 0;
}

// ---- Rows and entries ----------------------------------------------------------------------------------------------

template <typename T>
__device__ inline const T* FixedRow(const HalfSweep& s, int64_t row) {
  return static_cast<const T*>(s.fixed) + row * s.factors;
}
// Never by __ldg: `solved` may be the same memory. A row is read before it is written, by whoever solves it.
template <typename T>
__device__ inline const T* StartRow(const HalfSweep& s, int64_t row) {
  return static_cast<const T*>(s.start) + row * s.factors;
}

struct Entries {
  int64_t begin, end;
};

__device__ inline Entries EntriesOf(const HalfSweep& s, int64_t row) {
  return {s.row_offsets[row], s.row_offsets[row + 1]};
}

// Part `part` of `parts` equal ones, in multiples of 32 entries.
__device__ inline Entries PartOf(Entries all, int part, int parts) {
  const int64_t step = RoundUp<int64_t>((all.end - all.begin + parts - 1) / parts, 32);
  const int64_t begin = all.begin + part * step;
  return {begin < all.end ? begin : all.end, begin + step < all.end ? begin + step : all.end};
}

// w = c - w0 and t = c p of the header.
struct Weight {
  float w, t;
};

__device__ inline Weight WeightOf(const HalfSweep& s, int64_t entry) {
  const float value = __ldg(s.values + entry), c = s.alpha * fabsf(value);
  return {c - s.unobserved_weight, value > 0.0f ? c : 0.0f};
}

// lambda_u of the header.
__device__ inline float RowRegularization(const HalfSweep& s, Entries entries) {
  const float n = static_cast<float>(entries.end - entries.begin);
  return s.regularization * powf(n + s.unobserved_weight * static_cast<float>(s.num_counted), s.frequency_exponent);
}

// One warp writes x[0:F] as the solution of a row, and notes the row if what the storage makes of it is not finite.
// -1 is the largest unsigned number, so that the smallest row wins.
template <typename T>
__device__ inline void StoreSolution(const HalfSweep& s, int64_t row, const float* x, int64_t* first_bad_row) {
  T* const out = static_cast<T*>(s.solved) + row * s.factors;
  bool bad = false;
  for (int i = Lane(); i < s.factors; i += 32) {
    T stored;
    FromFloat(x[i], &stored);
    out[i] = stored;
    bad |= !(fabsf(ToFloat(stored)) <= 3.402823466e38f);
  }
  if (__any_sync(kAllLanes, bad) && Lane() == 0) {
    atomicMin(reinterpret_cast<unsigned long long*>(first_bad_row), static_cast<unsigned long long>(row));
  }
}

template <typename T>
__device__ inline void StoreZeros(const HalfSweep& s, int64_t row) {
  T* const out = static_cast<T*>(s.solved) + row * s.factors;
  for (int i = Lane(); i < s.factors; i += 32) FromFloat(0.0f, out + i);
}

// ---- Products with the Gramian -------------------------------------------------------------------------------------

// Floats of shared memory that TimesMatrix needs, for kGroup = 8 and 8 warps at most.
constexpr int kMatrixRows = 8, kMaxWarps = 8;
constexpr int kMatrixFloats = kMaxWarps * kMatrixRows * 32;

// out[0:rows, 0:width] = x[0:rows, 0:F] matrix[:, first : first + width], by the whole block. A warp owns 32 columns,
// a lane one, for kGroup rows at once: one pass over the matrix, which lies in the second cache, serves kGroup rows.
// Where there are fewer such units than warps, several warps share one, each a slice of the sum.
// x and out are shared memory, x_stride a multiple of four. Barriers before are the caller's; ends with a barrier.
template <int kGroup>
__device__ void TimesMatrix(const float* matrix, int f, int first, int width, const float* x, int x_stride, int rows,
                            float* out, int out_stride, float* partial) {
  const int strips = (width + 31) / 32, units = strips * (rows / kGroup);
  const int slices = units < Warps() ? Warps() / units : 1;
  const int slice_length = RoundUp((f + slices - 1) / slices, 4);
  for (int task = Warp(); task < units * slices; task += Warps()) {
    const int unit = task / slices, slice = task % slices;
    const int column = unit % strips * 32 + Lane(), row = unit / strips * kGroup;
    const int end = (slice + 1) * slice_length < f ? (slice + 1) * slice_length : f;
    // Columns behind the width repeat the last one.
    const float* g = matrix + first + (column < width ? column : width - 1);
    float sum[kGroup] = {};
    int k = slice * slice_length;
#pragma unroll 2
    for (; k + 4 <= end; k += 4) {
      float g4[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) g4[i] = __ldg(g + (k + i) * f);
#pragma unroll
      for (int r = 0; r < kGroup; ++r) {
        const float4 x4 = *reinterpret_cast<const float4*>(x + (row + r) * x_stride + k);
        sum[r] += x4.x * g4[0] + x4.y * g4[1] + x4.z * g4[2] + x4.w * g4[3];
      }
    }
    for (; k < end; ++k) {
      const float g1 = __ldg(g + k * f);
#pragma unroll
      for (int r = 0; r < kGroup; ++r) sum[r] += x[(row + r) * x_stride + k] * g1;
    }
#pragma unroll
    for (int r = 0; r < kGroup; ++r) {
      if (slices > 1) {
        partial[(task * kGroup + r) * 32 + Lane()] = sum[r];
      } else if (column < width) {
        out[(row + r) * out_stride + column] = sum[r];
      }
    }
  }
  __syncthreads();
  if (slices == 1) return;
  for (int unit = Warp(); unit < units; unit += Warps()) {
    const int column = unit % strips * 32 + Lane(), row = unit / strips * kGroup;
    for (int r = 0; r < kGroup && column < width; ++r) {
      float sum = 0.0f;
      for (int slice = 0; slice < slices; ++slice) {
        sum += partial[((unit * slices + slice) * kGroup + r) * 32 + Lane()];
      }
      out[(row + r) * out_stride + column] = sum;
    }
  }
  __syncthreads();
}

// ---- The solvers ---------------------------------------------------------------------------------------------------

// As in als_cuda.h, for one kind of solver; *first_bad_row is set by then. als_cg.cu: conjugate gradients.
size_t ConjugateGradientScratchBytes(const HalfSweep& s);
const char* ConjugateGradient(const HalfSweep& s, const int64_t* row_order, int64_t num_long, void* scratch,
                              int64_t* first_bad_row, void* stream);
// als_direct.cu: Cholesky and block.
size_t DirectScratchBytes(const HalfSweep& s);
const char* Direct(const HalfSweep& s, const int64_t* row_order, int64_t num_long, void* scratch,
                   int64_t* first_bad_row, void* stream);

}  // namespace als
}  // namespace tfrec

#endif  // TFREC_ALS_DEVICE_CUH_
