#define TFREC_ISA_NAME "avx2"
#include "tt_rows_impl.h"

namespace tfrec {
namespace tt {

const RowKernels* Avx2RowKernels() { return &tfrec::avx2::kTtRowKernels; }

}  // namespace tt
}  // namespace tfrec
