// What the CUDA kernels offer to the TensorFlow ops. `stream` is a cudaStream_t; only CheckMatrixCuda waits for the
// device.
#ifndef TFREC_ALS_CUDA_H_
#define TFREC_ALS_CUDA_H_

#include <cstddef>
#include <cstdint>

#include "als_half_sweep.h"

namespace tfrec {
namespace als {

// Bytes of device memory that HalfSweepCuda needs besides its inputs and outputs.
size_t HalfSweepCudaScratchBytes(const HalfSweep& sweep);

// From how many entries on several blocks should share a row: below, other rows hide that it takes longer.
inline int64_t LongRowEntries(Solver solver) { return solver == Solver::kConjugateGradient ? 2048 : 8192; }

// Solves all rows. `row_order` [N] lists the rows by falling number of entries; `num_long` of them, at the front, have
// so many entries that several blocks share each. All pointers in `sweep`, `row_order`, `scratch` and `first_bad_row`
// are device memory. *first_bad_row is the smallest row whose solution is not finite, or -1. Returns the message of the
// first CUDA error, or nullptr.
const char* HalfSweepCuda(const HalfSweep& sweep, const int64_t* row_order, int64_t num_long, void* scratch,
                          int64_t* first_bad_row, void* stream);

// The first fault of a matrix: of this kind, at this row, position in the order or entry.
struct MatrixFault {
  enum Kind : int { kNone = -1, kOffset = 0, kFallingOffset = 1, kColumn = 2, kOrder = 3 };
  Kind kind;
  int64_t position;
};

// Looks through a sweep's offsets, `row_order` and columns, of which there are `entries`, and waits for the answer.
size_t CheckMatrixCudaScratchBytes(int64_t num_rows);
const char* CheckMatrixCuda(const HalfSweep& sweep, int64_t entries, const int64_t* row_order, void* scratch,
                            MatrixFault* found, void* stream);

// gramian [F, F] = table' table, table [M, F] half or float, sums in float32.
size_t GramianCudaScratchBytes(int64_t num_rows, int factors);
const char* GramianCuda(const void* table, bool half_storage, int64_t num_rows, int factors, float* gramian,
                        void* scratch, void* stream);

}  // namespace als
}  // namespace tfrec

#endif  // TFREC_ALS_CUDA_H_
