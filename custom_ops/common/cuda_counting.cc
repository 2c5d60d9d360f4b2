// A CUDA runtime that launches nothing and writes down what it was asked to: linked in place of cudart (nvcc --cudart
// none), it shows on a machine without a GPU which kernels and memsets a call puts on its stream, those of CUB
// included, since the host's code is the one that a GPU would get. The device that it claims to be is an H100. Part of
// no product.
#include <cuda_runtime.h>

#include <cstring>
#include <map>

#include "cuda_counting.h"

namespace {

std::map<const void*, std::string>& Names() {
  static std::map<const void*, std::string> names;
  return names;
}
struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
} configuration;

cudaError_t Write(const void* kernel, dim3 grid, dim3 block, size_t shared) {
  tfrec::launches.push_back({Names().at(kernel), grid.x * grid.y * grid.z, block.x * block.y * block.z, shared, 0});
  return cudaSuccess;
}

}  // namespace

namespace tfrec {
std::vector<CountedLaunch> launches;
}

extern "C" {

// ---- What nvcc's own code calls ------------------------------------------------------------------------------------

void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  Names()[function] = name;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  configuration = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  memcpy(stream, &configuration.stream, sizeof(configuration.stream));
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t) {
  return Write(kernel, grid, block, shared);
}

// ---- The runtime ---------------------------------------------------------------------------------------------------

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t) {
  return Write(function, grid, block, shared);
}
cudaError_t cudaMemsetAsync(void*, int, size_t bytes, cudaStream_t) {
  tfrec::launches.push_back({"memset", 0, 0, 0, bytes});
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void*, const void*, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  tfrec::launches.push_back({"memcpy", 0, 0, 0, bytes});
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an attribute that cuda_counting.cc does not know"; }
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      return *value = 132, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = 232448, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = 9, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = 0, cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}
// CUB asks for the architecture that it was compiled for, and how many blocks fit: with fewer than there are, it only
// makes its grids smaller.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->ptxVersion = attributes->binaryVersion = 90;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
  return *blocks = 1, cudaSuccess;
}

}  // extern "C"
