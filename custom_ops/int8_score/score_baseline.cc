#include "score_impl.h"

namespace tfrec {
namespace int8_score {

const Kernels* BaselineKernels() { return &tfrec::baseline::kInt8ScoreKernels; }

}  // namespace int8_score
}  // namespace tfrec
