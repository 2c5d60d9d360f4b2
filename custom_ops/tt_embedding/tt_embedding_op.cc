// TensorFlow ops of tensor-train embeddings: lookup, its gradient to the cores, and the gradient and optimizer in one.
//
// On the CPU the ids are sorted once per call, so that equal ids and equal prefixes meet; then each thread walks over
// ranges of the distinct ids. Backward gives each thread one range: its sums are its own, and are added in the order of
// the threads.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cpu_dispatch.h"
#include "op.h"
#include "team.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tt_rows.h"
#include "workspaces.h"
#if defined(TFREC_CUDA) && defined(TFREC_TT_CUDA)
#include "tt_cuda.h"
#include "xla/stream_executor/stream.h"
#endif

namespace tfrec {
namespace tt {

// The copy of the kernels for this processor.
const RowKernels* ChooseRowKernels() {
  static const RowKernels* const chosen = ChooseCopy(BaselineRowKernels, Avx2RowKernels, Avx512RowKernels);
  return chosen;
}

namespace {

using ::tensorflow::DEVICE_CPU;
using ::tensorflow::DT_FLOAT;
using ::tensorflow::OpKernelConstruction;
using ::tensorflow::shape_inference::InferenceContext;
using ::tensorflow::shape_inference::ShapeHandle;

// The table that the attributes describe, checked. `get(name, &values)` reads one.
template <typename Get>
Status FillTable(const Get& get, Table* t) {
  std::vector<int64_t> rows, tables, p, q, r;
  TF_RETURN_IF_ERROR(get("num_rows", &rows));
  TF_RETURN_IF_ERROR(get("num_tables", &tables));
  TF_RETURN_IF_ERROR(get("row_factors", &p));
  TF_RETURN_IF_ERROR(get("column_factors", &q));
  TF_RETURN_IF_ERROR(get("ranks", &r));
  const size_t cores = p.size();
  if (cores < 2 || cores > kMaxCores || q.size() != cores || r.size() + 1 != cores) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`row_factors` must have 2 to ", kMaxCores, " numbers, `column_factors` as many and `ranks` one less. Received: ",
        cores, ", ", q.size(), " and ", r.size()));
  }
  if (tables[0] < 1 || tables[0] > kMaxTables) {
    return absl::InvalidArgumentError(
        absl::StrCat("`num_tables` must be 1 to ", kMaxTables, ". Received: num_tables=", tables[0]));
  }
  t->num_cores = static_cast<int>(cores);
  t->num_rows = rows[0];
  t->num_tables = static_cast<int>(tables[0]);
  // Exact: a number of rows rounded up by one would be read behind the end of a core.
  int64_t of_table = 1, of_all = tables[0], width = 1;
  bool too_many = false;
  t->r[0] = t->r[cores] = 1;
  for (size_t k = 0; k < cores; ++k) {
    if (p[k] < 1 || q[k] < 1 || q[k] > kMaxRank || (k + 1 < cores && (r[k] < 1 || r[k] > kMaxRank))) {
      return absl::InvalidArgumentError(
          absl::StrCat("`row_factors` must be at least 1, `column_factors` and `ranks` 1 to ", kMaxRank));
    }
    t->p[k] = p[k];
    t->q[k] = static_cast<int>(q[k]);
    if (k + 1 < cores) t->r[k + 1] = static_cast<int>(r[k]);
    too_many = too_many || __builtin_mul_overflow(of_table, p[k], &of_table) ||
               __builtin_mul_overflow(of_all, p[k], &of_all) || of_all > kMaxRows;
    width *= q[k];  // at most kMaxWidth so far
    if (width * t->r[k + 1] > kMaxWidth) {
      return absl::InvalidArgumentError(absl::StrCat("the product of `column_factors` and a rank must not exceed ",
                                                     kMaxWidth));
    }
  }
  if (too_many || rows[0] < 1 || rows[0] > of_table) {
    return absl::InvalidArgumentError(
        absl::StrCat("`row_factors` must multiply to at least `num_rows` and, with `num_tables`, to less than 2^62. "
                     "Received: num_rows=", rows[0], ", num_tables=", tables[0]));
  }
  for (size_t k = 0; k < cores; ++k) {
    if (t->slices(static_cast<int>(k)) > kMaxCore / t->slice(static_cast<int>(k))) {
      return absl::InvalidArgumentError(absl::StrCat("core ", k, " must have at most ", kMaxCore, " elements."));
    }
  }
  return absl::OkStatus();
}

