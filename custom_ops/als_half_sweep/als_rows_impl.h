// The CPU kernels of the half-sweep, for the instruction set that the including file is compiled for.
//
// Entries are gathered from the fixed table into a panel (floats, rows padded to whole tiles) that stays in the second
// cache, since every solver reads them several times:
//
//   Cholesky   matrix = base + sum w y y' by register tiles over the panel, upper half only; U'U in place; two solves.
//   CG         several rows at once, so that their products with the dense matrices are one matrix product and not one
//              pass over a matrix per row; the entries' part is two sweeps of eight entries each: dots, then sums.
//   block      Gauss-Seidel (iALS++, Rendle et al. 2021): for each block of coordinates a small exact solve, with the
//              predictions x.y of the row's entries kept up to date.
#include <math.h>

#include "als_rows.h"
#include "cpu_vector.h"

namespace tfrec {
namespace TFREC_ISA {

using als::HalfSweep;
using als::LongRow;
using als::Padded;
using als::Stride;

// Floats of a panel: half of a 512 KiB second cache, the rest is for the base and the vectors.
constexpr int64_t kPanelFloats = 65536;
// Rows that CG solves together.
constexpr int64_t kGroupRows = 16;
// Entries between two updates of the matrix: a column of tiles, and its partner, fit the first cache.
constexpr int64_t kDepth = 128;

static inline int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static inline int64_t PanelEntries(int stride) {
  const int64_t entries = kPanelFloats / stride / 8 * 8;
  return entries < kDepth ? kDepth : entries;
}

// w = c - w0 and t = c p of entries [begin, end), zeros up to a multiple of eight.
static void Weights(const HalfSweep& s, int64_t begin, int64_t end, float* w, float* t) {
  const float* values = s.values + begin;
  const int64_t n = end - begin;
  for (int64_t k = 0; k < n; ++k) {
    const float c = s.alpha * fabsf(values[k]);
    w[k] = c - s.unobserved_weight;
    t[k] = values[k] > 0.0f ? c : 0.0f;
  }
  for (int64_t k = n; k < RoundUp(n, 8); ++k) w[k] = t[k] = 0.0f;
}

// Factors of entries [begin, end), [n, stride]; zero rows up to a multiple of eight.
static void Gather(const HalfSweep& s, int64_t begin, int64_t end, int stride, float* panel) {
  const int32_t* columns = s.columns + begin;
  const int64_t n = end - begin, f = s.factors, ahead = 6;
  for (int64_t k = 0; k < n; ++k) {
    if (k + ahead < n) PrefetchRow(s.fixed, s.half_storage, columns[k + ahead], f);
    float* row = panel + k * stride;
    LoadRow(s.fixed, s.half_storage, columns[k], f, row);
    for (int64_t i = f; i < stride; ++i) row[i] = 0.0f;
  }
  memset(panel + n * stride, 0, (RoundUp(n, 8) - n) * stride * sizeof(float));
}

// dots[0:8] = panel[0:8, 0:width] . x; width is a multiple of the lanes.
static inline void Dots8(const float* panel, int64_t stride, const float* x, int64_t width, float* dots) {
  Vec sum[8];
  for (int e = 0; e < 8; ++e) sum[e] = Fill(0.0f);
  for (int64_t i = 0; i < width; i += kLanes) {
    const Vec v = Load(x + i);
    for (int e = 0; e < 8; ++e) sum[e] += v * Load(panel + e * stride + i);
  }
  Sum8(sum, dots);
}

// The same for eight rows anywhere.
static inline void DotsOf8(const float* const* rows, const float* x, int64_t width, float* dots) {
  Vec sum[8];
  for (int e = 0; e < 8; ++e) sum[e] = Fill(0.0f);
  for (int64_t i = 0; i < width; i += kLanes) {
    const Vec v = Load(x + i);
    for (int e = 0; e < 8; ++e) sum[e] += v * Load(rows[e] + i);
  }
  Sum8(sum, dots);
}

static inline void AddRowsOf8(const float* const* rows, const float* coefficients, int64_t width, float* r) {
  Vec c[8];
  for (int e = 0; e < 8; ++e) c[e] = Fill(coefficients[e]);
  for (int64_t i = 0; i < width; i += kLanes) {
    Vec even = Load(r + i), odd = Fill(0.0f);
    for (int e = 0; e < 8; e += 2) {
      even += c[e] * Load(rows[e] + i);
      odd += c[e + 1] * Load(rows[e + 1] + i);
    }
    Store(r + i, even + odd);
  }
}

// r[0:width] += sum_e coefficients[e] panel[e, 0:width], eight e.
static inline void AddRows8(const float* panel, int64_t stride, const float* coefficients, int64_t width, float* r) {
  Vec c[8];
  for (int e = 0; e < 8; ++e) c[e] = Fill(coefficients[e]);
  for (int64_t i = 0; i < width; i += kLanes) {
    Vec even = Load(r + i), odd = Fill(0.0f);
    for (int e = 0; e < 8; e += 2) {
      even += c[e] * Load(panel + e * stride + i);
      odd += c[e + 1] * Load(panel + (e + 1) * stride + i);
    }
    Store(r + i, even + odd);
  }
}

static inline float Dot(const float* a, const float* b, int64_t width) {
  Vec sum = Fill(0.0f);
  for (int64_t i = 0; i < width; i += kLanes) sum += Load(a + i) * Load(b + i);
  float total = 0.0f;
  for (int l = 0; l < kLanes; ++l) total += sum[l];
  return total;
}

// result += sum over n panel rows of (t - w y.x) y, or of w (y.x) y.
static void EntriesProduct(const float* panel, int stride, int width, int64_t n, const float* w, const float* t,
                           bool residual, const float* x, float* result) {
  float c[8];
  for (int64_t k = 0; k < n; k += 8) {
    Dots8(panel + k * stride, stride, x, width, c);
    for (int e = 0; e < 8; ++e) c[e] = residual ? t[k + e] - w[k + e] * c[e] : w[k + e] * c[e];
    AddRows8(panel + k * stride, stride, c, width, result);
  }
}

// The same for entries [begin, end) straight from the table, eight rows in the first cache at a time. `panel` has room
// for eight rows, w and t for eight numbers.
static void TableProduct(const HalfSweep& s, int64_t begin, int64_t end, int stride, int width, bool residual,
                         const float* x, float* result, float* panel, float* w, float* t) {
  // Floats in whole tiles need no copy.
  const bool in_place = !s.half_storage && s.factors == width;
  const float* table = static_cast<const float*>(s.fixed);
  const float* rows[8];
  float c[8];
  for (int64_t k = begin; k < end; k += 8) {
    const int64_t n = end - k < 8 ? end - k : 8;
    for (int64_t e = k + 8; e < k + 16 && e < end; ++e) PrefetchRow(s.fixed, s.half_storage, s.columns[e], s.factors);
    Weights(s, k, k + n, w, t);
    if (in_place) {
      for (int64_t e = 0; e < 8; ++e) rows[e] = table + static_cast<int64_t>(s.columns[e < n ? k + e : k]) * width;
    } else {
      for (int64_t e = 0; e < n; ++e) {
        LoadRow(s.fixed, s.half_storage, s.columns[k + e], s.factors, panel + e * stride);
        for (int64_t i = s.factors; i < width; ++i) panel[e * stride + i] = 0.0f;
      }
      for (int64_t e = 0; e < 8; ++e) rows[e] = panel + (e < n ? e : 0) * stride;
    }
    DotsOf8(rows, x, width, c);
    for (int e = 0; e < 8; ++e) c[e] = residual ? t[e] - w[e] * c[e] : w[e] * c[e];
    AddRowsOf8(rows, c, width, result);
  }
}

// out[rows, width] = x[rows, width] base; rows is a multiple of kTileRows.
static void TimesBase(const float* x, int64_t rows, const float* base, int stride, int width, float* out) {
  static const float zeros[kTileColumns] = {};
  // A strip of the base, in the first cache, meets all rows before the next one comes.
  for (int j = 0; j < width; j += kTileColumns) {
    for (int64_t r = 0; r < rows; r += kTileRows) {
      Tile<kTileRows, false>(x + r * stride, stride, 1, base + j, stride, width, zeros, 0, out + r * stride + j, stride);
    }
  }
}

// matrix (upper tiles) = in + sum_k left[k] right[k]', over n panel rows.
static void AddOuter(const float* left, const float* right, int64_t n, int stride, int width, const float* in,
                     float* matrix) {
  for (int j = 0; j < width; j += kTileColumns) {
    for (int i = 0; i < j + kTileColumns; i += kTileRows) {
      Tile<kTileRows, false>(left + i, 1, stride, right + j, stride, n, in + i * stride + j, stride,
                             matrix + i * stride + j, stride);
    }
  }
}

// U'U = matrix in place (upper half; row i holds U[i, i:]), eight rows at a time: what earlier rows contribute is one
// register tile, then the eight rows are finished strip by strip in registers. reciprocal[i] = 1 / U[i, i], NaN where
// the matrix is not positive definite. `matrix` has finite numbers in the tiles below its diagonal.
static void Cholesky(float* matrix, int stride, int width, float* reciprocal) {
  // A strip of 16 lanes may end eight columns behind the last: zeros there stay zeros.
  for (int i = 0; kLanes > 8 && i < width; ++i) {
    for (int j = width; j < width + 16; ++j) matrix[i * stride + j] = 0.0f;
  }
  for (int top = 0; top < width; top += 8) {
    float* rows = matrix + top * stride;
    for (int j = top / kTileColumns * kTileColumns; j < width; j += kTileColumns) {
      for (int i = top; i < top + 8; i += kTileRows) {
        Tile<kTileRows, true>(matrix + i, 1, stride, matrix + j, stride, top, matrix + i * stride + j, stride,
                              matrix + i * stride + j, stride);
      }
    }
    float u[8][8];  // the block on the diagonal
    for (int r = 0; r < 8; ++r) {
      for (int c = r; c < 8; ++c) u[r][c] = rows[r * stride + top + c];
    }
    for (int r = 0; r < 8; ++r) {
      const float inverse = u[r][r] > 0.0f ? 1.0f / sqrtf(u[r][r]) : NAN;
      reciprocal[top + r] = inverse;
      for (int c = r; c < 8; ++c) u[r][c] *= inverse;
      for (int below = r + 1; below < 8; ++below) {
        for (int c = below; c < 8; ++c) u[below][c] -= u[r][below] * u[r][c];
      }
    }
    for (int r = 0; r < 8; ++r) {
      for (int c = r; c < 8; ++c) rows[r * stride + top + c] = u[r][c];
    }
    // The rest of the eight rows: solve u' z = rows, a strip of columns at a time.
    for (int j = top + 8; j < width; j += kLanes) {
      Vec z[8];
      for (int r = 0; r < 8; ++r) z[r] = Load(rows + r * stride + j);
      for (int r = 0; r < 8; ++r) {
        z[r] *= Fill(reciprocal[top + r]);
        for (int below = r + 1; below < 8; ++below) z[below] -= Fill(u[r][below]) * z[r];
      }
      for (int r = 0; r < 8; ++r) Store(rows + r * stride + j, z[r]);
    }
  }
}

// x = (U'U)^-1 x.
static void SolveFactored(const float* matrix, int stride, int width, const float* reciprocal, float* x) {
  for (int top = 0; top < width; top += 8) {
    float z[8];
    for (int r = 0; r < 8; ++r) {
      float sum = x[top + r];
      for (int k = 0; k < r; ++k) sum -= matrix[(top + k) * stride + top + r] * z[k];
      x[top + r] = z[r] = sum * reciprocal[top + r];
    }
    float minus[8];
    for (int r = 0; r < 8; ++r) minus[r] = -z[r];
    // x has room for a whole vector behind its end, as the rows of the matrix have; what lands there is not read.
    if (top + 8 < width) AddRows8(matrix + top * stride + top + 8, stride, minus, RoundUp(width - top - 8, kLanes), x + top + 8);
  }
  for (int64_t i = width; i < width + 16; ++i) x[i] = 0.0f;
  for (int top = width - 8; top >= 0; top -= 8) {
    float sums[8];
    Dots8(matrix + top * stride + top + 8, stride, x + top + 8, RoundUp(width - top - 8, kLanes), sums);
    for (int r = 7; r >= 0; --r) {
      float sum = x[top + r] - sums[r];
      for (int c = r + 1; c < 8; ++c) sum -= matrix[(top + r) * stride + top + c] * x[top + c];
      x[top + r] = sum * reciprocal[top + r];
    }
  }
}

static bool Finite(const float* x, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * 0.0f;  // NaN as soon as one is not finite
  return sum == 0.0f;
}

// Writes a solution; false if it, or what the storage type makes of it, is not finite.
static bool StoreSolution(const HalfSweep& s, int64_t row, const float* x) {
  if (s.half_storage) {
    uint16_t* out = static_cast<uint16_t*>(s.solved) + row * s.factors;
    FloatsToHalves(x, s.factors, out);
    for (int i = 0; i < s.factors; ++i) {
      if ((out[i] & 0x7c00u) == 0x7c00u) return false;
    }
    return true;
  }
  memcpy(static_cast<float*>(s.solved) + row * s.factors, x, s.factors * sizeof(float));
  return Finite(x, s.factors);
}

static void StoreZeros(const HalfSweep& s, int64_t row) {
  const int64_t bytes = s.factors * (s.half_storage ? 2 : 4);
  memset(static_cast<char*>(s.solved) + row * bytes, 0, bytes);
}

static void LoadStart(const HalfSweep& s, int64_t row, int stride, float* x) {
  LoadRow(s.start, s.half_storage, row, s.factors, x);
  for (int i = s.factors; i < stride; ++i) x[i] = 0.0f;
}

static inline int64_t Begin(const HalfSweep& s, int64_t row) { return s.row_offsets[row]; }
static inline int64_t End(const HalfSweep& s, int64_t row) { return s.row_offsets[row + 1]; }

// out [Padded, Stride] = scale matrix [F, F], zeros in the padding.
static void Pad(const float* matrix, float scale, int f, float* out) {
  const int stride = Stride(f);
  memset(out, 0, als::MatrixFloats(f) * sizeof(float));
  for (int i = 0; i < f; ++i) {
    for (int j = 0; j < f; ++j) out[i * stride + j] = scale * matrix[i * f + j];
  }
}

static void MakeBase(const HalfSweep& s, float* base) {
  Pad(s.gramian, s.unobserved_weight, s.factors, base);
  if (s.inverse != nullptr) Pad(s.inverse, 1.0f, s.factors, base + als::MatrixFloats(s.factors));
}

// ---- Cholesky ------------------------------------------------------------------------------------------------------

// matrix (upper half) = in + sum w y y', right += sum t y, over entries [begin, end). Needs 2 panels of kDepth rows and
// 2 kDepth weights of workspace.
static void SumEntries(const HalfSweep& s, int64_t begin, int64_t end, const float* in, float* matrix, float* right,
                       float* workspace) {
  const int stride = Stride(s.factors), width = Padded(s.factors);
  float *left = workspace, *scaled = left + kDepth * stride, *w = scaled + kDepth * stride, *t = w + kDepth;
  for (int64_t k = begin; k < end; k += kDepth) {
    const int64_t n = end - k < kDepth ? end - k : kDepth;
    Weights(s, k, k + n, w, t);
    Gather(s, k, k + n, stride, left);
    for (int64_t e = 0; e < RoundUp(n, 8); e += 8) AddRows8(left + e * stride, stride, t + e, width, right);
    for (int64_t e = 0; e < n; ++e) {
      const Vec weight = Fill(w[e]);
      for (int i = 0; i < width; i += kLanes) Store(scaled + e * stride + i, weight * Load(left + e * stride + i));
    }
    AddOuter(left, scaled, n, stride, width, in, matrix);
    in = matrix;
  }
}

static void AddDiagonal(const HalfSweep& s, float regularization, int stride, float* matrix) {
  const int f = s.factors, width = Padded(f);
  for (int i = 0; i < f; ++i) matrix[i * stride + i] += regularization;
  for (int i = f; i < width; ++i) matrix[i * stride + i] = 1.0f;  // coordinates that only fill the tiles
}

static bool SolveCholesky(const HalfSweep& s, const float* base, int64_t row, float* workspace) {
  const int stride = Stride(s.factors), width = Padded(s.factors);
  float *matrix = workspace, *x = matrix + width * stride, *reciprocal = x + stride;
  for (int i = 0; i < stride; ++i) x[i] = 0.0f;
  SumEntries(s, Begin(s, row), End(s, row), base, matrix, x, reciprocal + stride);
  AddDiagonal(s, als::RowRegularization(s, row), stride, matrix);
  Cholesky(matrix, stride, width, reciprocal);
  SolveFactored(matrix, stride, width, reciprocal, x);
  return StoreSolution(s, row, x);
}

// ---- Conjugate gradients -------------------------------------------------------------------------------------------

// One step's vectors of a group of rows, [kGroupRows, stride] each. pp is P p; z shares the memory of ap.
struct Group {
  float *x, *r, *p, *pp, *ap;
};

// One step of CG given ap = the entries' part of A p.
static void ConjugateStep(float beyond_shift, int width, float squared, bool last, const Group& g, int64_t at) {
  float *x = g.x + at, *r = g.r + at, *p = g.p + at, *pp = g.pp + at, *ap = g.ap + at;
  const Vec beyond = Fill(beyond_shift);
  for (int i = 0; i < width; i += kLanes) Store(ap + i, Load(ap + i) + Load(pp + i) + beyond * Load(p + i));
  const float curvature = Dot(p, ap, width);
  const Vec step = Fill(curvature == 0.0f ? 0.0f : squared / curvature);
  for (int i = 0; i < width; i += kLanes) Store(x + i, Load(x + i) + step * Load(p + i));
  if (last) return;
  for (int i = 0; i < width; i += kLanes) Store(r + i, Load(r + i) - step * Load(ap + i));
}

// The next direction given z = P^-1 r; returns r.z.
static float NextDirection(int width, float squared, const Group& g, int64_t at) {
  float *r = g.r + at, *p = g.p + at, *pp = g.pp + at, *z = g.ap + at;
  const float next = Dot(r, z, width);
  const Vec ratio = Fill(next / squared);
  for (int i = 0; i < width; i += kLanes) {
    Store(p + i, Load(z + i) + ratio * Load(p + i));
    Store(pp + i, Load(r + i) + ratio * Load(pp + i));
  }
  return next;
}

constexpr float kConverged = 1e-20f;

// Solves a group of rows. Those whose entries fit the panel, in turn, are gathered once; the others' are read from the
// table in every pass.
static int64_t SolveConjugate(const HalfSweep& s, const float* base, const int64_t* rows, int64_t count,
                              float* workspace) {
  const int stride = Stride(s.factors), width = Padded(s.factors);
  const int64_t room = PanelEntries(stride);
  const int64_t group = kGroupRows * stride;
  const Group g = {workspace, workspace + group, workspace + 2 * group, workspace + 3 * group, workspace + 4 * group};
  float *panel = workspace + 5 * group, *w = panel + room * stride, *t = w + room;
  const float* inverse = base + als::MatrixFloats(s.factors);
  const int64_t tiled = RoundUp(count, kTileRows);
  int64_t first[kGroupRows], filled[kGroupRows], used = 8;  // the panel's first eight rows are TableProduct's
  float squared[kGroupRows], regularization[kGroupRows];    // r.z
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = Begin(s, rows[i]), end = End(s, rows[i]);
    first[i] = used;
    filled[i] = used + RoundUp(end - begin, 8) <= room ? RoundUp(end - begin, 8) : 0;
    used += filled[i];
    if (filled[i] > 0) {
      Gather(s, begin, end, stride, panel + first[i] * stride);
      Weights(s, begin, end, w + first[i], t + first[i]);
    }
    LoadStart(s, rows[i], stride, g.x + i * stride);
    regularization[i] = als::RowRegularization(s, rows[i]);
  }
  memset(g.x + count * stride, 0, (tiled - count) * stride * sizeof(float));
  // result += the entries' part of A x, or of the residual b - A x, for member i.
  const auto entries = [&](int64_t i, bool residual, const float* x, float* result) {
    if (filled[i] > 0) {
      EntriesProduct(panel + first[i] * stride, stride, width, filled[i], w + first[i], t + first[i], residual, x,
                     result);
    } else {
      TableProduct(s, Begin(s, rows[i]), End(s, rows[i]), stride, width, residual, x, result, panel, w, t);
    }
  };
  TimesBase(g.x, tiled, base, stride, width, g.r);
  for (int64_t i = 0; i < count; ++i) {
    float *r = g.r + i * stride, *x = g.x + i * stride;
    const Vec lambda = Fill(regularization[i]);
    for (int j = 0; j < width; j += kLanes) Store(r + j, -(Load(r + j) + lambda * Load(x + j)));
    entries(i, true, x, r);
  }
  TimesBase(g.r, tiled, inverse, stride, width, g.p);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = i * stride;
    memcpy(g.pp + at, g.r + at, width * sizeof(float));
    squared[i] = Dot(g.r + at, g.p + at, width);
  }
  for (int step = 1; step <= s.cg_steps; ++step) {
    for (int64_t i = 0; i < count; ++i) {
      if (squared[i] < kConverged) continue;
      const int64_t at = i * stride;
      memset(g.ap + at, 0, width * sizeof(float));
      entries(i, false, g.p + at, g.ap + at);
      ConjugateStep(regularization[i] - s.shift, width, squared[i], step == s.cg_steps, g, at);
    }
    if (step == s.cg_steps) break;
    TimesBase(g.r, tiled, inverse, stride, width, g.ap);
    for (int64_t i = 0; i < count; ++i) {
      if (!(squared[i] < kConverged)) squared[i] = NextDirection(width, squared[i], g, i * stride);
    }
  }
  int64_t bad = -1;
  for (int64_t i = 0; i < count; ++i) {
    if (!StoreSolution(s, rows[i], g.x + i * stride) && (bad < 0 || rows[i] < bad)) bad = rows[i];
  }
  return bad;
}

