// The products of a forward level on the tensor cores, for cores stored in 16 bits. These are exact in tf32, and so is
// the left side of the first product, itself a slice; later left sides are floats and go in two parts, high + low, so
// that results are as good as float32 sums (cuda_tf32.cuh). A warp takes 8 rows by 128 columns of one node's product,
// as its transpose: the instruction's 16 x 8 tiles then have 16 of the many columns and 8 of the few rows.
//
// Which of the instruction's rows and steps stand for which columns and k is free. Here lane 4 g + m has 16
// neighbouring columns, 16 g on, in rows g and g + 8 of eight tiles, and two neighbouring k, 2 m on: all loads and
// stores are of neighbours, straight from and to global memory.
#ifndef TFREC_TT_TENSOR_CUH_
#define TFREC_TT_TENSOR_CUH_

#include "../common/cuda_tf32.cuh"
#include "tt_product.cuh"

namespace tfrec {
namespace tt {

constexpr int kWarpRows = 8, kWarpColumns = 128, kLaneColumns = 16, kColumnTiles = kLaneColumns / 2;

// Whether shapes are worth it, and rows of the core are multiples of a lane's columns.
inline bool FitsTensorCores(Shape s) { return s.k % 8 == 0 && s.n % kLaneColumns == 0 && s.n >= kWarpColumns / 2; }
__host__ __device__ inline int WarpTiles(Shape s) {
  return (s.m + kWarpRows - 1) / kWarpRows * ((s.n + kWarpColumns - 1) / kWarpColumns);
}

// A lane's sums: [tile][e], column 16 g + 2 tile + e / 2, row 2 m + e % 2.
struct WarpSum {
  float v[kColumnTiles][4] = {};
};

// All lanes of the warp call this together. Left: the storage type of Core, or float.
template <typename Left, typename Core>
__device__ inline void AddWarpProduct(const Left* left, const Core* core, Shape s, int row, int column, WarpSum* sum) {
  const int g = Lane() / 4, m = Lane() % 4;
  const bool inside = column + kLaneColumns * g < s.n;  // else the lane's columns are zeros
  const Core* const columns = core + column + kLaneColumns * g;
#if TFREC_TENSOR_CORES
  constexpr bool kExact = sizeof(Left) == 2;
  const bool has_row = row + g < s.m;
  const Left* const lefts = left + static_cast<int64_t>(has_row ? row + g : 0) * s.k;
  for (int k = 2 * m; k < s.k; k += 8) {
    unsigned high[2], low[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float v = has_row ? ToFloat(lefts[k + i]) : 0.0f;
      if constexpr (kExact) {
        high[i] = BitsOfFloat(v);
      } else {
        Split(v, &high[i], &low[i]);
      }
    }
#pragma unroll
    for (int quad = 0; quad < kLaneColumns / 4; ++quad) {
      float4 x[2] = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (inside) x[i] = Load4(columns + static_cast<int64_t>(k + i) * s.n + 4 * quad);
      }
      const unsigned a[2][4] = {{BitsOfFloat(x[0].x), BitsOfFloat(x[0].y), BitsOfFloat(x[1].x), BitsOfFloat(x[1].y)},
                                {BitsOfFloat(x[0].z), BitsOfFloat(x[0].w), BitsOfFloat(x[1].z), BitsOfFloat(x[1].w)}};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        MultiplyAdd(sum->v[2 * quad + i], a[i], high);
        if constexpr (!kExact) MultiplyAdd(sum->v[2 * quad + i], a[i], low);
      }
    }
  }
#else  // compute capability 7.5: a lane adds up the same elements by itself
  if (!inside) return;
  const Left* lefts[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) lefts[i] = left + static_cast<int64_t>(row + 2 * m + i < s.m ? row + 2 * m + i : 0) * s.k;
  for (int k = 0; k < s.k; ++k) {
    const float x[2] = {ToFloat(lefts[0][k]), ToFloat(lefts[1][k])};
#pragma unroll
    for (int quad = 0; quad < kLaneColumns / 4; ++quad) {
      const float4 y = Load4(columns + static_cast<int64_t>(k) * s.n + 4 * quad);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        sum->v[2 * quad][e] += x[e] * y.x;
        sum->v[2 * quad][2 + e] += x[e] * y.y;
        sum->v[2 * quad + 1][e] += x[e] * y.z;
        sum->v[2 * quad + 1][2 + e] += x[e] * y.w;
      }
    }
  }
#endif
}

// out [m, n] of the product.
__device__ inline void StoreWarpSum(const WarpSum& sum, Shape s, int row, int column, float* out) {
  const int g = Lane() / 4, m = Lane() % 4;
  if (column + kLaneColumns * g >= s.n) return;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (row + 2 * m + e >= s.m) break;
    float* const to = out + static_cast<int64_t>(row + 2 * m + e) * s.n + column + kLaneColumns * g;
#pragma unroll
    for (int quad = 0; quad < kLaneColumns / 4; ++quad) {
      const float(&v)[4] = sum.v[2 * quad];
      const float(&w)[4] = sum.v[2 * quad + 1];
      Store4(make_float4(v[e], v[2 + e], w[e], w[2 + e]), to + 4 * quad);
    }
  }
}

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_TENSOR_CUH_