Status TableOf(InferenceContext* c, Table* t) {
  return FillTable(
      [c](const char* name, std::vector<int64_t>* values) {
        if (std::strncmp(name, "num_", 4) != 0) return c->GetAttr(name, values);
        int64_t value;
        TF_RETURN_IF_ERROR(c->GetAttr(name, &value));
        values->assign(1, value);
        return absl::OkStatus();
      },
      t);
}

Status TableOf(OpKernelConstruction* ctx, Table* t) {
  return FillTable(
      [ctx](const char* name, std::vector<int64_t>* values) {
        if (std::strncmp(name, "num_", 4) != 0) return ctx->GetAttr(name, values);
        int64_t value;
        TF_RETURN_IF_ERROR(ctx->GetAttr(name, &value));
        values->assign(1, value);
        return absl::OkStatus();
      },
      t);
}

Status LookupShape(InferenceContext* c) {
  Table t;
  TF_RETURN_IF_ERROR(TableOf(c, &t));
  ShapeHandle ids;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &ids));
  c->set_output(0, c->Matrix(c->Dim(ids, 0), t.width()));
  return absl::OkStatus();
}

Status LookupGradShape(InferenceContext* c) {
  Table t;
  TF_RETURN_IF_ERROR(TableOf(c, &t));
  ShapeHandle unused;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &unused));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &unused));
  for (int k = 0; k < t.num_cores; ++k) c->set_output(k, c->MakeShape({t.slices(k), t.r[k], t.q[k], t.r[k + 1]}));
  return absl::OkStatus();
}

}  // namespace

#define TFREC_TT_TABLE        \
  .Attr("num_rows: int >= 1") \
  .Attr("num_tables: int >= 1 = 1") \
  .Attr("row_factors: list(int) >= 2") \
  .Attr("column_factors: list(int) >= 2") \
  .Attr("ranks: list(int) >= 1")

// Core k is [num_tables * row_factors[k], ranks[k - 1], column_factors[k], ranks[k]]; see tt_embedding.h.
REGISTER_OP("TfrecTtLookup")
    .Input("ids: int64")
    .Input("cores: num_cores * T")
    .Output("rows: T")
    .Attr("T: {half, bfloat16, float}")
    .Attr("num_cores: int >= 2")
    TFREC_TT_TABLE
    .SetShapeFn(LookupShape);

REGISTER_OP("TfrecTtLookupGrad")
    .Input("ids: int64")
    .Input("upstream: T")
    .Input("cores: num_cores * T")
    .Output("gradients: num_cores * float")
    .Attr("T: {half, bfloat16, float}")
    .Attr("num_cores: int >= 2")
    TFREC_TT_TABLE
    .SetShapeFn(LookupGradShape);

// The optimizer's step with the gradient of TfrecTtLookupGrad. `slots`: of Adagrad the accumulators; of Adam all first
// moments, then all second ones; float32. `rate`: for Adam with the bias corrections in it.
REGISTER_OP("TfrecTtUpdate")
    .Input("ids: int64")
    .Input("upstream: T")
    .Input("rate: float")
    .Input("cores: num_cores * resource")
    .Input("slots: num_slots * resource")
    .Attr("T: {half, bfloat16, float}")
    .Attr("num_cores: int >= 2")
    .Attr("num_slots: int >= 0")
    .Attr("optimizer: {'sgd', 'adagrad', 'adam'}")
    .Attr("beta_1: float = 0.9")
    .Attr("beta_2: float = 0.999")
    .Attr("epsilon: float = 1e-7")
    TFREC_TT_TABLE
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle unused;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 1, &unused));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &unused));
      return absl::OkStatus();
    });

namespace {

Status CheckCore(const Table& t, int k, const TensorShape& shape) {
  const TensorShape wanted({t.slices(k), t.r[k], t.q[k], t.r[k + 1]});
  if (shape == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("core ", k, " must be ", wanted.DebugString(),
                                                 ". Received shape: ", shape.DebugString()));
}

// What both devices check alike; `first_core` is the input with the first core, -1 if they are resources.
Status FillLookup(OpKernelContext* ctx, const Table& table, int first_core, Lookup* l) {
  l->table = table;
  const Tensor& ids = ctx->input(0);
  if (ids.dims() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("`ids` must be [n]. Received shape: ", ids.shape().DebugString()));
  }
  l->n = ids.NumElements();
  l->ids = Elements<int64_t>(ids);
  if (first_core < 0) return absl::OkStatus();
  for (int k = 0; k < table.num_cores; ++k) {
    TF_RETURN_IF_ERROR(CheckCore(table, k, ctx->input(first_core + k).shape()));
    l->cores[k] = ctx->input(first_core + k).data();
  }
  return absl::OkStatus();
}

