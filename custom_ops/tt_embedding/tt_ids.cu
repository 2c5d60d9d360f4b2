// The ids of a call, sorted by key; equal ones in the order of their positions. Few ids are sorted by comparing each with
// each, in one launch; many by the radix sort.
#include "tt_device.cuh"

namespace tfrec {
namespace tt {
namespace {

// ---- Keys ----------------------------------------------------------------------------------------------------------

__device__ inline int64_t KeyOf(const Radix& radix, int64_t num_ids, int64_t id) {
  if (id < 0 || id >= num_ids) return radix.end;
  if (num_ids == radix.num_rows) return id;  // one table
  const int64_t table = KeyQuotient(id, radix.num_rows);
  return id + table * (radix.table_keys - radix.num_rows);
}
__device__ inline int64_t NumIds(const Radix& radix) { return radix.end / radix.table_keys * radix.num_rows; }

__device__ inline void Clear(const Cleared& cleared, int64_t first, int64_t stride) {
#pragma unroll
  for (int k = 0; k < kMaxCores; ++k) {
    if (k >= cleared.num) continue;
    for (int64_t i = first; i < cleared.count[k]; i += stride) cleared.at[k][i] = 0.0f;
  }
}

__global__ void __launch_bounds__(kThreads)
    FillKeys(Radix radix, const int64_t* ids, int64_t n, int64_t* keys, int64_t* order, Cleared cleared) {
  const int64_t num_ids = NumIds(radix);
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    keys[i] = KeyOf(radix, num_ids, ids[i]);
    order[i] = i;
  }
  Clear(cleared, FirstIndex(), IndexStride());
}

// ---- Few ids -------------------------------------------------------------------------------------------------------

constexpr int kRankThreads = 1024, kRankWarps = kRankThreads / 32;
constexpr int kMostGroups = 8;

struct alignas(16) FourKeys {
  uint32_t x, y, z, w;
};

// How many of keys[4 begin] ... keys[4 end - 1] are below `bound`. The counter is a float, exact here: comparisons and
// integer additions share one pipe of the multiprocessor, float additions have another.
__device__ inline float CountBelow(const FourKeys* keys, int begin, int end, uint32_t bound) {
  float count = 0.0f;
#pragma unroll 4
  for (int i = begin; i < end; ++i) {
    const FourKeys four = keys[i];
    if (four.x < bound) count += 1.0f;
    if (four.y < bound) count += 1.0f;
    if (four.z < bound) count += 1.0f;
    if (four.w < bound) count += 1.0f;
  }
  return count;
}

// The place of an id is the number of those with a smaller key, and of those with the same key at an earlier position.
// A block has all keys in shared memory. `groups` times 32 neighbouring ids are its own, one to a lane; the warps of a
// group share the keys that its ids are compared with.
__global__ void __launch_bounds__(kRankThreads) RankIds(Radix radix, const int64_t* ids, int n, int groups,
                                                        int64_t* keys, int64_t* order, Cleared cleared) {
  TFREC_DYNAMIC_SHARED(shared);
  const int quads = RoundUp(n, 32) / 4;
  uint32_t* const all = reinterpret_cast<uint32_t*>(shared);  // [4 quads]
  float* const counts = shared + 4 * quads;                   // [kRankWarps, 32]
  const int64_t num_ids = NumIds(radix);
  for (int i = threadIdx.x; i < 4 * quads; i += kRankThreads) {
    all[i] = i < n ? static_cast<uint32_t>(KeyOf(radix, num_ids, ids[i])) : 0xffffffffu;
  }
  __syncthreads();
  const int warps = kRankWarps / groups, group = Warp() / warps, warp = Warp() % warps;
  const int first = (blockIdx.x * groups + group) * 32, own = first / 4;
  if (group < groups && first < n) {
    const FourKeys* const four = reinterpret_cast<const FourKeys*>(all);
    const uint32_t key = all[first + Lane()];
    const int begin = quads * warp / warps, end = quads * (warp + 1) / warps;
    // Before the own 32 equal keys come first, behind them they do not.
    float count = CountBelow(four, begin, end < own ? end : own, key + 1);
    count += CountBelow(four, begin > own + 8 ? begin : own + 8, end, key);
    for (int j = 4 * (begin > own ? begin : own); j < 4 * (end < own + 8 ? end : own + 8); ++j) {
      if (all[j] < key + (j < first + Lane())) count += 1.0f;
    }
    counts[Warp() * 32 + Lane()] = count;
  }
  __syncthreads();
  const int i = blockIdx.x * groups * 32 + threadIdx.x;
  if (Warp() < groups && i < n) {
    float rank = 0.0f;
    for (int w = 0; w < warps; ++w) rank += counts[(Warp() * warps + w) * 32 + Lane()];
    keys[static_cast<int>(rank)] = all[i];
    order[static_cast<int>(rank)] = i;
  }
  Clear(cleared, static_cast<int64_t>(blockIdx.x) * kRankThreads + threadIdx.x,
        static_cast<int64_t>(gridDim.x) * kRankThreads);
}

int64_t RankSharedBytes(int64_t n) { return (RoundUp<int64_t>(n, 32) + kRankThreads) * int64_t{sizeof(float)}; }
bool CanRank(const Lookup& lookup) {
  return AreFew(lookup.n, Radix(lookup.table)) && RankSharedBytes(lookup.n) <= Device().shared_bytes;
}

}  // namespace

SortedIds TakeSortedIds(const Lookup& lookup, Arena* arena) {
  const int64_t n = lookup.n;
  SortedIds s = {};
  s.keys = arena->Take<int64_t>(n);
  s.order = arena->Take<int64_t>(n);
  if (CanRank(lookup)) return s;
  s.keys_before = arena->Take<int64_t>(n);
  s.order_before = arena->Take<int64_t>(n);
  s.sort_scratch = arena->Take<char>(static_cast<int64_t>(SortScratchBytes(n, BitsFor(Radix(lookup.table).end))));
  return s;
}

const char* SortIds(const Lookup& lookup, const SortedIds& s, const Cleared& cleared, void* stream) {
  const Radix radix(lookup.table);
  if (CanRank(lookup)) {
    // A block for each multiprocessor, if that is not too many ids for one.
    const int n = static_cast<int>(lookup.n), all = (n + 31) / 32, processors = Device().processors;
    const int even = (all + processors - 1) / processors, groups = even < kMostGroups ? even : kMostGroups;
    return Launch(RankIds, dim3((all + groups - 1) / groups), kRankThreads, RankSharedBytes(n), stream, radix,
                  lookup.ids, n, groups, s.keys, s.order, cleared);
  }
  const char* error = Launch(FillKeys, GridFor(lookup.n), kThreads, 0, stream, radix, lookup.ids, lookup.n,
                             s.keys_before, s.order_before, cleared);
  if (error != nullptr) return error;
  return SortPairs(lookup.n, BitsFor(radix.end), s.keys_before, s.keys, s.order_before, s.order, s.sort_scratch,
                   stream);
}

}  // namespace tt
}  // namespace tfrec
