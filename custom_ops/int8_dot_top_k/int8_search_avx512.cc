#include "int8_search_impl.h"

namespace tfrec {
namespace int8_top_k {

const Kernels* Avx512Kernels() { return &tfrec::avx512::kInt8TopKKernels; }

}  // namespace int8_top_k
}  // namespace tfrec
