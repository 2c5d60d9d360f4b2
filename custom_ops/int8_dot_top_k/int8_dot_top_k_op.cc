// TensorFlow op of exact top-k by inner product of bytes on the CPU.
#include <limits>

#include "cpu_dispatch.h"
#include "int8_dot_top_k.h"
#include "lists.h"
#include "op.h"
#include "team.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "workspaces.h"

namespace tfrec {
namespace int8_top_k {
namespace {

using ::tensorflow::DEVICE_CPU;
using ::tensorflow::shape_inference::InferenceContext;

REGISTER_OP("TfrecInt8DotTopK")
    .Input("queries: int8")
    .Input("query_scales: float")
    .Input("items: int8")
    .Input("item_scales: float")
    .Input("excluded_offsets: int64")
    .Input("excluded: int32")
    .Input("k: int32")
    .Output("scores: float")
    .Output("ids: int32")
    .SetShapeFn([](InferenceContext* c) { return top_k::ListsShape(c, 2, 6); });

const Kernels* ChooseKernels() {
  static const Kernels* const chosen =
      ChooseCopy(BaselineKernels, Avx2Kernels, HasAvx512Shorts() ? Avx512Kernels : Avx2Kernels);
  return chosen;
}

class Int8DotTopKOp : public SafeOp {
 public:
  using SafeOp::SafeOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    const Tensor &queries = ctx->input(0), &query_scales = ctx->input(1), &items = ctx->input(2),
                 &item_scales = ctx->input(3);
    const auto shape = [](const Tensor& t) { return t.shape().DebugString(); };
    if (queries.dims() != 2 || items.dims() != 2 || queries.dim_size(1) != items.dim_size(1)) {
      return absl::InvalidArgumentError(absl::StrCat("`queries` and `items` must be [*, width] with equal widths. "
                                                     "Received shapes: ", shape(queries), " and ", shape(items)));
    }
    if (items.dim_size(0) > std::numeric_limits<int32_t>::max() || items.dim_size(1) < 1 ||
        items.dim_size(1) > kMaxWidth) {
      return absl::InvalidArgumentError(absl::StrCat("`items` must be [0 to 2^31 - 1, 1 to ", kMaxWidth,
                                                     "]. Received shape: ", shape(items)));
    }
    if (query_scales.shape() != TensorShape({queries.dim_size(0)}) ||
        item_scales.shape() != TensorShape({items.dim_size(0)})) {
      return absl::InvalidArgumentError(absl::StrCat("`query_scales` and `item_scales` must have one number per row. "
                                                     "Received shapes: ", shape(query_scales), " and ",
                                                     shape(item_scales)));
    }
    Int8DotTopK t;
    t.lists.num_queries = queries.dim_size(0);
    t.lists.num_items = items.dim_size(0);
    t.lists.width = queries.dim_size(1);
    t.lists.queries = queries.data();
    t.lists.items = items.data();
    t.lists.half_storage = false;
    t.query_scales = Elements<float>(query_scales);
    t.item_scales = Elements<float>(item_scales);
    TF_RETURN_IF_ERROR(top_k::ReadLists(ctx->input(4), ctx->input(5), ctx->input(6), &t.lists));
    Tensor *scores, *ids;
    const TensorShape lists({t.lists.num_queries, t.lists.k});
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, lists, &scores));
    TF_RETURN_IF_ERROR(ctx->allocate_output(1, lists, &ids));
    float* best = scores->flat<float>().data();
    int32_t* best_ids = ids->flat<int32_t>().data();
    top_k::EmptyLists(t.lists, best, best_ids);
    Team team(ctx);
    const Kernels* kernels = ChooseKernels();
    Workspaces memory;
    TF_RETURN_IF_ERROR(memory.Allocate(ctx, kernels->workspace_bytes(t), team.size()));
    TF_RETURN_IF_ERROR(top_k::SearchInParts(
        ctx, &team, t.lists, best, best_ids,
        [&](const top_k::DotTopK& part, int member, int64_t first_query, int64_t last_query, int64_t first_item,
            int64_t last_item, bool packed, float* to, int32_t* to_ids) {
          kernels->search({part, t.query_scales, t.item_scales}, first_query, last_query, first_item, last_item, packed,
                          to, to_ids, memory.Piece(member));
        }));
    return top_k::SortLists(ctx, &team, t.lists, best, best_ids);
  }
};

REGISTER_KERNEL_BUILDER(Name("TfrecInt8DotTopK").Device(DEVICE_CPU), Int8DotTopKOp);

}  // namespace
}  // namespace int8_top_k
}  // namespace tfrec
