// Symmetric matrices as tiles of 32 x 32 floats, for the Gramian and for the solvers that form a matrix: products of
// tiles, the Cholesky factor U'U and its solves, by one block of threads. In shared memory or, where a matrix is too
// large for that, in global memory: the code is the same.
//
// Only the upper triangle of tiles exists: tile (i, j), i <= j, is number j (j + 1) / 2 + i. Rows of a tile are 40
// floats apart, so that the 4 x 8 elements that a tensor core instruction takes from four rows lie in 32 different
// banks.
//
// Products run on the tensor cores in tf32, whose 11 bits of precision are not enough for normal equations. A float is
// therefore split into two tf32 numbers, high + low, and
//   one product   where both sides are halves, which tf32 holds exactly (the Gramian of a half table);
//   two products  a (high + low) where one side is exact (half table, right side scaled by its float weight);
//   three         high high + high low + low high for floats, the factorization among them.
// What is dropped is below 2^-21 of a product.
//
// Tensor cores cut their sums off where float adds round (cuda_on_host.h names who measured it): over many terms of one
// sign that adds up. So no sum stays in them for longer than a tile is deep: 32 terms, 12 instructions at most. The sum
// of such a tile begins at zero and goes to the whole by ordinary adds, in memory or registers. The error is then that
// of float32 sums, up to a small factor that does not grow with the number of terms: check_gpu.cu measures both
// (CheckPositive).
//
// Compute capability 7.5 has no tf32; there the lanes multiply and add plain floats.
#ifndef TFREC_ALS_TILES_CUH_
#define TFREC_ALS_TILES_CUH_

#include "../common/cuda_tf32.cuh"
#include "als_device.cuh"

namespace tfrec {
namespace als {

constexpr int kTile = 32, kTileStride = 40, kTileFloats = kTile * kTileStride;

__host__ __device__ constexpr int64_t TilesOf(int count) { return static_cast<int64_t>(count) * (count + 1) / 2; }

struct TileIndex {
  int i, j;
};

__device__ inline TileIndex TileAt(int number) {
  int j = static_cast<int>((sqrtf(8.0f * static_cast<float>(number) + 1.0f) - 1.0f) * 0.5f);
  if (j * (j + 1) / 2 > number) --j;
  if ((j + 1) * (j + 2) / 2 <= number) ++j;
  return {number - j * (j + 1) / 2, j};
}

__device__ inline float* TilePointer(float* matrix, int i, int j) {
  return matrix + static_cast<int64_t>(j * (j + 1) / 2 + i) * kTileFloats;
}

// ---- Products ------------------------------------------------------------------------------------------------------

// A tile in the registers of a warp; the lane's element [m][n][e] is at Row(m, n, e), Column(m, n, e).
struct TileSum {
  float v[2][4][4];

#if TFREC_TENSOR_CORES
  static __device__ int Row(int m, int, int e) { return m * 16 + Lane() / 4 + e / 2 * 8; }
  static __device__ int Column(int, int n, int e) { return n * 8 + Lane() % 4 * 2 + e % 2; }
#else
  // A lane owns 4 x 8 neighbours.
  static __device__ int Row(int m, int n, int) { return Lane() / 4 * 4 + m * 2 + n / 2; }
  static __device__ int Column(int, int n, int e) { return Lane() % 4 * 8 + n % 2 * 4 + e; }
#endif

  // Calls visit(row, column, element) for all elements of the lane.
  template <typename Visit>
  __device__ void Each(const Visit& visit) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) visit(Row(m, n, e), Column(m, n, e), &v[m][n][e]);
      }
    }
  }
  __device__ void Clear() {
    Each([](int, int, float* value) { *value = 0.0f; });
  }
  __device__ void Add(const float* tile) {
    Each([=](int i, int j, float* value) { *value += tile[i * kTileStride + j]; });
  }
  __device__ void Add(const TileSum& other) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) v[m][n][e] += other.v[m][n][e];
      }
    }
  }
  __device__ void Store(float* tile) {
    Each([=](int i, int j, float* value) { tile[i * kTileStride + j] = *value; });
  }
};

