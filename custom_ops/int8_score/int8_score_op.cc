// TensorFlow op of int8 scoring on the CPU: each thread takes its share of the pairs.
#include <algorithm>
#include <atomic>
#include <vector>

#include "cpu_dispatch.h"
#include "int8_score.h"
#include "op.h"
#include "team.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "workspaces.h"

namespace tfrec {
namespace int8_score {
namespace {

using ::tensorflow::DEVICE_CPU;
using ::tensorflow::OpInputList;
using ::tensorflow::OpKernelConstruction;
using ::tensorflow::shape_inference::DimensionHandle;
using ::tensorflow::shape_inference::InferenceContext;
using ::tensorflow::shape_inference::ShapeHandle;

// The contract is in int8_score.h. Terms of width 0 mean no MLP, GMF rows of width 0 no GMF.
REGISTER_OP("TfrecInt8Score")
    .Input("user_terms: float")
    .Input("item_terms: float")
    .Input("user_index: int32")
    .Input("item_index: int32")
    .Input("bounds: int32")
    .Input("kernels: num_layers * int8")
    .Input("biases: num_layers * int32")
    .Input("multipliers: num_layers * float")
    .Input("final_kernel: int8")
    .Input("final_bias: int32")
    .Input("final_scale: float")
    .Input("gmf_user: int8")
    .Input("gmf_item: int8")
    .Input("gmf_user_scale: float")
    .Input("gmf_item_scale: float")
    .Input("gmf_kernel: int8")
    .Input("gmf_kernel_scale: float")
    .Input("bias: float")
    .Output("logits: float")
    .Attr("num_layers: int >= 0")
    .SetShapeFn([](InferenceContext* c) {
      const auto matrices = {"user_terms", "item_terms", "item_index", "bounds", "kernels", "gmf_user", "gmf_item"};
      const auto vectors = {"user_index", "biases", "multipliers", "final_kernel", "gmf_user_scale", "gmf_item_scale",
                            "gmf_kernel"};
      const auto scalars = {"final_bias", "final_scale", "gmf_kernel_scale", "bias"};
      const auto check = [c](const char* name, int rank) {
        std::vector<ShapeHandle> shapes;
        TF_RETURN_IF_ERROR(c->input(name, &shapes));
        for (ShapeHandle shape : shapes) TF_RETURN_IF_ERROR(c->WithRank(shape, rank, &shape));
        return absl::OkStatus();
      };
      for (const char* name : matrices) TF_RETURN_IF_ERROR(check(name, 2));
      for (const char* name : vectors) TF_RETURN_IF_ERROR(check(name, 1));
      for (const char* name : scalars) TF_RETURN_IF_ERROR(check(name, 0));
      DimensionHandle users, width;
      TF_RETURN_IF_ERROR(c->Merge(c->Dim(c->input(2), 0), c->Dim(c->input(3), 0), &users));
      TF_RETURN_IF_ERROR(c->Merge(c->Dim(c->input(0), 1), c->Dim(c->input(1), 1), &width));
      c->set_output(0, c->Matrix(users, c->Dim(c->input(3), 1)));
      return absl::OkStatus();
    });

const Kernels* ChooseKernels() {
  static const Kernels* const chosen =
      ChooseCopy(BaselineKernels, Avx2Kernels, HasAvx512Shorts() ? Avx512Kernels : Avx2Kernels);
  return chosen;
}

// OkStatus if every index lies in [0, size).
Status CheckIndices(const char* name, const char* of, const int32_t* index, int64_t count, int64_t size) {
  const uint32_t limit = static_cast<uint32_t>(std::min<int64_t>(size, 1LL << 31));
  uint32_t outside = 0;  // a loop without a branch, which is compiled to vectors
  for (int64_t i = 0; i < count; ++i) outside |= static_cast<uint32_t>(index[i]) >= limit;
  if (outside == 0) return absl::OkStatus();
  int64_t i = 0;
  while (static_cast<uint32_t>(index[i]) < limit) ++i;
  return absl::InvalidArgumentError(absl::StrCat("`", name, "` must lie in [0, ", size, "), the rows of ", of,
                                                 ". Received: ", index[i], " at position ", i, "."));
}

Status CheckBounds(const int32_t* b, int64_t number) {
  if (kLowest <= b[1] && b[1] <= b[2] && b[2] <= kHighest && std::abs(int64_t{b[0]}) <= kLargestZeroPoint) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "Row ", number, " of `bounds` must be a zero point in [", -kLargestZeroPoint, ", ", kLargestZeroPoint,
      "] and activations' bounds with ", kLowest, " <= low <= high <= ", kHighest, ". Received: ", b[0], ", ", b[1],
      ", ", b[2], "."));
}

class Int8ScoreOp : public SafeOp {
 public:
  explicit Int8ScoreOp(OpKernelConstruction* ctx) : SafeOp(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_layers", &num_layers_));
  }