// ---- Blocks of coordinates -----------------------------------------------------------------------------------------

// The exact change of x[first : first + size] given gradient g (length size, with room for 16 more) and the block's
// matrix h (upper half), both of which it overwrites.
static void SolveBlock(float regularization, int size, float* h, int h_stride, float* g, float* reciprocal) {
  const int width = Padded(size);
  for (int i = 0; i < size; ++i) {
    h[i * h_stride + i] += regularization;
    for (int j = size; j < width; ++j) h[i * h_stride + j] = 0.0f;
  }
  for (int i = size; i < width; ++i) {
    for (int j = 0; j < width; ++j) h[i * h_stride + j] = i == j ? 1.0f : 0.0f;
    g[i] = 0.0f;
  }
  for (int i = width; i < width + 16; ++i) g[i] = 0.0f;
  Cholesky(h, h_stride, width, reciprocal);
  SolveFactored(h, h_stride, width, reciprocal, g);
}

// g[0:width16] = -(base[first : first + width16, :] x + lambda x_block)
static void BlockGradient(const float* base, int stride, int width, int first, int block_width, float regularization,
                          const float* x, float* g) {
  float dots[8];
  for (int i = 0; i < block_width; i += 8) {
    Dots8(base + (first + i) * stride, stride, x, width, dots);
    for (int e = 0; e < 8; ++e) g[i + e] = -dots[e] - regularization * x[first + i + e];
  }
}

