// Whether a sweep's matrix lies in memory that is its own: offsets that do not fall and stay inside the entries, columns
// inside the fixed table, an order with each row once. One pass over the matrix, which the solvers then read anyway.
#include "als_cuda.h"
#include "als_device.cuh"

namespace tfrec {
namespace als {
namespace {

constexpr int kThreads = 256, kMostBlocks = 2048;
constexpr int kPositionBits = 56;  // of a fault: what is wrong is above them, so that the smallest one is kept

__device__ inline void Note(MatrixFault::Kind kind, int64_t position, unsigned long long* fault) {
  atomicMin(fault, static_cast<unsigned long long>(kind) << kPositionBits | static_cast<unsigned long long>(position));
}

// marks [N] are zero.
__global__ void __launch_bounds__(kThreads)
    CheckMatrix(HalfSweep s, int64_t entries, const int64_t* row_order, int* marks, unsigned long long* fault) {
  const int64_t first = s.row_offsets[0], last = s.row_offsets[s.num_rows];
  const int64_t begin = first > 0 ? first : 0, end = last < entries ? last : entries;
  const int64_t rows = s.num_rows + 1, count = rows > end ? rows : end;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    if (i < rows) {
      const int64_t offset = s.row_offsets[i];
      if (offset < 0 || offset > entries) Note(MatrixFault::kOffset, i, fault);
      if (i > 0 && offset < s.row_offsets[i - 1]) Note(MatrixFault::kFallingOffset, i - 1, fault);
    }
    if (i < s.num_rows) {
      const int64_t row = row_order[i];
      if (row < 0 || row >= s.num_rows || atomicAdd(marks + row, 1) != 0) Note(MatrixFault::kOrder, i, fault);
    }
    // A negative column is a very large one.
    if (i >= begin && i < end && static_cast<uint32_t>(s.columns[i]) >= static_cast<uint64_t>(s.num_fixed)) {
      Note(MatrixFault::kColumn, i, fault);
    }
  }
}

}  // namespace

size_t CheckMatrixCudaScratchBytes(int64_t num_rows) {
  return sizeof(unsigned long long) + static_cast<size_t>(num_rows) * sizeof(int);
}

const char* CheckMatrixCuda(const HalfSweep& s, int64_t entries, const int64_t* row_order, void* scratch,
                            MatrixFault* found, void* stream) {
  *found = {MatrixFault::kNone, 0};
  cudaStream_t on = static_cast<cudaStream_t>(stream);
  unsigned long long* const fault = static_cast<unsigned long long*>(scratch);
  int* const marks = reinterpret_cast<int*>(fault + 1);
  const char* error = ErrorMessage(cudaMemsetAsync(fault, 0xff, sizeof(*fault), on));
  if (error == nullptr) error = ErrorMessage(cudaMemsetAsync(marks, 0, s.num_rows * sizeof(int), on));
  if (error != nullptr) return error;
  const int64_t blocks = ((entries > s.num_rows ? entries : s.num_rows) + kThreads) / kThreads;
  error = Launch(CheckMatrix, dim3(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks)), kThreads, 0,
                 stream, s, entries, row_order, marks, fault);
  if (error != nullptr) return error;
  unsigned long long host = 0;
  error = ErrorMessage(cudaMemcpyAsync(&host, fault, sizeof(host), cudaMemcpyDeviceToHost, on));
  if (error == nullptr) error = ErrorMessage(cudaStreamSynchronize(on));
  if (error != nullptr || host == ~0ull) return error;
  *found = {static_cast<MatrixFault::Kind>(host >> kPositionBits),
            static_cast<int64_t>(host & ((1ull << kPositionBits) - 1))};
  return nullptr;
}

}  // namespace als
}  // namespace tfrec
