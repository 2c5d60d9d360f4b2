// What check_gpu.cu compares with: the half-sweep of one row in float64, by the formulas of als_half_sweep.h.
#ifndef TFREC_ALS_CHECK_ORACLE_H_
#define TFREC_ALS_CHECK_ORACLE_H_

#include <cmath>
#include <vector>

#include "als_half_sweep.h"

namespace check {

using Vector = std::vector<double>;

// x = a^-1 b for a symmetric positive definite matrix [n, n].
inline Vector SolvePositive(Vector a, Vector b) {
  const int n = static_cast<int>(b.size());
  for (int j = 0; j < n; ++j) {  // rows of L
    for (int i = 0; i <= j; ++i) {
      double sum = a[j * n + i];
      for (int k = 0; k < i; ++k) sum -= a[j * n + k] * a[i * n + k];
      a[j * n + i] = i == j ? std::sqrt(sum) : sum / a[i * n + i];
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (int i = n - 1; i >= 0; --i) {
    for (int k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
  return b;
}

// a^-1 for a symmetric positive definite matrix [n, n].
inline Vector Inverse(Vector a, int n) {
  for (int j = 0; j < n; ++j) {  // rows of L, then in its place L^-1
    for (int i = 0; i <= j; ++i) {
      double sum = a[j * n + i];
      for (int k = 0; k < i; ++k) sum -= a[j * n + k] * a[i * n + k];
      a[j * n + i] = i == j ? std::sqrt(sum) : sum / a[i * n + i];
    }
  }
  for (int j = 0; j < n; ++j) {
    for (int i = j; i < n; ++i) {
      double sum = i == j ? 1.0 : 0.0;
      for (int k = j; k < i; ++k) sum -= a[i * n + k] * a[k * n + j];
      a[i * n + j] = sum / a[i * n + i];
    }
  }
  Vector inverse(a.size(), 0.0);
  for (int k = 0; k < n; ++k) {
    for (int i = 0; i <= k; ++i) {
      for (int j = 0; j <= i; ++j) inverse[i * n + j] += a[k * n + i] * a[k * n + j];
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < i; ++j) inverse[j * n + i] = inverse[i * n + j];
  }
  return inverse;
}

// Residual b - A x.
inline Vector Residual(const Vector& a, const Vector& b, const Vector& x) {
  const int n = static_cast<int>(b.size());
  Vector r = b;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) r[i] -= a[i * n + j] * x[j];
  }
  return r;
}

inline double Dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

inline Vector ConjugateGradient(const Vector& a, const Vector& b, Vector x, const Vector& inverse, int steps) {
  const Vector zeros(b.size(), 0.0);
  const auto precondition = [&](const Vector& r) {
    Vector z = Residual(inverse, zeros, r);
    for (double& v : z) v = -v;
    return z;
  };
  Vector r = Residual(a, b, x), p = precondition(r);
  double squared = Dot(r, p);
  for (int step = 0; step < steps && squared >= 1e-20; ++step) {
    const Vector minus_ap = Residual(a, zeros, p);
    const double length = -squared / Dot(p, minus_ap);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] += length * p[i];
      r[i] += length * minus_ap[i];
    }
    const Vector z = precondition(r);
    const double next = Dot(r, z);
    for (size_t i = 0; i < x.size(); ++i) p[i] = z[i] + next / squared * p[i];
    squared = next;
  }
  return x;
}

inline Vector GaussSeidel(const Vector& a, const Vector& b, Vector x, int block_size) {
  const int n = static_cast<int>(b.size());
  for (int first = 0; first < n; first += block_size) {
    const int size = n - first < block_size ? n - first : block_size;
    Vector block(size * size), g(size);
    for (int i = 0; i < size; ++i) {
      g[i] = b[first + i];
      for (int j = 0; j < n; ++j) g[i] -= a[(first + i) * n + j] * x[j];
      for (int j = 0; j < size; ++j) block[i * size + j] = a[(first + i) * n + first + j];
    }
    const Vector delta = SolvePositive(block, g);
    for (int i = 0; i < size; ++i) x[first + i] += delta[i];
  }
  return x;
}

// The solution of one row. `fixed` and `start` are the stored numbers as floats, `inverse` is CG's preconditioner; the
// sweep's pointers are not followed. Sum = float: the matrix and the right side are summed in float32, one entry after
// another, and the rest is exact: what float32 sums cost.
template <typename Sum = double>
Vector Solve(const tfrec::als::HalfSweep& s, const std::vector<float>& fixed, const std::vector<float>& gramian,
             const Vector& inverse, const float* start, const int32_t* columns, const float* values, int64_t count) {
  const int f = s.factors;
  if (count == 0) return Vector(f, 0.0);
  const Sum w0 = s.unobserved_weight;
  std::vector<Sum> sums(static_cast<size_t>(f) * f), right(f, 0);
  for (int i = 0; i < f * f; ++i) sums[i] = w0 * gramian[i];
  for (int64_t k = 0; k < count; ++k) {
    const Sum c = static_cast<Sum>(s.alpha) * std::fabs(values[k]);
    const float* y = fixed.data() + static_cast<int64_t>(columns[k]) * f;
    for (int i = 0; i < f; ++i) {
      const Sum scaled = (c - w0) * y[i];
      for (int j = 0; j < f; ++j) sums[i * f + j] += scaled * y[j];
      if (values[k] > 0.0f) right[i] += c * y[i];
    }
  }
  Vector a(sums.begin(), sums.end());
  const Vector b(right.begin(), right.end());
  const double lambda = s.regularization * std::pow(count + static_cast<double>(s.unobserved_weight) * s.num_fixed,
                                                    static_cast<double>(s.frequency_exponent));
  for (int i = 0; i < f; ++i) a[i * f + i] += lambda;
  if (s.solver == tfrec::als::Solver::kCholesky) return SolvePositive(a, b);
  const Vector x(start, start + f);
  return s.solver == tfrec::als::Solver::kBlock ? GaussSeidel(a, b, x, s.block_size)
                                                : ConjugateGradient(a, b, x, inverse, s.cg_steps);
}

}  // namespace check

#endif  // TFREC_ALS_CHECK_ORACLE_H_
