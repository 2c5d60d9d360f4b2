#define TFREC_ISA_NAME "avx512"
#include "tt_rows_impl.h"

namespace tfrec {
namespace tt {

const RowKernels* Avx512RowKernels() { return &tfrec::avx512::kTtRowKernels; }

}  // namespace tt
}  // namespace tfrec
