#define TFREC_ISA_NAME "avx2"
#include "als_rows_impl.h"

namespace tfrec {
namespace als {

const RowKernels* Avx2RowKernels() { return &tfrec::avx2::kRowKernels; }

}  // namespace als
}  // namespace tfrec
