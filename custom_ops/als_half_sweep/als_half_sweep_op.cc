// TensorFlow ops of alternating least squares: the half-sweep, the Gramian, and the rows' losses.
//
// On the CPU a half-sweep is cut into tasks of about equal work, longest rows first, which the threads take from a
// counter; a row so long that it would unbalance them is shared by all threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "als_rows.h"
#include "cpu_dispatch.h"
#include "op.h"
#include "team.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "workspaces.h"
#ifdef TFREC_CUDA
#include "als_cuda.h"
#include "xla/stream_executor/stream.h"
#endif

namespace tfrec {
namespace als {

float RowRegularization(const HalfSweep& sweep, int64_t row) {
  if (sweep.frequency_exponent == 0.0f) return sweep.regularization;
  const double entries = static_cast<double>(sweep.row_offsets[row + 1] - sweep.row_offsets[row]);
  const double size = entries + static_cast<double>(sweep.unobserved_weight) * static_cast<double>(sweep.num_counted);
  return static_cast<float>(sweep.regularization * std::pow(size, static_cast<double>(sweep.frequency_exponent)));
}

// The copy of the kernels for this processor.
const RowKernels* ChooseRowKernels() {
  static const RowKernels* const chosen = ChooseCopy(BaselineRowKernels, Avx2RowKernels, Avx512RowKernels);
  return chosen;
}

namespace {

using ::tensorflow::DEVICE_CPU;
using ::tensorflow::OpKernelConstruction;
using ::tensorflow::shape_inference::InferenceContext;
using ::tensorflow::shape_inference::ShapeHandle;

Status HalfSweepShape(InferenceContext* c) {
  ShapeHandle fixed;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(4), 2, &fixed));
  ShapeHandle start;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(6), 2, &start));
  c->set_output(0, c->Matrix(c->Dim(start, 0), c->Dim(fixed, 1)));
  c->set_output(1, c->Scalar());
  c->set_output(2, c->Vector(InferenceContext::kUnknownDim));
  return absl::OkStatus();
}

}  // namespace

// `inverse` and `shift` are CG's preconditioner, see als_half_sweep.h; other solvers do not read them.
// `row_order` lists the rows by falling number of entries; on a GPU the first `num_long` of them are shared by blocks (the
// CPU decides by itself). `num_counted` is M in the regularization where `fixed` has only some of the M rows; 0: `fixed` has all.
REGISTER_OP("TfrecAlsHalfSweep")
    .Input("row_offsets: int64")
    .Input("columns: int32")
    .Input("values: float")
    .Input("row_order: int64")
    .Input("fixed: T")
    .Input("gramian: float")
    .Input("start: T")
    .Input("alpha: float")
    .Input("regularization: float")
    .Input("unobserved_weight: float")
    .Input("frequency_exponent: float")
    .Input("num_long: int64")
    .Input("inverse: float")
    .Input("shift: float")
    .Output("solved: T")
    .Output("first_bad_row: int64")
    .Output("thread_seconds: float")
    .Attr("T: {half, float}")
    .Attr("solver: {'cholesky', 'cg', 'block'}")
    .Attr("cg_steps: int >= 1 = 3")
    .Attr("block_size: int >= 1 = 64")
    .Attr("num_counted: int >= 0 = 0")
    .SetShapeFn(HalfSweepShape);

// Rows [first_row, first_row + N) of the variable `table` are where the solver begins, and are overwritten: a table is
// never held twice. Where a row is not finite, the rows solved so far keep their new values.
REGISTER_OP("TfrecAlsHalfSweepInPlace")
    .Input("row_offsets: int64")
    .Input("columns: int32")
    .Input("values: float")
    .Input("row_order: int64")
    .Input("fixed: T")
    .Input("gramian: float")
    .Input("table: resource")
    .Input("alpha: float")
    .Input("regularization: float")
    .Input("unobserved_weight: float")
    .Input("frequency_exponent: float")
    .Input("first_row: int64")
    .Input("inverse: float")
    .Input("shift: float")
    .Output("first_bad_row: int64")
    .Output("thread_seconds: float")
    .Attr("T: {half, float}")
    .Attr("solver: {'cholesky', 'cg', 'block'}")
    .Attr("cg_steps: int >= 1 = 3")
    .Attr("block_size: int >= 1 = 64")
    .Attr("num_counted: int >= 0 = 0")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->Scalar());
      c->set_output(1, c->Vector(InferenceContext::kUnknownDim));
      return absl::OkStatus();
    });