// sum += sum_k a[k]' (w_k b[k]) over `depth` rows, a multiple of eight; a and b have rows kTileStride apart. w_k is
// weights[k] if kWeighted, else `weight` for all. kProducts as above; with two, a is what tf32 holds exactly.
template <int kProducts, bool kWeighted>
__device__ inline void AddProduct(const float* a, const float* b, const float* weights, float weight, int depth,
                                  TileSum* sum) {
#if TFREC_TENSOR_CORES
  const int group = Lane() / 4, member = Lane() % 4;
  for (int k = 0; k < depth; k += 8) {
    const float w0 = kWeighted ? weights[k + member] : weight, w1 = kWeighted ? weights[k + member + 4] : weight;
    unsigned high[4][2], low[4][2];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const float* from = b + (k + member) * kTileStride + n * 8 + group;
      Split(w0 * from[0], &high[n][0], &low[n][0]);
      Split(w1 * from[4 * kTileStride], &high[n][1], &low[n][1]);
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const float* from = a + (k + member) * kTileStride + m * 16 + group;
      unsigned left[4], rest[4];
      Split(from[0], &left[0], &rest[0]);
      Split(from[8], &left[1], &rest[1]);
      Split(from[4 * kTileStride], &left[2], &rest[2]);
      Split(from[4 * kTileStride + 8], &left[3], &rest[3]);
#pragma unroll
      for (int n = 0; n < 4; ++n) {  // small products first
        if (kProducts > 2) MultiplyAdd(sum->v[m][n], rest, high[n]);
        if (kProducts > 1) MultiplyAdd(sum->v[m][n], left, low[n]);
        MultiplyAdd(sum->v[m][n], left, high[n]);
      }
    }
  }
#else
  for (int k = 0; k < depth; ++k) {
    const float w = kWeighted ? weights[k] : weight;
    const float4 left = *reinterpret_cast<const float4*>(a + k * kTileStride + Lane() / 4 * 4);
    const float4* from = reinterpret_cast<const float4*>(b + k * kTileStride + Lane() % 4 * 8);
    const float4 low = from[0], high = from[1];
    const float rows[4] = {w * left.x, w * left.y, w * left.z, w * left.w};
    const float columns[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) sum->v[i / 2][i % 2 * 2 + j / 4][j % 4] += rows[i] * columns[j];
    }
  }
#endif
}

// ---- Cholesky ------------------------------------------------------------------------------------------------------

// 1 / sqrt(v) for v > 0: the hardware's estimate, off by two units in the last place at most, and a step of Newton's. The
// step's own roundings are what is left: at most 1.5 2^-24 of the result. A square root and a division by the rules of
// IEEE may be off by 2 2^-24, and take several times as long: the pivots of a factorization wait for one another.
__device__ inline float ReciprocalSquareRoot(float v) {
  const float estimate = rsqrtf(v);
  return fmaf(0.5f * estimate, fmaf(-v * estimate, estimate, 1.0f), estimate);
}

// U'U = tile in place, upper half, by one warp with a column per lane. reciprocal[i] = 1 / U[i, i], NaN where the
// matrix is not positive definite. The lower half keeps what was there.
__device__ inline void FactorTile(float* tile, float* reciprocal) {
  const int lane = Lane();
  float u[kTile];
#pragma unroll
  for (int i = 0; i < kTile; ++i) u[i] = tile[i * kTileStride + lane];
  float mine = 0.0f;
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    const float pivot = __shfl_sync(kAllLanes, u[i], i);
    const float inverse = pivot > 0.0f ? ReciprocalSquareRoot(pivot) : NAN;
    if (lane == i) mine = inverse;
    u[i] *= inverse;
#pragma unroll
    for (int below = i + 1; below < kTile; ++below) u[below] -= __shfl_sync(kAllLanes, u[i], below) * u[i];
  }
  reciprocal[lane] = mine;
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    if (i <= lane) tile[i * kTileStride + lane] = u[i];
  }
  __syncwarp();
}

// z = U'^-1 z, a column of 32 in the lane's registers.
__device__ inline void SolveColumn(const float* tile, const float* reciprocal, float (&z)[kTile]) {
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    z[i] *= reciprocal[i];
#pragma unroll
    for (int quad = i / 4 * 4; quad < kTile; quad += 4) {
      const float4 u = *reinterpret_cast<const float4*>(tile + i * kTileStride + quad);
      if (quad > i) z[quad] -= u.x * z[i];
      if (quad + 1 > i) z[quad + 1] -= u.y * z[i];
      if (quad + 2 > i) z[quad + 2] -= u.z * z[i];
      if (quad + 3 > i) z[quad + 3] -= u.w * z[i];
    }
  }
}