Status CheckUpstream(const Lookup& l, const Tensor& upstream) {
  if (upstream.dims() == 2 && upstream.dim_size(0) == l.n && upstream.dim_size(1) == l.table.width()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("`upstream` must be [", l.n, ",", l.table.width(),
                                                 "]. Received shape: ", upstream.shape().DebugString()));
}

int Bits(uint64_t largest) {
  int bits = 0;
  while (bits < 64 && largest >> bits != 0) ++bits;
  return bits;
}

// n values ascending by the bits from `low` on; equal ones keep their order. Returns where they are: values, or other,
// which has room for as many.
uint64_t* RadixSort(uint64_t* values, uint64_t* other, int64_t n, int low, int high) {
  if (n < 512) {
    std::sort(values, values + n);  // the low bits are positions: a stable order of the others
    return values;
  }
  const int digit = n < 4096 ? 8 : 11;
  std::vector<size_t> place(size_t{1} << digit);
  for (; low < high; low += digit) {
    std::fill(place.begin(), place.end(), 0);
    const uint64_t mask = (uint64_t{1} << digit) - 1;
    for (int64_t i = 0; i < n; ++i) ++place[values[i] >> low & mask];
    size_t sum = 0;
    for (size_t& p : place) sum += std::exchange(p, sum);
    for (int64_t i = 0; i < n; ++i) other[place[values[i] >> low & mask]++] = values[i];
    std::swap(values, other);
  }
  return values;
}

// The distinct ids of a call in the order of tt_rows.h.
class SortedIds {
 public:
  Status Sort(OpKernelContext* ctx, const Lookup& l, Team* team) {
    const Table& t = l.table;
    const int64_t n = l.n, all = t.num_tables * t.num_rows;
    uint64_t *values, *other;
    Tensor value_memory, other_memory;
    TF_RETURN_IF_ERROR(Scratch(ctx, n, &value_memory, &values));
    std::vector<int64_t> bad(team->size(), -1);
    int64_t tail = 1;  // p_3 ... p_T
    for (int k = 2; k < t.num_cores; ++k) tail *= t.p[k];
    const uint64_t keys = static_cast<uint64_t>(t.num_tables * t.p[0] * t.p[1] * tail);
    const int position_bits = Bits(n), key_bits = Bits(keys);
    const bool together = position_bits + key_bits <= 64;
    team->Run([&](int slot) {
      const int64_t first = n * slot / team->size(), last = n * (slot + 1) / team->size();
      for (int64_t i = first; i < last; ++i) {
        const int64_t id = l.ids[i];
        if (id < 0 || id >= all) {
          if (bad[slot] < 0) bad[slot] = i;
          continue;
        }
        const uint64_t key = static_cast<uint64_t>(Key(t, id, tail));
        values[i] = together ? key << position_bits | static_cast<uint64_t>(i) : key;
      }
    });
    for (const int64_t i : bad) {
      if (i < 0) continue;
      return absl::InvalidArgumentError(absl::StrCat("`ids` must lie in 0 to ", all - 1, ". Received: ", l.ids[i],
                                                     " at position ", i));
    }
    TF_RETURN_IF_ERROR(Scratch(ctx, n, &order_memory_, &order_));
    TF_RETURN_IF_ERROR(Scratch(ctx, n + 1, &start_memory_, &starts_));
    int64_t count = 0;
    if (together) {
      TF_RETURN_IF_ERROR(Scratch(ctx, n < 512 ? 0 : n, &other_memory, &other));
      values = RadixSort(values, other, n, position_bits, position_bits + key_bits);
      const uint64_t mask = (uint64_t{1} << position_bits) - 1;
      for (int64_t i = 0; i < n; ++i) {
        order_[i] = static_cast<int64_t>(values[i] & mask);
        if (i == 0 || values[i] >> position_bits != values[i - 1] >> position_bits) starts_[count++] = i;
      }
    } else {
      for (int64_t i = 0; i < n; ++i) order_[i] = i;
      std::stable_sort(order_, order_ + n, [&](int64_t a, int64_t b) { return values[a] < values[b]; });
      for (int64_t i = 0; i < n; ++i) {
        if (i == 0 || values[order_[i]] != values[order_[i - 1]]) starts_[count++] = i;
      }
    }
    starts_[count] = n;
    TF_RETURN_IF_ERROR(Scratch(ctx, count * t.num_cores, &slice_memory_, &slices_));
    team->Run([&](int slot) {
      const int64_t first = count * slot / team->size(), last = count * (slot + 1) / team->size();
      for (int64_t u = first; u < last; ++u) {
        const int64_t id = l.ids[order_[starts_[u]]], table = t.num_tables == 1 ? 0 : id / t.num_rows;
        int64_t left = id - table * t.num_rows;
        for (int k = t.num_cores - 1; k >= 0; --k) {
          const int64_t above = Divide(left, t.p[k]);
          slices_[u * t.num_cores + k] = table * t.p[k] + left - above * t.p[k];
          left = above;
        }
      }
    });
    distinct_ = {count, slices_, starts_, order_};
    return absl::OkStatus();
  }

