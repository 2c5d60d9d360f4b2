// Backward: the forward products once more, then from the last level to the first the gradients of its products
// (deltas) and of its core,
//
//   delta of a node's parent  = sum over children: delta(child) G(child)'    [Q_{k-1}, q_k r_k] by [q_k r_k, r_{k-1}]
//   gradient of a slice       = sum over nodes with the slice: L(parent)' delta(node)    [r_{k-1}, Q_{k-1}] by the same
//
// both sums over segments (tt_sum.cuh): of nodes as they lie, and of nodes sorted by slice. The delta of a last node is
// the sum of the upstream of its ids; a slice of the first core belongs to one node only.
#include "tt_cuda.h"
#include "tt_sum.cuh"

namespace tfrec {
namespace tt {
namespace {

// ---- What is summed: for SumSegments -------------------------------------------------------------------------------

// The upstream of the ids of a last node.
template <bool kVectorLoads, typename T>
struct UpstreamTerms {
  static constexpr int kRows = 1;
  static constexpr bool kVector = kVectorLoads;
  const T* upstream;
  const int64_t *row_node, *order;
  int width;

  __device__ int64_t Segment(int64_t i) const { return row_node[i]; }
  __device__ void Add(int64_t i, int, int column, float (&sum)[1][4]) const {
    const T* const from = upstream + order[i] * width + column;
    if constexpr (kVector) {
      const float4 v = Load4(from);
      sum[0][0] += v.x;
      sum[0][1] += v.y;
      sum[0][2] += v.z;
      sum[0][3] += v.w;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (column + j < width) sum[0][j] += ToFloat(from[j]);
      }
    }
  }
};

// delta(child) G(child)', of the children of a node.
template <bool kVectorLoads, typename Core>
struct ParentTerms {
  static constexpr int kRows = 4;
  static constexpr bool kVector = kVectorLoads;
  Shape shape;
  const float* deltas;
  const Core* core;
  const int64_t *parent, *slice;

  __device__ int64_t Segment(int64_t i) const { return parent[i]; }
  __device__ void Add(int64_t i, int row, int column, float (&sum)[4][4]) const {
    Product<Form::kTransposedB, kVector, float, Core>::Add(
        deltas + i * (static_cast<int64_t>(shape.m) * shape.k),
        core + slice[i] * (static_cast<int64_t>(shape.n) * shape.k), shape, row, column, sum);
  }
};

// L(parent)' delta(node), of the nodes with a slice.
template <bool kVectorLoads, typename Left>
struct SliceTerms {
  static constexpr int kRows = 4;
  static constexpr bool kVector = kVectorLoads;
  Shape shape;
  Lefts lefts;
  const float* deltas;
  const int64_t *parent, *keys, *nodes;
  int64_t first_key;

