// What the CUDA kernels offer to the TensorFlow ops. `stream` is a cudaStream_t; nothing here waits for the device, so
// the number of distinct ids stays on the device and arrays are sized by n. Pointers in the structures and `scratch`
// are device memory; the structures themselves are host memory, read before the call returns. The functions return the
// message of the first CUDA error, or nullptr.
#ifndef TFREC_TT_CUDA_H_
#define TFREC_TT_CUDA_H_

#include <cstddef>
#include <cstdint>

#include "tt_embedding.h"

namespace tfrec {
namespace tt {

// rows [n, D] of the storage type, all written. n = 0 launches nothing.
size_t ForwardCudaScratchBytes(const Lookup& lookup);
const char* ForwardCuda(const Lookup& lookup, void* rows, void* scratch, void* stream);

// All of backward.gradients written, also for n = 0.
size_t BackwardCudaScratchBytes(const Lookup& lookup);
const char* BackwardCuda(const Backward& backward, void* scratch, void* stream);

// All cores: weights [count] of the storage type and slots [count] float32 are updated from gradient [count]; slots
// beyond NumSlots are not read.
struct CoreUpdate {
  int64_t count;
  const float* gradient;
  void* weights;
  float* slots[2];
};
const char* UpdateCuda(const Update& update, Storage storage, int num_cores, const CoreUpdate* cores, void* stream);

// From device memory to device memory.
const char* CopyCuda(void* to, const void* from, size_t bytes, void* stream);

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_CUDA_H_
