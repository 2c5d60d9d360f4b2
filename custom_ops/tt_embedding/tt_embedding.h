// The contract of tensor-train embeddings, shared by the TensorFlow ops, the CPU kernels and the CUDA kernels. Plain C++:
// no TensorFlow and no CUDA header, so that nvcc and the ISA-specific files compile it alike.
//
// A table of N rows of D numbers is held as T cores (T = 2 to 5), with N <= p_1 ... p_T, D = q_1 ... q_T and ranks
// r_0 = r_T = 1, r_1 ... r_{T-1}. Core k is the row-major array
//
//   G_k [num_tables * p_k, r_{k-1}, q_k, r_k],
//
// of which slice i is the matrix G_k[i] [r_{k-1}, q_k r_k]. Id n has the digits i_1 ... i_T of the mixed radix p, i_1 the
// most significant: n = ((i_1 p_2 + i_2) p_3 + i_3) ... Its row is the product
//
//   L_1 = G_1[i_1] as [q_1, r_1],   L_k = L_{k-1} [Q_{k-1}, r_{k-1}] G_k[i_k], as [Q_{k-1} q_k, r_k],   row = L_T [D],
//
// with Q_k = q_1 ... q_k. Oseledets, "Tensor-Train Decomposition", 2011, (1.2); Yin, Acun, Wu, Liu, "TT-Rec", MLSys 2021,
// (2); shared prefixes: Wang et al., "EL-Rec", SC 2022, section 4.
//
// Several tables of one shape share a call: table t has slices [t p_k, (t + 1) p_k) of each core, and its row n has the id
// t * num_rows + n.
//
// Half and bfloat16 are storage only: products are of floats (or of halves on tensor cores) and sums are float32.
#ifndef TFREC_TT_EMBEDDING_H_
#define TFREC_TT_EMBEDDING_H_

#include <cstddef>
#include <cstdint>

namespace tfrec {
namespace tt {

// Never emitted as functions of their own: the linker would merge copies compiled for different processors.
#define TFREC_TT_INLINE __attribute__((always_inline)) inline

constexpr int kMaxCores = 5;
constexpr int kMaxRank = 1024;  // of a rank and of a column factor
constexpr int64_t kMaxWidth = 1 << 16;  // of D, and of Q_k r_k for every k
constexpr int64_t kMaxTables = 0x7fffffff;
constexpr int64_t kMaxRows = (int64_t{1} << 62) - 1;  // of num_tables * p_1 ... p_T
constexpr int64_t kMaxCore = int64_t{1} << 56;  // elements of a core: sizes of arrays computed from it fit 64 bits

enum class Storage : int { kFloat = 0, kHalf = 1, kBfloat16 = 2 };

struct Table {
  int num_cores;            // T, 2 to kMaxCores
  int num_tables;           // 1 to kMaxTables
  int64_t num_rows;         // N of one table, 1 to p_1 ... p_T; num_tables * p_1 ... p_T at most kMaxRows
  int64_t p[kMaxCores];     // >= 1
  int q[kMaxCores];         // >= 1
  int r[kMaxCores + 1];     // r[0] = r[T] = 1
  Storage storage;          // of cores, rows and upstream

  TFREC_TT_INLINE int64_t width() const {  // D
    int64_t d = 1;
    for (int k = 0; k < num_cores; ++k) d *= q[k];
    return d;
  }
  TFREC_TT_INLINE int64_t slice(int k) const { return static_cast<int64_t>(r[k]) * q[k] * r[k + 1]; }  // elements of a G_{k+1}[i]
  TFREC_TT_INLINE int64_t slices(int k) const { return num_tables * p[k]; }
  TFREC_TT_INLINE int64_t core(int k) const { return slices(k) * slice(k); }
};

// Forward: rows [n, D] = the rows of ids [n], each in [0, num_tables * num_rows). No id is computed twice, nor a product
// L_{T-1} for two ids that have it in common; of few ids CUDA makes the last product for each. An id out of range: the CPU
// raises before it computes anything; CUDA writes a row of zeros.
struct Lookup {
  Table table;
  const void* cores[kMaxCores];
  const int64_t* ids;  // [n]
  int64_t n;           // >= 0, no other limit
};

// Backward: gradients[k] [core(k)] float32 = the gradient of sum(upstream * rows) for core k+1, upstream [n, D] of the
// storage type. Every element is written, zeros for slices that no id has. The upstream of equal ids is added first, in
// the order of their positions; sums over ids are in an order that depends on the ids and the number of multiprocessors
// (CUDA) or of threads (CPU): equal calls on one machine give equal bits. No floating-point atomics. Ids out of range have
// no gradient.
struct Backward {
  Lookup lookup;
  const void* upstream;          // [n, D]
  float* gradients[kMaxCores];
};

// Fused update: the gradient goes from scratch memory into the weights; it is dense, so this is exactly what Keras's
// optimizer of that name does with Backward's result, every row of every core included. g gradient, w weight:
//   kSgd      w -= lr g
//   kAdagrad  a += g^2,  w -= lr g / sqrt(a + epsilon)
//   kAdam     m += (g - m)(1 - beta_1),  v += (g^2 - v)(1 - beta_2),  w -= lr' m / (sqrt(v) + epsilon),
//             lr' = lr sqrt(1 - beta_2^t) / (1 - beta_1^t), t = 1 in the first step
enum class Optimizer : int { kSgd = 0, kAdagrad = 1, kAdam = 2 };

// Slots that an optimizer has for each core: float32 arrays of the core's shape whatever the storage type.
TFREC_TT_INLINE int NumSlots(Optimizer optimizer) { return static_cast<int>(optimizer); }

struct Update {
  Optimizer optimizer;
  float rate;     // lr; for Adam lr'
  float beta_1, beta_2, epsilon;
};

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_EMBEDDING_H_
