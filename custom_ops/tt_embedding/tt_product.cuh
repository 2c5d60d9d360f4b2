// A thread's share of a matrix product: a tile of 4 x 4 sums in registers. The matrices of tensor-train embeddings are
// small (4 x 32 by 32 x 128 is typical) and of any shape, so that one product never fills a block; threads are numbered
// through the tiles of all products instead. Neighbouring threads have neighbouring tiles of one product and find each
// other's operands in the first cache; 64 multiplications per eight loads of four numbers need no shared memory.
#ifndef TFREC_TT_PRODUCT_CUH_
#define TFREC_TT_PRODUCT_CUH_

#include "tt_device.cuh"

namespace tfrec {
namespace tt {

// C [m, n] = A B with A [m, k] and B [k, n]. The matrices are row-major; a transposed one lies in memory as its
// transpose: A as [k, m], B as [n, k].
enum class Form { kPlain, kTransposedA, kTransposedB };

struct Shape {
  int m, n, k;

  __host__ __device__ int tiles_n() const { return (n + 3) / 4; }
  __host__ __device__ int tiles() const { return (m + 3) / 4 * tiles_n(); }
  __host__ __device__ int64_t size() const { return static_cast<int64_t>(m) * n; }
  // Whether rows, and steps of the sum, can be loaded four at a time, if the matrices begin at such multiples.
  bool quads(Form form) const { return n % 4 == 0 && (form == Form::kTransposedA ? m : k) % 4 == 0; }
};

// kVector: shape.quads, and aligned matrices.
template <Form kForm, bool kVector, typename TA, typename TB>
struct Product {
  // Adds tile (row, column), multiples of four, of one product to sum. Behind the edge of C the last row or column is
  // repeated; those sums are not stored.
  static __device__ inline void Add(const TA* a, const TB* b, Shape s, int row, int column, float (&sum)[4][4]) {
    int rows[4], columns[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      rows[i] = row + i < s.m ? row + i : s.m - 1;
      columns[i] = column + i < s.n ? column + i : s.n - 1;
    }
    if constexpr (!kVector) {
      for (int k = 0; k < s.k; ++k) {
        float x[4], y[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          x[i] = ToFloat(a[kForm == Form::kTransposedA ? k * s.m + rows[i] : rows[i] * s.k + k]);
          y[i] = ToFloat(b[kForm == Form::kTransposedB ? columns[i] * s.k + k : k * s.n + columns[i]]);
        }
        Outer(x, y, sum);
      }
    } else if constexpr (kForm == Form::kTransposedA) {
      for (int k = 0; k < s.k; ++k) Outer(Load4(a + k * s.m + row), Load4(b + k * s.n + column), sum);
    } else if constexpr (kForm == Form::kTransposedB) {
      for (int k = 0; k < s.k; k += 4) {
        float4 x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = Load4(a + rows[i] * s.k + k);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float4 y = Load4(b + columns[j] * s.k + k);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sum[i][j] += x[i].x * y.x;
            sum[i][j] += x[i].y * y.y;
            sum[i][j] += x[i].z * y.z;
            sum[i][j] += x[i].w * y.w;
          }
        }
      }
    } else {
      for (int k = 0; k < s.k; k += 4) {
        float4 x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = Load4(a + rows[i] * s.k + k);
        Outer(make_float4(x[0].x, x[1].x, x[2].x, x[3].x), Load4(b + k * s.n + column), sum);
        Outer(make_float4(x[0].y, x[1].y, x[2].y, x[3].y), Load4(b + (k + 1) * s.n + column), sum);
        Outer(make_float4(x[0].z, x[1].z, x[2].z, x[3].z), Load4(b + (k + 2) * s.n + column), sum);
        Outer(make_float4(x[0].w, x[1].w, x[2].w, x[3].w), Load4(b + (k + 3) * s.n + column), sum);
      }
    }
  }

 private:
  static __device__ inline void Outer(const float (&x)[4], const float (&y)[4], float (&sum)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] += x[i] * y[j];
    }
  }
  static __device__ inline void Outer(float4 x, float4 y, float (&sum)[4][4]) {
    const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
    Outer(xs, ys, sum);
  }
};

// Writes, or adds, the sums of the tile at (row, column) that are within the matrix out [m, n]. kVector: n is a
// multiple of four and out aligned.
template <bool kVector, int kRows, typename T>
__device__ inline void StoreTile(const float (&sum)[kRows][4], int row, int column, int m, int n, bool add, T* out) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (row + i >= m) break;
    T* const to = out + static_cast<int64_t>(row + i) * n + column;
    if constexpr (kVector) {
      float4 v = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
      if (add) v = make_float4(ToFloat(to[0]) + v.x, ToFloat(to[1]) + v.y, ToFloat(to[2]) + v.z, ToFloat(to[3]) + v.w);
      Store4(v, to);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (column + j < n) FromFloat(add ? ToFloat(to[j]) + sum[i][j] : sum[i][j], to + j);
      }
    }
  }
}

// Products at or before level k: the left operands of level k + 1. Those of level 0 are slices of the first core, in
// the storage type, and are found by their slice.
struct Lefts {
  const void* at;
  const int64_t* slice;  // of a node of the level before, or null: the node itself counts

  template <typename T>
  __device__ const T* Of(int64_t node, int64_t size) const {
    return static_cast<const T*>(at) + (slice == nullptr ? node : slice[node]) * size;
  }
};
inline Lefts LeftsOf(const Lookup& lookup, const Plan& plan, const Products& products, int level) {
  return level == 1 ? Lefts{lookup.cores[0], plan.slice[0]} : Lefts{products.at[level - 1], nullptr};
}
// Sizes of the products with core level + 1: [Q_{k-1}, r_{k-1}] by [r_{k-1}, q_k r_k].
inline Shape ForwardShape(const Table& t, int level) {
  int64_t q = 1;
  for (int k = 0; k < level; ++k) q *= t.q[k];
  return {static_cast<int>(q), t.q[level] * t.r[level + 1], t.r[level]};
}

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_PRODUCT_CUH_
