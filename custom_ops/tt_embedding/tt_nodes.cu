// Nodes sorted by slice; those of one slice in their own order. Few nodes of few slices are sorted by counting, in one
// launch with a block for each level; others by the radix sort.
#include "tt_device.cuh"

namespace tfrec {
namespace tt {
namespace {

// ---- Many nodes ----------------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(kThreads) FillNodeKeys(Plan plan, NodeOrder o) {
  for (int64_t i = FirstIndex(); i < o.total; i += IndexStride()) {
    int level = 1;
    while (level + 1 < o.num_levels && i >= o.place[level + 1]) ++level;
    const int64_t node = i - o.place[level];
    const int64_t slices = plan.radix.end / plan.radix.table_keys * plan.radix.p[level];
    o.keys_before[i] = o.first_key[level] + (node < plan.counts[level] ? plan.slice[level][node] : slices);
    o.nodes_before[i] = node;
  }
}

// ---- Few nodes -----------------------------------------------------------------------------------------------------

constexpr int kCountThreads = 1024, kCountWarps = kCountThreads / 32;
constexpr int64_t kFewNodes = 1 << 15;  // of a level: more take one block longer than the radix sort's launches

#ifdef __CUDACC__
__device__ inline unsigned Ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }
__device__ inline int CountOnes(unsigned bits) { return __popc(bits); }
#else
inline unsigned Ballot(bool predicate) {
  unsigned bits = predicate ? 1u << Lane() : 0u;
  for (int mask = 1; mask < 32; mask *= 2) bits |= __shfl_xor_sync(kAllLanes, bits, mask);
  return bits;
}
inline int CountOnes(unsigned bits) { return __builtin_popcount(bits); }
#endif

// The lanes whose number is the same as this one's; `bits` are enough for all numbers.
__device__ inline unsigned LanesWithSame(int number, int bits) {
  unsigned same = kAllLanes;
  for (int bit = 0; bit < bits; ++bit) {
    const bool set = (number >> bit & 1) != 0;
    const unsigned lanes = Ballot(set);
    same &= set ? lanes : ~lanes;
  }
  return same;
}

// A warp has a range of its level's nodes and walks over it twice, 32 nodes at a time: it counts its nodes of each slice;
// counts become places, slice after slice and in a slice warp after warp; and it writes its nodes to their places.
__global__ void __launch_bounds__(kCountThreads) SortByCounting(Plan plan, NodeOrder o) {
  TFREC_DYNAMIC_SHARED(shared);
  const int level = blockIdx.x + 1, num_nodes = static_cast<int>(plan.counts[level]);
  const int slices = static_cast<int>(plan.radix.end / plan.radix.table_keys * plan.radix.p[level]);
  int* const sums = reinterpret_cast<int*>(shared);  // [kCountWarps]
  int* const counts = sums + kCountWarps;            // [kCountWarps, slices]
  int* const mine = counts + Warp() * slices;
  const int64_t* const slice_of = plan.slice[level];
  const int span = RoundUp((num_nodes + kCountWarps - 1) / kCountWarps, 32), begin = Warp() * span;
  const int end = begin + span < num_nodes ? begin + span : num_nodes;
  int bits = 1;
  while ((slices >> bits) != 0) ++bits;
  for (int i = threadIdx.x; i < kCountWarps * slices; i += kCountThreads) counts[i] = 0;
  __syncthreads();

  const unsigned before = (1u << Lane()) - 1;
  for (int base = begin; base < end; base += 32) {
    const int node = base + Lane(), slice = node < end ? static_cast<int>(slice_of[node]) : slices;
    const unsigned same = LanesWithSame(slice, bits);
    if (node < end && (same & before) == 0) mine[slice] += CountOnes(same);
    __syncwarp();
  }
  __syncthreads();

  int place = 0;
  for (int base = 0; base < slices; base += kCountThreads) {
    const int slice = base + threadIdx.x;
    int count = 0;
    if (slice < slices) {
      for (int w = 0; w < kCountWarps; ++w) count += counts[w * slices + slice];
    }
    const int sum = InclusiveSum(count);
    if (Lane() == 31) sums[Warp()] = sum;
    __syncthreads();
    int next = place + sum - count;
    for (int w = 0; w < kCountWarps; ++w) {
      if (w < Warp()) next += sums[w];
      place += sums[w];
    }
    if (slice < slices) {
      for (int w = 0; w < kCountWarps; ++w) {
        const int of_warp = counts[w * slices + slice];
        counts[w * slices + slice] = next;
        next += of_warp;
      }
    }
    __syncthreads();
  }

  int64_t* const keys = o.keys + o.place[level];
  int64_t* const nodes = o.nodes + o.place[level];
  for (int base = begin; base < end; base += 32) {
    const int node = base + Lane(), slice = node < end ? static_cast<int>(slice_of[node]) : slices;
    const unsigned same = LanesWithSame(slice, bits);
    if (node < end) {
      const int to = mine[slice] + CountOnes(same & before);
      keys[to] = o.first_key[level] + slice;
      nodes[to] = node;
    }
    __syncwarp();
    if (node < end && (same & before) == 0) mine[slice] += CountOnes(same);
    __syncwarp();
  }
}

int64_t CountSharedBytes(int64_t slices) { return (1 + slices) * kCountWarps * int64_t{sizeof(int)}; }

// Without its arrays.
NodeOrder Order(const Table& table, const Plan& plan, int num_levels) {
  NodeOrder o = {};
  o.num_levels = num_levels;
  int64_t keys = 0;
  for (int k = 1; k < num_levels; ++k) {
    o.place[k] = o.total;
    o.first_key[k] = keys;
    o.total += plan.bound[k];
    keys += table.slices(k) + 1;
    if (table.slices(k) > o.most_slices) o.most_slices = table.slices(k);
  }
  o.bits = BitsFor(keys - 1);
  return o;
}
// Not more nodes than one block sorts soon enough, nor more slices than shared memory has room for.
bool AreFewNodes(const Plan& plan, const NodeOrder& o) {
  for (int k = 1; k < o.num_levels; ++k) {
    if (plan.bound[k] > kFewNodes) return false;
  }
  return TFREC_TT_FEW_PAIRS > 0 && o.most_slices < kFewNodes &&
         CountSharedBytes(o.most_slices) <= Device().shared_bytes;
}

}  // namespace

