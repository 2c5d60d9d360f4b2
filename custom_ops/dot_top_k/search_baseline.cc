#include "search_impl.h"

namespace tfrec {
namespace top_k {

const Kernels* BaselineKernels() { return &tfrec::baseline::kTopKKernels; }

}  // namespace top_k
}  // namespace tfrec