static bool SolveBlocks(const HalfSweep& s, const float* base, int64_t row, float* workspace) {
  const int f = s.factors, stride = Stride(f), width = Padded(f);
  const int64_t room = PanelEntries(stride), begin = Begin(s, row), n = End(s, row) - begin;
  const int h_stride = Stride(s.block_size);
  float *x = workspace, *h = x + stride, *g = h + static_cast<int64_t>(Padded(s.block_size)) * h_stride,
        *reciprocal = g + h_stride, *panel = reciprocal + h_stride, *scaled = panel + room * stride,
        *w = scaled + kDepth * h_stride, *t = w + room, *predicted = t + room;
  const float regularization = als::RowRegularization(s, row);
  LoadStart(s, row, stride, x);
  const bool resident = n <= room;
  const int64_t step = resident ? (n > 0 ? n : 1) : kDepth;
  // The predictions of a row that does not fit the panel are computed anew for each of its blocks.
  for (int first = 0; first < f; first += s.block_size) {
    const int size = f - first < s.block_size ? f - first : s.block_size;
    // Tiles may start at any float, and reach past the block: what lies there is cut off in SolveBlock.
    int block_width = Padded(size);
    BlockGradient(base, stride, width, first, size + 7 < width - first ? (size + 7) / 8 * 8 : size / 8 * 8,
                  regularization, x, g);
    for (int i = size + 7 < width - first ? (size + 7) / 8 * 8 : size / 8 * 8; i < size; ++i) {
      g[i] = -Dot(base + (first + i) * stride, x, width) - regularization * x[first + i];
    }
    for (int i = size; i < block_width + 16; ++i) g[i] = 0.0f;
    for (int i = 0; i < size; ++i) {
      for (int j = 0; j < size; ++j) h[i * h_stride + j] = base[(first + i) * stride + first + j];
      for (int j = size; j < block_width; ++j) h[i * h_stride + j] = 0.0f;
    }
    for (int i = size; i < block_width; ++i) {
      for (int j = 0; j < block_width; ++j) h[i * h_stride + j] = 0.0f;
    }
    for (int64_t k = 0; k < n; k += step) {
      const int64_t m = n - k < step ? n - k : step;
      if (!resident || first == 0) {
        Weights(s, begin + k, begin + k + m, w, t);
        Gather(s, begin + k, begin + k + m, stride, panel);
        for (int64_t e = 0; e < m; e += 8) Dots8(panel + e * stride, stride, x, width, predicted + e);
      }
      for (int64_t e = 0; e < m; e += kDepth) {
        const int64_t stop = m - e < kDepth ? m - e : kDepth;
        float c[8];
        for (int64_t i = e; i < e + stop; i += 8) {
          for (int l = 0; l < 8; ++l) c[l] = t[i + l] - w[i + l] * predicted[i + l];
          AddRows8(panel + i * stride + first, stride, c, block_width, g);
        }
        for (int64_t i = 0; i < stop; ++i) {
          const Vec weight = Fill(w[e + i]);
          for (int j = 0; j < block_width; j += kLanes) {
            Store(scaled + i * h_stride + j, weight * Load(panel + (e + i) * stride + first + j));
          }
        }
        for (int j = 0; j < block_width; j += kTileColumns) {
          for (int i = 0; i < j + kTileColumns; i += kTileRows) {
            Tile<kTileRows, false>(panel + e * stride + first + i, 1, stride, scaled + j, h_stride, stop,
                                   h + i * h_stride + j, h_stride, h + i * h_stride + j, h_stride);
          }
        }
      }
    }
    SolveBlock(regularization, size, h, h_stride, g, reciprocal);
    for (int i = 0; i < size; ++i) x[first + i] += g[i];
    if (resident && first + size < f) {
      for (int i = size; i < block_width; ++i) g[i] = 0.0f;
      float dots[8];
      for (int64_t e = 0; e < n; e += 8) {
        Dots8(panel + e * stride + first, stride, g, block_width, dots);
        for (int l = 0; l < 8; ++l) predicted[e + l] += dots[l];
      }
    }
  }
  return StoreSolution(s, row, x);
}