REGISTER_OP("TfrecAlsGramian")
    .Input("table: T")
    .Output("gramian: float")
    .Attr("T: {half, float}")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle table;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &table));
      c->set_output(0, c->Matrix(c->Dim(table, 1), c->Dim(table, 1)));
      return absl::OkStatus();
    });

REGISTER_OP("TfrecAlsLosses")
    .Input("row_offsets: int64")
    .Input("columns: int32")
    .Input("values: float")
    .Input("fixed: T")
    .Input("gramian: float")
    .Input("rows: T")
    .Input("alpha: float")
    .Input("unobserved_weight: float")
    .Output("losses: double")
    .Attr("T: {half, float}")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle rows;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(5), 2, &rows));
      c->set_output(0, c->Vector(c->Dim(rows, 0)));
      return absl::OkStatus();
    });

namespace {

// Multiply-adds of a row with n entries, about; what the tasks are balanced by.
double RowWork(const HalfSweep& s, double n) {
  const double f = s.factors, block = std::min(s.block_size, s.factors);
  if (n == 0) return f / 8;
  switch (s.solver) {
    case Solver::kCholesky:
      return n * f * (f / 2 + 8) + f * f * f / 4 + 2 * f * f;
    case Solver::kConjugateGradient:
      return (s.cg_steps + 1.0) * (f * f + 3 * n * f);
    default:
      return n * f * (block / 2 + 8) + f * block * block / 4 + 2 * f * f;
  }
}

// One thread's share [begin, end) of a long row's entries.
std::pair<int64_t, int64_t> Share(const HalfSweep& s, int64_t row, int slot, int slots) {
  const int64_t first = s.row_offsets[row], n = s.row_offsets[row + 1] - first;
  return {first + n * slot / slots, first + n * (slot + 1) / slots};
}

class HalfSweepRunner {
 public:
  HalfSweepRunner(const HalfSweep& sweep, const int64_t* order, Team* team, const RowKernels* kernels)
      : s_(sweep),
        order_(order),
        team_(team),
        kernels_(kernels),
        stride_(Stride(sweep.factors)),
        matrix_floats_(MatrixFloats(sweep.factors)) {}

  Status Allocate(OpKernelContext* ctx) {
    // The base, and for CG the inverse behind it.
    TF_RETURN_IF_ERROR(Scratch(ctx, matrix_floats_ * (s_.inverse != nullptr ? 2 : 1), &base_memory_, &base_));
    // For rows that threads share a partial matrix, and its right-hand side.
    TF_RETURN_IF_ERROR(partial_.Allocate(ctx, (matrix_floats_ + stride_) * sizeof(float), team_->size()));
    return workspaces_.Allocate(ctx, kernels_->workspace_floats(s_) * sizeof(float), team_->size());
  }

  // Returns the smallest row that is not finite, or -1.
  int64_t Run() {
    kernels_->make_base(s_, base_);
    double total = 0.0;
    for (int64_t i = 0; i < s_.num_rows; ++i) total += RowWork(s_, Entries(order_[i]));
    const int slots = team_->size();
    int64_t longs = 0;
    // A sixteenth of a thread's share is the most that the last task can unbalance.
    while (slots > 1 && longs < s_.num_rows && Entries(order_[longs]) >= 1024 &&
           RowWork(s_, Entries(order_[longs])) > total / (16.0 * slots)) {
      Note(SolveLong(order_[longs++]));
    }
    std::vector<int64_t> starts = {longs};
    double work = 0.0;
    for (int64_t i = longs; i < s_.num_rows; ++i) {
      work += RowWork(s_, Entries(order_[i]));
      if (work > total / (64.0 * slots) || i + 1 == s_.num_rows) {
        starts.push_back(i + 1);
        work = 0.0;
      }
    }
    const int64_t tasks = static_cast<int64_t>(starts.size()) - 1;
    std::atomic<int64_t> next{0};
    std::vector<int64_t> bad(slots, -1);
    team_->Run([&](int slot) {
      for (int64_t task; (task = next.fetch_add(1)) < tasks;) {
        const int64_t found = kernels_->solve_rows(s_, base_, order_ + starts[task], starts[task + 1] - starts[task],
                                                   Workspace(slot));
        if (found >= 0 && (bad[slot] < 0 || found < bad[slot])) bad[slot] = found;
      }
    });
    for (const int64_t row : bad) Note(row);
    return bad_;
  }

