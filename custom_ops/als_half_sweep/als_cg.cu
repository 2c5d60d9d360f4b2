// Conjugate gradients, preconditioned with P = w0 G + shift I, never forming A: A p = P p + (lambda - shift) p +
// sum w (y.p) y, with P p kept with p.
//
// A block solves a tile of rows together. The dense part, P^-1 times the tile's residuals, is one pass over that matrix
// per tile instead of one per row. The entries' part is a warp per row: groups of kLanes lanes take an entry each, so that
// a dot product costs log2(kLanes) shuffles for 32 / kLanes entries, and keep their sums in registers to the end of the
// row. The gathered rows are read again in every step, from the second cache: what a tile of rows gathers exceeds
// shared memory. Rows are ordered by length, so the warps of a block finish together.
//
// Long rows: kSplits blocks share one, kSlots rows at a time. Partial sums go to scratch and are added in a fixed
// order.
#include "als_cuda.h"
#include "als_device.cuh"

namespace tfrec {
namespace als {
namespace {

constexpr int kThreads = 256;
constexpr int kTileRows = 8;  // at most; one for each warp
constexpr int kSplits = 16, kSlots = 256;  // blocks that share a long row; long rows at a time
constexpr float kConverged = 1e-20f;

// How a warp holds an entry's factors: kLanes lanes, kValues each, as chunks of four. Member m's chunk c starts at
// factor (c kLanes + m) 4, so that the lanes of a group read neighbours.
template <int lanes, int values>
struct Layout {
  static constexpr int kLanes = lanes, kValues = values, kWidth = lanes * values, kChunks = values / 4;
  static constexpr int kGroups = 32 / kLanes;
  // Entries that a group loads before it works on them: about 32 values in flight.
  static constexpr int kAhead = kValues >= 32 ? 1 : 32 / kValues < kLanes ? 32 / kValues : kLanes;
  static constexpr int kStep = kGroups * kAhead;  // entries that a warp loads at once
};

template <bool kAligned, typename T>
__device__ inline float4 LoadChunk(const T* row, int i, int factors) {
  if (kAligned) return i < factors ? Load4(row + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  return make_float4(i < factors ? ToFloat(__ldg(row + i)) : 0.0f, i + 1 < factors ? ToFloat(__ldg(row + i + 1)) : 0.0f,
                     i + 2 < factors ? ToFloat(__ldg(row + i + 2)) : 0.0f,
                     i + 3 < factors ? ToFloat(__ldg(row + i + 3)) : 0.0f);
}

__device__ inline float Dot4(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

// out += sum over entries of (t - w y.vector) y if `residual`, else of w (y.vector) y, by one warp. vector and out are
// shared memory of kWidth floats, zeros in the vector's padding. The residual's pass keeps the factors of the first
// `kept_steps` times kStep entries in `kept`, shared memory, where later passes find them: a lane reads what it wrote
// itself, so that no barrier is needed, and neighbours are neighbours in memory. Ends with a barrier of the warp.
template <typename T, typename L, bool kAligned>
__device__ void AddEntries(const HalfSweep& s, Entries entries, const float* vector, bool residual, float* out, T* kept,
                           int kept_steps) {
  constexpr int kGroups = L::kGroups, kAhead = L::kAhead;
  const int group = Lane() / L::kLanes, member = Lane() % L::kLanes;
  float4 v[L::kChunks], sum[L::kChunks];
#pragma unroll
  for (int c = 0; c < L::kChunks; ++c) {
    v[c] = *reinterpret_cast<const float4*>(vector + (c * L::kLanes + member) * 4);
    sum[c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
  T* at = kept + Lane() * 4;  // this lane's part of the step
  int steps_left = kept_steps;
  for (int64_t base = entries.begin; base < entries.end; base += 32) {
    const int count = entries.end - base < 32 ? static_cast<int>(entries.end - base) : 32;
    // Lanes without an entry repeat the first one, with weight zero.
    const int64_t mine = base + (Lane() < count ? Lane() : 0);
    const int column = __ldg(s.columns + mine);
    Weight weight = WeightOf(s, mine);
    if (Lane() >= count) weight = {0.0f, 0.0f};
    for (int e = 0; e < count; e += L::kStep) {
      float4 y[kAhead][L::kChunks];
      const bool keep = steps_left > 0;
      steps_left -= keep;
      if (keep && !residual) {
#pragma unroll
        for (int i = 0; i < kAhead * L::kChunks; ++i) y[i / L::kChunks][i % L::kChunks] = SharedLoad4(at + i * 128);
      } else {
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          const T* row = FixedRow<T>(s, __shfl_sync(kAllLanes, column, e + a * kGroups + group));
#pragma unroll
          for (int c = 0; c < L::kChunks; ++c) {
            y[a][c] = LoadChunk<kAligned>(row, (c * L::kLanes + member) * 4, s.factors);
          }
        }
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        float dot = 0.0f;
#pragma unroll
        for (int c = 0; c < L::kChunks; ++c) dot += Dot4(y[a][c], v[c]);
        dot = GroupSum(dot, L::kLanes);
        const float w = __shfl_sync(kAllLanes, weight.w, e + a * kGroups + group);
        const float t = __shfl_sync(kAllLanes, weight.t, e + a * kGroups + group);
        const float factor = residual ? t - w * dot : w * dot;
#pragma unroll
        for (int c = 0; c < L::kChunks; ++c) {
          sum[c].x += factor * y[a][c].x;
          sum[c].y += factor * y[a][c].y;
          sum[c].z += factor * y[a][c].z;
          sum[c].w += factor * y[a][c].w;
        }
      }
      if (keep) {
        if (residual) {
#pragma unroll
          for (int i = 0; i < kAhead * L::kChunks; ++i) Store4(y[i / L::kChunks][i % L::kChunks], at + i * 128);
        }
        at += kAhead * L::kChunks * 128;
      }
    }
  }
#pragma unroll
  for (int c = 0; c < L::kChunks; ++c) {
#pragma unroll
    for (int offset = L::kLanes; offset < 32; offset *= 2) {
      sum[c].x += __shfl_xor_sync(kAllLanes, sum[c].x, offset);
      sum[c].y += __shfl_xor_sync(kAllLanes, sum[c].y, offset);
      sum[c].z += __shfl_xor_sync(kAllLanes, sum[c].z, offset);
      sum[c].w += __shfl_xor_sync(kAllLanes, sum[c].w, offset);
    }
    if (c % kGroups == group) {
      float4* const to = reinterpret_cast<float4*>(out + (c * L::kLanes + member) * 4);
      const float4 old = *to;
      *to = make_float4(old.x + sum[c].x, old.y + sum[c].y, old.z + sum[c].z, old.w + sum[c].w);
    }
  }
  __syncwarp();
}

__device__ inline float StepLength(float squared, float curvature) {
  return curvature == 0.0f ? 0.0f : squared / curvature;
}

__device__ inline float WarpDot(const float* a, const float* b, int n) {
  float sum = 0.0f;
  for (int i = Lane(); i < n; i += 32) sum += a[i] * b[i];
  return GroupSum(sum, 32);
}

// One step by one warp, given ap = A p.
__device__ inline void Step(int n, float squared, float* x, float* r, const float* p, const float* ap) {
  const float step = StepLength(squared, WarpDot(p, ap, n));
  for (int i = Lane(); i < n; i += 32) {
    x[i] += step * p[i];
    r[i] -= step * ap[i];
  }
  __syncwarp();
}

// The next direction by one warp, given z = P^-1 r; returns r.z.
__device__ inline float NextDirection(int n, float squared, const float* r, const float* z, float* p, float* pp) {
  const float next = WarpDot(r, z, n), ratio = next / squared;
  for (int i = Lane(); i < n; i += 32) {
    p[i] = z[i] + ratio * p[i];
    pp[i] = r[i] + ratio * pp[i];
  }
  __syncwarp();
  return next;
}

template <typename T, typename L, bool kAligned>
__global__ void __launch_bounds__(kThreads, L::kWidth > 512 ? 1 : 2)  // PlanTile counts on two
    SolveTile(HalfSweep s, const int64_t* row_order, int64_t first, int tile_rows, int kept_steps,
              int64_t* first_bad_row) {
  TFREC_DYNAMIC_SHARED(shared);
  constexpr int kWidth = L::kWidth;
  const int f = s.factors, vectors = tile_rows * kWidth;
  float *x = shared, *r = x + vectors, *p = r + vectors, *pp = p + vectors, *ap = pp + vectors;  // ap is z too
  float *partial = ap + vectors, *squared = partial + kMatrixFloats;
  T* const kept = reinterpret_cast<T*>(squared + kTileRows);
  const auto kept_of = [&](int i) { return kept + static_cast<int64_t>(i) * kept_steps * L::kStep * kWidth; };
  const int64_t top = first + static_cast<int64_t>(blockIdx.x) * tile_rows;
  const auto row_of = [&](int i) { return top + i < s.num_rows ? row_order[top + i] : -1; };
  const auto entries_of = [&](int64_t row) { return row < 0 ? Entries{0, 0} : EntriesOf(s, row); };
  const auto times = [&](const float* matrix, const float* in, float* out) {
    if (tile_rows % 8 == 0) {
      TimesMatrix<8>(matrix, f, 0, f, in, kWidth, tile_rows, out, kWidth, partial);
    } else {
      TimesMatrix<2>(matrix, f, 0, f, in, kWidth, tile_rows, out, kWidth, partial);
    }
  };

  for (int i = Warp(); i < tile_rows; i += Warps()) {
    const int64_t row = row_of(i);
    const Entries entries = entries_of(row);
    const bool live = entries.begin < entries.end;
    for (int j = Lane(); j < kWidth; j += 32) {
      x[i * kWidth + j] = live && j < f ? ToFloat(StartRow<T>(s, row)[j]) : 0.0f;
      p[i * kWidth + j] = 0.0f;
    }
  }
  __syncthreads();
  times(s.gramian, x, ap);
  for (int i = Warp(); i < tile_rows; i += Warps()) {
    const int at = i * kWidth;
    const Entries entries = entries_of(row_of(i));
    const float regularization = RowRegularization(s, entries);
    for (int j = Lane(); j < f; j += 32) r[at + j] = -(s.unobserved_weight * ap[at + j] + regularization * x[at + j]);
    __syncwarp();
    AddEntries<T, L, kAligned>(s, entries, x + at, true, r + at, kept_of(i), kept_steps);
  }
  __syncthreads();
  times(s.inverse, r, p);
  bool active = false;
  for (int i = Warp(); i < tile_rows; i += Warps()) {
    const int at = i * kWidth;
    const Entries entries = entries_of(row_of(i));
    for (int j = Lane(); j < f; j += 32) pp[at + j] = r[at + j];
    const float next = entries.begin == entries.end ? 0.0f : WarpDot(r + at, p + at, f);
    if (Lane() == 0) squared[i] = next;
    __syncwarp();
    active |= !(next < kConverged);
  }
  for (int step = 1; __syncthreads_or(active); ++step) {
    for (int i = Warp(); i < tile_rows; i += Warps()) {
      const int at = i * kWidth;
      if (squared[i] < kConverged) continue;
      const Entries entries = entries_of(row_of(i));
      const float beyond_shift = RowRegularization(s, entries) - s.shift;
      for (int j = Lane(); j < f; j += 32) ap[at + j] = pp[at + j] + beyond_shift * p[at + j];
      __syncwarp();
      AddEntries<T, L, kAligned>(s, entries, p + at, false, ap + at, kept_of(i), kept_steps);
      Step(f, squared[i], x + at, r + at, p + at, ap + at);
    }
    if (step == s.cg_steps) break;
    __syncthreads();
    times(s.inverse, r, ap);
    active = false;
    for (int i = Warp(); i < tile_rows; i += Warps()) {
      const int at = i * kWidth;
      const float before = squared[i];
      if (before < kConverged) continue;
      const float next = NextDirection(f, before, r + at, ap + at, p + at, pp + at);
      if (Lane() == 0) squared[i] = next;
      __syncwarp();
      active |= !(next < kConverged);
    }
  }

  for (int i = Warp(); i < tile_rows; i += Warps()) {
    const int64_t row = row_of(i);
    if (row >= 0) StoreSolution<T>(s, row, x + i * kWidth, first_bad_row);
  }
}

// ---- Long rows -----------------------------------------------------------------------------------------------------

// What one long row keeps between launches, floats in scratch.
struct Slot {
  float *x, *r, *p, *pp, *partial, *squared;

  static __host__ __device__ int64_t Floats(int width) { return (4 + kSplits) * static_cast<int64_t>(width) + 4; }
  __device__ Slot(float* scratch, int slot, int width) {
    x = scratch + slot * Floats(width);
    r = x + width;
    p = r + width;
    pp = p + width;
    partial = pp + width;
    squared = partial + static_cast<int64_t>(kSplits) * width;
  }
};

// Block (part, slot): partial sums over one part of a row's entries; for step 0 those of the residual of the start.
template <typename T, typename L, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    LongProduct(HalfSweep s, const int64_t* row_order, int64_t first, int step, float* scratch) {
  TFREC_DYNAMIC_SHARED(shared);
  constexpr int kWidth = L::kWidth;
  float *vector = shared, *sums = vector + kWidth;
  const Slot slot(scratch, blockIdx.y, kWidth);
  const int64_t row = row_order[first + blockIdx.y];
  for (int j = threadIdx.x; j < kWidth; j += blockDim.x) {
    vector[j] = j >= s.factors ? 0.0f : step == 0 ? ToFloat(StartRow<T>(s, row)[j]) : slot.p[j];
  }
  for (int j = threadIdx.x; j < Warps() * kWidth; j += blockDim.x) sums[j] = 0.0f;
  __syncthreads();
  const Entries mine = PartOf(EntriesOf(s, row), blockIdx.x * Warps() + Warp(), kSplits * Warps());
  AddEntries<T, L, kAligned>(s, mine, vector, step == 0, sums + Warp() * kWidth, reinterpret_cast<T*>(shared), 0);
  __syncthreads();
  for (int j = threadIdx.x; j < kWidth; j += blockDim.x) {
    float sum = 0.0f;
    for (int warp = 0; warp < Warps(); ++warp) sum += sums[warp * kWidth + j];
    slot.partial[static_cast<int64_t>(blockIdx.x) * kWidth + j] = sum;
  }
}

// Block per slot: adds up the parts and makes the step, or for step 0 the first direction.
template <typename T>
__global__ void __launch_bounds__(kThreads) LongStep(HalfSweep s, const int64_t* row_order, int64_t first, int step,
                                                     int width, float* scratch, int64_t* first_bad_row) {
  TFREC_DYNAMIC_SHARED(shared);
  const int f = s.factors;
  float *vector = shared, *product = vector + width, *partial = product + width;
  const Slot slot(scratch, blockIdx.x, width);
  const int64_t row = row_order[first + blockIdx.x];
  const Entries entries = EntriesOf(s, row);
  const float regularization = RowRegularization(s, entries);
  const bool live = entries.begin < entries.end, last = step == s.cg_steps;
  const float squared = step > 0 ? *slot.squared : 0.0f;
  const auto entries_sum = [&](int j) {
    float sum = 0.0f;
    for (int part = 0; part < kSplits; ++part) sum += slot.partial[static_cast<int64_t>(part) * width + j];
    return sum;
  };
  // A row that has converged, or one without entries, keeps its x. All threads of the block take one way.
  const bool idle = step > 0 && squared < kConverged;
  if (!idle) {
    // From here on `vector` is the residual.
    if (step == 0) {
      for (int j = threadIdx.x; j < f; j += blockDim.x) vector[j] = live ? ToFloat(StartRow<T>(s, row)[j]) : 0.0f;
      __syncthreads();
      TimesMatrix<1>(s.gramian, f, 0, f, vector, width, 1, product, width, partial);
      for (int j = threadIdx.x; j < f; j += blockDim.x) {
        slot.x[j] = vector[j];
        vector[j] = entries_sum(j) - s.unobserved_weight * product[j] - regularization * vector[j];
        slot.r[j] = vector[j];
      }
    } else {
      for (int j = threadIdx.x; j < f; j += blockDim.x) {
        vector[j] = slot.p[j];
        product[j] = entries_sum(j) + slot.pp[j] + (regularization - s.shift) * slot.p[j];
      }
      __syncthreads();
      const float length = StepLength(squared, WarpDot(vector, product, f));
      __syncthreads();
      for (int j = threadIdx.x; j < f; j += blockDim.x) {
        slot.x[j] += length * vector[j];
        vector[j] = slot.r[j] - length * product[j];
        slot.r[j] = vector[j];
      }
    }
    __syncthreads();
    if (!last) {
      TimesMatrix<1>(s.inverse, f, 0, f, vector, width, 1, product, width, partial);
      const float next = live ? WarpDot(vector, product, f) : 0.0f;
      for (int j = threadIdx.x; j < f; j += blockDim.x) {
        slot.p[j] = step == 0 ? product[j] : product[j] + next / squared * slot.p[j];
        slot.pp[j] = step == 0 ? vector[j] : vector[j] + next / squared * slot.pp[j];
      }
      if (threadIdx.x == 0) *slot.squared = next;
    }
  }
  if (last && Warp() == 0) StoreSolution<T>(s, row, slot.x, first_bad_row);
}

// ---- Host ----------------------------------------------------------------------------------------------------------

int Width(int factors) {
  int width = 32;
  while (width < factors) width *= 2;
  return width;
}

struct TilePlan {
  int rows, kept_steps;
  size_t bytes;
};

// As many rows as fit, for very many factors fewer than kTileRows. What is then left of half a processor's shared memory
// goes to the factors that are kept: registers allow two blocks anyway. One block that has all of it takes their place
// where it can keep most of a row of mean length and they cannot, if the mean says something: not where there are long
// rows, as then most entries are in rows far longer than the mean.
template <typename T, typename L>
TilePlan PlanTile(const HalfSweep& s, int64_t num_long, const Device& device) {
  TilePlan plan;
  const auto bytes = [](int rows) {
    return static_cast<int64_t>((5 * rows * L::kWidth + kMatrixFloats + kTileRows) * sizeof(float));
  };
  const int64_t all = device.shared_bytes, half = all / 2 - 1024;
  plan.rows = kTileRows;
  while (plan.rows > 2 && bytes(plan.rows) > all) plan.rows /= 2;
  const int64_t step_bytes = plan.rows * L::kStep * L::kWidth * static_cast<int64_t>(sizeof(T));
  const auto steps = [&](int64_t room) { return room < bytes(plan.rows) ? 0 : (room - bytes(plan.rows)) / step_bytes; };
  const int64_t most_of_mean = s.num_entries / (s.num_rows > 0 ? s.num_rows : 1) * 3 / 4;
  const bool one_block =
      bytes(plan.rows) > half ||
      (num_long == 0 && steps(half) * L::kStep < most_of_mean && steps(all) * L::kStep >= most_of_mean);
  plan.kept_steps = static_cast<int>(steps(one_block ? all : half));
  plan.bytes = bytes(plan.rows) + plan.kept_steps * step_bytes;
  return plan;
}

template <typename T, typename L, bool kAligned>
const char* Run(const HalfSweep& s, const int64_t* row_order, int64_t num_long, float* scratch, int64_t* first_bad_row,
                void* stream) {
  for (int64_t first = 0; first < num_long; first += kSlots) {
    const int slots = num_long - first < kSlots ? static_cast<int>(num_long - first) : kSlots;
    for (int step = 0; step <= s.cg_steps; ++step) {
      const char* error =
          Launch(LongProduct<T, L, kAligned>, dim3(kSplits, slots), kThreads,
                 (1 + kThreads / 32) * L::kWidth * sizeof(float), stream, s, row_order, first, step, scratch);
      if (error != nullptr) return error;
      error = Launch(LongStep<T>, dim3(slots), kThreads, (2 * L::kWidth + kMatrixFloats) * sizeof(float), stream, s,
                     row_order, first, step, L::kWidth, scratch, first_bad_row);
      if (error != nullptr) return error;
    }
  }
  const TilePlan plan = PlanTile<T, L>(s, num_long, Device());
  const int rows = plan.rows;
  constexpr int64_t kMostBlocks = 0x7fffffff;
  for (int64_t first = num_long; first < s.num_rows; first += kMostBlocks * rows) {
    const int64_t tiles = (s.num_rows - first + rows - 1) / rows;
    const char* error =
        Launch(SolveTile<T, L, kAligned>, dim3(static_cast<unsigned>(tiles < kMostBlocks ? tiles : kMostBlocks)),
               kThreads, plan.bytes, stream, s, row_order, first, rows, plan.kept_steps, first_bad_row);
    if (error != nullptr) return error;
  }
  return nullptr;
}

template <typename T, bool kAligned>
const char* RunWidth(const HalfSweep& s, const int64_t* row_order, int64_t num_long, float* scratch, int64_t* bad,
                     void* stream) {
  switch (Width(s.factors)) {
    case 32:
      return Run<T, Layout<4, 8>, kAligned>(s, row_order, num_long, scratch, bad, stream);
    case 64:
      return Run<T, Layout<8, 8>, kAligned>(s, row_order, num_long, scratch, bad, stream);
    case 128:
      return Run<T, Layout<8, 16>, kAligned>(s, row_order, num_long, scratch, bad, stream);
    case 256:
      return Run<T, Layout<16, 16>, kAligned>(s, row_order, num_long, scratch, bad, stream);
    case 512:
      return Run<T, Layout<32, 16>, kAligned>(s, row_order, num_long, scratch, bad, stream);
    default:
      return Run<T, Layout<32, 32>, kAligned>(s, row_order, num_long, scratch, bad, stream);
  }
}

}  // namespace

size_t ConjugateGradientScratchBytes(const HalfSweep& s) {
  return kSlots * Slot::Floats(Width(s.factors)) * sizeof(float);
}

const char* ConjugateGradient(const HalfSweep& s, const int64_t* row_order, int64_t num_long, void* scratch,
                              int64_t* first_bad_row, void* stream) {
  float* const floats = static_cast<float*>(scratch);
  const bool aligned = RowsAligned(s, 4);
  if (s.half_storage) {
    return aligned ? RunWidth<__half, true>(s, row_order, num_long, floats, first_bad_row, stream)
                   : RunWidth<__half, false>(s, row_order, num_long, floats, first_bad_row, stream);
  }
  return aligned ? RunWidth<float, true>(s, row_order, num_long, floats, first_bad_row, stream)
                 : RunWidth<float, false>(s, row_order, num_long, floats, first_bad_row, stream);
}

}  // namespace als
}  // namespace tfrec