// ---- What the ops call ---------------------------------------------------------------------------------------------

static int64_t WorkspaceFloats(const HalfSweep& s) {
  const int64_t stride = Stride(s.factors), width = Padded(s.factors), room = PanelEntries(Stride(s.factors));
  const int64_t entries = 2 * kDepth * (stride + 1) + 64;
  const int64_t cholesky = width * stride + 2 * stride + entries;
  const int64_t conjugate = 5 * kGroupRows * stride + room * (stride + 2) + 64;
  const int64_t h = Stride(s.block_size);
  const int64_t block = stride + static_cast<int64_t>(Padded(s.block_size)) * h + 2 * h + room * (stride + 3) +
                        kDepth * h + 64;
  int64_t most = cholesky > conjugate ? cholesky : conjugate;
  return (most > block ? most : block) + 64;
}

static int64_t SolveRows(const HalfSweep& s, const float* base, const int64_t* rows, int64_t count, float* workspace) {
  int64_t bad = -1;
  const auto note = [&bad](int64_t row) {
    if (row >= 0 && (bad < 0 || row < bad)) bad = row;
  };
  for (int64_t i = 0; i < count;) {
    if (End(s, rows[i]) == Begin(s, rows[i])) {
      StoreZeros(s, rows[i++]);
    } else if (s.solver == als::Solver::kCholesky) {
      note(SolveCholesky(s, base, rows[i], workspace) ? -1 : rows[i]), ++i;
    } else if (s.solver == als::Solver::kBlock) {
      note(SolveBlocks(s, base, rows[i], workspace) ? -1 : rows[i]), ++i;
    } else {
      int64_t stop = i;
      while (stop < count && stop - i < kGroupRows && End(s, rows[stop]) > Begin(s, rows[stop])) ++stop;
      note(SolveConjugate(s, base, rows + i, stop - i, workspace));
      i = stop;
    }
  }
  return bad;
}

