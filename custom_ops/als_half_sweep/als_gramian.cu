// gramian = table' table. The table is cut into splits of rows and the columns into strips of 128; a block of threads
// takes one split and one pair of strips, and keeps its 4 x 4 tiles of 32 x 32 sums in the registers of eight warps
// while the rows pass through shared memory. The splits' sums go to scratch and are added in a fixed order, so that the
// result is the same in every run. Halves are exact in tf32: one product on the tensor cores each; floats need three
// (als_tiles.cuh).
#include "als_cuda.h"
#include "als_tiles.cuh"

namespace tfrec {
namespace als {
namespace {

constexpr int kThreads = 256;
constexpr int kStrip = 128, kStripTiles = kStrip / kTile;
constexpr int kPairFloats = kStrip * kStrip;
constexpr int kWorkers = 256;  // blocks of threads aimed at, all splits and pairs together

int Pairs(int factors) { return static_cast<int>(TilesOf((factors + kStrip - 1) / kStrip)); }

int Splits(int64_t num_rows, int factors) {
  const int64_t splits = kWorkers / Pairs(factors), most = (num_rows + kTile - 1) / kTile;
  const int64_t some = splits < most ? splits : most;
  return some < 1 ? 1 : static_cast<int>(some);
}

// panel[tile][k][kTileStride] = table[row + k, column : column + 128], zeros behind row `end` and behind the factors.
template <typename T>
__device__ void LoadPanel(const T* table, int64_t row, int64_t end, int factors, int column, bool quads, float* panel) {
  for (int i = threadIdx.x; i < kTile * kStrip / 4; i += kThreads) {
    const int k = i / (kStrip / 4), j = i % (kStrip / 4) * 4;
    const T* from = table + (row + k) * factors + column + j;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (row + k < end) {
      const int left = factors - column - j;
      if (quads) {
        if (left > 0) v = Load4(from);
      } else {
        if (left > 0) v.x = ToFloat(__ldg(from));
        if (left > 1) v.y = ToFloat(__ldg(from + 1));
        if (left > 2) v.z = ToFloat(__ldg(from + 2));
        if (left > 3) v.w = ToFloat(__ldg(from + 3));
      }
    }
    *reinterpret_cast<float4*>(panel + j / kTile * kTileFloats + k * kTileStride + j % kTile) = v;
  }
}

// Block (split, pair of strips). Warp w owns row w / 2 of the pair's tiles, columns 2 (w % 2) and the next.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    PartialGramian(const T* table, int64_t num_rows, int factors, int64_t split_rows, bool quads, float* scratch) {
  TFREC_DYNAMIC_SHARED(shared);
  constexpr int kProducts = sizeof(T) == 2 ? 1 : 3;
  const TileIndex pair = TileAt(blockIdx.y);
  float* const left = shared;
  float* const right = pair.i == pair.j ? left : left + kStripTiles * kTileFloats;
  const int64_t begin = blockIdx.x * split_rows;
  const int64_t end = begin + split_rows < num_rows ? begin + split_rows : num_rows;
  const int i = Warp() / 2, j = Warp() % 2 * 2;
  // Tiles behind the factors, or below the diagonal, are not wanted.
  const auto wanted = [&](int n) {
    const int row = pair.i * kStripTiles + i, column = pair.j * kStripTiles + j + n;
    return row <= column && column * kTile < factors;
  };
  TileSum sums[2];
  sums[0].Clear();
  sums[1].Clear();
  for (int64_t row = begin; row < end; row += kTile) {
    __syncthreads();
    LoadPanel(table, row, end, factors, pair.i * kStrip, quads, left);
    if (right != left) LoadPanel(table, row, end, factors, pair.j * kStrip, quads, right);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      if (wanted(n)) {
        TileSum sum;  // of this panel: als_tiles.cuh
        sum.Clear();
        AddProduct<kProducts, false>(left + i * kTileFloats, right + (j + n) * kTileFloats, nullptr, 1.0f, kTile, &sum);
        sums[n].Add(sum);
      }
    }
  }
  float* const out = scratch + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * kPairFloats;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    if (wanted(n)) {
      sums[n].Each([&](int row, int column, float* value) {
        out[(i * kTile + row) * kStrip + (j + n) * kTile + column] = *value;
      });
    }
  }
}

// A thread per element of the upper triangle adds up the splits and writes both halves.
__global__ void __launch_bounds__(kThreads) SumSplits(const float* scratch, int splits, int factors, float* gramian) {
  const int64_t element = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int i = static_cast<int>(element / factors), j = static_cast<int>(element % factors);
  if (i >= factors || i > j) return;
  const int pair = static_cast<int>(TilesOf(j / kStrip)) + i / kStrip;
  const float* from = scratch + static_cast<int64_t>(pair) * splits * kPairFloats + i % kStrip * kStrip + j % kStrip;
  float sum = 0.0f;
#pragma unroll 8
  for (int split = 0; split < splits; ++split) sum += from[static_cast<int64_t>(split) * kPairFloats];
  gramian[i * factors + j] = sum;
  gramian[j * factors + i] = sum;
}

template <typename T>
const char* Run(const T* table, int64_t num_rows, int factors, float* gramian, float* scratch, void* stream) {
  const int splits = Splits(num_rows, factors);
  const int64_t split_rows = RoundUp<int64_t>((num_rows + splits - 1) / splits, kTile);
  const bool quads = factors % 4 == 0 && reinterpret_cast<uintptr_t>(table) % (4 * sizeof(T)) == 0;
  const char* error =
      Launch(PartialGramian<T>, dim3(splits, Pairs(factors)), kThreads, 2 * kStripTiles * kTileFloats * sizeof(float),
             stream, table, num_rows, factors, split_rows, quads, scratch);
  if (error != nullptr) return error;
  const int blocks = (factors * factors + kThreads - 1) / kThreads;
  return Launch(SumSplits, dim3(blocks), kThreads, 0, stream, scratch, splits, factors, gramian);
}

}  // namespace

size_t GramianCudaScratchBytes(int64_t num_rows, int factors) {
  return static_cast<size_t>(Splits(num_rows, factors)) * Pairs(factors) * kPairFloats * sizeof(float);
}

const char* GramianCuda(const void* table, bool half_storage, int64_t num_rows, int factors, float* gramian,
                        void* scratch, void* stream) {
  if (factors < 1 || factors > kMaxFactors) return "the number of factors is out of range";
  float* const sums = static_cast<float*>(scratch);
  return half_storage ? Run(static_cast<const __half*>(table), num_rows, factors, gramian, sums, stream)
                      : Run(static_cast<const float*>(table), num_rows, factors, gramian, sums, stream);
}

}  // namespace als
}  // namespace tfrec
