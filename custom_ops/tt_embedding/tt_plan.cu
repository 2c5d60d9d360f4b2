// The plan of a round: from sorted ids to the nodes of every level. Three kernels, each over tiles of positions: count
// the first positions of nodes, turn the counts into offsets, write the nodes.
#include "tt_device.cuh"

namespace tfrec {
namespace tt {
namespace {

constexpr int kPerThread = 4, kTile = kThreads * kPerThread, kTileWarps = kThreads / 32;
constexpr int kCounts = kMaxCores + 1;

int64_t Tiles(int64_t n) { return (n + kTile - 1) / kTile; }

__global__ void __launch_bounds__(kThreads)
    FillKeys(Radix radix, const int64_t* ids, int64_t n, int64_t* keys, int64_t* order) {
  const int64_t num_ids = radix.end / radix.table_keys * radix.num_rows;
  for (int64_t i = FirstIndex(); i < n; i += IndexStride()) {
    const int64_t id = ids[i];
    const bool good = id >= 0 && id < num_ids;
    keys[i] = good ? id / radix.num_rows * radix.table_keys + id % radix.num_rows : radix.end;
    order[i] = i;
  }
}

// The first level at which position j begins a node: 0 to T - 1; T for a repeated id, T + 1 for one out of range. Since
// a prefix is part of all longer ones, j begins a node of every level from there on.
__device__ inline int FirstLevel(const Plan& plan, int64_t j) {
  const Radix& radix = plan.radix;
  const int64_t key = plan.keys[j];
  if (key >= radix.end) return radix.num_levels + 1;
  if (j == 0) return 0;
  const int64_t before = plan.keys[j - 1];
  if (before == key) return radix.num_levels;
  int level = radix.num_levels - 1;
  while (level > 0 && key / radix.divisor[level - 1] != before / radix.divisor[level - 1]) --level;
  return level;
}

// The first levels of a thread's positions, and how many of them begin a node of level k; k = T counts ids in range.
struct Begins {
  int level[kPerThread];
  int64_t first;

  __device__ explicit Begins(const Plan& plan) : first(FirstIndex() * kPerThread) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      level[i] = first + i < plan.n ? FirstLevel(plan, first + i) : plan.radix.num_levels + 1;
    }
  }
  __device__ int Count(int k) const {
    int count = 0;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) count += level[i] <= k;
    return count;
  }
};

// Sum over the lanes up to this one.
__device__ inline int64_t InclusiveSum(int64_t v) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int64_t other = __shfl_sync(kAllLanes, v, Lane() >= distance ? Lane() - distance : 0);
    if (Lane() >= distance) v += other;
  }
  return v;
}

__global__ void __launch_bounds__(kThreads) CountNodes(Plan plan, int64_t tiles) {
  TFREC_DYNAMIC_SHARED(shared);
  int* const sums = reinterpret_cast<int*>(shared);  // [kCounts, kTileWarps]
  const Begins begins(plan);
#pragma unroll
  for (int k = 0; k < kCounts; ++k) {
    const int64_t sum = InclusiveSum(begins.Count(k));
    if (Lane() == 31) sums[k * kTileWarps + Warp()] = static_cast<int>(sum);
  }
  __syncthreads();
  const int k = threadIdx.x;
  if (k > plan.radix.num_levels) return;
  int sum = 0;
  for (int warp = 0; warp < kTileWarps; ++warp) sum += sums[k * kTileWarps + warp];
  plan.tile_counts[k * tiles + blockIdx.x] = sum;
}

// A block per level: tile_counts become the sums of the tiles before, counts the sums of all.
__global__ void __launch_bounds__(kThreads) OffsetTiles(Plan plan, int64_t tiles) {
  TFREC_DYNAMIC_SHARED(shared);
  int64_t* const sums = reinterpret_cast<int64_t*>(shared);  // [kTileWarps]
  int64_t* const counts = plan.tile_counts + blockIdx.x * tiles;
  int64_t before = 0;
  for (int64_t base = 0; base < tiles; base += kThreads) {
    const int64_t tile = base + threadIdx.x;
    const int64_t count = tile < tiles ? counts[tile] : 0, sum = InclusiveSum(count);
    if (Lane() == 31) sums[Warp()] = sum;
    __syncthreads();
    int64_t offset = before + sum - count;
    for (int warp = 0; warp < kTileWarps; ++warp) {
      if (warp < Warp()) offset += sums[warp];
      before += sums[warp];
    }
    if (tile < tiles) counts[tile] = offset;
    __syncthreads();
  }
  if (threadIdx.x == 0) plan.counts[blockIdx.x] = before;
}