static void PartialMatrix(const HalfSweep& s, int64_t, int64_t begin, int64_t end, float* matrix, float* right,
                          float* workspace) {
  const int stride = Stride(s.factors), width = Padded(s.factors);
  memset(matrix, 0, static_cast<int64_t>(width) * stride * sizeof(float));
  memset(right, 0, stride * sizeof(float));
  SumEntries(s, begin, end, matrix, matrix, right, workspace);
}

static void PartialProduct(const HalfSweep& s, const LongRow& task, int64_t begin, int64_t end, float* result,
                           float* workspace) {
  const int stride = Stride(s.factors), width = Padded(s.factors);
  float *panel = workspace, *w = panel + 8 * stride, *t = w + 8;
  memset(result, 0, stride * sizeof(float));
  TableProduct(s, begin, end, stride, width, task.residual, task.vector, result, panel, w, t);
}

// Cholesky, or Gauss-Seidel over the blocks of the whole matrix, which is the block solver's arithmetic on one row.
static int64_t SolveMatrix(const HalfSweep& s, const float* base, int64_t row, float* matrix, float* right,
                           float* workspace) {
  const int f = s.factors, stride = Stride(f), width = Padded(f);
  const float regularization = als::RowRegularization(s, row);
  for (int i = 0; i < width; ++i) {
    for (int j = i / 16 * 16; j < width; ++j) matrix[i * stride + j] += base[i * stride + j];
  }
  if (s.solver == als::Solver::kCholesky) {
    float* reciprocal = workspace;
    AddDiagonal(s, regularization, stride, matrix);
    Cholesky(matrix, stride, width, reciprocal);
    SolveFactored(matrix, stride, width, reciprocal, right);
    return StoreSolution(s, row, right) ? -1 : row;
  }
  const int h_stride = Stride(s.block_size);
  float *x = workspace, *h = x + stride, *g = h + static_cast<int64_t>(Padded(s.block_size)) * h_stride,
        *reciprocal = g + h_stride;
  LoadStart(s, row, stride, x);
  for (int i = 0; i < width; ++i) {
    for (int j = 0; j < i; ++j) matrix[i * stride + j] = matrix[j * stride + i];
    for (int j = width; j < stride; ++j) matrix[i * stride + j] = 0.0f;
  }
  for (int first = 0; first < f; first += s.block_size) {
    const int size = f - first < s.block_size ? f - first : s.block_size;
    for (int i = 0; i < size; ++i) {
      g[i] = right[first + i] - Dot(matrix + (first + i) * stride, x, width) - regularization * x[first + i];
      for (int j = 0; j < size; ++j) h[i * h_stride + j] = matrix[(first + i) * stride + first + j];
    }
    SolveBlock(regularization, size, h, h_stride, g, reciprocal);
    for (int i = 0; i < size; ++i) x[first + i] += g[i];
  }
  return StoreSolution(s, row, x) ? -1 : row;
}

