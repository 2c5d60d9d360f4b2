#include "search_impl.h"

namespace tfrec {
namespace top_k {

const Kernels* Avx512Kernels() { return &tfrec::avx512::kTopKKernels; }

}  // namespace top_k
}  // namespace tfrec
