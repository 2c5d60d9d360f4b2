// What the CUDA kernels of tensor-train embeddings share: the plan of a round of ids, and launches over as many numbers
// as the device has found.
//
// The ids are sorted once. Equal ids are then neighbours, and so are ids with a common prefix of digits: the distinct
// prefixes of length k+1 are the nodes of level k of a trie, numbered in the order of the ids. The product L_{k+1} of
// the header belongs to a node of level k and is computed once, from that of its parent. The host does not know how
// many nodes there are and does not wait to learn it: arrays are sized by what is possible, min(n, number of prefixes),
// and kernels read the counts.
#ifndef TFREC_TT_DEVICE_CUH_
#define TFREC_TT_DEVICE_CUH_

#include <type_traits>

#include "../common/cuda_device.cuh"
#include "tt_embedding.h"

namespace tfrec {
namespace tt {

constexpr int kThreads = 256;

// ---- Memory --------------------------------------------------------------------------------------------------------

// Hands out parts of the caller's scratch memory; with a null base it only counts bytes.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <typename T>
  T* Take(int64_t count) {
    char* const p = base_ == nullptr ? nullptr : base_ + bytes_;
    bytes_ += RoundUp<size_t>(static_cast<size_t>(count) * sizeof(T), 256);
    return reinterpret_cast<T*>(p);
  }
  size_t bytes() const { return bytes_; }

 private:
  char* base_;
  size_t bytes_ = 0;
};

// ---- Launches ------------------------------------------------------------------------------------------------------

// For kernels that go through any number of items in strides of the grid. No result depends on the size of the grid.
inline dim3 GridFor(int64_t threads) {
  const int64_t blocks = (threads + kThreads - 1) / kThreads, most = static_cast<int64_t>(Device().processors) * 32;
  return dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most));
}
__device__ inline int64_t FirstIndex() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
__device__ inline int64_t IndexStride() { return static_cast<int64_t>(gridDim.x) * kThreads; }

// index = quotient * divisor + remainder. Divisions of 32 bits are several times faster, and mostly enough.
struct Quotient {
  int64_t quotient;
  int remainder;
};
__device__ inline Quotient Divide(int64_t index, int divisor) {
  if (index <= 0xffffffffll) {
    const uint32_t i = static_cast<uint32_t>(index), d = static_cast<uint32_t>(divisor);
    return {static_cast<int64_t>(i / d), static_cast<int>(i % d)};
  }
  return {index / divisor, static_cast<int>(index % divisor)};
}

// The same for keys, which mostly fit 32 bits too.
__device__ inline int64_t KeyQuotient(int64_t key, int64_t divisor) {
  if (((key | divisor) >> 32) == 0) return static_cast<uint32_t>(key) / static_cast<uint32_t>(divisor);
  return key / divisor;
}

// Sum over the lanes up to this one.
template <typename T>
__device__ inline T InclusiveSum(T v) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T other = __shfl_sync(kAllLanes, v, Lane() >= distance ? Lane() - distance : 0);
    if (Lane() >= distance) v += other;
  }
  return v;
}

// Runs `f` with a null pointer of the type that the storage is of.
template <typename F>
const char* WithStorage(Storage storage, const F& f) {
  switch (storage) {
    case Storage::kFloat:
      return f(static_cast<float*>(nullptr));
    case Storage::kHalf:
      return f(static_cast<__half*>(nullptr));
    case Storage::kBfloat16:
      return f(static_cast<Bfloat16*>(nullptr));
  }
  return "unknown storage type";
}

// Whether four neighbours at a multiple of four can be loaded at once.
inline bool Aligned4(const void* p, Storage storage) {
  return reinterpret_cast<uintptr_t>(p) % (storage == Storage::kFloat ? 16 : 8) == 0;
}

// ---- The plan ------------------------------------------------------------------------------------------------------

// Where the digits of an id are. A key is the id among all that the factors can form, table after table:
// key = t p_1 ... p_T + n for row n of table t, or `end` for an id out of range, so that these are sorted to the end.
struct Radix {
  int num_levels;  // T
  int64_t num_rows, table_keys, end;
  int64_t divisor[kMaxCores];  // a key's prefix of level k is key / divisor[k]
  int64_t p[kMaxCores];

  explicit Radix(const Table& t) : num_levels(t.num_cores), num_rows(t.num_rows) {
    table_keys = 1;
    for (int k = num_levels - 1; k >= 0; --k) {
      divisor[k] = table_keys;
      p[k] = t.p[k];
      table_keys *= t.p[k];
    }
    end = t.num_tables * table_keys;
  }
  int64_t prefixes(int level) const { return end / divisor[level]; }
};

// All arrays are device memory. A node's slice is the index into its core's slices.
struct Plan {
  Radix radix;
  int64_t n;             // ids of this round
  const int64_t* keys;   // [n], sorted
  const int64_t* order;  // [n], position among the caller's ids; equal ids in the order of their positions

