// What the CPU kernels of the half-sweep offer to the TensorFlow ops, once per instruction set.
#ifndef TFREC_ALS_ROWS_H_
#define TFREC_ALS_ROWS_H_

#include "als_half_sweep.h"

namespace tfrec {
namespace als {

// Rows of this many coordinates hold F factors in the workspaces: a multiple of 16, the width of a tile.
inline int Padded(int factors) { return (factors + 15) / 16 * 16; }
// Distance of the rows in floats: an odd number of cache lines, so that a column of a tile uses all cache sets.
inline int Stride(int factors) { return Padded(factors) + 16; }
// Floats of a matrix [Padded, Stride].
inline int64_t MatrixFloats(int factors) { return static_cast<int64_t>(Padded(factors)) * Stride(factors); }

// A pass over part of the entries of one row, made by one thread when several share the row.
struct LongRow {
  int64_t row;
  const float* vector;  // [Stride] CG's direction or start, zeros in the padding
  bool residual;        // sum (t - w y.vector) y instead of sum w (y.vector) y
};

struct RowKernels {
  const char* name;

  // base [Padded, Stride] = w0 gramian, symmetric, zeros in the padding; for CG sweep.inverse follows in the same form.
  void (*make_base)(const HalfSweep& sweep, float* base);

  // Floats that a thread needs for solve_rows and the partial sums.
  int64_t (*workspace_floats)(const HalfSweep& sweep);

  // Solves rows[0:count], which one thread works on together. Returns the smallest row that is not finite, or -1.
  int64_t (*solve_rows)(const HalfSweep& sweep, const float* base, const int64_t* rows, int64_t count, float* workspace);

  // For rows that several threads share. Entries [begin, end) of the row:
  // matrix [Padded, Stride] (upper half) = sum w y y', right [Padded] = sum t y.
  void (*partial_matrix)(const HalfSweep& sweep, int64_t row, int64_t begin, int64_t end, float* matrix, float* right,
                         float* workspace);
  // result [Padded] = the sums of a LongRow.
  void (*partial_product)(const HalfSweep& sweep, const LongRow& task, int64_t begin, int64_t end, float* result,
                          float* workspace);
  // Solves one row from the whole sums: matrix (upper half, without base and lambda) and right.
  int64_t (*solve_matrix)(const HalfSweep& sweep, const float* base, int64_t row, float* matrix, float* right,
                          float* workspace);

  // gramian [Padded, Stride] (upper half) += table' table over table rows [begin, end).
  void (*add_gramian)(const void* table, bool half_storage, int factors, int64_t begin, int64_t end, float* gramian,
                      float* workspace);

  // losses[r] = sum over stored entries of c (p - x.y)^2 - w0 (x.y)^2, plus w0 x' gramian x, for rows [begin, end).
  void (*losses)(const HalfSweep& sweep, const float* base, int64_t begin, int64_t end, double* losses,
                 float* workspace);
};

const RowKernels* BaselineRowKernels();
const RowKernels* Avx2RowKernels();
const RowKernels* Avx512RowKernels();

// lambda_u of the header.
float RowRegularization(const HalfSweep& sweep, int64_t row);

}  // namespace als
}  // namespace tfrec

#endif  // TFREC_ALS_ROWS_H_
