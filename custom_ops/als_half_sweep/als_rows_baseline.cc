#define TFREC_ISA_NAME "baseline"
#include "als_rows_impl.h"

namespace tfrec {
namespace als {

const RowKernels* BaselineRowKernels() { return &tfrec::baseline::kRowKernels; }

}  // namespace als
}  // namespace tfrec
