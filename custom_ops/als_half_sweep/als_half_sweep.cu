// The entry points of the half-sweep: which solver runs. The kernels are in als_cg.cu and als_direct.cu.
#include "als_cuda.h"
#include "als_device.cuh"

namespace tfrec {
namespace als {

size_t HalfSweepCudaScratchBytes(const HalfSweep& sweep) {
  return sweep.solver == Solver::kConjugateGradient ? ConjugateGradientScratchBytes(sweep) : DirectScratchBytes(sweep);
}

const char* HalfSweepCuda(const HalfSweep& sweep, const int64_t* row_order, int64_t num_long, void* scratch,
                          int64_t* first_bad_row, void* stream) {
  if (sweep.factors < 1 || sweep.factors > kMaxFactors) return "the number of factors is out of range";
  // All bits set: -1, and the largest of the unsigned numbers among which the kernels keep the smallest.
  const char* error =
      ErrorMessage(cudaMemsetAsync(first_bad_row, 0xff, sizeof(*first_bad_row), static_cast<cudaStream_t>(stream)));
  if (error != nullptr || sweep.num_rows == 0) return error;
  const int64_t shared_rows = num_long < sweep.num_rows ? num_long : sweep.num_rows;
  return sweep.solver == Solver::kConjugateGradient
             ? ConjugateGradient(sweep, row_order, shared_rows, scratch, first_bad_row, stream)
             : Direct(sweep, row_order, shared_rows, scratch, first_bad_row, stream);
}

}  // namespace als
}  // namespace tfrec