  const Distinct& distinct() const { return distinct_; }

 private:
  // 32-bit division takes a fraction of the time.
  static int64_t Divide(int64_t a, int64_t b) {
    if ((a | b) >> 32 == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
    return a / b;
  }

  static int64_t Key(const Table& t, int64_t id, int64_t tail) {
    const int64_t table = t.num_tables == 1 ? 0 : id / t.num_rows, n = id - table * t.num_rows;
    if (t.num_cores == 2) return table * t.p[0] * t.p[1] + n;
    const int64_t prefix = Divide(n, tail), first = Divide(prefix, t.p[1]), second = prefix - first * t.p[1];
    return ((table * t.p[1] + second) * t.p[0] + first) * tail + n - prefix * tail;
  }

  Tensor slice_memory_, start_memory_, order_memory_;
  int64_t *slices_ = nullptr, *starts_ = nullptr, *order_ = nullptr;
  Distinct distinct_ = {};
};

// Padded copies of the slices in use.
class PackedCores {
 public:
  Status Pack(OpKernelContext* ctx, const Lookup& l, const Distinct& distinct, const RowKernels& kernels, bool backward,
              Team* team) {
    const Table& t = l.table;
    packed_ = {};
    kernels.padding(t, &packed_);
    std::vector<std::pair<int, int64_t>> slices;
    // One contiguous core at a time; the first core is read as it is, and so is the second where there is a third.
    for (int k = t.num_cores == 2 ? 1 : 2; k < t.num_cores; ++k) {
      const bool last = k + 1 == t.num_cores;
      if (!last) {
        TF_RETURN_IF_ERROR(Scratch(ctx, t.slices(k) * kernels.packed_floats(t, packed_, k), &slice_memory_[k],
                                   &packed_.slices[k]));
      }
      if (last || backward) {
        TF_RETURN_IF_ERROR(Scratch(ctx, t.slices(k) * kernels.transposed_floats(t, packed_, k), &transposed_memory_[k],
                                   &packed_.transposed[k]));
      }
      std::vector<bool> used(t.slices(k), false);
      for (int64_t u = 0; u < distinct.count; ++u) used[distinct.slices[u * t.num_cores + k]] = true;
      for (int64_t i = 0; i < t.slices(k); ++i) {
        if (used[i]) slices.emplace_back(k, i);
      }
    }
    const int64_t n = static_cast<int64_t>(slices.size());
    team->Run([&](int slot) {
      for (int64_t i = n * slot / team->size(); i < n * (slot + 1) / team->size(); ++i) {
        kernels.pack(l, packed_, slices[i].first, slices[i].second, backward);
      }
    });
    return absl::OkStatus();
  }

  const Packed& packed() const { return packed_; }