__global__ void __launch_bounds__(kThreads) WriteNodes(Plan plan, int64_t tiles) {
  TFREC_DYNAMIC_SHARED(shared);
  int* const sums = reinterpret_cast<int*>(shared);  // [kMaxCores, kTileWarps]
  const Radix& radix = plan.radix;
  const Begins begins(plan);
  int64_t node[kMaxCores];  // the last that began before, at each level
#pragma unroll
  for (int k = 0; k < kMaxCores; ++k) {
    const int count = begins.Count(k);
    const int64_t sum = InclusiveSum(count);
    if (Lane() == 31) sums[k * kTileWarps + Warp()] = static_cast<int>(sum);
    node[k] = sum - count - 1;
  }
  // node[num_levels - 1] again: looked up by a number that the compiler does not know, node[] would be in local memory.
  const int rows = begins.Count(radix.num_levels - 1);
  int64_t last = InclusiveSum(rows) - rows - 1;
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kMaxCores; ++k) {
    if (k < radix.num_levels) node[k] += plan.tile_counts[k * tiles + blockIdx.x];
    for (int warp = 0; warp < Warp(); ++warp) node[k] += sums[k * kTileWarps + warp];
  }
  last += plan.tile_counts[(radix.num_levels - 1) * tiles + blockIdx.x];
  for (int warp = 0; warp < Warp(); ++warp) last += sums[(radix.num_levels - 1) * kTileWarps + warp];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t j = begins.first + i;
    if (j >= plan.n) return;
    if (begins.level[i] > radix.num_levels) {
      plan.row_node[j] = -1;
      continue;
    }
    const int64_t key = plan.keys[j], table = key / radix.table_keys;
#pragma unroll
    for (int k = 0; k < kMaxCores; ++k) {
      if (k >= begins.level[i] && k < radix.num_levels) {
        ++node[k];
        plan.slice[k][node[k]] = table * radix.p[k] + key / radix.divisor[k] % radix.p[k];
        if (k > 0) plan.parent[k][node[k]] = node[k > 0 ? k - 1 : 0];
      }
    }
    if (begins.level[i] < radix.num_levels) plan.start[++last] = j;
    plan.row_node[j] = last;
  }
}

}  // namespace

void TakePlan(int64_t n, Arena* arena, Plan* plan) {
  const int levels = plan->radix.num_levels;
  plan->n = n;
  for (int k = 0; k < levels; ++k) {
    const int64_t prefixes = plan->radix.prefixes(k);
    plan->bound[k] = n < prefixes ? n : prefixes;
    plan->parent[k] = arena->Take<int64_t>(k > 0 ? plan->bound[k] : 0);
    plan->slice[k] = arena->Take<int64_t>(plan->bound[k]);
  }
  plan->start = arena->Take<int64_t>(plan->bound[levels - 1]);
  plan->row_node = arena->Take<int64_t>(n);
  plan->counts = arena->Take<int64_t>(levels + 1);
  plan->tile_counts = arena->Take<int64_t>((levels + 1) * Tiles(n));
}

const char* BuildPlan(const Plan& plan, void* stream) {
  const int64_t tiles = Tiles(plan.n);
  const dim3 grid(static_cast<unsigned>(tiles));
  const char* error = Launch(CountNodes, grid, kThreads, kCounts * kTileWarps * sizeof(int), stream, plan, tiles);
  if (error != nullptr) return error;
  error = Launch(OffsetTiles, dim3(plan.radix.num_levels + 1), kThreads, kTileWarps * sizeof(int64_t), stream, plan,
                 tiles);
  if (error != nullptr) return error;
  return Launch(WriteNodes, grid, kThreads, kMaxCores * kTileWarps * sizeof(int), stream, plan, tiles);
}

SortedIds TakeSortedIds(const Lookup& lookup, Arena* arena) {
  const int64_t n = lookup.n;
  SortedIds s;
  s.keys = arena->Take<int64_t>(n);
  s.order = arena->Take<int64_t>(n);
  s.keys_before = arena->Take<int64_t>(n);
  s.order_before = arena->Take<int64_t>(n);
  s.sort_scratch = arena->Take<char>(static_cast<int64_t>(SortScratchBytes(n, BitsFor(Radix(lookup.table).end))));
  return s;
}

const char* SortIds(const Lookup& lookup, const SortedIds& s, void* stream) {
  const Radix radix(lookup.table);
  const char* error = Launch(FillKeys, GridFor(lookup.n), kThreads, 0, stream, radix, lookup.ids, lookup.n,
                             s.keys_before, s.order_before);
  if (error != nullptr) return error;
  return SortPairs(lookup.n, BitsFor(radix.end), s.keys_before, s.keys, s.order_before, s.order, s.sort_scratch,
                   stream);
}

}  // namespace tt
}  // namespace tfrec
