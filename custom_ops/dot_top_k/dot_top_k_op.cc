// TensorFlow op of exact top-k by inner product on the CPU.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "cpu_dispatch.h"
#include "dot_top_k.h"
#include "lists.h"
#include "op.h"
#include "team.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "workspaces.h"

namespace tfrec {
namespace top_k {
namespace {

using ::tensorflow::DEVICE_CPU;
using ::tensorflow::shape_inference::InferenceContext;

REGISTER_OP("TfrecDotTopK")
    .Input("queries: T")
    .Input("items: T")
    .Input("excluded_offsets: int64")
    .Input("excluded: int32")
    .Input("k: int32")
    .Output("scores: float")
    .Output("ids: int32")
    .Attr("T: {half, float}")
    .SetShapeFn([](InferenceContext* c) { return ListsShape(c, 1, 4); });

const Kernels* ChooseKernels() {
  static const Kernels* const chosen = ChooseCopy(BaselineKernels, Avx2Kernels, Avx512Kernels);
  return chosen;
}

// Columns of blocks are tasks, the longest first; a block's offers take the locks of the heaps that they go to.
Status SearchAllAgainstAll(OpKernelContext* ctx, const DotTopK& t, const Kernels& kernels, Team* team, float* best,
                           int32_t* best_ids) {
  const int64_t blocks = (t.num_items + kBlock - 1) / kBlock;
  // packed columns, rows, their scores, one row, the worst scores
  const int64_t floats = 2 * kBlock * t.width + kBlock * kBlock + t.width + kBlock;
  Workspaces memory;
  TF_RETURN_IF_ERROR(memory.Allocate(ctx, floats * sizeof(float), team->size()));
  std::vector<absl::Mutex> locks(blocks);
  std::atomic<int64_t> next{blocks - 1};
  const auto size_of = [&](int64_t block) { return std::min(kBlock, t.num_items - block * kBlock); };
  team->Run([&](int member) {
    float *tiles = memory.Floats(member), *rows = tiles + kBlock * t.width, *scores = rows + kBlock * t.width,
          *row = scores + kBlock * kBlock, *worst = row + t.width;
    for (int64_t b; (b = next.fetch_sub(1)) >= 0;) {
      kernels.pack(t, b * kBlock, size_of(b), tiles, row);
      for (int64_t i = 0; i <= b; ++i) {
        // The block on the diagonal first, whose rows fill the columns' heaps. Then each member begins elsewhere, or they
        // would all wait for the same lock.
        const int64_t a = i == 0 ? b : (i - 1 + member * b / team->size()) % b;
        kernels.multiply(t, a * kBlock, size_of(a), size_of(b), tiles, rows, scores);
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

class DotTopKOp : public SafeOp {
 public:
  using SafeOp::SafeOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    const Tensor &queries = ctx->input(0), &items = ctx->input(1), &offsets = ctx->input(2), &excluded = ctx->input(3);
    const auto shape = [](const Tensor& t) { return t.shape().DebugString(); };
    if (queries.dims() != 2 || items.dims() != 2 || queries.dim_size(1) != items.dim_size(1)) {
      return absl::InvalidArgumentError(absl::StrCat("`queries` and `items` must be [*, width] with equal widths. "
                                                     "Received shapes: ", shape(queries), " and ", shape(items)));
    }
    if (items.dim_size(0) > std::numeric_limits<int32_t>::max() || items.dim_size(1) < 1) {
      return absl::InvalidArgumentError(absl::StrCat("`items` must be [0 to 2^31 - 1, 1 or more]. Received shape: ",
                                                     shape(items)));
    }
    DotTopK t;
    t.num_queries = queries.dim_size(0);
    t.num_items = items.dim_size(0);
    t.width = queries.dim_size(1);
    t.queries = queries.data();
    t.items = items.data();
    t.half_storage = queries.dtype() == tensorflow::DT_HALF;
    TF_RETURN_IF_ERROR(ReadLists(offsets, excluded, ctx->input(4), &t));
    Tensor *scores, *ids;
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, TensorShape({t.num_queries, t.k}), &scores));
    TF_RETURN_IF_ERROR(ctx->allocate_output(1, TensorShape({t.num_queries, t.k}), &ids));
    float* best = scores->flat<float>().data();
    int32_t* best_ids = ids->flat<int32_t>().data();
    EmptyLists(t, best, best_ids);
    Team team(ctx);
    const Kernels* kernels = ChooseKernels();
    Workspaces memory;
    TF_RETURN_IF_ERROR(memory.Allocate(ctx, kernels->workspace_floats(t) * sizeof(float), team.size()));
    if (queries.SharesBufferWith(items) && t.num_queries == t.num_items && excluded.NumElements() == 0 &&
        t.num_items >= 2 * kBlock) {
      TF_RETURN_IF_ERROR(SearchAllAgainstAll(ctx, t, *kernels, &team, best, best_ids));
    } else {
      TF_RETURN_IF_ERROR(SearchInParts(
          ctx, &team, t, best, best_ids,
          [&](const DotTopK& part, int member, int64_t first_query, int64_t last_query, int64_t first_item,
              int64_t last_item, bool packed, float* to, int32_t* to_ids) {
            kernels->search(part, first_query, last_query, first_item, last_item, packed, to, to_ids,
                            memory.Floats(member));
          }));
    }
    return SortLists(ctx, &team, t, best, best_ids);
  }
};

REGISTER_KERNEL_BUILDER(Name("TfrecDotTopK").Device(DEVICE_CPU).TypeConstraint<float>("T"), DotTopKOp);
REGISTER_KERNEL_BUILDER(Name("TfrecDotTopK").Device(DEVICE_CPU).TypeConstraint<Eigen::half>("T"), DotTopKOp);

}  // namespace
}  // namespace top_k
}  // namespace tfrec