 private:
  Packed packed_ = {};
  Tensor slice_memory_[kMaxCores], transposed_memory_[kMaxCores];
};

Status ForwardCpu(OpKernelContext* ctx, const Lookup& l, void* rows) {
  if (l.n == 0) return absl::OkStatus();
  Team team(ctx);
  const RowKernels* kernels = ChooseRowKernels();
  SortedIds sorted;
  TF_RETURN_IF_ERROR(sorted.Sort(ctx, l, &team));
  const Distinct& distinct = sorted.distinct();
  PackedCores cores;
  TF_RETURN_IF_ERROR(cores.Pack(ctx, l, distinct, *kernels, false, &team));
  Workspaces memory;
  TF_RETURN_IF_ERROR(memory.Allocate(ctx, kernels->workspace_floats(l.table, cores.packed()) * sizeof(float), team.size()));
  // Four ranges per thread, so that one that is held up is waited for a quarter as long.
  const int64_t tasks = team.size() == 1 ? 1 : std::min<int64_t>(4 * team.size(), distinct.count);
  std::atomic<int64_t> next{0};
  team.Run([&](int slot) {
    for (int64_t task; (task = next.fetch_add(1)) < tasks;) {
      kernels->forward(l, distinct, cores.packed(), distinct.count * task / tasks, distinct.count * (task + 1) / tasks,
                       rows, memory.Floats(slot));
    }
  });
  return absl::OkStatus();
}

// Ranges of distinct ids of about equal work, one per thread.
std::vector<int64_t> Ranges(const Table& t, const Distinct& distinct, int threads) {
  double prefix = 2.0 * t.q[0] * t.slice(1), id = 2.0 * t.width() * t.r[t.num_cores - 1];
  for (int k = 2; k + 1 < t.num_cores; ++k) {
    double wide = 1.0;
    for (int j = 0; j < k; ++j) wide *= t.q[j];
    id += 2.0 * wide * static_cast<double>(t.slice(k));  // as if none were shared
  }
  if (t.num_cores == 2) prefix = 0.0;
  const int64_t* s = distinct.slices;
  const int n = t.num_cores;
  const auto work = [&](int64_t u) {
    const bool same = u > 0 && s[u * n] == s[(u - 1) * n] && s[u * n + 1] == s[(u - 1) * n + 1];
    return id + (same ? 0.0 : prefix);
  };
  double total = 0.0, sum = 0.0;
  for (int64_t u = 0; u < distinct.count; ++u) total += work(u);
  std::vector<int64_t> ranges = {0};
  for (int64_t u = 0; u < distinct.count; ++u) {
    sum += work(u);
    while (static_cast<int>(ranges.size()) < threads && sum >= total * static_cast<double>(ranges.size()) / threads) {
      ranges.push_back(u + 1);
    }
  }
  while (static_cast<int>(ranges.size()) <= threads) ranges.push_back(distinct.count);
  return ranges;
}

Status BackwardCpu(OpKernelContext* ctx, const Backward& b) {
  const Lookup& l = b.lookup;
  const Table& t = l.table;
  if (l.n == 0) {
    for (int k = 0; k < t.num_cores; ++k) std::memset(b.gradients[k], 0, t.core(k) * sizeof(float));
    return absl::OkStatus();
  }
  Team team(ctx);
  const int threads = team.size();
  const RowKernels* kernels = ChooseRowKernels();
  SortedIds sorted;
  TF_RETURN_IF_ERROR(sorted.Sort(ctx, l, &team));
  const Distinct& distinct = sorted.distinct();
  PackedCores cores;
  TF_RETURN_IF_ERROR(cores.Pack(ctx, l, distinct, *kernels, true, &team));
  const Packed& packed = cores.packed();
  const bool second = t.num_cores > 2;
  int64_t sum_floats[kMaxCores], sums_each = t.slice(1);
  for (int k = 0; k < t.num_cores; ++k) {
    sum_floats[k] = second && k == 1 ? 0 : t.slices(k) * kernels->sum_floats(t, packed, k);
    sums_each += sum_floats[k];
  }
  Workspaces memory, sum_memory;
  TF_RETURN_IF_ERROR(memory.Allocate(ctx, kernels->workspace_floats(t, packed) * sizeof(float), threads));
  TF_RETURN_IF_ERROR(sum_memory.Allocate(ctx, sums_each * sizeof(float), threads));
  const std::vector<int64_t> ranges = Ranges(t, distinct, threads);
  std::vector<Sums> sums(threads);
  for (int slot = 0; slot < threads; ++slot) {
    float* at = sum_memory.Floats(slot);
    Sums& s = sums[slot];
    s.second = b.gradients[1];
    s.shared = nullptr;
    const int64_t first = ranges[slot];
    if (second && first > 0 && first < ranges[slot + 1] &&
        distinct.slices[first * t.num_cores + 1] == distinct.slices[(first - 1) * t.num_cores + 1]) {
      s.shared = at;
    }
    at += t.slice(1);
    for (int k = 0; k < t.num_cores; ++k) {
      s.cores[k] = at;
      at += sum_floats[k];
    }
  }
  // The walk overwrites the slices of the second core that are in use.
  if (second) {
    team.Run([&](int slot) {
      const int64_t n = t.core(1), first = n * slot / threads, last = n * (slot + 1) / threads;
      std::memset(b.gradients[1] + first, 0, (last - first) * sizeof(float));
    });
  }
  team.Run([&](int slot) {
    std::memset(sums[slot].cores[0], 0, (sums_each - t.slice(1)) * sizeof(float));
    kernels->backward(b, distinct, packed, ranges[slot], ranges[slot + 1], sums[slot], memory.Floats(slot));
  });
  for (int slot = 1; slot < threads; ++slot) {
    if (sums[slot].shared == nullptr) continue;
    float* to = b.gradients[1] + distinct.slices[ranges[slot] * t.num_cores + 1] * t.slice(1);
    for (int64_t i = 0; i < t.slice(1); ++i) to[i] += sums[slot].shared[i];
  }
  team.Run([&](int slot) {
    for (int k = 0; k < t.num_cores; ++k) {
      if (second && k == 1) continue;
      const int64_t n = t.slices(k);
      for (int64_t i = n * slot / threads; i < n * (slot + 1) / threads; ++i) {
        kernels->reduce(t, packed, k, i, sums.data(), threads, b.gradients[k]);
      }
    }
  });
  return absl::OkStatus();
}

Storage StorageOf(tensorflow::DataType type) {
  return type == DT_FLOAT ? Storage::kFloat : type == tensorflow::DT_HALF ? Storage::kHalf : Storage::kBfloat16;
}

class TtOp : public SafeOp {
 public:
  explicit TtOp(OpKernelConstruction* ctx) : SafeOp(ctx) {
    OP_REQUIRES_OK(ctx, TableOf(ctx, &table_));
    tensorflow::DataType type;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("T", &type));
    table_.storage = StorageOf(type);
    int cores;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_cores", &cores));
    OP_REQUIRES(ctx, cores == table_.num_cores,
                absl::InvalidArgumentError(absl::StrCat("`row_factors` has ", table_.num_cores, " numbers for ", cores,
                                                        " cores.")));
  }

