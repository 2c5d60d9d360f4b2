// The plan of a round: from sorted ids to the nodes of every level. Three kernels, each over tiles of positions: count
// the first positions of nodes, turn the counts into offsets, write the nodes. For few ids the last does it alone: each
// block counts what begins before its tile by itself.
#include "tt_device.cuh"

namespace tfrec {
namespace tt {
namespace {

constexpr int kPerThread = 4, kTile = kThreads * kPerThread, kTileWarps = kThreads / 32;
constexpr int kCounts = kMaxCores + 1;

int64_t Tiles(int64_t n) { return (n + kTile - 1) / kTile; }

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
  // The prefixes differ where the first key with this one is behind the key before.
  while (level > 0 && KeyQuotient(key, radix.divisor[level - 1]) * radix.divisor[level - 1] > before) --level;
  return level;
}

// The first levels of a thread's positions, and how many of them begin a node of level k; k = T counts ids in range.
struct Begins {
  int level[kPerThread];
  int64_t first;

  __device__ Begins(const Plan& plan, int64_t tile) : first((tile * kThreads + threadIdx.x) * kPerThread) {
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

__global__ void __launch_bounds__(kThreads) CountNodes(Plan plan, int64_t tiles) {
  TFREC_DYNAMIC_SHARED(shared);
  int* const sums = reinterpret_cast<int*>(shared);  // [kCounts, kTileWarps]
  const Begins begins(plan, blockIdx.x);
#pragma unroll
  for (int k = 0; k < kCounts; ++k) {
    const int sum = InclusiveSum(begins.Count(k));
    if (Lane() == 31) sums[k * kTileWarps + Warp()] = sum;
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

// kAlone: without the other two, and counts are written too.
template <bool kAlone>
__global__ void __launch_bounds__(kThreads) WriteNodes(Plan plan, int64_t tiles) {
  TFREC_DYNAMIC_SHARED(shared);
  int* const sums = reinterpret_cast<int*>(shared);  // [kCounts, kTileWarps], of this tile
  int* const befores = sums + kCounts * kTileWarps;  // and of the tiles before
  const Radix& radix = plan.radix;
  const Begins begins(plan, blockIdx.x);
  int count_before[kCounts] = {};
  if constexpr (kAlone) {
    for (int64_t tile = 0; tile < blockIdx.x; ++tile) {
      const Begins others(plan, tile);
#pragma unroll
      for (int k = 0; k < kCounts; ++k) count_before[k] += others.Count(k);
    }
  }
  int64_t node[kMaxCores];  // the last that began before, at each level
#pragma unroll
  for (int k = 0; k < kCounts; ++k) {
    const int count = begins.Count(k), sum = InclusiveSum(count);
    if (Lane() == 31) sums[k * kTileWarps + Warp()] = sum;
    if (k < kMaxCores) node[k < kMaxCores ? k : 0] = sum - count - 1;
    if constexpr (kAlone) {
      const int before = InclusiveSum(count_before[k]);
      if (Lane() == 31) befores[k * kTileWarps + Warp()] = before;
    }
  }
  // node[num_levels - 1] again: looked up by a number that the compiler does not know, node[] would be in local memory.
  const int rows = begins.Count(radix.num_levels - 1);
  int64_t last = InclusiveSum(rows) - rows - 1;
  __syncthreads();
  const auto offset = [&](int k) {
    int64_t sum = 0;
    if constexpr (!kAlone) sum = plan.tile_counts[k * tiles + blockIdx.x];
    for (int warp = 0; warp < kTileWarps; ++warp) {
      if (warp < Warp()) sum += sums[k * kTileWarps + warp];
      if constexpr (kAlone) sum += befores[k * kTileWarps + warp];
    }
    return sum;
  };
#pragma unroll
  for (int k = 0; k < kMaxCores; ++k) {
    if (k < radix.num_levels) node[k] += offset(k);
  }
  last += offset(radix.num_levels - 1);
  if constexpr (kAlone) {
    const int k = threadIdx.x;
    if (blockIdx.x + 1 == gridDim.x && k <= radix.num_levels) {
      int64_t sum = 0;
      for (int warp = 0; warp < kTileWarps; ++warp) sum += sums[k * kTileWarps + warp] + befores[k * kTileWarps + warp];
      plan.counts[k] = sum;
    }
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t j = begins.first + i;
    if (j >= plan.n) return;
    if (begins.level[i] > radix.num_levels) {
      plan.row_node[j] = -1;
      continue;
    }
    const int64_t key = plan.keys[j], table = KeyQuotient(key, radix.table_keys);
#pragma unroll
    for (int k = 0; k < kMaxCores; ++k) {
      if (k >= begins.level[i] && k < radix.num_levels) {
        ++node[k];
        const int64_t quotient = KeyQuotient(key, radix.divisor[k]);
        plan.slice[k][node[k]] = table * radix.p[k] + quotient - KeyQuotient(quotient, radix.p[k]) * radix.p[k];
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
  const size_t sums = kCounts * kTileWarps * sizeof(int);
  if (AreFew(plan.n, plan.radix)) {
    return Launch(WriteNodes<true>, grid, kThreads, 2 * sums, stream, plan, tiles);
  }
  const char* error = Launch(CountNodes, grid, kThreads, sums, stream, plan, tiles);
  if (error != nullptr) return error;
  error = Launch(OffsetTiles, dim3(plan.radix.num_levels + 1), kThreads, kTileWarps * sizeof(int64_t), stream, plan,
                 tiles);
  if (error != nullptr) return error;
  return Launch(WriteNodes<false>, grid, kThreads, sums, stream, plan, tiles);
}

}  // namespace tt
}  // namespace tfrec
