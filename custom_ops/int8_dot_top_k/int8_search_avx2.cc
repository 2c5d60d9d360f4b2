#include "int8_search_impl.h"

namespace tfrec {
namespace int8_top_k {

const Kernels* Avx2Kernels() { return &tfrec::avx2::kInt8TopKKernels; }

}  // namespace int8_top_k
}  // namespace tfrec
