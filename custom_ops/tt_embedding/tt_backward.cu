// Backward: the forward products once more, then from the last level to the first the gradients of its products
// (deltas) and of its core,
//
//   delta of a node's parent  = sum over children: delta(child) G(child)'    [Q_{k-1}, q_k r_k] by [q_k r_k, r_{k-1}]
//   gradient of a slice       = sum over nodes with the slice: L(parent)' delta(node)    [r_{k-1}, Q_{k-1}] by the same
//
// both sums over segments (tt_sum.cuh): of nodes as they lie, and of nodes sorted by slice. The delta of a last node is
// the sum of the upstream of its ids; a slice of the first core belongs to one node only, whose delta is its gradient.
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
  const int64_t* order;
  int width;

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
  const int64_t* slice;

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
  const int64_t *parent, *nodes;

  __device__ void Add(int64_t i, int row, int column, float (&sum)[4][4]) const {
    const int64_t node = nodes[i];
    Product<Form::kTransposedA, kVector, Left, float>::Add(
        lefts.Of<Left>(parent[node], static_cast<int64_t>(shape.m) * shape.k),
        deltas + node * (static_cast<int64_t>(shape.n) * shape.k), shape, row, column, sum);
  }
};

// ---- A round -------------------------------------------------------------------------------------------------------

struct Round {
  Plan plan;
  Products products;
  NodeOrder nodes;
  float* deltas[2];  // of the levels with even and with odd numbers; those of level 0 are gradients
  float* partial[2];
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
  Round round = {Plan(table), {}, {}, {}, {}};
  TakePlan(n, arena, &round.plan);
  round.products = TakeProducts(table, round.plan, arena);
  round.nodes = TakeNodeOrder(table, round.plan, table.num_cores, arena);
  int64_t deltas[2] = {}, partial[2] = {SumPartialFloats<1>(1, static_cast<int>(table.width()), 1, n), 0};
  const auto grow = [](int64_t* most, int64_t some) { *most = *most < some ? some : *most; };
  for (int k = 1; k < table.num_cores; ++k) {
    const int64_t bound = round.plan.bound[k];
    const Shape parents = ParentShape(table, k), slices = SliceShape(table, k);
    grow(&deltas[k % 2], bound * parents.m * parents.k);
    grow(&partial[0], SumPartialFloats<4>(parents.m, parents.n, parents.k, bound));
    grow(&partial[1], SumPartialFloats<4>(slices.m, slices.n, slices.k, bound));
  }
  for (int i = 0; i < 2; ++i) round.deltas[i] = arena->Take<float>(deltas[i]);
  for (int i = 0; i < 2; ++i) round.partial[i] = arena->Take<float>(partial[i]);
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
  const UpstreamTerms<kVector, T> terms = {static_cast<const T*>(b.upstream), plan.order, width};
  const Sum sum = SumOf(terms, 1, width, 1, plan.counts + table.num_cores, plan.n, plan.row_node, 0, round.partial[0],
                        round.deltas[last % 2], nullptr, false);
  return SumSegments(terms, sum, stream);
}

// From the deltas of level k those of its parents, which for level 0 are the gradient of the first core, and the gradient
// of core k + 1.
template <bool kVector, typename Left, typename T>
const char* SumLevel(const Backward& b, const Round& round, int k, bool add, void* stream) {
  const Plan& plan = round.plan;
  const NodeOrder& o = round.nodes;
  const ParentTerms<kVector, T> parents = {ParentShape(b.lookup.table, k), round.deltas[k % 2],
                                           static_cast<const T*>(b.lookup.cores[k]), plan.slice[k]};
  const SliceTerms<kVector, Left> slices = {SliceShape(b.lookup.table, k),
                                            LeftsOf(b.lookup, plan, round.products, k), round.deltas[k % 2],
                                            plan.parent[k], o.nodes + o.place[k]};
  const Shape p = parents.shape, q = slices.shape;
  const bool first = k == 1;
  const Sum of_parents = SumOf(parents, p.m, p.n, p.k, plan.counts + k, plan.bound[k], plan.parent[k], 0,
                               round.partial[0], first ? b.gradients[0] : round.deltas[(k - 1) % 2],
                               first ? plan.slice[0] : nullptr, first && add);
  const Sum of_slices = SumOf(slices, q.m, q.n, q.k, plan.counts + k, plan.bound[k], o.keys + o.place[k],
                              o.first_key[k], round.partial[1], b.gradients[k], nullptr, add);
  return SumSegmentsOfTwo(parents, of_parents, slices, of_slices, stream);
}

template <typename T>
const char* RunRound(const Backward& b, const Round& round, bool add, void* stream) {
  const Table& table = b.lookup.table;
  const auto aligned = [&](const void* p) { return Aligned4(p, table.storage); };
  const char* error = table.width() % 4 == 0 && aligned(b.upstream) ? SumUpstream<true, T>(b, round, stream)
                                                                    : SumUpstream<false, T>(b, round, stream);
  for (int k = table.num_cores - 1; k > 0 && error == nullptr; --k) {
    const bool first = k == 1;
    const bool vector = SliceShape(table, k).quads(Form::kTransposedA) &&
                        ParentShape(table, k).quads(Form::kTransposedB) && aligned(b.lookup.cores[k]) &&
                        Aligned4(b.gradients[k], Storage::kFloat) &&
                        (!first || (aligned(b.lookup.cores[0]) && Aligned4(b.gradients[0], Storage::kFloat)));
    if (first) {
      error = vector ? SumLevel<true, T, T>(b, round, k, add, stream) : SumLevel<false, T, T>(b, round, k, add, stream);
    } else {
      error = vector ? SumLevel<true, float, T>(b, round, k, add, stream)
                     : SumLevel<false, float, T>(b, round, k, add, stream);
    }
  }
  return error;
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
    if (error == nullptr) error = SortNodes(round.plan, round.nodes, stream);
    if (error == nullptr) error = ComputeProducts(lookup, round.plan, &round.nodes, round.products, stream);
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