bool AreFewNodes(const Table& table, const Plan& plan, int num_levels) {
  return AreFewNodes(plan, Order(table, plan, num_levels));
}

NodeOrder TakeNodeOrder(const Table& table, const Plan& plan, int num_levels, Arena* arena) {
  NodeOrder o = Order(table, plan, num_levels);
  o.keys = arena->Take<int64_t>(o.total);
  o.nodes = arena->Take<int64_t>(o.total);
  if (AreFewNodes(plan, o)) return o;
  o.keys_before = arena->Take<int64_t>(o.total);
  o.nodes_before = arena->Take<int64_t>(o.total);
  o.sort_scratch = arena->Take<char>(static_cast<int64_t>(SortScratchBytes(o.total, o.bits)));
  return o;
}

const char* SortNodes(const Plan& plan, const NodeOrder& o, void* stream) {
  if (AreFewNodes(plan, o)) {
    return Launch(SortByCounting, dim3(o.num_levels - 1), kCountThreads, CountSharedBytes(o.most_slices), stream, plan,
                  o);
  }
  const char* error = Launch(FillNodeKeys, GridFor(o.total), kThreads, 0, stream, plan, o);
  if (error != nullptr) return error;
  return SortPairs(o.total, o.bits, o.keys_before, o.keys, o.nodes_before, o.nodes, o.sort_scratch, stream);
}

}  // namespace tt
}  // namespace tfrec