static void AddGramian(const void* table, bool half_storage, int factors, int64_t begin, int64_t end, float* gramian,
                       float* panel) {
  const int stride = Stride(factors), width = Padded(factors);
  for (int64_t k = begin; k < end; k += kDepth) {
    const int64_t n = end - k < kDepth ? end - k : kDepth;
    for (int64_t e = 0; e < n; ++e) {
      LoadRow(table, half_storage, k + e, factors, panel + e * stride);
      for (int i = factors; i < stride; ++i) panel[e * stride + i] = 0.0f;
    }
    AddOuter(panel, panel, n, stride, width, gramian, gramian);
  }
}

static void Losses(const HalfSweep& s, const float* base, int64_t begin, int64_t end, double* losses,
                   float* workspace) {
  const int stride = Stride(s.factors), width = Padded(s.factors);
  float *x = workspace, *panel = x + stride, *w = panel + kDepth * stride, *t = w + kDepth, *dots = t + kDepth;
  for (int64_t row = begin; row < end; ++row) {
    LoadStart(s, row, stride, x);
    double loss = 0.0;
    for (int i = 0; i < width; i += 8) {
      Dots8(base + i * stride, stride, x, width, dots);
      for (int e = 0; e < 8; ++e) loss += static_cast<double>(dots[e]) * x[i + e];
    }
    const int64_t last = End(s, row);
    for (int64_t k = Begin(s, row); k < last; k += kDepth) {
      const int64_t stop = k + kDepth < last ? k + kDepth : last;
      Weights(s, k, stop, w, t);
      Gather(s, k, stop, stride, panel);
      for (int64_t e = 0; e < RoundUp(stop - k, 8); e += 8) {
        Dots8(panel + e * stride, stride, x, width, dots);
        for (int l = 0; l < 8; ++l) {
          const double y = dots[l];
          loss += (static_cast<double>(w[e + l]) * y - 2.0 * t[e + l]) * y + t[e + l];
        }
      }
    }
    losses[row - begin] = loss;
  }
}

static const als::RowKernels kRowKernels = {
    TFREC_ISA_NAME, MakeBase,      WorkspaceFloats, SolveRows, PartialMatrix,
    PartialProduct, SolveMatrix,   AddGramian,      Losses,
};

}  // namespace TFREC_ISA
}  // namespace tfrec
