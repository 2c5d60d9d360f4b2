// What the CPU kernels of tensor-train embeddings offer to the TensorFlow ops, once per instruction set.
#ifndef TFREC_TT_ROWS_H_
#define TFREC_TT_ROWS_H_

#include "tt_embedding.h"

namespace tfrec {
namespace tt {

// The distinct ids of a call, ordered so that those with a common prefix of the product, and those with the same slice of
// the second core, are neighbours: by (table, i_2, i_1, i_3, ... i_T), for two cores by (table, i_1, i_2).
struct Distinct {
  int64_t count;          // U
  const int64_t* slices;  // [U, T]: which slice of each core
  const int64_t* starts;  // [U + 1]: id u is at the positions order[starts[u]] to order[starts[u + 1] - 1], ascending
  const int64_t* order;   // [n]
};

// Cores as the kernels read them: ranks padded with zeros to whole vectors, so that every loop is over whole vectors.
// Only the slices in use are filled.
struct Packed {
  int64_t padded[kMaxCores + 1];   // R_k >= r_k
  float* slices[kMaxCores];        // [*, r_{k-1}, q_k R_k] for the cores after the second and before the last
  float* transposed[kMaxCores];    // [*, q_k R_k, R_{k-1}] for these and the last; for the former in backward only
};

// Where one thread adds its gradients.
struct Sums {
  float* cores[kMaxCores];  // [slices, sum_floats]: [r_{k-1}, q_k R_k], of the last core transposed, [q_T, R_{T-1}]
  float* second;            // if T > 2, for the second core instead: its gradient itself, as each slice is one thread's,
  float* shared;            // but for a thread's first slice where the thread before has it too: that goes here
};

struct RowKernels {
  const char* name;

  // R_k; and floats of one packed slice, of one transposed slice, and of one slice in Sums.
  void (*padding)(const Table&, Packed*);
  int64_t (*packed_floats)(const Table&, const Packed&, int core);
  int64_t (*transposed_floats)(const Table&, const Packed&, int core);
  int64_t (*sum_floats)(const Table&, const Packed&, int core);
  void (*pack)(const Lookup&, const Packed&, int core, int64_t slice, bool backward);

  // Floats that a thread needs.
  int64_t (*workspace_floats)(const Table&, const Packed&);

  // Rows of the distinct ids [begin, end), written to all their positions.
  void (*forward)(const Lookup&, const Distinct&, const Packed&, int64_t begin, int64_t end, void* rows,
                  float* workspace);
  // Adds the gradients of the distinct ids [begin, end) to sums; slices of the second core are overwritten.
  void (*backward)(const Backward&, const Distinct&, const Packed&, int64_t begin, int64_t end, const Sums& sums,
                   float* workspace);
  // gradient of slice `slice` of core `core` = the sum over threads, in their order.
  void (*reduce)(const Table&, const Packed&, int core, int64_t slice, const Sums* sums, int threads, float* gradient);

  // Elements [begin, end) of one core.
  void (*update)(const Update&, Storage, const float* gradient, void* weights, float* slot_0, float* slot_1,
                 int64_t begin, int64_t end);
};

const RowKernels* BaselineRowKernels();
const RowKernels* Avx2RowKernels();
const RowKernels* Avx512RowKernels();

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_ROWS_H_
