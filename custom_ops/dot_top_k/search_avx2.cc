#include "search_impl.h"

namespace tfrec {
namespace top_k {

const Kernels* Avx2Kernels() { return &tfrec::avx2::kTopKKernels; }

}  // namespace top_k
}  // namespace tfrec