 protected:
  Table table_ = {};
};

class LookupOp : public TtOp {
 public:
  using TtOp::TtOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    Lookup l;
    TF_RETURN_IF_ERROR(FillLookup(ctx, table_, 1, &l));
    Tensor* rows;
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, TensorShape({l.n, table_.width()}), &rows));
    return Forward(ctx, l, rows->data());
  }

  virtual Status Forward(OpKernelContext* ctx, const Lookup& l, void* rows) { return ForwardCpu(ctx, l, rows); }
};

class LookupGradOp : public TtOp {
 public:
  using TtOp::TtOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    tt::Backward b;
    TF_RETURN_IF_ERROR(FillLookup(ctx, table_, 2, &b.lookup));
    TF_RETURN_IF_ERROR(CheckUpstream(b.lookup, ctx->input(1)));
    b.upstream = ctx->input(1).data();
    for (int k = 0; k < table_.num_cores; ++k) {
      Tensor* gradient;
      TF_RETURN_IF_ERROR(ctx->allocate_output(k, ctx->input(2 + k).shape(), &gradient));
      b.gradients[k] = gradient->flat<float>().data();
    }
    return Backward(ctx, b);
  }

  virtual Status Backward(OpKernelContext* ctx, const tt::Backward& b) { return BackwardCpu(ctx, b); }
};

