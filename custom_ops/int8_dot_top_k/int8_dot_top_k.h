// The contract of exact top-k by inner product of bytes: for each query the k items of highest score
// float(q . y) * (query_scale * item_scale), best first, equal scores by lower id first, without the query's excluded
// items. q . y is exact, in int32; the rest is float32 in this order.
#ifndef TFREC_INT8_DOT_TOP_K_H_
#define TFREC_INT8_DOT_TOP_K_H_

#include "dot_top_k.h"

namespace tfrec {
namespace int8_top_k {

// Up to here every product of rows fits 32 bits.
constexpr int64_t kMaxWidth = 65536;

struct Int8DotTopK {
  top_k::DotTopK lists;       // queries and items are int8
  const float* query_scales;  // [num_queries]
  const float* item_scales;   // [num_items]
};

struct Kernels {
  // Bytes that a thread needs, from a multiple of 64 on.
  int64_t (*workspace_bytes)(const Int8DotTopK&);
  // As top_k::Kernels::search.
  void (*search)(const Int8DotTopK&, int64_t first_query, int64_t last_query, int64_t first_item, int64_t last_item,
                 bool packed, float* scores, int32_t* ids, void* workspace);
};

const Kernels* BaselineKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();  // also needs AVX-512BW

}  // namespace int8_top_k
}  // namespace tfrec

#endif  // TFREC_INT8_DOT_TOP_K_H_
