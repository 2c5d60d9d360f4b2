#include "score_impl.h"

namespace tfrec {
namespace int8_score {

const Kernels* Avx512Kernels() { return &tfrec::avx512::kInt8ScoreKernels; }

}  // namespace int8_score
}  // namespace tfrec
