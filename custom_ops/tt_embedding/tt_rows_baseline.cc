#define TFREC_ISA_NAME "baseline"
#include "tt_rows_impl.h"

namespace tfrec {
namespace tt {

const RowKernels* BaselineRowKernels() { return &tfrec::baseline::kTtRowKernels; }

}  // namespace tt
}  // namespace tfrec