// x = U^-1 x for one tile, by one warp with an element per lane.
__device__ inline float SolveBack(const float* tile, const float* reciprocal, float x) {
  const int lane = Lane();
  float u[kTile];
#pragma unroll
  for (int quad = 0; quad < kTile; quad += 4) {
    const float4 v = *reinterpret_cast<const float4*>(tile + lane * kTileStride + quad);
    u[quad] = v.x;
    u[quad + 1] = v.y;
    u[quad + 2] = v.z;
    u[quad + 3] = v.w;
  }
  const float inverse = reciprocal[lane];
#pragma unroll
  for (int i = kTile - 1; i >= 0; --i) {
    const float solved = __shfl_sync(kAllLanes, x * inverse, i);
    if (lane < i) x -= u[i] * solved;
    if (lane == i) x = solved;
  }
  return x;
}

// Solves matrix x = right, by the whole block of two warps or more; overwrites both. `count` tiles a side, right and
// reciprocal of as many times 32 floats in shared memory. The caller's writes are behind a barrier; ends with one.
//
// Right-looking, a row of tiles at a time. The first warp updates the next tile on the diagonal and factors it while
// the others update the rest, which hides the one part that has no parallelism. The right side is forward solved on the
// way.
__device__ inline void SolveMatrix(float* matrix, int count, float* right, float* reciprocal) {
  const int warp = Warp(), warps = Warps();
  for (int k = -1; k < count; ++k) {  // -1: only the first factorization; one call of each large function
    const float* diagonal = TilePointer(matrix, k < 0 ? 0 : k, k < 0 ? 0 : k);  // of -1 nothing is read
    for (int j = k + 1 + warp; j <= count && k >= 0; j += warps) {
      float* const tile = TilePointer(matrix, k, j);  // behind the last: the right side, which all lanes solve
      float z[kTile];
#pragma unroll
      for (int i = 0; i < kTile; ++i) z[i] = j < count ? tile[i * kTileStride + Lane()] : right[k * kTile + i];
      __syncwarp();
      SolveColumn(diagonal, reciprocal + k * kTile, z);
#pragma unroll
      for (int i = 0; i < kTile; ++i) {
        if (j < count) {
          tile[i * kTileStride + Lane()] = z[i];
        } else if (Lane() == i) {
          right[k * kTile + i] = z[i];
        }
      }
    }
    __syncthreads();
    const int left = count - k - 1, updates = k < 0 ? 1 : static_cast<int>(TilesOf(left));
    for (int number = warp; number < updates; number += warp == 0 ? updates : warps - 1) {
      const TileIndex at = TileAt(number);
      float* const tile = TilePointer(matrix, k + 1 + at.i, k + 1 + at.j);
      if (k >= 0) {
        TileSum sum;
        sum.Clear();
        AddProduct<3, false>(TilePointer(matrix, k, k + 1 + at.i), TilePointer(matrix, k, k + 1 + at.j), nullptr, -1.0f,
                             kTile, &sum);
        sum.Add(tile);
        sum.Store(tile);
        __syncwarp();
      }
      if (number == 0) FactorTile(tile, reciprocal + (k + 1) * kTile);
    }
    for (int j = threadIdx.x; j < left * kTile && k >= 0; j += blockDim.x) {
      const float* column = TilePointer(matrix, k, k + 1 + j / kTile) + j % kTile;
      float sum = 0.0f;
#pragma unroll 8
      for (int i = 0; i < kTile; ++i) sum += column[i * kTileStride] * right[k * kTile + i];
      right[(k + 1) * kTile + j] -= sum;
    }
    __syncthreads();
  }
  for (int k = count - 1; k >= 0; --k) {
    for (int i = warp; i < kTile && k + 1 < count; i += warps) {
      float sum = 0.0f;
      for (int j = k + 1; j < count; ++j) {
        sum += TilePointer(matrix, k, j)[i * kTileStride + Lane()] * right[j * kTile + Lane()];
      }
      sum = GroupSum(sum, 32);
      if (Lane() == 0) right[k * kTile + i] -= sum;
    }
    __syncthreads();
    if (warp == 0) {
      right[k * kTile + Lane()] =
          SolveBack(TilePointer(matrix, k, k), reciprocal + k * kTile, right[k * kTile + Lane()]);
    }
    __syncthreads();
  }
}

}  // namespace als
}  // namespace tfrec

#endif  // TFREC_ALS_TILES_CUH_
