#define TFREC_ISA_NAME "avx512"
#include "als_rows_impl.h"

namespace tfrec {
namespace als {

const RowKernels* Avx512RowKernels() { return &tfrec::avx512::kRowKernels; }

}  // namespace als
}  // namespace tfrec