 private:
  int64_t Entries(int64_t row) const { return s_.row_offsets[row + 1] - s_.row_offsets[row]; }
  float* Matrix(int slot) const { return partial_.Floats(slot); }
  float* Right(int slot) const { return Matrix(slot) + matrix_floats_; }
  float* Workspace(int slot) const { return workspaces_.Floats(slot); }
  void Note(int64_t row) {
    if (row >= 0 && (bad_ < 0 || row < bad_)) bad_ = row;
  }

  // The threads' partial sums are added in the order of the threads: the result does not depend on who was faster.
  int64_t SolveLong(int64_t row) {
    if (s_.solver == Solver::kConjugateGradient) return SolveLongConjugate(row);
    const int slots = team_->size();
    team_->Run([&](int slot) {
      const auto [begin, end] = Share(s_, row, slot, slots);
      kernels_->partial_matrix(s_, row, begin, end, Matrix(slot), Right(slot), Workspace(slot));
    });
    float *sum = Matrix(0), *right = Right(0);
    for (int slot = 1; slot < slots; ++slot) {
      for (int64_t i = 0; i < matrix_floats_; ++i) sum[i] += Matrix(slot)[i];
      for (int64_t i = 0; i < stride_; ++i) right[i] += Right(slot)[i];
    }
    return kernels_->solve_matrix(s_, base_, row, sum, right, Workspace(0));
  }

  // CG with plain loops over vectors of F: their cost is nothing next to a long row's entries.
  int64_t SolveLongConjugate(int64_t row) {
    const int f = s_.factors;
    const float lambda = RowRegularization(s_, row);
    const float* const inverse = base_ + matrix_floats_;
    std::vector<float> x(stride_, 0.0f), r(stride_), p(stride_, 0.0f), pp, ap(stride_), z(stride_, 0.0f);
    for (int i = 0; i < f; ++i) {
      x[i] = s_.half_storage ? static_cast<float>(static_cast<const Eigen::half*>(s_.start)[row * f + i])
                             : static_cast<const float*>(s_.start)[row * f + i];
    }
    Product(row, x, true, &r);
    for (int i = 0; i < f; ++i) {
      for (int j = 0; j < f; ++j) r[i] -= base_[i * stride_ + j] * x[j];
      r[i] -= lambda * x[i];
    }
    const auto precondition = [&](std::vector<float>* out) {
      for (int i = 0; i < f; ++i) {
        (*out)[i] = 0.0f;
        for (int j = 0; j < f; ++j) (*out)[i] += inverse[i * stride_ + j] * r[j];
      }
    };
    precondition(&p);
    pp = r;
    double squared = Dot(r, p);
    for (int step = 0; step < s_.cg_steps && squared >= 1e-20; ++step) {
      Product(row, p, false, &ap);
      for (int i = 0; i < f; ++i) ap[i] += pp[i] + (lambda - s_.shift) * p[i];
      const double curvature = Dot(p, ap), length = curvature == 0.0 ? 0.0 : squared / curvature;
      for (int i = 0; i < f; ++i) {
        x[i] += static_cast<float>(length) * p[i];
        r[i] -= static_cast<float>(length) * ap[i];
      }
      precondition(&z);
      const double before = squared;
      squared = Dot(r, z);
      const float ratio = static_cast<float>(squared / before);
      for (int i = 0; i < f; ++i) {
        p[i] = z[i] + ratio * p[i];
        pp[i] = r[i] + ratio * pp[i];
      }
    }
    bool finite = true;
    for (int i = 0; i < f; ++i) {
      if (s_.half_storage) {
        const Eigen::half h(x[i]);
        static_cast<Eigen::half*>(s_.solved)[row * f + i] = h;
        finite = finite && std::isfinite(static_cast<float>(h));
      } else {
        static_cast<float*>(s_.solved)[row * f + i] = x[i];
        finite = finite && std::isfinite(x[i]);
      }
    }
    return finite ? -1 : row;
  }

  void Product(int64_t row, const std::vector<float>& vector, bool residual, std::vector<float>* result) {
    const int slots = team_->size();
    const LongRow task = {row, vector.data(), residual};
    team_->Run([&](int slot) {
      const auto [begin, end] = Share(s_, row, slot, slots);
      kernels_->partial_product(s_, task, begin, end, Right(slot), Workspace(slot));
    });
    std::copy(Right(0), Right(0) + stride_, result->begin());
    for (int slot = 1; slot < slots; ++slot) {
      for (int64_t i = 0; i < stride_; ++i) (*result)[i] += Right(slot)[i];
    }
  }

