// Forward: a kernel per level computes the products of all its nodes; the last one's are rows. A row is computed once,
// for the first of the ids that ask for it, and copied to the others. Of few ids each has its row computed: a last product
// costs less than the launch that copies.
#include "tt_cuda.h"
#include "tt_tensor.cuh"

namespace tfrec {
namespace tt {
namespace {

struct Level {
  Shape shape;
  Lefts lefts;
  const void* core;
  const int64_t *count, *parent, *slice;
  const int64_t* nodes;  // the order to take them in; null: as they are
  // Rows of nodes go to order[start[node]]; rows of all `positions` to order[position], zeros where row_node is -1. Where
  // all are null, products go where their node is.
  const int64_t *start, *row_node, *order;
  int64_t positions;
};

template <bool kVector, typename Left, typename Core, typename Out>
__global__ void __launch_bounds__(kThreads) Multiply(Level l, Out* out) {
  const Shape s = l.shape;
  const int tiles = s.tiles(), tiles_n = s.tiles_n();
  const bool each = l.row_node != nullptr;
  const int64_t threads = (each ? l.positions : *l.count) * tiles, core_size = static_cast<int64_t>(s.k) * s.n;
  for (int64_t i = FirstIndex(); i < threads; i += IndexStride()) {
    const Quotient at = Divide(i, tiles);
    const int64_t* const nodes = each ? l.row_node : l.nodes;
    const int64_t node = nodes != nullptr ? nodes[at.quotient] : at.quotient;
    const int64_t to = each ? l.order[at.quotient] : l.start != nullptr ? l.order[l.start[node]] : node;
    const int row = at.remainder / tiles_n * 4, column = at.remainder % tiles_n * 4;
    float sum[4][4] = {};
    if (node < 0) {
      StoreTile<kVector>(sum, row, column, s.m, s.n, false, out + to * s.size());
      continue;
    }
    const Left* const left = l.lefts.Of<Left>(l.parent[node], static_cast<int64_t>(s.m) * s.k);
    const Core* const core = static_cast<const Core*>(l.core) + l.slice[node] * core_size;
    Product<Form::kPlain, kVector, Left, Core>::Add(left, core, s, row, column, sum);
    StoreTile<kVector>(sum, row, column, s.m, s.n, false, out + to * s.size());
  }
}

// The same for 16-bit cores and products that stay in scratch memory, a warp per 8 rows by 128 columns.
template <typename Left, typename Core>
__global__ void __launch_bounds__(kThreads) MultiplyOnTensorCores(Level l, float* out) {
  const Shape s = l.shape;
  const int tiles = WarpTiles(s), tiles_n = (s.n + kWarpColumns - 1) / kWarpColumns;
  const int64_t warps = *l.count * tiles, core_size = static_cast<int64_t>(s.k) * s.n;
  for (int64_t i = FirstIndex() / 32; i < warps; i += IndexStride() / 32) {
    const Quotient at = Divide(i, tiles);
    const int64_t node = l.nodes != nullptr ? l.nodes[at.quotient] : at.quotient;
    const int row = at.remainder / tiles_n * kWarpRows, column = at.remainder % tiles_n * kWarpColumns;
    WarpSum sum;
    AddWarpProduct(l.lefts.Of<Left>(l.parent[node], static_cast<int64_t>(s.m) * s.k),
                   static_cast<const Core*>(l.core) + l.slice[node] * core_size, s, row, column, &sum);
    StoreWarpSum(sum, s, row, column, out + node * s.size());
  }
}

// Rows of repeated ids, and zeros for ids out of range.
template <typename T>
__global__ void __launch_bounds__(kThreads) CopyRows(Plan plan, int width, T* rows) {
  for (int64_t i = FirstIndex(); i < plan.n * width; i += IndexStride()) {
    const Quotient at = Divide(i, width);
    const int64_t node = plan.row_node[at.quotient], to = plan.order[at.quotient];
    if (node < 0) {
      FromFloat(0.0f, rows + to * width + at.remainder);
      continue;
    }
    const int64_t from = plan.order[plan.start[node]];
    if (from != to) rows[to * width + at.remainder] = rows[from * width + at.remainder];
  }
}

template <typename Left, typename Core, typename Out>
const char* LaunchMultiply(const Level& level, bool vector, int64_t bound, Out* out, void* stream) {
  if constexpr (sizeof(Core) == 2 && sizeof(Out) == 4) {
    if (vector && FitsTensorCores(level.shape)) {
      const dim3 warps = GridFor(bound * WarpTiles(level.shape) * 32);
      return Launch(MultiplyOnTensorCores<Left, Core>, warps, kThreads, 0, stream, level, out);
    }
  }
  const dim3 grid = GridFor(bound * level.shape.tiles());
  return vector ? Launch(Multiply<true, Left, Core, Out>, grid, kThreads, 0, stream, level, out)
                : Launch(Multiply<false, Left, Core, Out>, grid, kThreads, 0, stream, level, out);
}

Level LevelOf(const Lookup& lookup, const Plan& plan, const Products& products, int k) {
  return {ForwardShape(lookup.table, k), LeftsOf(lookup, plan, products, k), lookup.cores[k], plan.counts + k,
          plan.parent[k], plan.slice[k], nullptr, nullptr, nullptr, nullptr, 0};
}
bool CanVector(const Lookup& lookup, const Level& level, int k) {
  return level.shape.quads(Form::kPlain) && Aligned4(lookup.cores[k], lookup.table.storage) &&
         (k > 1 || Aligned4(lookup.cores[0], lookup.table.storage));
}

template <typename T>
const char* ComputeRows(const Lookup& lookup, const Plan& plan, const Products& products, T* rows, void* stream) {
  const int last = lookup.table.num_cores - 1;
  Level level = LevelOf(lookup, plan, products, last);
  const bool few = AreFew(plan.n, plan.radix);
  level.order = plan.order;
  if (few) {
    level.row_node = plan.row_node;
    level.positions = plan.n;
  } else {
    level.start = plan.start;
  }
  const bool vector = CanVector(lookup, level, last) && Aligned4(rows, lookup.table.storage);
  const int64_t most = few ? plan.n : plan.bound[last];
  const char* error = last == 1 ? LaunchMultiply<T, T>(level, vector, most, rows, stream)
                                : LaunchMultiply<float, T>(level, vector, most, rows, stream);
  if (few || error != nullptr) return error;
  const int width = static_cast<int>(lookup.table.width());
  return Launch(CopyRows<T>, GridFor(plan.n * width), kThreads, 0, stream, plan, width, rows);
}

// Whether nodes are taken in the order of their slices. 10,240 ids of FBTT-Embedding's shape have 9,110 nodes of level 1:
// as they lie, each reads its 16 KiB of the core from the second cache, 149 MB; in that order a block's eight share them.
bool HasLargeSlices(const Table& table, int level) {
  return table.slice(level) * (table.storage == Storage::kFloat ? 4 : 2) >= 4096;
}

// Scratch memory of one round, which the arena hands out anew for each.
struct Round {
  Plan plan;
  bool ordered;
  NodeOrder order;  // of the levels with products in scratch memory
  Products products;
};

// Whether sorting the nodes for it, one launch, pays.
bool OrderPays(const Table& table, const Plan& plan) {
  bool large = false;
  for (int k = 1; k < table.num_cores - 1; ++k) large = large || HasLargeSlices(table, k);
  return large && AreFewNodes(table, plan, table.num_cores - 1);
}

Round TakeRound(const Table& table, int64_t n, Arena* arena) {
  Round round = {Plan(table), false, {}, {}};
  TakePlan(n, arena, &round.plan);
  round.ordered = OrderPays(table, round.plan);
  if (round.ordered) round.order = TakeNodeOrder(table, round.plan, table.num_cores - 1, arena);
  round.products = TakeProducts(table, round.plan, arena);
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

}  // namespace

Products TakeProducts(const Table& table, const Plan& plan, Arena* arena) {
  Products products = {};
  for (int k = 1; k < table.num_cores - 1; ++k) {
    products.at[k] = arena->Take<float>(plan.bound[k] * ForwardShape(table, k).size());
  }
  return products;
}

const char* ComputeProducts(const Lookup& lookup, const Plan& plan, const NodeOrder* order, const Products& products,
                            void* stream) {
  return WithStorage(lookup.table.storage, [&](auto* storage) -> const char* {
    using T = std::remove_pointer_t<decltype(storage)>;
    for (int k = 1; k < lookup.table.num_cores - 1; ++k) {
      Level level = LevelOf(lookup, plan, products, k);
      if (order != nullptr && HasLargeSlices(lookup.table, k)) level.nodes = order->nodes + order->place[k];
      const bool vector = CanVector(lookup, level, k);
      const char* error = k == 1 ? LaunchMultiply<T, T>(level, vector, plan.bound[k], products.at[k], stream)
                                 : LaunchMultiply<float, T>(level, vector, plan.bound[k], products.at[k], stream);
      if (error != nullptr) return error;
    }
    return nullptr;
  });
}

size_t ForwardCudaScratchBytes(const Lookup& lookup) {
  if (lookup.n == 0) return 0;
  Arena arena(nullptr);
  TakeSortedIds(lookup, &arena);
  TakeRound(lookup.table, IdsOfRound(lookup), &arena);
  return arena.bytes();
}

const char* ForwardCuda(const Lookup& lookup, void* rows, void* scratch, void* stream) {
  if (lookup.n == 0) return nullptr;
  Arena arena(scratch);
  const SortedIds sorted = TakeSortedIds(lookup, &arena);
  const char* error = SortIds(lookup, sorted, Cleared{}, stream);
  const int64_t most = IdsOfRound(lookup);
  Round round = TakeRound(lookup.table, most, &arena);
  for (int64_t begin = 0; error == nullptr && begin < lookup.n; begin += most) {
    round.plan.n = begin + most < lookup.n ? most : lookup.n - begin;
    round.plan.keys = sorted.keys + begin;
    round.plan.order = sorted.order + begin;
    error = BuildPlan(round.plan, stream);
    const NodeOrder* const order = round.ordered ? &round.order : nullptr;
    if (error == nullptr && order != nullptr) error = SortNodes(round.plan, *order, stream);
    if (error == nullptr) error = ComputeProducts(lookup, round.plan, order, round.products, stream);
    if (error == nullptr) {
      error = WithStorage(lookup.table.storage, [&](auto* storage) {
        return ComputeRows(lookup, round.plan, round.products, static_cast<decltype(storage)>(rows), stream);
      });
    }
  }
  return error;
}

}  // namespace tt
}  // namespace tfrec
