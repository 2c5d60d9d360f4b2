// TensorFlow op of exact top-k by inner product on the CPU. Many queries: each thread takes its share of them over all
// items. Few: each thread takes its share of the items, and the heaps are merged.
#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu_dispatch.h"
#include "dot_top_k.h"
#include "team.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tfrec {
namespace top_k {
namespace {

using ::tensorflow::DEVICE_CPU;
using ::tensorflow::OpKernel;
using ::tensorflow::OpKernelContext;
using ::tensorflow::Tensor;
using ::tensorflow::TensorShape;
using ::tensorflow::shape_inference::InferenceContext;
using ::tensorflow::shape_inference::ShapeHandle;

constexpr float kNone = -std::numeric_limits<float>::infinity();

REGISTER_OP("TfrecDotTopK")
    .Input("queries: T")
    .Input("items: T")
    .Input("excluded_offsets: int64")
    .Input("excluded: int32")
    .Input("k: int32")
    .Output("scores: float")
    .Output("ids: int32")
    .Attr("T: {half, float}")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle queries, items;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &queries));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &items));
      ::tensorflow::shape_inference::DimensionHandle k;
      TF_RETURN_IF_ERROR(c->MakeDimForScalarInput(4, &k));
      c->set_output(0, c->Matrix(c->Dim(queries, 0), k));
      c->set_output(1, c->Matrix(c->Dim(queries, 0), k));
      return absl::OkStatus();
    });

const Kernels* ChooseKernels() {
  static const Kernels* const chosen = [] {
    switch (ChooseCpuKernels()) {
      case CpuKernels::kAvx512:
        return Avx512Kernels();
      case CpuKernels::kAvx2:
        return Avx2Kernels();
      default:
        return BaselineKernels();
    }
  }();
  return chosen;
}

// Columns of blocks are tasks, the longest first; a block's offers take the locks of the heaps that they go to.
absl::Status SearchAllAgainstAll(OpKernelContext* ctx, const DotTopK& t, const Kernels& kernels, Team* team, float* best,
                                 int32_t* best_ids) {
  const int64_t blocks = (t.num_items + kBlock - 1) / kBlock;
  // packed columns, rows, their scores, one row, the worst scores
  const int64_t floats = 2 * kBlock * t.width + kBlock * kBlock + t.width + kBlock;
  Tensor memory;
  TF_RETURN_IF_ERROR(ctx->allocate_temp(tensorflow::DT_FLOAT, TensorShape({team->size() * floats}), &memory));
  float* all = memory.flat<float>().data();
  std::vector<absl::Mutex> locks(blocks);
  std::atomic<int64_t> next{blocks - 1};
  const auto size_of = [&](int64_t block) { return std::min(kBlock, t.num_items - block * kBlock); };
  team->Run([&](int member) {
    float *tiles = all + member * floats, *rows = tiles + kBlock * t.width, *scores = rows + kBlock * t.width,
          *row = scores + kBlock * kBlock, *worst = row + t.width;
    for (int64_t b; (b = next.fetch_sub(1)) >= 0;) {
      kernels.pack(t, b * kBlock, size_of(b), tiles, row);
      for (int64_t i = 0; i <= b; ++i) {
        // Each member begins elsewhere, or they would all wait for the same lock.
        const int64_t a = (i + member * (b + 1) / team->size()) % (b + 1);
        kernels.multiply(t, a * kBlock, size_of(a), tiles, rows, scores);
        {
          absl::MutexLock lock(&locks[a]);
          kernels.offer_rows(t, scores, size_of(a), size_of(b), b * kBlock, best + a * kBlock * t.k,
                             best_ids + a * kBlock * t.k);
        }
        if (a == b) continue;
        absl::MutexLock lock(&locks[b]);
        kernels.offer_columns(t, scores, size_of(a), size_of(b), a * kBlock, best + b * kBlock * t.k,
                              best_ids + b * kBlock * t.k, worst);
      }
    }
  });
  return absl::OkStatus();
}

class DotTopKOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    const Tensor &queries = ctx->input(0), &items = ctx->input(1), &offsets = ctx->input(2), &excluded = ctx->input(3);
    const auto shape = [](const Tensor& t) { return t.shape().DebugString(); };
    OP_REQUIRES(ctx, queries.dims() == 2 && items.dims() == 2 && queries.dim_size(1) == items.dim_size(1),
                absl::InvalidArgumentError(absl::StrCat("`queries` and `items` must be [*, width] with equal widths. "
                                                        "Received shapes: ", shape(queries), " and ", shape(items))));
    OP_REQUIRES(ctx, items.dim_size(0) <= std::numeric_limits<int32_t>::max() && items.dim_size(1) >= 1,
                absl::InvalidArgumentError(absl::StrCat("`items` must be [0 to 2^31 - 1, 1 or more]. Received shape: ",
                                                        shape(items))));
    OP_REQUIRES(ctx, offsets.dims() == 1 && offsets.dim_size(0) == queries.dim_size(0) + 1 && excluded.dims() == 1,
                absl::InvalidArgumentError(absl::StrCat("`excluded_offsets` must be [num_queries + 1] and `excluded` a "
                                                        "vector. Received shapes: ", shape(offsets), " and ",
                                                        shape(excluded))));
    OP_REQUIRES(ctx, ctx->input(4).dims() == 0 && ctx->input(4).scalar<int32_t>()() >= 1,
                absl::InvalidArgumentError(absl::StrCat("`k` must be a number of 1 or more. Received: ",
                                                        ctx->input(4).DebugString())));
    DotTopK t;
    t.num_queries = queries.dim_size(0);
    t.num_items = items.dim_size(0);
    t.width = queries.dim_size(1);
    t.k = ctx->input(4).scalar<int32_t>()();
    t.queries = queries.data();
    t.items = items.data();
    t.half_storage = queries.dtype() == tensorflow::DT_HALF;
    t.excluded_offsets = offsets.flat<int64_t>().data();
    t.excluded = excluded.flat<int32_t>().data();
    OP_REQUIRES(ctx, t.excluded_offsets[0] >= 0 && t.excluded_offsets[t.num_queries] <= excluded.NumElements(),
                absl::InvalidArgumentError("`excluded_offsets` must lie inside `excluded`."));
    for (int64_t q = 0; q < t.num_queries; ++q) {
      const int64_t begin = t.excluded_offsets[q], end = t.excluded_offsets[q + 1];
      OP_REQUIRES(ctx, begin <= end && end <= excluded.NumElements(),
                  absl::InvalidArgumentError("`excluded_offsets` must not fall, and lie inside `excluded`."));
      for (int64_t i = begin; i < end; ++i) {
        OP_REQUIRES(ctx, t.excluded[i] >= 0 && (i == begin || t.excluded[i - 1] <= t.excluded[i]),
                    absl::InvalidArgumentError(
                        absl::StrCat("`excluded` must be 0 or more and ascending within a query. Received: ",
                                     t.excluded[i], " at query ", q)));
      }
    }
    Tensor *scores, *ids;
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({t.num_queries, t.k}), &scores));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, TensorShape({t.num_queries, t.k}), &ids));
    float* best = scores->flat<float>().data();
    int32_t* best_ids = ids->flat<int32_t>().data();
    std::fill_n(best, t.num_queries * t.k, kNone);
    std::fill_n(best_ids, t.num_queries * t.k, -1);
    Team team(ctx);
    const Kernels* kernels = ChooseKernels();
    const int64_t workspace = kernels->workspace_floats(t);
    Tensor memory;
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_FLOAT, TensorShape({team.size() * workspace}), &memory));
    float* work = memory.flat<float>().data();
    const int64_t size = team.size(), all = t.num_queries * t.k;
    if (queries.SharesBufferWith(items) && t.num_queries == t.num_items && excluded.NumElements() == 0 &&
        t.num_items >= 2 * kBlock) {
      OP_REQUIRES_OK(ctx, SearchAllAgainstAll(ctx, t, *kernels, &team, best, best_ids));
    } else if (t.num_queries >= 16 * size) {
      team.Run([&](int member) {
        const int64_t first = t.num_queries * member / size, last = t.num_queries * (member + 1) / size;
        kernels->search(t, first, last, 0, t.num_items, true, best + first * t.k, best_ids + first * t.k,
                        work + member * workspace);
      });
    } else {
      std::vector<float> parts(size * all, kNone);
      std::vector<int32_t> part_ids(size * all, -1);
      team.Run([&](int member) {
        kernels->search(t, 0, t.num_queries, t.num_items * member / size, t.num_items * (member + 1) / size,
                        t.num_queries >= 16, parts.data() + member * all, part_ids.data() + member * all,
                        work + member * workspace);
      });
      for (int64_t i = 0; i < size * all; ++i) {
        const int64_t at = i % all / t.k * t.k;
        if (part_ids[i] >= 0 && Below(best[at], best_ids[at], parts[i], part_ids[i])) {
          Replace(best + at, best_ids + at, t.k, parts[i], part_ids[i]);
        }
      }
    }
    // Heaps to lists, best first: by insertion, as lists are short; long ones by sorting.
    team.Run([&](int member) {
      std::vector<int64_t> order(t.k);
      std::vector<float> sorted(t.k);
      std::vector<int32_t> sorted_ids(t.k);
      for (int64_t q = t.num_queries * member / size; q < t.num_queries * (member + 1) / size; ++q) {
        float* s = best + q * t.k;
        int32_t* i = best_ids + q * t.k;
        if (t.k <= 32) {
          for (int64_t n = 1; n < t.k; ++n) {
            const float score = s[n];
            const int32_t id = i[n];
            int64_t at = n;
            for (; at > 0 && Below(s[at - 1], i[at - 1], score, id); --at) {
              s[at] = s[at - 1];
              i[at] = i[at - 1];
            }
            s[at] = score;
            i[at] = id;
          }
          continue;
        }
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return Below(s[b], i[b], s[a], i[a]); });
        for (int64_t n = 0; n < t.k; ++n) {
          sorted[n] = s[order[n]];
          sorted_ids[n] = i[order[n]];
        }
        std::copy(sorted.begin(), sorted.end(), s);
        std::copy(sorted_ids.begin(), sorted_ids.end(), i);
      }
    });
  }
};

REGISTER_KERNEL_BUILDER(Name("TfrecDotTopK").Device(DEVICE_CPU).TypeConstraint<float>("T"), DotTopKOp);
REGISTER_KERNEL_BUILDER(Name("TfrecDotTopK").Device(DEVICE_CPU).TypeConstraint<Eigen::half>("T"), DotTopKOp);

}  // namespace
}  // namespace top_k
}  // namespace tfrec