  static double Dot(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0.0;
    for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
  }

  const HalfSweep s_;
  const int64_t* order_;
  Team* team_;
  const RowKernels* kernels_;
  const int64_t stride_, matrix_floats_;
  Tensor base_memory_;
  float* base_ = nullptr;
  Workspaces partial_, workspaces_;
  int64_t bad_ = -1;
};

// Shapes that both devices check alike. `rows` is the input of the name `rows_name`.
Status FillSweep(const Tensor& offsets, const Tensor& columns, const Tensor& values, const Tensor& fixed,
                 const Tensor& gramian, const Tensor& rows, const char* rows_name, HalfSweep* s) {
  const auto wrong = [](const char* name, const char* expected, const TensorShape& shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", name, "` must be ", expected, ". Received shape: ", shape.DebugString()));
  };
  if (fixed.dims() != 2) return wrong("fixed", "[num_fixed, factors]", fixed.shape());
  const int64_t f = fixed.dim_size(1);
  if (f < 1 || f > kMaxFactors) {
    return absl::InvalidArgumentError(
        absl::StrCat("`fixed` must have 1 to ", kMaxFactors, " factors. Received: ", f, " factors."));
  }
  if (rows.dims() != 2 || rows.dim_size(1) != f) return wrong(rows_name, "[num_rows, factors of fixed]", rows.shape());
  if (offsets.dims() != 1 || offsets.dim_size(0) != rows.dim_size(0) + 1) {
    return wrong("row_offsets", "[num_rows + 1]", offsets.shape());
  }
  if (columns.dims() != 1) return wrong("columns", "[entries]", columns.shape());
  if (values.shape() != columns.shape()) return wrong("values", "of the shape of `columns`", values.shape());
  if (gramian.dims() != 2 || gramian.dim_size(0) != f || gramian.dim_size(1) != f) {
    return wrong("gramian", "[factors, factors]", gramian.shape());
  }
  s->num_rows = rows.dim_size(0);
  s->num_fixed = s->num_counted = fixed.dim_size(0);
  s->num_entries = columns.dim_size(0);
  s->factors = static_cast<int>(f);
  s->row_offsets = Elements<int64_t>(offsets);
  s->columns = Elements<int32_t>(columns);
  s->values = Elements<float>(values);
  s->fixed = fixed.data();
  s->half_storage = fixed.dtype() == tensorflow::DT_HALF;
  s->gramian = Elements<float>(gramian);
  s->inverse = nullptr;
  s->shift = 0.0f;
  s->start = rows.data();
  s->solved = nullptr;
  return absl::OkStatus();
}

// Offsets that do not fall and stay inside the entries; columns of these rows inside the fixed table. Without it a
// damaged matrix would read memory that is not its own.
Status CheckMatrix(const HalfSweep& s, int64_t entries) {
  if (s.row_offsets[0] < 0 || s.row_offsets[s.num_rows] > entries) {
    return absl::InvalidArgumentError(absl::StrCat("`row_offsets` must lie in 0 to ", entries,
                                                   ", the number of entries. Received: ", s.row_offsets[0], " to ",
                                                   s.row_offsets[s.num_rows]));
  }
  for (int64_t r = 0; r < s.num_rows; ++r) {
    if (s.row_offsets[r + 1] < s.row_offsets[r]) {
      return absl::InvalidArgumentError(absl::StrCat("`row_offsets` must not fall. Received: ", s.row_offsets[r],
                                                     " then ", s.row_offsets[r + 1], " at row ", r));
    }
  }
  uint32_t largest = 0;
  for (int64_t k = s.row_offsets[0]; k < s.row_offsets[s.num_rows]; ++k) {
    largest = std::max(largest, static_cast<uint32_t>(s.columns[k]));  // a negative column is a very large one
  }
  if (s.row_offsets[s.num_rows] > s.row_offsets[0] && largest >= static_cast<uint64_t>(s.num_fixed)) {
    return absl::InvalidArgumentError(absl::StrCat("`columns` must lie in 0 to ", s.num_fixed - 1,
                                                   ", the rows of `fixed`. Received: ", static_cast<int32_t>(largest)));
  }
  return absl::OkStatus();
}

// The input of the Gramian, on both devices.
Status CheckTable(const Tensor& table) {
  if (table.dims() == 2 && table.dim_size(1) >= 1 && table.dim_size(1) <= kMaxFactors) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("`table` must be [rows, 1 to ", kMaxFactors,
                                                 " factors]. Received shape: ", table.shape().DebugString()));
}

class HalfSweepOp : public SafeOp {
 public:
  explicit HalfSweepOp(OpKernelConstruction* ctx) : SafeOp(ctx) {
    std::string solver;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("solver", &solver));
    solver_ = solver == "cholesky" ? Solver::kCholesky : solver == "cg" ? Solver::kConjugateGradient : Solver::kBlock;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("cg_steps", &cg_steps_));
    OP_REQUIRES(ctx, cg_steps_ <= kMaxSteps,
                absl::InvalidArgumentError(absl::StrCat("`cg_steps` must be 1 to ", kMaxSteps, ". Received: ", cg_steps_)));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("block_size", &block_size_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("num_counted", &num_counted_));
  }

 protected:
  // The sweep without its output; `rows` is where it begins.
  Status Inputs(OpKernelContext* ctx, const Tensor& rows, HalfSweep* s) {
    TF_RETURN_IF_ERROR(FillSweep(ctx->input(0), ctx->input(1), ctx->input(2), ctx->input(4), ctx->input(5), rows,
                                 "start", s));
    if (ctx->input(3).dims() != 1 || ctx->input(3).dim_size(0) != s->num_rows) {
      return absl::InvalidArgumentError(absl::StrCat("`row_order` must be [num_rows], here [", s->num_rows,
                                                     "]. Received shape: ", ctx->input(3).shape().DebugString()));
    }
    TF_RETURN_IF_ERROR(ReadNotNegative(ctx->input(7), "alpha", &s->alpha));
    TF_RETURN_IF_ERROR(ReadNotNegative(ctx->input(8), "regularization", &s->regularization));
    TF_RETURN_IF_ERROR(ReadNotNegative(ctx->input(9), "unobserved_weight", &s->unobserved_weight));
    TF_RETURN_IF_ERROR(ReadNotNegative(ctx->input(10), "frequency_exponent", &s->frequency_exponent));
    if (solver_ == Solver::kConjugateGradient) {
      if (ctx->input(12).shape() != ctx->input(5).shape()) {
        return absl::InvalidArgumentError(absl::StrCat("`inverse` must be of the shape of `gramian`. Received shape: ",
                                                       ctx->input(12).shape().DebugString()));
      }
      TF_RETURN_IF_ERROR(ReadNotNegative(ctx->input(13), "shift", &s->shift));
      s->inverse = Elements<float>(ctx->input(12));
    }
    if (num_counted_ > 0) s->num_counted = num_counted_;
    s->solver = solver_;
    s->cg_steps = cg_steps_;
    s->block_size = std::min(block_size_, s->factors);
    return absl::OkStatus();
  }

  // Input 11 of the sweep that is not in place.
  static Status NumLong(OpKernelContext* ctx, const HalfSweep& s, int64_t* num_long) {
    TF_RETURN_IF_ERROR(ReadScalar(ctx->input(11), "num_long", num_long));
    if (*num_long >= 0 && *num_long <= s.num_rows) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("`num_long` must be 0 to ", s.num_rows, ", the number of rows. Received: ", *num_long));
  }

 private:
  Solver solver_;
  int cg_steps_, block_size_;
  int64_t num_counted_;
};

class HalfSweepCpuBase : public HalfSweepOp {
 public:
  using HalfSweepOp::HalfSweepOp;

 protected:
  // Solves, and gives the first bad row and the threads' seconds as outputs `output` and the next.
  Status Solve(OpKernelContext* ctx, const HalfSweep& s, int output) {
    TF_RETURN_IF_ERROR(CheckMatrix(s, ctx->input(1).NumElements()));
    const int64_t* order = Elements<int64_t>(ctx->input(3));
    // A row listed twice would be written by two threads, and another one never.
    std::vector<bool> seen(s.num_rows, false);
    for (int64_t i = 0; i < s.num_rows; ++i) {
      if (order[i] < 0 || order[i] >= s.num_rows || seen[order[i]]) {
        return absl::InvalidArgumentError(absl::StrCat("`row_order` must hold each row once, 0 to ", s.num_rows - 1,
                                                       ". Received: ", order[i], " at position ", i));
      }
      seen[order[i]] = true;
    }
    Team team(ctx);
    Tensor *bad, *seconds;
    TF_RETURN_IF_ERROR(ctx->allocate_output(output, TensorShape({}), &bad));
    TF_RETURN_IF_ERROR(ctx->allocate_output(output + 1, TensorShape({team.size()}), &seconds));
    bad->scalar<int64_t>()() = -1;
    if (s.num_rows > 0) {
      HalfSweepRunner runner(s, order, &team, ChooseRowKernels());
      TF_RETURN_IF_ERROR(runner.Allocate(ctx));
      bad->scalar<int64_t>()() = runner.Run();
    }
    std::copy(team.seconds().begin(), team.seconds().end(), seconds->flat<float>().data());
    return absl::OkStatus();
  }
};

class HalfSweepCpuOp : public HalfSweepCpuBase {
 public:
  using HalfSweepCpuBase::HalfSweepCpuBase;

 protected:
  Status Run(OpKernelContext* ctx) override {
    HalfSweep s;
    TF_RETURN_IF_ERROR(Inputs(ctx, ctx->input(6), &s));
    int64_t num_long;
    TF_RETURN_IF_ERROR(NumLong(ctx, s, &num_long));
    Tensor* solved;
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, ctx->input(6).shape(), &solved));
    s.solved = solved->data();
    return Solve(ctx, s, 1);
  }
};

#ifdef TFREC_CUDA
void* Stream(OpKernelContext* ctx) { return ctx->op_device_context()->stream()->platform_specific_handle().stream; }

// What a kernel would read or write outside its memory for. Waiting costs little: who calls reads first_bad_row at once.
Status CheckMatrixOnGpu(OpKernelContext* ctx, const HalfSweep& s) {
  const int64_t entries = ctx->input(1).NumElements();
  Tensor scratch;
  const int64_t bytes = static_cast<int64_t>(CheckMatrixCudaScratchBytes(s.num_rows));
  TF_RETURN_IF_ERROR(ctx->allocate_temp(tensorflow::DT_INT8, TensorShape({bytes}), &scratch));
  MatrixFault fault;
  const char* error =
      CheckMatrixCuda(s, entries, Elements<int64_t>(ctx->input(3)), scratch.data(), &fault, Stream(ctx));
  if (error != nullptr) return absl::InternalError(absl::StrCat("the check of the matrix failed: ", error));
  switch (fault.kind) {
    case MatrixFault::kNone:
      return absl::OkStatus();
    case MatrixFault::kOffset:
      return absl::InvalidArgumentError(absl::StrCat("`row_offsets` must lie in 0 to ", entries,
                                                     ", the number of entries. Not so at row ", fault.position));
    case MatrixFault::kFallingOffset:
      return absl::InvalidArgumentError(absl::StrCat("`row_offsets` must not fall. They do at row ", fault.position));
    case MatrixFault::kColumn:
      return absl::InvalidArgumentError(absl::StrCat("`columns` must lie in 0 to ", s.num_fixed - 1,
                                                     ", the rows of `fixed`. Not so at entry ", fault.position));
    case MatrixFault::kOrder:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat("`row_order` must hold each row once, 0 to ", s.num_rows - 1,
                                                 ". Not so at position ", fault.position));
}

class HalfSweepGpuOp : public HalfSweepOp {
 public:
  using HalfSweepOp::HalfSweepOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    HalfSweep s;
    TF_RETURN_IF_ERROR(Inputs(ctx, ctx->input(6), &s));
    int64_t num_long;
    TF_RETURN_IF_ERROR(NumLong(ctx, s, &num_long));
    TF_RETURN_IF_ERROR(CheckMatrixOnGpu(ctx, s));
    Tensor *solved, *bad, *seconds, scratch;
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, ctx->input(6).shape(), &solved));
    TF_RETURN_IF_ERROR(ctx->allocate_output(1, TensorShape({}), &bad));
    TF_RETURN_IF_ERROR(ctx->allocate_output(2, TensorShape({0}), &seconds));
    s.solved = solved->data();
    const int64_t bytes = static_cast<int64_t>(HalfSweepCudaScratchBytes(s));
    TF_RETURN_IF_ERROR(ctx->allocate_temp(tensorflow::DT_INT8, TensorShape({bytes}), &scratch));
    const char* error = HalfSweepCuda(s, Elements<int64_t>(ctx->input(3)), num_long, scratch.data(),
                                      bad->flat<int64_t>().data(), Stream(ctx));
    return error == nullptr ? absl::OkStatus() : absl::InternalError(absl::StrCat("the half-sweep failed: ", error));
  }
};

class GramianGpuOp : public SafeOp {
 public:
  using SafeOp::SafeOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    const Tensor& table = ctx->input(0);
    TF_RETURN_IF_ERROR(CheckTable(table));
    const int factors = static_cast<int>(table.dim_size(1));
    Tensor *gramian, scratch;
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, TensorShape({factors, factors}), &gramian));
    const int64_t bytes = static_cast<int64_t>(GramianCudaScratchBytes(table.dim_size(0), factors));
    TF_RETURN_IF_ERROR(ctx->allocate_temp(tensorflow::DT_INT8, TensorShape({bytes}), &scratch));
    const char* error = GramianCuda(table.data(), table.dtype() == tensorflow::DT_HALF, table.dim_size(0), factors,
                                    gramian->flat<float>().data(), scratch.data(), Stream(ctx));
    return error == nullptr ? absl::OkStatus() : absl::InternalError(absl::StrCat("the Gramian failed: ", error));
  }
};

#define TFREC_REGISTER_GPU(T)                                                         \
  REGISTER_KERNEL_BUILDER(Name("TfrecAlsHalfSweep")                                   \
                              .Device(tensorflow::DEVICE_GPU)                         \
                              .TypeConstraint<T>("T")                                 \
                              .HostMemory("alpha")                                    \
                              .HostMemory("regularization")                           \
                              .HostMemory("unobserved_weight")                        \
                              .HostMemory("frequency_exponent")                       \
                              .HostMemory("num_long")                                 \
                              .HostMemory("shift")                                    \
                              .HostMemory("thread_seconds"),                          \
                          HalfSweepGpuOp);                                            \
  REGISTER_KERNEL_BUILDER(                                                            \
      Name("TfrecAlsGramian").Device(tensorflow::DEVICE_GPU).TypeConstraint<T>("T"), GramianGpuOp);
TFREC_REGISTER_GPU(Eigen::half)
TFREC_REGISTER_GPU(float)
#undef TFREC_REGISTER_GPU
#endif  // TFREC_CUDA

class HalfSweepInPlaceCpuOp : public HalfSweepCpuBase {
 public:
  using HalfSweepCpuBase::HalfSweepCpuBase;

 protected:
  Status Run(OpKernelContext* ctx) override {
    int64_t first;
    TF_RETURN_IF_ERROR(ReadScalar(ctx->input(11), "first_row", &first));
    if (ctx->input(0).dims() != 1 || ctx->input(0).dim_size(0) < 1) {
      return absl::InvalidArgumentError(absl::StrCat("`row_offsets` must be [num_rows + 1]. Received shape: ",
                                                     ctx->input(0).shape().DebugString()));
    }
    const int64_t rows = ctx->input(0).dim_size(0) - 1;
    tensorflow::core::RefCountPtr<tensorflow::Var> variable;
    TF_RETURN_IF_ERROR(ReadVariable(ctx, 6, "table", &variable));
    // Held throughout: who reads the variable meanwhile waits, and who has read it before keeps what was read, below.
    tensorflow::mutex_lock lock(*variable->mu());
    Tensor* table = variable->tensor();
    if (!variable->is_initialized || table->dtype() != ctx->input(4).dtype() || table->dims() != 2) {
      return absl::InvalidArgumentError("`table` must be a matrix of the type of `fixed`.");
    }
    if (table->SharesBufferWith(ctx->input(4))) {
      return absl::InvalidArgumentError("`fixed` must not be the table that is solved for.");
    }
    if (first < 0 || rows > table->dim_size(0) || first > table->dim_size(0) - rows) {
      return absl::InvalidArgumentError(absl::StrCat("`first_row` and the ", rows, " rows of `row_offsets` must lie in the ",
                                                     table->dim_size(0), " rows of `table`. Received: first_row=", first));
    }
    if (!table->RefCountIsOne()) {
      Tensor own;
      TF_RETURN_IF_ERROR(ctx->allocate_temp(table->dtype(), table->shape(), &own));
      if (table->TotalBytes() > 0) std::memcpy(own.data(), table->data(), table->TotalBytes());
      *table = own;
    }
    // Set by operations that write parts of a variable; every reader of the whole would get a copy. Here it is not needed:
    // who has the buffer keeps it, and this operation writes into one of its own.
    variable->copy_on_read_mode.store(false);
    HalfSweep s;
    const Tensor part = table->Slice(first, first + rows);
    TF_RETURN_IF_ERROR(Inputs(ctx, part, &s));
    s.solved = part.data();
    return Solve(ctx, s, 0);
  }
};

class GramianCpuOp : public SafeOp {
 public:
  using SafeOp::SafeOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    const Tensor& table = ctx->input(0);
    TF_RETURN_IF_ERROR(CheckTable(table));
    const int64_t rows = table.dim_size(0);
    const int f = static_cast<int>(table.dim_size(1)), stride = Stride(f);
    Team team(ctx);
    // Partial sums go by the number of threads; they are added in order.
    const int64_t floats = MatrixFloats(f), panel = 128 * static_cast<int64_t>(stride);
    Tensor* gramian;
    Workspaces memory;
    TF_RETURN_IF_ERROR(memory.Allocate(ctx, (floats + panel) * sizeof(float), team.size()));
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, TensorShape({f, f}), &gramian));
    const RowKernels* kernels = ChooseRowKernels();
    team.Run([&](int slot) {
      float* sum = memory.Floats(slot);
      std::memset(sum, 0, floats * sizeof(float));
      kernels->add_gramian(table.data(), table.dtype() == tensorflow::DT_HALF, f, rows * slot / team.size(),
                           rows * (slot + 1) / team.size(), sum, sum + floats);
    });
    float* out = gramian->flat<float>().data();
    for (int i = 0; i < f; ++i) {
      for (int j = i; j < f; ++j) {
        float sum = 0.0f;
        for (int slot = 0; slot < team.size(); ++slot) sum += memory.Floats(slot)[i * stride + j];
        out[i * f + j] = out[j * f + i] = sum;
      }
    }
    return absl::OkStatus();
  }
};

class LossesCpuOp : public SafeOp {
 public:
  using SafeOp::SafeOp;

 protected:
  Status Run(OpKernelContext* ctx) override {
    HalfSweep s;
    TF_RETURN_IF_ERROR(FillSweep(ctx->input(0), ctx->input(1), ctx->input(2), ctx->input(3), ctx->input(4),
                                 ctx->input(5), "rows", &s));
    TF_RETURN_IF_ERROR(CheckMatrix(s, ctx->input(1).NumElements()));
    TF_RETURN_IF_ERROR(ReadNotNegative(ctx->input(6), "alpha", &s.alpha));
    TF_RETURN_IF_ERROR(ReadNotNegative(ctx->input(7), "unobserved_weight", &s.unobserved_weight));
    s.regularization = s.frequency_exponent = 0.0f;
    s.solver = Solver::kConjugateGradient;
    s.cg_steps = s.block_size = 1;
    Tensor* losses;
    TF_RETURN_IF_ERROR(ctx->allocate_output(0, TensorShape({s.num_rows}), &losses));
    if (s.num_rows == 0) return absl::OkStatus();
    Team team(ctx);
    const RowKernels* kernels = ChooseRowKernels();
    Tensor base_memory;
    float* base;
    TF_RETURN_IF_ERROR(Scratch(ctx, MatrixFloats(s.factors), &base_memory, &base));
    Workspaces memory;
    TF_RETURN_IF_ERROR(memory.Allocate(ctx, kernels->workspace_floats(s) * sizeof(float), team.size()));
    kernels->make_base(s, base);
    double* out = losses->flat<double>().data();
    constexpr int64_t kRows = 64;
    const int64_t tasks = (s.num_rows + kRows - 1) / kRows;
    std::atomic<int64_t> next{0};
    team.Run([&](int slot) {
      for (int64_t task; (task = next.fetch_add(1)) < tasks;) {
        kernels->losses(s, base, task * kRows, std::min(s.num_rows, (task + 1) * kRows), out + task * kRows,
                        memory.Floats(slot));
      }
    });
    return absl::OkStatus();
  }
};

}  // namespace

#define TFREC_REGISTER(T)                                                                                       \
  REGISTER_KERNEL_BUILDER(Name("TfrecAlsHalfSweep").Device(DEVICE_CPU).TypeConstraint<T>("T"), HalfSweepCpuOp); \
  REGISTER_KERNEL_BUILDER(Name("TfrecAlsHalfSweepInPlace").Device(DEVICE_CPU).TypeConstraint<T>("T"), HalfSweepInPlaceCpuOp); \
  REGISTER_KERNEL_BUILDER(Name("TfrecAlsGramian").Device(DEVICE_CPU).TypeConstraint<T>("T"), GramianCpuOp);     \
  REGISTER_KERNEL_BUILDER(Name("TfrecAlsLosses").Device(DEVICE_CPU).TypeConstraint<T>("T"), LossesCpuOp);
TFREC_REGISTER(Eigen::half)
TFREC_REGISTER(float)
#undef TFREC_REGISTER

}  // namespace als
}  // namespace tfrec
