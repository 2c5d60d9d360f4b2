// Sorting, in a file of its own: CUB takes the compiler longer than everything else here.
#include "tt_device.cuh"

#ifdef __CUDACC__
#include <cub/device/device_radix_sort.cuh>
#else
#include <algorithm>
#include <numeric>
#include <vector>
#endif

namespace tfrec {
namespace tt {

#ifdef __CUDACC__

size_t SortScratchBytes(int64_t n, int bits) {
  const int64_t* const in = nullptr;
  int64_t* const out = nullptr;
  size_t bytes = 0;
  // Launches nothing without memory. Where it fails (no device), so will the sort, and says so.
  if (cub::DeviceRadixSort::SortPairs(nullptr, bytes, in, out, in, out, n, 0, bits) != cudaSuccess) {
    cudaGetLastError();
  }
  return bytes;
}

const char* SortPairs(int64_t n, int bits, const int64_t* keys, int64_t* sorted_keys, const int64_t* values,
                      int64_t* sorted_values, void* scratch, void* stream) {
  if (n == 0) return nullptr;
  size_t bytes = SortScratchBytes(n, bits);
  const cudaError_t error = cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted_keys, values, sorted_values, n,
                                                            0, bits, static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) cudaGetLastError();
  return ErrorMessage(error);
}

#else  // on the host: the same by the standard library

size_t SortScratchBytes(int64_t, int) { return 1; }

const char* SortPairs(int64_t n, int, const int64_t* keys, int64_t* sorted_keys, const int64_t* values,
                      int64_t* sorted_values, void*, void*) {
  std::vector<int64_t> index(n);
  std::iota(index.begin(), index.end(), 0);
  std::stable_sort(index.begin(), index.end(), [&](int64_t a, int64_t b) { return keys[a] < keys[b]; });
  for (int64_t i = 0; i < n; ++i) {
    sorted_keys[i] = keys[index[i]];
    sorted_values[i] = values[index[i]];
  }
  return nullptr;
}

#endif

}  // namespace tt
}  // namespace tfrec
