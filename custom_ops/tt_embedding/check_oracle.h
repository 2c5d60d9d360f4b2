// What check_gpu.cu compares with: rows and gradients of tensor-train embeddings in float64, id by id, by the formulas
// of tt_embedding.h. The gradient goes another way than the kernels do: with the products of the cores before and
// behind.
#ifndef TFREC_TT_CHECK_ORACLE_H_
#define TFREC_TT_CHECK_ORACLE_H_

#include <vector>

#include "tt_embedding.h"

namespace check {

using Vector = std::vector<double>;
using tfrec::tt::kMaxCores;
using tfrec::tt::Table;

// Slices of an id, or false for one out of range.
inline bool SlicesOf(const Table& t, int64_t id, int64_t slices[]) {
  if (id < 0 || id >= t.num_tables * t.num_rows) return false;
  const int64_t table = id / t.num_rows;
  int64_t row = id % t.num_rows;
  for (int k = t.num_cores - 1; k >= 0; --k) {
    slices[k] = table * t.p[k] + row % t.p[k];
    row /= t.p[k];
  }
  return true;
}

// before[k] [Q_k, r_k]: the product of the first k slices; before[0] = 1.
inline std::vector<Vector> ProductsBefore(const Table& t, const std::vector<Vector>& cores, const int64_t* slices) {
  std::vector<Vector> before = {{1.0}};
  for (int k = 0; k < t.num_cores; ++k) {
    const double* g = cores[k].data() + slices[k] * t.slice(k);
    const int64_t inner = t.r[k], outer = before[k].size() / inner, width = t.q[k] * t.r[k + 1];
    Vector next(outer * width, 0.0);
    for (int64_t i = 0; i < outer; ++i) {
      for (int64_t a = 0; a < inner; ++a) {
        for (int64_t j = 0; j < width; ++j) next[i * width + j] += before[k][i * inner + a] * g[a * width + j];
      }
    }
    before.push_back(next);
  }
  return before;
}

// behind[k] [r_k, q_{k+1} ... q_T]: the product of the slices from k on; behind[T] = 1.
inline std::vector<Vector> ProductsBehind(const Table& t, const std::vector<Vector>& cores, const int64_t* slices) {
  std::vector<Vector> behind(t.num_cores + 1);
  behind[t.num_cores] = {1.0};
  for (int k = t.num_cores - 1; k >= 0; --k) {
    const double* g = cores[k].data() + slices[k] * t.slice(k);
    const int64_t inner = t.r[k + 1], rows = static_cast<int64_t>(t.r[k]) * t.q[k];
    const int64_t outer = behind[k + 1].size() / inner;
    behind[k].assign(rows * outer, 0.0);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t b = 0; b < inner; ++b) {
        for (int64_t j = 0; j < outer; ++j) {
          behind[k][i * outer + j] += g[i * inner + b] * behind[k + 1][b * outer + j];
        }
      }
    }
  }
  return behind;
}

inline Vector Row(const Table& t, const std::vector<Vector>& cores, int64_t id) {
  int64_t slices[kMaxCores];
  if (!SlicesOf(t, id, slices)) return Vector(t.width(), 0.0);
  return ProductsBefore(t, cores, slices).back();
}

// Adds the gradient of upstream [D] times the row of one id.
inline void AddGradient(const Table& t, const std::vector<Vector>& cores, int64_t id, const double* upstream,
                        std::vector<Vector>* gradients) {
  int64_t slices[kMaxCores];
  if (!SlicesOf(t, id, slices)) return;
  const std::vector<Vector> before = ProductsBefore(t, cores, slices), behind = ProductsBehind(t, cores, slices);
  for (int k = 0; k < t.num_cores; ++k) {
    const int64_t ra = t.r[k], rb = t.r[k + 1], q = t.q[k];
    const int64_t outer = before[k].size() / ra, inner = behind[k + 1].size() / rb;
    double* const to = (*gradients)[k].data() + slices[k] * t.slice(k);
    Vector right(outer * q * rb, 0.0);  // upstream times the slices behind
    for (int64_t i = 0; i < outer * q; ++i) {
      for (int64_t b = 0; b < rb; ++b) {
        for (int64_t j = 0; j < inner; ++j) right[i * rb + b] += upstream[i * inner + j] * behind[k + 1][b * inner + j];
      }
    }
    for (int64_t i = 0; i < outer; ++i) {
      for (int64_t a = 0; a < ra; ++a) {
        for (int64_t j = 0; j < q * rb; ++j) to[a * q * rb + j] += before[k][i * ra + a] * right[i * q * rb + j];
      }
    }
  }
}

}  // namespace check

#endif  // TFREC_TT_CHECK_ORACLE_H_
