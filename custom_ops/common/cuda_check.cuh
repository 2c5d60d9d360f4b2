// What the drivers check_gpu.cu of all operations share: memory of the device, and the count of checks.
#ifndef TFREC_CUDA_CHECK_CUH_
#define TFREC_CUDA_CHECK_CUH_

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "cuda_device.cuh"

namespace tfrec {
namespace check {

inline int failures = 0, checks = 0;
inline uint64_t digest = 14695981039346656037u;  // of all results: equal for equal results in every run

inline void Require(bool good, const char* what) {
  if (good) return;
  printf("FAIL: %s\n", what);
  exit(1);
}
inline void Require(cudaError_t error) { Require(error == cudaSuccess, cudaGetErrorString(error)); }
inline void RequireNoError(const char* message) {
  Require(message == nullptr, message);
  Require(cudaDeviceSynchronize());
}

// Device memory filled with NaN, or with what a vector holds.
class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    Require(cudaMalloc(&data_, std::max<size_t>(bytes, 16)));
    Require(cudaMemset(data_, 0xff, bytes));
  }
  template <typename T>
  explicit Buffer(const std::vector<T>& values, size_t skip = 0) : Buffer((values.size() + skip) * sizeof(T)) {
    Require(
        cudaMemcpy(static_cast<T*>(data_) + skip, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Buffer() {
    if (data_ != nullptr) cudaFree(data_);
  }
  Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  template <typename T>
  T* Get() const {
    return static_cast<T*>(data_);
  }
  template <typename T>
  std::vector<T> Read(size_t count) const {
    std::vector<T> values(count);
    Require(cudaMemcpy(values.data(), data_, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* data_ = nullptr;
};

inline void Note(const void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) digest = (digest ^ static_cast<const unsigned char*>(data)[i]) * 1099511628211u;
}

inline void Report(const std::string& name, double error, double tolerance) {
  const bool good = error <= tolerance;  // false for NaN
  ++checks;
  failures += !good;
  printf("%s %-78s error %.2e (at most %.0e)\n", good ? "PASS" : "FAIL", name.c_str(), error, tolerance);
}

inline std::vector<float> RandomNormal(size_t count, float scale, std::mt19937* random) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& v : values) v = normal(*random);
  return values;
}

}  // namespace check
}  // namespace tfrec

#endif  // TFREC_CUDA_CHECK_CUH_
