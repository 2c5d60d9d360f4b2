// The solvers that form a matrix. Block (iALS++): for each block of coordinates, in turn, its exact minimum,
//
//   g = (b - A x)[block],   A[block, block] delta = g,   x[block] += delta.
//
// Cholesky is the case of one block of all coordinates and x = 0, and runs as that. What it takes per row:
//
//   panel      `depth` entries at a time, the block's columns of their factors as floats, shared by all warps
//   matrix     += panel' diag(w) panel on the tensor cores (als_tiles.cuh), a tile of 32 x 32 per warp
//   right side += panel' (t - w predictions)
//   solve      U'U and two triangular solves
//
// The predictions x.y of a row's entries are kept and updated while they fit the cache in shared memory, and made anew
// from the whole factors for each block of a row that is too long for it. The dense part of g, w0 G x, is one pass over
// the Gramian for a tile of rows, which advance through the blocks of coordinates together.
//
// Matrices that do not fit shared memory lie in scratch: then the grid is bounded and its blocks loop over the rows.
#include "als_cuda.h"
#include "als_direct.cuh"

namespace tfrec {
namespace als {
namespace {

using namespace direct;  // als_direct.cuh, this file's other half

constexpr int kSplits = 16;  // blocks that share a long row
// Long rows at a time: enough that those which are solved, a block each, leave few processors idle; fewer where the
// matrices of their parts are large.
constexpr int kLeastSlots = 8, kMostSlots = 64;
constexpr int64_t kPartsBytes = 64 << 20;

// Solves rows row_order[first:]; matrices in scratch, one per block of threads, unless kInShared.
template <typename T, bool kInShared>
__global__ void __launch_bounds__(kMaxThreads, 2)
    SolveRows(HalfSweep s, Plan plan, bool pairs, const int64_t* row_order, int64_t first_row, float* scratch,
              int64_t* first_bad_row) {
  TFREC_DYNAMIC_SHARED(memory);
  const Shared shared(plan, memory);
  float* const matrix = kInShared ? shared.matrix : scratch + blockIdx.x * plan.MatrixFloats();
  const int64_t step = static_cast<int64_t>(gridDim.x) * plan.rows;
  for (int64_t top = first_row + static_cast<int64_t>(blockIdx.x) * plan.rows; top < s.num_rows; top += step) {
    const auto row_of = [&](int i) { return top + i < s.num_rows ? row_order[top + i] : -1; };
    const auto entries_of = [&](int i) {
      const int64_t row = row_of(i);
      return row < 0 ? Entries{0, 0} : EntriesOf(s, row);
    };
    for (int i = Warp(); i < plan.rows; i += Warps()) {
      const Entries entries = entries_of(i);
      const bool live = plan.warm && entries.begin < entries.end;
      for (int j = Lane(); j < plan.x_stride; j += 32) {
        shared.x[i * plan.x_stride + j] = live && j < s.factors ? ToFloat(StartRow<T>(s, row_of(i))[j]) : 0.0f;
      }
    }
    if (plan.warm && threadIdx.x == 0) {
      int used = 0;
      for (int i = 0; i < plan.rows; ++i) {
        const Entries entries = entries_of(i);
        const bool fits = entries.end - entries.begin <= plan.cache - used;
        shared.cached[i] = fits ? used : -1;
        if (fits) used += static_cast<int>(entries.end - entries.begin);
      }
    }
    __syncthreads();
    for (int i = 0; plan.warm && i < plan.rows; ++i) {
      const Entries entries = entries_of(i);
      for (int64_t e = entries.begin + Warp(); e < entries.end && shared.cached[i] >= 0; e += Warps()) {
        const float prediction =
            WarpDot(FixedRow<T>(s, __ldg(s.columns + e)), pairs, s.factors, shared.x + i * plan.x_stride);
        if (Lane() == 0) shared.predictions[shared.cached[i] + (e - entries.begin)] = prediction;
      }
    }
    __syncthreads();

    for (int first = 0; first < s.factors; first += plan.block) {
      const Block block = BlockAt(s, plan, first, pairs);
      if (plan.warm) DenseProduct(s, plan, shared, block, plan.rows);
      for (int i = 0; i < plan.rows; ++i) {
        const Entries entries = entries_of(i);
        if (entries.begin == entries.end) continue;
        const float regularization = RowRegularization(s, entries);
        float* const x = shared.x + i * plan.x_stride;
        float* const predictions = plan.warm && shared.cached[i] >= 0 ? shared.predictions + shared.cached[i] : nullptr;
        StartRight(s, plan, shared, block, regularization, i);
        SumEntries<T>(
            s, plan, shared, entries, block, plan.warm ? x : nullptr, predictions,
            [&](TileIndex at, TileSum* sum) { AddBaseTile(s, block, regularization, at, sum); }, matrix);
        SolveMatrix(matrix, plan.tiles, shared.right, shared.reciprocal);
        for (int j = threadIdx.x; j < block.width; j += blockDim.x) x[first + j] += shared.right[j];
        if (predictions != nullptr && first + block.width < s.factors) {
          for (int64_t e = entries.begin + Warp(); e < entries.end; e += Warps()) {
            const float change =
                WarpDot(FixedRow<T>(s, __ldg(s.columns + e)) + first, pairs, block.width, shared.right);
            if (Lane() == 0) predictions[e - entries.begin] += change;
          }
        }
        __syncthreads();
      }
    }
    for (int i = Warp(); i < plan.rows; i += Warps()) {
      if (row_of(i) >= 0) StoreSolution<T>(s, row_of(i), shared.x + i * plan.x_stride, first_bad_row);
    }
    __syncthreads();
  }
}

// ---- Long rows -----------------------------------------------------------------------------------------------------

// Scratch: x of the slots, then the parts of slot 0, of slot 1, ...
__host__ __device__ inline float* PartPointer(const Plan& plan, float* scratch, int slot, int part) {
  const int64_t before = static_cast<int64_t>(slot) * kSplits + part;
  return scratch + static_cast<int64_t>(plan.slots) * plan.x_stride + before * plan.PartFloats();
}

template <typename T>
__device__ inline void LoadLongX(const HalfSweep& s, const Plan& plan, int64_t row, const float* kept, int first,
                                 float* x) {
  for (int j = threadIdx.x; j < plan.x_stride; j += blockDim.x) {
    x[j] = !plan.warm || j >= s.factors ? 0.0f : first > 0 ? kept[j] : ToFloat(StartRow<T>(s, row)[j]);
  }
}

// Block (part, slot): matrix and right side over one part of a row's entries, into scratch.
template <typename T, bool kInShared>
__global__ void __launch_bounds__(kMaxThreads, 2) LongPart(HalfSweep s, Plan plan, bool pairs, const int64_t* row_order,
                                                           int64_t first_row, int first, float* scratch) {
  TFREC_DYNAMIC_SHARED(memory);
  const Shared shared(plan, memory);
  const int slot = blockIdx.y, part = blockIdx.x;
  const int64_t row = row_order[first_row + slot];
  float* const out = PartPointer(plan, scratch, slot, part);
  float* const matrix = kInShared ? shared.matrix : out;
  LoadLongX<T>(s, plan, row, scratch + slot * plan.x_stride, first, shared.x);
  for (int j = threadIdx.x; j < plan.Width(); j += blockDim.x) shared.right[j] = 0.0f;
  __syncthreads();
  SumEntries<T>(
      s, plan, shared, PartOf(EntriesOf(s, row), part, kSplits), BlockAt(s, plan, first, pairs),
      plan.warm ? shared.x : nullptr, nullptr, [](TileIndex, TileSum*) {}, matrix);
  if (kInShared) {
    const float4* from = reinterpret_cast<const float4*>(matrix);
    float4* to = reinterpret_cast<float4*>(out);
    for (int64_t i = threadIdx.x; i < plan.MatrixFloats() / 4; i += blockDim.x) to[i] = from[i];
  }
  for (int j = threadIdx.x; j < plan.Width(); j += blockDim.x) out[plan.MatrixFloats() + j] = shared.right[j];
}

// Block per slot: adds up the parts, in shared memory or in place of the first, solves, and keeps x for the next block
// of coordinates or stores it.
template <typename T, bool kInShared>
__global__ void __launch_bounds__(kMaxThreads, 2)
    LongSolve(HalfSweep s, Plan plan, const int64_t* row_order, int64_t first_row, int first, float* scratch,
              int64_t* first_bad_row) {
  TFREC_DYNAMIC_SHARED(memory);
  const Shared shared(plan, memory);
  const int slot = blockIdx.x;
  const int64_t row = row_order[first_row + slot], part_floats = plan.PartFloats();
  const Entries entries = EntriesOf(s, row);
  if (entries.begin == entries.end) {
    if (Warp() == 0) StoreZeros<T>(s, row);
    return;
  }
  const Block block = BlockAt(s, plan, first, false);
  const float regularization = RowRegularization(s, entries);
  float* const parts = PartPointer(plan, scratch, slot, 0);
  float* const matrix = kInShared ? shared.matrix : parts;
  LoadLongX<T>(s, plan, row, scratch + slot * plan.x_stride, first, shared.x);
  __syncthreads();
  if (plan.warm) DenseProduct(s, plan, shared, block, 1);
  StartRight(s, plan, shared, block, regularization, 0);
  for (int j = threadIdx.x; j < plan.Width(); j += blockDim.x) {
    float sum = shared.right[j];
    for (int part = 0; part < kSplits; ++part) sum += parts[part * part_floats + plan.MatrixFloats() + j];
    shared.right[j] = sum;
  }
  for (int number = Warp(); number < static_cast<int>(TilesOf(plan.tiles)); number += Warps()) {
    const int64_t at = static_cast<int64_t>(number) * kTileFloats;
    TileSum sum;
    sum.Clear();
    AddBaseTile(s, block, regularization, TileAt(number), &sum);
    for (int part = 0; part < kSplits; ++part) {
      sum.Add(parts + part * part_floats + at);
    }
    sum.Store(matrix + at);
  }
  __syncthreads();
  SolveMatrix(matrix, plan.tiles, shared.right, shared.reciprocal);
  for (int j = threadIdx.x; j < block.width; j += blockDim.x) shared.x[first + j] += shared.right[j];
  __syncthreads();
  if (first + block.width < s.factors) {
    for (int j = threadIdx.x; j < s.factors; j += blockDim.x) scratch[slot * plan.x_stride + j] = shared.x[j];
  } else if (Warp() == 0) {
    StoreSolution<T>(s, row, shared.x, first_bad_row);
  }
}

// ---- Host ----------------------------------------------------------------------------------------------------------

// The matrix in shared memory if it fits at all; two blocks on a processor before one; then as many rows and as deep a
// panel as there is room for.
Plan MakePlan(const HalfSweep& s, const Device& device) {
  Plan plan;
  // One block of all coordinates ends at the exact minimum from any start.
  plan.warm = s.solver == Solver::kBlock && s.block_size < s.factors;
  plan.block = plan.warm ? s.block_size : s.factors;
  plan.tiles = (plan.block + kTile - 1) / kTile;
  // Most of the time goes to the chain of factorizations on the diagonal: rather several small blocks of threads on a
  // processor, each with its chain, than a large one.
  plan.warps = plan.tiles == 1 ? 2 : plan.tiles <= 4 ? 4 : kMaxThreads / 32;
  plan.x_stride = RoundUp(s.factors, 4);
  const int64_t slots = kPartsBytes / (kSplits * plan.PartFloats() * static_cast<int64_t>(sizeof(float)));
  plan.slots = static_cast<int>(slots < kLeastSlots ? kLeastSlots : slots < kMostSlots ? slots : kMostSlots);
  if (s.num_rows < plan.slots) plan.slots = static_cast<int>(s.num_rows);
  // Few rows: rather more blocks than fewer passes over the Gramian.
  const int most_rows = !plan.warm ? 1 : s.num_rows < 32 * static_cast<int64_t>(device.processors) ? 2 : 8;
  for (const bool in_shared : {true, false}) {
    plan.in_shared = in_shared;
    for (const int64_t bytes : {device.shared_bytes / 2 - 1024, device.shared_bytes}) {
      for (plan.rows = most_rows; plan.rows > 0; plan.rows = plan.rows == 8 ? 2 : plan.rows - 1) {
        for (const int cache : {kCache, 0}) {
          plan.cache = plan.warm ? cache : 0;
          for (plan.depth = 32; plan.depth >= 8; plan.depth /= 2) {
            // A panel below 16 entries or no cache is a last resort.
            if (bytes < device.shared_bytes && (plan.depth < 16 || cache == 0)) continue;
            if (plan.SharedFloats() * static_cast<int64_t>(sizeof(float)) <= bytes) return plan;
          }
        }
      }
    }
  }
  plan.rows = 1;  // fits no device: the launch says so
  plan.depth = 8;
  return plan;
}

int64_t GridOf(const Plan& plan, int64_t rows, const Device& device) {
  const int64_t tiles = (rows + plan.rows - 1) / plan.rows, most = plan.in_shared ? 0x7fffffff : 2 * device.processors;
  return tiles < most ? tiles : most;
}

template <typename T, bool kInShared>
const char* Run(const HalfSweep& s, const Plan& plan, const Device& device, const int64_t* row_order, int64_t num_long,
                float* scratch, int64_t* first_bad_row, void* stream) {
  const size_t shared_bytes = plan.SharedFloats() * sizeof(float);
  const bool pairs = RowsAligned(s, 2) && (plan.block % 2 == 0 || !plan.warm);
  for (int64_t first_row = 0; first_row < num_long; first_row += plan.slots) {
    const int slots = num_long - first_row < plan.slots ? static_cast<int>(num_long - first_row) : plan.slots;
    for (int first = 0; first < s.factors; first += plan.block) {
      const char* error = Launch(LongPart<T, kInShared>, dim3(kSplits, slots), plan.warps * 32, shared_bytes, stream, s,
                                 plan, pairs, row_order, first_row, first, scratch);
      if (error != nullptr) return error;
      error = Launch(LongSolve<T, kInShared>, dim3(slots), plan.warps * 32, shared_bytes, stream, s, plan, row_order,
                     first_row, first, scratch, first_bad_row);
      if (error != nullptr) return error;
    }
  }
  if (num_long >= s.num_rows) return nullptr;
  return Launch(SolveRows<T, kInShared>, dim3(static_cast<unsigned>(GridOf(plan, s.num_rows - num_long, device))),
                plan.warps * 32, shared_bytes, stream, s, plan, pairs, row_order, num_long, scratch, first_bad_row);
}

}  // namespace

size_t DirectScratchBytes(const HalfSweep& s) {
  const Device device;
  const Plan plan = MakePlan(s, device);
  const int64_t parts = plan.slots * (plan.x_stride + kSplits * plan.PartFloats());
  const int64_t matrices = plan.in_shared ? 0 : GridOf(plan, s.num_rows, device) * plan.MatrixFloats();
  return (parts > matrices ? parts : matrices) * sizeof(float);
}

const char* Direct(const HalfSweep& s, const int64_t* row_order, int64_t num_long, void* scratch,
                   int64_t* first_bad_row, void* stream) {
  const Device device;
  const Plan plan = MakePlan(s, device);
  float* const floats = static_cast<float*>(scratch);
  if (s.half_storage) {
    return plan.in_shared ? Run<__half, true>(s, plan, device, row_order, num_long, floats, first_bad_row, stream)
                          : Run<__half, false>(s, plan, device, row_order, num_long, floats, first_bad_row, stream);
  }
  return plan.in_shared ? Run<float, true>(s, plan, device, row_order, num_long, floats, first_bad_row, stream)
                        : Run<float, false>(s, plan, device, row_order, num_long, floats, first_bad_row, stream);
}

}  // namespace als
}  // namespace tfrec
