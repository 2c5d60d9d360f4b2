#include "score_impl.h"

namespace tfrec {
namespace int8_score {

const Kernels* Avx2Kernels() { return &tfrec::avx2::kInt8ScoreKernels; }

}  // namespace int8_score
}  // namespace tfrec
