// TensorFlow op of exact top-k by inner product of bytes on the CPU.
#include <limits>

#include "cpu_dispatch.h"
#include "int8_dot_top_k.h"
#include "lists.h"
#include "team.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tfrec {
namespace int8_top_k {
namespace {

using ::tensorflow::DEVICE_CPU;
using ::tensorflow::OpKernel;
using ::tensorflow::OpKernelContext;
using ::tensorflow::Tensor;
using ::tensorflow::TensorShape;
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

class Int8DotTopKOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) override {
    const Tensor &queries = ctx->input(0), &query_scales = ctx->input(1), &items = ctx->input(2),
                 &item_scales = ctx->input(3);
    const auto shape = [](const Tensor& t) { return t.shape().DebugString(); };
    OP_REQUIRES(ctx, queries.dims() == 2 && items.dims() == 2 && queries.dim_size(1) == items.dim_size(1),
                absl::InvalidArgumentError(absl::StrCat("`queries` and `items` must be [*, width] with equal widths. "
                                                        "Received shapes: ", shape(queries), " and ", shape(items))));
    OP_REQUIRES(ctx,
                items.dim_size(0) <= std::numeric_limits<int32_t>::max() && items.dim_size(1) >= 1 &&
                    items.dim_size(1) <= kMaxWidth,
                absl::InvalidArgumentError(absl::StrCat("`items` must be [0 to 2^31 - 1, 1 to ", kMaxWidth,
                                                        "]. Received shape: ", shape(items))));
    OP_REQUIRES(ctx,
                query_scales.shape() == TensorShape({queries.dim_size(0)}) &&
                    item_scales.shape() == TensorShape({items.dim_size(0)}),
                absl::InvalidArgumentError(absl::StrCat("`query_scales` and `item_scales` must have one number per row. "
                                                        "Received shapes: ", shape(query_scales), " and ",
                                                        shape(item_scales))));
    Int8DotTopK t;
    t.lists.num_queries = queries.dim_size(0);
    t.lists.num_items = items.dim_size(0);
    t.lists.width = queries.dim_size(1);
    t.lists.queries = queries.data();
    t.lists.items = items.data();
    t.lists.half_storage = false;
    t.query_scales = query_scales.flat<float>().data();
    t.item_scales = item_scales.flat<float>().data();
    OP_REQUIRES_OK(ctx, top_k::ReadLists(ctx->input(4), ctx->input(5), ctx->input(6), &t.lists));
    Tensor *scores, *ids, memory;
    const TensorShape lists({t.lists.num_queries, t.lists.k});
    OP_REQUIRES_OK(ctx, ctx->allocate_output(0, lists, &scores));
    OP_REQUIRES_OK(ctx, ctx->allocate_output(1, lists, &ids));
    float* best = scores->flat<float>().data();
    int32_t* best_ids = ids->flat<int32_t>().data();
    top_k::EmptyLists(t.lists, best, best_ids);
    Team team(ctx);
    const Kernels* kernels = ChooseKernels();
    const int64_t workspace = kernels->workspace_bytes(t);
    OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_INT8, TensorShape({team.size() * workspace}), &memory));
    top_k::SearchInParts(&team, t.lists, best, best_ids,
                         [&](int member, int64_t first_query, int64_t last_query, int64_t first_item,
                             int64_t last_item, bool packed, float* to, int32_t* to_ids) {
                           kernels->search(t, first_query, last_query, first_item, last_item, packed, to, to_ids,
                                           static_cast<char*>(memory.data()) + member * workspace);
                         });
    top_k::SortLists(&team, t.lists, best, best_ids);
  }
};

REGISTER_KERNEL_BUILDER(Name("TfrecInt8DotTopK").Device(DEVICE_CPU), Int8DotTopKOp);

}  // namespace
}  // namespace int8_top_k
}  // namespace tfrec