class UpdateOp : public TtOp {
 public:
  explicit UpdateOp(OpKernelConstruction* ctx) : TtOp(ctx) {
    if (!ctx->status().ok()) return;  // the table was refused
    std::string name;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("optimizer", &name));
    update_.optimizer = name == "sgd" ? Optimizer::kSgd : name == "adagrad" ? Optimizer::kAdagrad : Optimizer::kAdam;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("beta_1", &update_.beta_1));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("beta_2", &update_.beta_2));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("epsilon", &update_.epsilon));
    int slots;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_slots", &slots));
    OP_REQUIRES(ctx, slots == NumSlots(update_.optimizer) * table_.num_cores,
                absl::InvalidArgumentError(absl::StrCat("`slots` must be ",
                                                        NumSlots(update_.optimizer) * table_.num_cores, " for ", name,
                                                        ". Received: ", slots)));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("T", &type_));
  }

 protected:
  Status Run(OpKernelContext* ctx) override {
    tt::Backward b;
    TF_RETURN_IF_ERROR(FillLookup(ctx, table_, -1, &b.lookup));
    TF_RETURN_IF_ERROR(CheckUpstream(b.lookup, ctx->input(1)));
    b.upstream = ctx->input(1).data();
    Update update = update_;
    TF_RETURN_IF_ERROR(ReadScalar(ctx->input(2), "rate", &update.rate));
    const int cores = table_.num_cores, slots = NumSlots(update_.optimizer), variables = cores * (1 + slots);
    std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>> held(variables);
    for (int i = 0; i < variables; ++i) {
      TF_RETURN_IF_ERROR(ReadVariable(ctx, 3 + i, i < cores ? "cores" : "slots", &held[i]));
    }
    // Two steps at once take the locks in one order, that of their addresses.
    std::vector<decltype(held[0]->mu())> mutexes;
    for (const auto& variable : held) mutexes.push_back(variable->mu());
    std::sort(mutexes.begin(), mutexes.end());
    if (std::adjacent_find(mutexes.begin(), mutexes.end()) != mutexes.end()) {
      return absl::InvalidArgumentError("`cores` and `slots` must be different variables.");
    }
    std::vector<std::unique_ptr<tensorflow::mutex_lock>> locks;
    for (auto* mutex : mutexes) locks.push_back(std::make_unique<tensorflow::mutex_lock>(*mutex));
    return Step(ctx, held, update, &b);
  }

  // One core, of the storage type, and its slots; null those that the optimizer has not.
  struct Weights {
    void* values;
    float* slots[2];
  };

  // The gradient, then the step of every core.
  virtual Status Apply(OpKernelContext* ctx, const tt::Backward& b, const Update& update, const Weights* weights) {
    TF_RETURN_IF_ERROR(BackwardCpu(ctx, b));
    Team team(ctx);
    const RowKernels* kernels = ChooseRowKernels();
    team.Run([&](int member) {
      for (int k = 0; k < table_.num_cores; ++k) {
        const int64_t n = table_.core(k);
        kernels->update(update, table_.storage, b.gradients[k], weights[k].values, weights[k].slots[0],
                        weights[k].slots[1], n * member / team.size(), n * (member + 1) / team.size());
      }
    });
    return absl::OkStatus();
  }

  virtual Status Copy(OpKernelContext* ctx, void* to, const void* from, size_t bytes) {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }

 private:
  Status Step(OpKernelContext* ctx, const std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>>& held,
              const Update& update, tt::Backward* b) {
    const int cores = table_.num_cores;
    for (size_t i = 0; i < held.size(); ++i) {
      const int k = static_cast<int>(i) % cores;
      if (!held[i]->is_initialized) return absl::InvalidArgumentError("`cores` and `slots` must be initialized.");
      TF_RETURN_IF_ERROR(CheckCore(table_, k, held[i]->tensor()->shape()));
      if (held[i]->tensor()->dtype() != (static_cast<int>(i) < cores ? type_ : DT_FLOAT)) {
        return absl::InvalidArgumentError("`cores` must have the type of `upstream`, `slots` float32.");
      }
      TF_RETURN_IF_ERROR(OwnBuffer(ctx, held[i].get()));
    }
    Tensor gradients[kMaxCores];
    for (int k = 0; k < cores; ++k) {
      b->lookup.cores[k] = held[k]->tensor()->data();
      TF_RETURN_IF_ERROR(ctx->allocate_temp(DT_FLOAT, held[k]->tensor()->shape(), &gradients[k]));
      b->gradients[k] = gradients[k].flat<float>().data();
    }
    Weights weights[kMaxCores] = {};
    for (int k = 0; k < cores; ++k) {
      weights[k].values = held[k]->tensor()->data();
      for (int s = 0; s < NumSlots(update.optimizer); ++s) {
        weights[k].slots[s] = static_cast<float*>(held[(1 + s) * cores + k]->tensor()->data());
      }
    }
    return Apply(ctx, *b, update, weights);
  }

  // Who has read the variable keeps what was read.
  Status OwnBuffer(OpKernelContext* ctx, tensorflow::Var* variable) {
    Tensor* tensor = variable->tensor();
    if (!tensor->RefCountIsOne()) {
      Tensor own;
      TF_RETURN_IF_ERROR(ctx->allocate_temp(tensor->dtype(), tensor->shape(), &own));
      TF_RETURN_IF_ERROR(Copy(ctx, own.data(), tensor->data(), tensor->TotalBytes()));
      *tensor = own;
    }
    variable->copy_on_read_mode.store(false);
    return absl::OkStatus();
  }

  Update update_ = {};
  tensorflow::DataType type_;
};

