// What the kernels of als_direct.cu do to one row and one block of coordinates: their shared memory, the sums over the
// row's entries, the dense part of the right side.
#ifndef TFREC_ALS_DIRECT_CUH_
#define TFREC_ALS_DIRECT_CUH_

#include "als_tiles.cuh"

namespace tfrec {
namespace als {
namespace direct {

constexpr int kMaxThreads = 256;
constexpr int kCache = 2048;  // predictions

// How a block works, and what its shared memory holds.
struct Plan {
  bool warm;       // starts from s.start: the block solver
  bool in_shared;  // the matrix
  int block;       // coordinates solved at once
  int tiles;       // a side of the matrix
  int depth;       // entries in the panel
  int rows;        // rows that advance together
  int cache;       // predictions kept, of all the rows
  int warps;
  int x_stride;
  int slots;  // long rows that are solved at a time

  __host__ __device__ int Width() const { return tiles * kTile; }
  __host__ __device__ int64_t MatrixFloats() const { return TilesOf(tiles) * kTileFloats; }
  __host__ __device__ int PanelFloats() const {
    const int panel = tiles * depth * kTileStride;
    return warm && panel < kMatrixFloats ? kMatrixFloats : panel;
  }
  __host__ __device__ int64_t SharedFloats() const {
    return PanelFloats() + 2 * depth + 2 * Width() + rows * x_stride + (warm ? rows * Width() : 0) + cache + 8 +
           (in_shared ? MatrixFloats() : 0);
  }
  // Scratch for one part of a long row: matrix and right side.
  __host__ __device__ int64_t PartFloats() const { return MatrixFloats() + Width(); }
};

struct Shared {
  float* panel;       // [tiles][depth][kTileStride]; also what TimesMatrix needs
  float* weights;     // [depth] w
  float* factors;     // [depth] t - w prediction
  float* right;       // [Width] g, then delta
  float* reciprocal;  // [Width]
  float* x;           // [rows, x_stride]
  float* gx;          // [rows, Width] (G x)[block]
  float* predictions;
  int* cached;  // [rows] where a row's predictions begin, or -1
  float* matrix;

