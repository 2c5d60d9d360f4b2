#include "int8_search_impl.h"

namespace tfrec {
namespace int8_top_k {

const Kernels* BaselineKernels() { return &tfrec::baseline::kInt8TopKKernels; }

}  // namespace int8_top_k
}  // namespace tfrec