 protected:
  Status Run(OpKernelContext* ctx) override {
    Int8Score t;
    std::vector<Layer> layers;
    TF_RETURN_IF_ERROR(Read(ctx, &t, &layers));
    const Tensor& index = Input(ctx, "item_index");
    const int64_t pairs = index.NumElements();
    Tensor* logits;
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, index.shape(), &logits));
    if (pairs == 0) return absl::OkStatus();

    Team team(ctx);
    const Kernels* kernels = ChooseKernels();
    Tensor holder;
    char* packed;
    Workspaces memory;
    TF_RETURN_IF_ERROR(Scratch(ctx, kernels->packed_bytes(t), &holder, &packed));
    TF_RETURN_IF_ERROR(memory.Allocate(ctx, kernels->workspace_bytes(t), team.size()));
    kernels->pack(t, packed);
    float* out = logits->flat<float>().data();
    const int64_t tile = kernels->pairs_together, tiles = (pairs + tile - 1) / tile;
    team.Run([&](int member) {
      const int64_t first = tiles * member / team.size() * tile;
      const int64_t last = std::min(pairs, tiles * (member + 1) / team.size() * tile);
      if (first < last) kernels->score(t, packed, first, last, out + first, memory.Piece(member));
    });
    return absl::OkStatus();
  }

 private:
  static const Tensor& Input(OpKernelContext* ctx, const char* name) {
    const Tensor* tensor;
    TF_CHECK_OK(ctx->input(name, &tensor));
    return *tensor;
  }

  // Fills the contract from the inputs, and checks all that the kernels rely on.
  Status Read(OpKernelContext* ctx, Int8Score* t, std::vector<Layer>* layers) const {
    const auto check = [](const char* name, const Tensor& found, const TensorShape& wanted) {
      return found.shape() == wanted ? absl::OkStatus()
                                     : absl::InvalidArgumentError(absl::StrCat(
                                           "`", name, "` must be ", wanted.DebugString(), " to fit the other inputs. ",
                                           "Received shape: ", found.shape().DebugString(), "."));
    };
    const Tensor &user_terms = Input(ctx, "user_terms"), &item_terms = Input(ctx, "item_terms"),
                 &user_index = Input(ctx, "user_index"), &item_index = Input(ctx, "item_index"),
                 &bounds = Input(ctx, "bounds"), &gmf_user = Input(ctx, "gmf_user"),
                 &gmf_item = Input(ctx, "gmf_item");
    const std::pair<const char*, const Tensor*> matrices[] = {{"user_terms", &user_terms}, {"item_terms", &item_terms},
                                                              {"item_index", &item_index}, {"gmf_user", &gmf_user},
                                                              {"gmf_item", &gmf_item}};
    for (const auto& [name, tensor] : matrices) {
      if (tensor->dims() != 2) {
        return absl::InvalidArgumentError(
            absl::StrCat("`", name, "` must be a matrix. Received shape: ", tensor->shape().DebugString(), "."));
      }
    }
    t->width = user_terms.dim_size(1);
    t->gmf_width = gmf_user.dim_size(1);
    const bool mlp = t->width > 0, gmf = t->gmf_width > 0;
    if ((!mlp && !gmf) || (!mlp && num_layers_ > 0)) {
      return absl::InvalidArgumentError("Needs terms or GMF rows of a width of 1 or more, and terms where layers are.");
    }
    if (t->width > kMaxDepth || t->gmf_width > kMaxGmfWidth) {
      return absl::InvalidArgumentError(absl::StrCat("Terms must be at most ", kMaxDepth, " wide and GMF rows ",
                                                     kMaxGmfWidth, ". Received: ", t->width, " and ", t->gmf_width,
                                                     "."));
    }
    // Tables of an absent branch have no rows.
    const int64_t users = (mlp ? user_terms : gmf_user).dim_size(0), items = (mlp ? item_terms : gmf_item).dim_size(0);
    const int64_t gmf_users = gmf ? users : gmf_user.dim_size(0), gmf_items = gmf ? items : gmf_item.dim_size(0);
    TF_RETURN_IF_ERROR(check("item_terms", item_terms, TensorShape({item_terms.dim_size(0), t->width})));
    TF_RETURN_IF_ERROR(check("gmf_user", gmf_user, TensorShape({gmf_users, t->gmf_width})));
    TF_RETURN_IF_ERROR(check("gmf_item", gmf_item, TensorShape({gmf_items, t->gmf_width})));
    TF_RETURN_IF_ERROR(check("gmf_user_scale", Input(ctx, "gmf_user_scale"), TensorShape({gmf_users})));
    TF_RETURN_IF_ERROR(check("gmf_item_scale", Input(ctx, "gmf_item_scale"), TensorShape({gmf_items})));
    TF_RETURN_IF_ERROR(check("gmf_kernel", Input(ctx, "gmf_kernel"), TensorShape({t->gmf_width})));
    TF_RETURN_IF_ERROR(check("user_index", user_index, TensorShape({item_index.dim_size(0)})));
    TF_RETURN_IF_ERROR(check("bounds", bounds, TensorShape({num_layers_ + 1, 3})));
    for (const char* name : {"final_bias", "final_scale", "gmf_kernel_scale", "bias"}) {
      TF_RETURN_IF_ERROR(check(name, Input(ctx, name), TensorShape({})));
    }
    for (int l = 0; l <= num_layers_; ++l) TF_RETURN_IF_ERROR(CheckBounds(Elements<int32_t>(bounds) + 3 * l, l));

    OpInputList kernels, biases, multipliers;
    TF_RETURN_IF_ERROR(ctx->input_list("kernels", &kernels));
    TF_RETURN_IF_ERROR(ctx->input_list("biases", &biases));
    TF_RETURN_IF_ERROR(ctx->input_list("multipliers", &multipliers));
    const auto bounds_of = [&](int64_t l) {
      const int32_t* b = Elements<int32_t>(bounds) + 3 * l;
      return Bounds{b[0], b[1], b[2]};
    };
    int64_t depth = t->width;
    for (int l = 0; l < num_layers_; ++l) {
      const int64_t width = kernels[l].dims() == 2 ? kernels[l].dim_size(1) : 0;
      if (width < 1 || width > kMaxDepth || kernels[l].dim_size(0) != depth) {
        return absl::InvalidArgumentError(absl::StrCat("Kernel ", l, " must be [", depth, ", 1 to ", kMaxDepth,
                                                       "]. Received shape: ", kernels[l].shape().DebugString(), "."));
      }
      TF_RETURN_IF_ERROR(check("biases", biases[l], TensorShape({width})));
      TF_RETURN_IF_ERROR(check("multipliers", multipliers[l], TensorShape({width})));
      layers->push_back({depth, width, Elements<int8_t>(kernels[l]), Elements<int32_t>(biases[l]),
                         Elements<float>(multipliers[l]), bounds_of(l + 1)});
      depth = width;
    }
    TF_RETURN_IF_ERROR(check("final_kernel", Input(ctx, "final_kernel"), TensorShape({depth})));
    TF_RETURN_IF_ERROR(CheckIndices("user_index", "users", Elements<int32_t>(user_index), user_index.NumElements(),
                                    users));
    TF_RETURN_IF_ERROR(CheckIndices("item_index", "items", Elements<int32_t>(item_index), item_index.NumElements(),
                                    items));

    t->candidates = item_index.dim_size(1);
    t->user_index = Elements<int32_t>(user_index);
    t->item_index = Elements<int32_t>(item_index);
    t->user_terms = Elements<float>(user_terms);
    t->item_terms = Elements<float>(item_terms);
    t->first = bounds_of(0);
    t->num_layers = num_layers_;
    t->layers = layers->data();
    t->final_kernel = Elements<int8_t>(Input(ctx, "final_kernel"));
    TF_RETURN_IF_ERROR(ReadScalar(Input(ctx, "final_bias"), "final_bias", &t->final_bias));
    TF_RETURN_IF_ERROR(ReadScalar(Input(ctx, "final_scale"), "final_scale", &t->final_scale));
    t->gmf_user = Elements<int8_t>(gmf_user);
    t->gmf_item = Elements<int8_t>(gmf_item);
    t->gmf_user_scale = Elements<float>(Input(ctx, "gmf_user_scale"));
    t->gmf_item_scale = Elements<float>(Input(ctx, "gmf_item_scale"));
    t->gmf_kernel = Elements<int8_t>(Input(ctx, "gmf_kernel"));
    TF_RETURN_IF_ERROR(ReadScalar(Input(ctx, "gmf_kernel_scale"), "gmf_kernel_scale", &t->gmf_kernel_scale));
    TF_RETURN_IF_ERROR(ReadScalar(Input(ctx, "bias"), "bias", &t->bias));
    return absl::OkStatus();
  }

  int num_layers_;
};

REGISTER_KERNEL_BUILDER(Name("TfrecInt8Score").Device(DEVICE_CPU), Int8ScoreOp);

}  // namespace
}  // namespace int8_score
}  // namespace tfrec