  __device__ Shared(const Plan& plan, float* shared) {
    panel = shared;
    weights = panel + plan.PanelFloats();
    factors = weights + plan.depth;
    right = factors + plan.depth;
    reciprocal = right + plan.Width();
    x = reciprocal + plan.Width();
    gx = x + plan.rows * plan.x_stride;
    predictions = gx + (plan.warm ? plan.rows * plan.Width() : 0);
    cached = reinterpret_cast<int*>(predictions + plan.cache);
    matrix = predictions + plan.cache + 8;
  }
};

// y[0:width] . x, by one warp; x in shared memory.
template <typename T>
__device__ inline float WarpDot(const T* y, bool pairs, int width, const float* x) {
  float sum = 0.0f;
  if (pairs) {
#pragma unroll 4
    for (int j = 2 * Lane(); j < width; j += 64) {
      const float2 v = Load2(y + j);
      sum += v.x * x[j] + v.y * x[j + 1];
    }
  } else {
    for (int j = Lane(); j < width; j += 32) sum += ToFloat(__ldg(y + j)) * x[j];
  }
  return GroupSum(sum, 32);
}

// Coordinates [first, first + width) of a row.
struct Block {
  int first, width;
  bool pairs;  // whether the factors of all entries can be read two at a time
};

// Adds (w0 G + lambda I)[block, block] to a tile; ones on the diagonal behind the block.
__device__ inline void AddBaseTile(const HalfSweep& s, const Block& block, float regularization, TileIndex at,
                                TileSum* sum) {
  const float* gramian = s.gramian + block.first * s.factors + block.first;
  sum->Each([&](int row, int column, float* value) {
    const int i = at.i * kTile + row, j = at.j * kTile + column;
    if (i < block.width && j < block.width) {
      *value += s.unobserved_weight * __ldg(gramian + i * s.factors + j) + (i == j ? regularization : 0.0f);
    } else if (i == j) {
      *value += 1.0f;
    }
  });
}

// matrix = what add_base adds to zeros + sum w y y', right += sum (t - w prediction) y over entries, in block
// coordinates. `predictions` are those of the entries or, if null, made from x; none if x is null too. Ends with a
// barrier.
template <typename T, typename AddBase>
__device__ void SumEntries(const HalfSweep& s, const Plan& plan, const Shared& shared, Entries entries,
                           const Block& block, const float* x, const float* predictions, const AddBase& add_base,
                           float* matrix) {
  constexpr int kProducts = sizeof(T) == 2 ? 2 : 3;
  const int panel_tile = plan.depth * kTileStride;
  int64_t base = entries.begin;
  do {
    const int count = entries.end - base < plan.depth ? static_cast<int>(entries.end - base) : plan.depth;
    const int depth = RoundUp(count, 8);
    int column = 0;
    Weight weight = {0.0f, 0.0f};
    if (Lane() < count) {
      column = __ldg(s.columns + base + Lane());
      weight = WeightOf(s, base + Lane());
    }
#pragma unroll 4
    for (int k = Warp(); k < depth; k += Warps()) {
      const T* whole = FixedRow<T>(s, __shfl_sync(kAllLanes, column, k));
      const T* y = whole + block.first;
      const int width = k < count ? block.width : 0;
      float* const to = shared.panel + k * kTileStride;
      if (block.pairs) {
        for (int j = 2 * Lane(); j < plan.Width(); j += 64) {
          *reinterpret_cast<float2*>(to + j / kTile * panel_tile + j % kTile) =
              j < width ? Load2(y + j) : make_float2(0.0f, 0.0f);
        }
      } else {
        for (int j = Lane(); j < plan.Width(); j += 32) {
          to[j / kTile * panel_tile + j % kTile] = j < width ? ToFloat(__ldg(y + j)) : 0.0f;
        }
      }
      float prediction = 0.0f;
      if (predictions != nullptr) {
        if (k < count) prediction = predictions[base - entries.begin + k];
      } else if (x != nullptr) {
        prediction = WarpDot(whole, block.pairs, s.factors, x);
      }
      const float w = __shfl_sync(kAllLanes, weight.w, k), t = __shfl_sync(kAllLanes, weight.t, k);
      if (Lane() == 0) {
        shared.weights[k] = w;
        shared.factors[k] = k < count ? t - w * prediction : 0.0f;
      }
    }
    __syncthreads();
    for (int number = Warp(); number < static_cast<int>(TilesOf(plan.tiles)); number += Warps()) {
      const TileIndex at = TileAt(number);
      float* const tile = matrix + static_cast<int64_t>(number) * kTileFloats;
      TileSum sum;
      sum.Clear();
      AddProduct<kProducts, true>(shared.panel + at.i * panel_tile, shared.panel + at.j * panel_tile, shared.weights,
                                  0.0f, depth, &sum);
      if (base == entries.begin) {
        add_base(at, &sum);
      } else {
        sum.Add(tile);
      }
      sum.Store(tile);
    }
    for (int j = threadIdx.x; j < plan.Width(); j += blockDim.x) {
      const float* from = shared.panel + j / kTile * panel_tile + j % kTile;
      float sum = 0.0f;
#pragma unroll 8
      for (int k = 0; k < depth; ++k) sum += shared.factors[k] * from[k * kTileStride];
      shared.right[j] += sum;
    }
    __syncthreads();
    base += plan.depth;
  } while (base < entries.end);
}

__device__ inline Block BlockAt(const HalfSweep& s, const Plan& plan, int first, bool pairs) {
  return {first, s.factors - first < plan.block ? s.factors - first : plan.block, pairs};
}

// right = -(w0 G x + lambda x)[block], by the thread that owns the coordinate.
__device__ inline void StartRight(const HalfSweep& s, const Plan& plan, const Shared& shared, const Block& block,
                                  float regularization, int i) {
  for (int j = threadIdx.x; j < plan.Width(); j += blockDim.x) {
    shared.right[j] = plan.warm && j < block.width ? -(s.unobserved_weight * shared.gx[i * plan.Width() + j] +
                                                       regularization * shared.x[i * plan.x_stride + block.first + j])
                                                   : 0.0f;
  }
}

// gx = (G x)[block] for all rows; ends with a barrier.
__device__ inline void DenseProduct(const HalfSweep& s, const Plan& plan, const Shared& shared, const Block& block,
                                    int rows) {
  const int width = plan.Width();
  if (rows % 8 == 0) {
    TimesMatrix<8>(s.gramian, s.factors, block.first, block.width, shared.x, plan.x_stride, rows, shared.gx, width,
                   shared.panel);
  } else if (rows % 2 == 0) {
    TimesMatrix<2>(s.gramian, s.factors, block.first, block.width, shared.x, plan.x_stride, rows, shared.gx, width,
                   shared.panel);
  } else {
    TimesMatrix<1>(s.gramian, s.factors, block.first, block.width, shared.x, plan.x_stride, rows, shared.gx, width,
                   shared.panel);
  }
}

}  // namespace direct
}  // namespace als
}  // namespace tfrec

#endif  // TFREC_ALS_DIRECT_CUH_