  int64_t bound[kMaxCores];    // nodes of level k, at most
  int64_t* parent[kMaxCores];  // [bound[k]], node of level k - 1; unset for level 0
  int64_t* slice[kMaxCores];   // [bound[k]]
  int64_t* start;              // [bound[T - 1]], first sorted position of a node of the last level
  int64_t* row_node;           // [n], node of the last level of each sorted position, or -1
  int64_t* counts;             // [T + 1]: nodes of each level, then the positions whose id is in range
  int64_t* tile_counts;        // [(T + 1) tiles]

  explicit Plan(const Table& table) : radix(table) {}
};

// Takes the plan's arrays for n ids.
void TakePlan(int64_t n, Arena* arena, Plan* plan);
// From plan.keys to the rest of the arrays; tt_plan.cu.
const char* BuildPlan(const Plan& plan, void* stream);

// Keys and positions of all ids, sorted; not part of a round. tt_ids.cu.
struct SortedIds {
  int64_t *keys, *order, *keys_before, *order_before;
  void* sort_scratch;
};
SortedIds TakeSortedIds(const Lookup& lookup, Arena* arena);
// Arrays that are zeroed by the way, which saves launches.
struct Cleared {
  int num;
  float* at[kMaxCores];
  int64_t count[kMaxCores];
};
const char* SortIds(const Lookup& lookup, const SortedIds& sorted, const Cleared& cleared, void* stream);

// Nodes of the levels 1 to num_levels - 1, sorted by level and slice; tt_nodes.cu. A level has its own range of keys, with
// one more behind its slices for the nodes that there might have been, and so its place is known to the host.
struct NodeOrder {
  int num_levels;
  int64_t total, most_slices;  // of a level
  int64_t place[kMaxCores], first_key[kMaxCores];
  int bits;
  int64_t *keys, *nodes, *keys_before, *nodes_before;
  void* sort_scratch;
};
NodeOrder TakeNodeOrder(const Table& table, const Plan& plan, int num_levels, Arena* arena);
// Whether SortNodes is one launch.
bool AreFewNodes(const Table& table, const Plan& plan, int num_levels);
const char* SortNodes(const Plan& plan, const NodeOrder& order, void* stream);

// ---- Few ids -------------------------------------------------------------------------------------------------------

// Few ids are sorted in one launch and planned in another: at this size a launch costs more than what it computes. Ids are
// compared each with each, so it is the square of their number that counts, for each multiprocessor, which compares some
// 64 pairs per cycle: 2^20 take 10 us. 11,700 ids are few on an H100, 10,600 on an A100. Both ways give the same bits; the
// check on the host sets other numbers, 0 for never.
#ifndef TFREC_TT_FEW_PAIRS
#define TFREC_TT_FEW_PAIRS (int64_t{1} << 20)
#endif
inline bool AreFew(int64_t n, const Radix& radix) {
  return n < (1 << 16) && radix.end < 0xffffffffll && n * n <= Device().processors * int64_t{TFREC_TT_FEW_PAIRS};
}

// ---- Sorting, tt_sort.cu -------------------------------------------------------------------------------------------

// Stable, by the lower `bits` bits of keys that are not negative. The inputs are left as they are.
size_t SortScratchBytes(int64_t n, int bits);
const char* SortPairs(int64_t n, int bits, const int64_t* keys, int64_t* sorted_keys, const int64_t* values,
                      int64_t* sorted_values, void* scratch, void* stream);
inline int BitsFor(int64_t largest) {
  int bits = 1;
  while (bits < 63 && (largest >> bits) != 0) ++bits;
  return bits;
}

// ---- Rounds --------------------------------------------------------------------------------------------------------

// Bytes of products that a round of ids may have in scratch memory. Where all ids at once need more, they are taken in
// rounds of sorted ids; the check on the host sets a small number, to see many rounds.
#ifndef TFREC_TT_ROUND_BYTES
#define TFREC_TT_ROUND_BYTES (int64_t{256} << 20)
#endif
constexpr int64_t kLeastRound = 256;

// The most ids, no more than n, whose round stays within the limit: bytes(ids) grows with ids.
template <typename Bytes>
int64_t RoundIds(int64_t n, const Bytes& bytes) {
  int64_t ids = n;
  while (ids > kLeastRound && bytes(ids) > static_cast<size_t>(TFREC_TT_ROUND_BYTES)) ids = (ids + 1) / 2;
  return ids;
}

// L_{k+1} of the nodes of level k, for 1 <= k < T - 1: floats in scratch memory. L_1 is read from the first core and
// L_T goes to the rows.
struct Products {
  float* at[kMaxCores];
};
Products TakeProducts(const Table& table, const Plan& plan, Arena* arena);
// Computes them; tt_forward.cu. Where there is an order, nodes with one slice one after the other: neighbours then find it
// in the first cache.
const char* ComputeProducts(const Lookup& lookup, const Plan& plan, const NodeOrder* order, const Products& products,
                            void* stream);

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_DEVICE_CUH_
