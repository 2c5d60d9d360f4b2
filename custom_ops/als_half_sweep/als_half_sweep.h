// The contract of one half-sweep of alternating least squares, shared by the TensorFlow ops, the CPU kernels and the
// CUDA kernels. Plain C++: no TensorFlow and no CUDA header, so that nvcc and the ISA-specific files compile it alike.
//
// For each row u, with entries (i, v) and fixed factors y_i, the half-sweep minimises over x
//
//   sum_{(u,i) stored} c (p - x.y_i)^2  +  w0 sum_{i not stored} (x.y_i)^2  +  lambda_u |x|^2
//
//   c = alpha |v|,   p = 1 if v > 0 else 0,   lambda_u = lambda (n_u + w0 M)^nu,
//   n_u = number of stored entries of the row, M = number of fixed rows,
//
// that is, solves  (w0 Y'Y + sum (c - w0) y y' + lambda_u I) x = sum c p y.
// Hu, Koren, Volinsky 2008 (w0 = 1, nu = 0); Rendle et al. 2021, "Revisiting the performance of iALS" (nu = 1).
// A row without entries gets zeros.
//
// CG is preconditioned with P = w0 Y'Y + shift I, one matrix for all rows: what is left to a row, P^-1 A, has its
// eigenvalues between 1 and max c / w0 where shift = lambda_u and c >= w0, whatever the factors are. A product with A
// needs none with P: CG's directions p are sums of vectors z = P^-1 r, so P p is the same sum of the residuals r.
#ifndef TFREC_ALS_HALF_SWEEP_H_
#define TFREC_ALS_HALF_SWEEP_H_

#include <cstddef>
#include <cstdint>

namespace tfrec {
namespace als {

enum class Solver : int { kCholesky = 0, kConjugateGradient = 1, kBlock = 2 };

// The most factors a kernel takes, on either device.
constexpr int kMaxFactors = 1024;
// The most steps of CG; it has found the solution after as many as there are factors, but for rounding.
constexpr int kMaxSteps = 65536;

struct HalfSweep {
  int64_t num_rows;            // N: rows to solve
  int64_t num_fixed;           // rows of the fixed table: M, or fewer where the rows need only these
  int64_t num_counted;         // M in the regularization
  int64_t num_entries;         // of `columns`, in these rows or more: decides only how the GPU lays out its work
  int factors;                 // F, 1 to kMaxFactors
  const int64_t* row_offsets;  // [N + 1]: row r's entries are columns[row_offsets[r] : row_offsets[r + 1]]; the first
                               // offset need not be 0, so that a range of a matrix's rows is a range of its offsets
  const int32_t* columns;      // [nnz], in [0, num_fixed); checked before a kernel runs
  const float* values;         // [nnz], finite
  const void* fixed;           // [num_fixed, F], half or float
  bool half_storage;           // of fixed, start and solved
  const float* gramian;        // [F, F], Y'Y in float32 over all M fixed rows, symmetric
  const float* inverse;        // [F, F], CG's preconditioner (w0 Y'Y + shift I)^-1, symmetric; null for other solvers
  float shift;                 // at least 0
  const void* start;           // [N, F]: where CG and block begin; not read by Cholesky
  void* solved;                // [N, F]; start itself, or no overlap with it
  float alpha;                 // > 0
  float regularization;        // lambda >= 0
  float unobserved_weight;     // w0 >= 0
  float frequency_exponent;    // nu >= 0
  Solver solver;
  int cg_steps;    // 1 to kMaxSteps; a row stops early once r.inverse r is below 1e-20 for its residual r
  int block_size;  // 1 to F: coordinates that the block solver solves at once, in turn, each once
};

}  // namespace als
}  // namespace tfrec

#endif  // TFREC_ALS_HALF_SWEEP_H_