  __device__ int64_t Segment(int64_t i) const { return keys[i] - first_key; }
  __device__ void Add(int64_t i, int row, int column, float (&sum)[4][4]) const {
    const int64_t node = nodes[i];
    Product<Form::kTransposedA, kVector, Left, float>::Add(
        lefts.Of<Left>(parent[node], static_cast<int64_t>(shape.m) * shape.k),
        deltas + node * (static_cast<int64_t>(shape.n) * shape.k), shape, row, column, sum);
  }
};

__global__ void __launch_bounds__(kThreads)
    StoreFirst(Plan plan, int size, const float* deltas, bool add, float* gradient) {
  const int64_t count = plan.counts[0] * size;
  for (int64_t i = FirstIndex(); i < count; i += IndexStride()) {
    const Quotient at = Divide(i, size);
    float* const to = gradient + plan.slice[0][at.quotient] * size + at.remainder;
    *to = add ? *to + deltas[i] : deltas[i];
  }
}

// ---- A round -------------------------------------------------------------------------------------------------------

struct Round {
  Plan plan;
  Products products;
  NodeOrder nodes;
  float* deltas[2];  // of the levels with even and with odd numbers
  float* partial;
};

Shape ParentShape(const Table& t, int level) {
  const Shape f = ForwardShape(t, level);
  return {f.m, f.k, f.n};
}
Shape SliceShape(const Table& t, int level) {
  const Shape f = ForwardShape(t, level);
  return {f.k, f.n, f.m};
}

Round TakeRound(const Table& table, int64_t n, Arena* arena) {
  Round round = {Plan(table), {}, {}, {}, nullptr};
  TakePlan(n, arena, &round.plan);
  round.products = TakeProducts(table, round.plan, arena);
  round.nodes = TakeNodeOrder(table, round.plan, arena);
  int64_t deltas[2] = {}, partial = SumPartialFloats<1>(1, static_cast<int>(table.width()), n);
  const auto grow = [](int64_t* most, int64_t some) { *most = *most < some ? some : *most; };
  for (int k = 0; k < table.num_cores; ++k) {
    const int64_t bound = round.plan.bound[k];
    const Shape parents = ParentShape(table, k), slices = SliceShape(table, k);
    grow(&deltas[k % 2], bound * parents.m * parents.k);
    if (k == 0) continue;
    grow(&partial, SumPartialFloats<4>(parents.m, parents.n, bound));
    grow(&partial, SumPartialFloats<4>(slices.m, slices.n, bound));
  }
  for (int i = 0; i < 2; ++i) round.deltas[i] = arena->Take<float>(deltas[i]);
  round.partial = arena->Take<float>(partial);
  return round;
}
size_t RoundBytes(const Table& table, int64_t n) {
  Arena arena(nullptr);
  TakeRound(table, n, &arena);
  return arena.bytes();
}
int64_t IdsOfRound(const Lookup& lookup) {
  return RoundIds(lookup.n, [&](int64_t n) { return RoundBytes(lookup.table, n); });
}

template <bool kVector, typename T>
const char* SumUpstream(const Backward& b, const Round& round, void* stream) {
  const Table& table = b.lookup.table;
  const int width = static_cast<int>(table.width()), last = table.num_cores - 1;
  const Plan& plan = round.plan;
  const UpstreamTerms<kVector, T> terms = {static_cast<const T*>(b.upstream), plan.row_node, plan.order, width};
  return SumSegments(terms, 1, width, plan.counts + table.num_cores, plan.n, round.partial, round.deltas[last % 2],
                     false, stream);
}

template <bool kVector, typename Left>
const char* SumSlices(const Backward& b, const Round& round, int k, bool add, void* stream) {
  const Plan& plan = round.plan;
  const NodeOrder& o = round.nodes;
  const SliceTerms<kVector, Left> terms = {SliceShape(b.lookup.table, k),
                                           LeftsOf(b.lookup, plan, round.products, k),
                                           round.deltas[k % 2],
                                           plan.parent[k],
                                           o.keys + o.place[k],
                                           o.nodes + o.place[k],
                                           o.first_key[k]};
  return SumSegments(terms, terms.shape.m, terms.shape.n, plan.counts + k, plan.bound[k], round.partial, b.gradients[k],
                     add, stream);
}

template <bool kVector, typename T>
const char* SumParents(const Backward& b, const Round& round, int k, void* stream) {
  const Plan& plan = round.plan;
  const ParentTerms<kVector, T> terms = {ParentShape(b.lookup.table, k), round.deltas[k % 2],
                                         static_cast<const T*>(b.lookup.cores[k]), plan.parent[k], plan.slice[k]};
  return SumSegments(terms, terms.shape.m, terms.shape.n, plan.counts + k, plan.bound[k], round.partial,
                     round.deltas[(k - 1) % 2], false, stream);
}

template <typename T>
const char* RunRound(const Backward& b, const Round& round, bool add, void* stream) {
  const Table& table = b.lookup.table;
  const auto aligned = [&](const void* p) { return Aligned4(p, table.storage); };
  const char* error = table.width() % 4 == 0 && aligned(b.upstream) ? SumUpstream<true, T>(b, round, stream)
                                                                    : SumUpstream<false, T>(b, round, stream);
  for (int k = table.num_cores - 1; k > 0 && error == nullptr; --k) {
    const bool left_aligned = k > 1 || aligned(b.lookup.cores[0]);
    const bool slice_vector = SliceShape(table, k).quads(Form::kTransposedA) && left_aligned &&
                              Aligned4(b.gradients[k], Storage::kFloat);
    if (k == 1) {
      error = slice_vector ? SumSlices<true, T>(b, round, k, add, stream)
                           : SumSlices<false, T>(b, round, k, add, stream);
    } else {
      error = slice_vector ? SumSlices<true, float>(b, round, k, add, stream)
                           : SumSlices<false, float>(b, round, k, add, stream);
    }
    if (error != nullptr) return error;
    error = ParentShape(table, k).quads(Form::kTransposedB) && aligned(b.lookup.cores[k])
                ? SumParents<true, T>(b, round, k, stream)
                : SumParents<false, T>(b, round, k, stream);
  }
  if (error != nullptr) return error;
  const int size = static_cast<int>(table.slice(0));
  return Launch(StoreFirst, GridFor(round.plan.bound[0] * size), kThreads, 0, stream, round.plan, size, round.deltas[0],
                add, b.gradients[0]);
}

}  // namespace

size_t BackwardCudaScratchBytes(const Lookup& lookup) {
  if (lookup.n == 0) return 0;
  Arena arena(nullptr);
  TakeSortedIds(lookup, &arena);
  TakeRound(lookup.table, IdsOfRound(lookup), &arena);
  return arena.bytes();
}

const char* BackwardCuda(const Backward& b, void* scratch, void* stream) {
  const Lookup& lookup = b.lookup;
  const Table& table = lookup.table;
  Cleared gradients = {};
  gradients.num = table.num_cores;
  for (int k = 0; k < table.num_cores; ++k) {
    gradients.at[k] = b.gradients[k];
    gradients.count[k] = table.core(k);
  }
  if (lookup.n == 0) {
    const char* error = nullptr;
    for (int k = 0; k < table.num_cores && error == nullptr; ++k) {
      error = ErrorMessage(cudaMemsetAsync(b.gradients[k], 0, gradients.count[k] * sizeof(float),
                                           static_cast<cudaStream_t>(stream)));
    }
    return error;
  }
  Arena arena(scratch);
  const SortedIds sorted = TakeSortedIds(lookup, &arena);
  const char* error = SortIds(lookup, sorted, gradients, stream);
  const int64_t most = IdsOfRound(lookup);
  Round round = TakeRound(table, most, &arena);
  for (int64_t begin = 0; error == nullptr && begin < lookup.n; begin += most) {
    round.plan.n = begin + most < lookup.n ? most : lookup.n - begin;
    round.plan.keys = sorted.keys + begin;
    round.plan.order = sorted.order + begin;
    error = BuildPlan(round.plan, stream);
    if (error == nullptr) error = ComputeProducts(lookup, round.plan, round.products, stream);
    if (error == nullptr) error = SortNodes(round.plan, round.nodes, stream);
    if (error == nullptr) {
      error = WithStorage(table.storage, [&](auto* storage) {
        return RunRound<std::remove_pointer_t<decltype(storage)>>(b, round, begin > 0, stream);
      });
    }
  }
  return error;
}

}  // namespace tt
}  // namespace tfrec