#define TFREC_REGISTER(T)                                                                               \
  REGISTER_KERNEL_BUILDER(Name("TfrecTtLookup").Device(DEVICE_CPU).TypeConstraint<T>("T"), LookupOp);   \
  REGISTER_KERNEL_BUILDER(Name("TfrecTtLookupGrad").Device(DEVICE_CPU).TypeConstraint<T>("T"), LookupGradOp); \
  REGISTER_KERNEL_BUILDER(Name("TfrecTtUpdate").Device(DEVICE_CPU).TypeConstraint<T>("T"), UpdateOp);
TFREC_REGISTER(Eigen::half)
TFREC_REGISTER(Eigen::bfloat16)
TFREC_REGISTER(float)
#undef TFREC_REGISTER

#if defined(TFREC_CUDA) && defined(TFREC_TT_CUDA)
void* Stream(OpKernelContext* ctx) { return ctx->op_device_context()->stream()->platform_specific_handle().stream; }

Status Scratch(OpKernelContext* ctx, size_t bytes, Tensor* scratch) {
  return ctx->allocate_temp(tensorflow::DT_INT8, TensorShape({static_cast<int64_t>(bytes)}), scratch);
}

Status FromCuda(const char* error) {
  return error == nullptr ? absl::OkStatus() : absl::InternalError(absl::StrCat("the TT embedding failed: ", error));
}

class LookupGpuOp : public LookupOp {
 public:
  using LookupOp::LookupOp;

 protected:
  Status Forward(OpKernelContext* ctx, const Lookup& l, void* rows) override {
    Tensor scratch;
    TF_RETURN_IF_ERROR(Scratch(ctx, ForwardCudaScratchBytes(l), &scratch));
    return FromCuda(ForwardCuda(l, rows, scratch.data(), Stream(ctx)));
  }
};

class LookupGradGpuOp : public LookupGradOp {
 public:
  using LookupGradOp::LookupGradOp;

 protected:
  Status Backward(OpKernelContext* ctx, const tt::Backward& b) override {
    Tensor scratch;
    TF_RETURN_IF_ERROR(Scratch(ctx, BackwardCudaScratchBytes(b.lookup), &scratch));
    return FromCuda(BackwardCuda(b, scratch.data(), Stream(ctx)));
  }
};

class UpdateGpuOp : public UpdateOp {
 public:
  using UpdateOp::UpdateOp;

 protected:
  Status Apply(OpKernelContext* ctx, const tt::Backward& b, const Update& update, const Weights* weights) override {
    Tensor scratch;
    TF_RETURN_IF_ERROR(Scratch(ctx, BackwardCudaScratchBytes(b.lookup), &scratch));
    TF_RETURN_IF_ERROR(FromCuda(BackwardCuda(b, scratch.data(), Stream(ctx))));
    CoreUpdate cores[kMaxCores];
    for (int k = 0; k < table_.num_cores; ++k) {
      cores[k] = {table_.core(k), b.gradients[k], weights[k].values, {weights[k].slots[0], weights[k].slots[1]}};
    }
    return FromCuda(UpdateCuda(update, table_.storage, table_.num_cores, cores, Stream(ctx)));
  }

  Status Copy(OpKernelContext* ctx, void* to, const void* from, size_t bytes) override {
    return FromCuda(CopyCuda(to, from, bytes, Stream(ctx)));
  }
};

#define TFREC_REGISTER_GPU(T)                                                                                          \
  REGISTER_KERNEL_BUILDER(Name("TfrecTtLookup").Device(tensorflow::DEVICE_GPU).TypeConstraint<T>("T"), LookupGpuOp);   \
  REGISTER_KERNEL_BUILDER(Name("TfrecTtLookupGrad").Device(tensorflow::DEVICE_GPU).TypeConstraint<T>("T"),             \
                          LookupGradGpuOp);                                                                            \
  REGISTER_KERNEL_BUILDER(Name("TfrecTtUpdate")                                                                        \
                              .Device(tensorflow::DEVICE_GPU)                                                          \
                              .TypeConstraint<T>("T")                                                                  \
                              .HostMemory("rate")                                                                      \
                              .HostMemory("cores")                                                                     \
                              .HostMemory("slots"),                                                                    \
                          UpdateGpuOp);
TFREC_REGISTER_GPU(Eigen::half)
TFREC_REGISTER_GPU(Eigen::bfloat16)
TFREC_REGISTER_GPU(float)
#undef TFREC_REGISTER_GPU
#endif  // TFREC_CUDA

}  // namespace
}  // namespace tt
}  // namespace tfrec
