// Times of the CUDA kernels for the shape of Last.fm 360K: 360,000 users, 160,000 artists, 17.5 million plays; random
// numbers. Both half-sweeps: all users have about as many entries, while the artists' rows fall off as a power.
//
// What is counted, per half-sweep, with n entries in all, N rows, F factors, e bytes per stored number:
//   bytes       gathers n F e (CG: times steps + 1), rows N F e (start and solution), the Gramian's product not at all
//   operations  CG: (steps + 1) (4 n F + 2 N F^2);  Cholesky: n F^2 + N F^3 / 3 (only the triangles);
//               block of B: n F B + N (2 F^2 + F B^2 / 3) + 6 n F
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "als_cuda.h"
#include "als_device.cuh"

namespace check {

#ifdef __CUDACC__

namespace {

using tfrec::als::HalfSweep;
using tfrec::als::Solver;

void Require(const char* error) {
  if (error == nullptr) return;
  printf("FAIL: %s\n", error);
  exit(1);
}

template <typename T>
T* ToDevice(const std::vector<T>& values) {
  void* data = nullptr;
  Require(tfrec::ErrorMessage(cudaMalloc(&data, values.size() * sizeof(T))));
  Require(tfrec::ErrorMessage(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice)));
  return static_cast<T*>(data);
}
void* Allocate(size_t bytes) {
  void* data = nullptr;
  Require(tfrec::ErrorMessage(cudaMalloc(&data, bytes)));
  return data;
}

// Seconds of the fastest of a few runs, after one that does not count.
template <typename Run>
double Seconds(const Run& run) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  double best = 1e9;
  for (int i = 0; i < 6; ++i) {
    cudaEventRecord(begin);
    Require(run());
    cudaEventRecord(end);
    Require(tfrec::ErrorMessage(cudaEventSynchronize(end)));
    float milliseconds = 0.0f;
    cudaEventElapsedTime(&milliseconds, begin, end);
    if (i > 0) best = std::min(best, milliseconds * 1e-3);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best;
}

// A table of random numbers, the same 4 million over and over.
void* RandomTable(int64_t count, bool half) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<float> period(4000037);
  for (float& v : period) v = normal(random);
  if (!half) {
    std::vector<float> values(count);
    for (int64_t i = 0; i < count; ++i) values[i] = period[i % period.size()];
    return ToDevice(values);
  }
  std::vector<__half> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = __float2half_rn(period[i % period.size()]);
  return ToDevice(values);
}

struct Shape {
  const char* name;
  std::vector<int64_t> lengths;  // falling
  int64_t num_fixed;
  double column_power;  // column = M u^power for uniform u: how much the popular ones are preferred
};

void TimeShape(const Shape& shape, int factors, bool half) {
  const int64_t n = shape.lengths.size(), m = shape.num_fixed;
  std::vector<int64_t> offsets(n + 1, 0), order(n);
  for (int64_t r = 0; r < n; ++r) offsets[r + 1] = offsets[r] + shape.lengths[r];
  std::iota(order.begin(), order.end(), 0);
  const int64_t nnz = offsets[n];
  std::mt19937 random(2);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<int32_t> columns(nnz);
  std::vector<float> values(nnz);
  for (int64_t k = 0; k < nnz; ++k) {
    // Scattered over the table, as ids are.
    const uint64_t rank = static_cast<uint64_t>(m * std::pow(uniform(random), shape.column_power));
    columns[k] = static_cast<int32_t>(rank * 7919 % m);
    values[k] = 1.0f + static_cast<float>(k % 7);
  }
  void* const fixed = RandomTable(m * factors, half);
  void* const start = RandomTable(n * factors, half);
  void* const solved = Allocate(n * factors * (half ? 2 : 4));
  float* const gramian = static_cast<float*>(Allocate(sizeof(float) * factors * factors));
  int64_t* const bad = static_cast<int64_t*>(Allocate(sizeof(int64_t)));
  int64_t *const d_offsets = ToDevice(offsets), *const d_order = ToDevice(order);
  int32_t* const d_columns = ToDevice(columns);
  float* const d_values = ToDevice(values);
  const double e = half ? 2 : 4, f = factors;
  {
    void* const scratch = Allocate(tfrec::als::GramianCudaScratchBytes(m, factors));
    const double seconds =
        Seconds([&] { return tfrec::als::GramianCuda(fixed, half, m, factors, gramian, scratch, nullptr); });
    printf("%-8s F=%-4d %-5s %-14s %9.3f ms %8.0f GB/s %8.0f GFLOPS\n", shape.name, factors, half ? "half" : "float",
           "gramian", seconds * 1e3, m * f * e / seconds * 1e-9, m * f * f / seconds * 1e-9);
    cudaFree(scratch);
  }
  // The time does not depend on the numbers in it.
  std::vector<float> identity(static_cast<size_t>(factors) * factors, 0.0f);
  for (int i = 0; i < factors; ++i) identity[static_cast<size_t>(i) * factors + i] = 1.0f;
  float* const inverse = ToDevice(identity);
  HalfSweep s = {};
  s.num_rows = n;
  s.num_fixed = s.num_counted = m;
  s.num_entries = nnz;
  s.factors = factors;
  s.row_offsets = d_offsets;
  s.columns = d_columns;
  s.values = d_values;
  s.fixed = fixed;
  s.half_storage = half;
  s.gramian = gramian;
  s.inverse = inverse;
  s.shift = 1.0f;
  s.start = start;
  s.solved = solved;
  s.alpha = 1.0f;
  s.regularization = 0.01f;
  s.unobserved_weight = 0.1f;
  s.frequency_exponent = 1.0f;
  s.cg_steps = 3;
  struct Method {
    const char* name;
    Solver solver;
    int block_size;
  };
  for (const Method& method :
       {Method{"cg, 3 steps", Solver::kConjugateGradient, 1}, Method{"cholesky", Solver::kCholesky, 1},
        Method{"block of 32", Solver::kBlock, 32}, Method{"block of 64", Solver::kBlock, 64}}) {
    s.solver = method.solver;
    s.block_size = method.block_size;
    const int64_t limit = tfrec::als::LongRowEntries(s.solver);
    const int64_t num_long =
        std::count_if(shape.lengths.begin(), shape.lengths.end(), [=](int64_t l) { return l >= limit; });
    void* const scratch = Allocate(tfrec::als::HalfSweepCudaScratchBytes(s));
    const double seconds =
        Seconds([&] { return tfrec::als::HalfSweepCuda(s, d_order, num_long, scratch, bad, nullptr); });
    cudaFree(scratch);
    int64_t first_bad = 0;
    cudaMemcpy(&first_bad, bad, sizeof(first_bad), cudaMemcpyDeviceToHost);
    if (first_bad != -1) Require("a row is not finite");
    const double b = method.block_size, passes = s.cg_steps + 1;
    const bool cg = method.solver == Solver::kConjugateGradient, cholesky = method.solver == Solver::kCholesky;
    const double operations = cg         ? passes * (4 * nnz * f + 2 * n * f * f)
                              : cholesky ? nnz * f * f + n * f * f * f / 3
                                         : nnz * f * b + n * (2 * f * f + f * b * b / 3) + 6 * nnz * f;
    const double bytes = nnz * f * e * (cg ? passes : 1) + n * f * e * (cholesky ? 1 : 2);
    printf("%-8s F=%-4d %-5s %-14s %9.3f ms %8.0f GB/s %8.0f GFLOPS  (%lld long rows)\n", shape.name, factors,
           half ? "half" : "float", method.name, seconds * 1e3, bytes / seconds * 1e-9, operations / seconds * 1e-9,
           static_cast<long long>(num_long));
  }
  for (void* p :
       {fixed, start, solved, static_cast<void*>(gramian), static_cast<void*>(inverse), static_cast<void*>(bad),
        static_cast<void*>(d_offsets), static_cast<void*>(d_order), static_cast<void*>(d_columns), static_cast<void*>(d_values)}) {
    cudaFree(p);
  }
}

}  // namespace

void Times(bool slow) {
  const int64_t users = 360000, artists = 160000, nnz = 17500000;
  Shape by_user = {"users", {}, artists, 3.0}, by_artist = {"artists", {}, users, 1.0};
  std::mt19937 random(3);
  std::normal_distribution<double> normal(48.6, 8.0);
  for (int64_t r = 0; r < users; ++r) by_user.lengths.push_back(std::max<int64_t>(1, std::lround(normal(random))));
  double sum = 0.0;
  for (int64_t r = 0; r < artists; ++r) sum += std::pow(r + 20.0, -0.9);
  for (int64_t r = 0; r < artists; ++r) {
    const int64_t length = std::llround(nnz * std::pow(r + 20.0, -0.9) / sum);
    by_artist.lengths.push_back(std::min<int64_t>(std::max<int64_t>(1, length), users));
  }
  std::sort(by_user.lengths.rbegin(), by_user.lengths.rend());
  for (const bool half : {true, false}) {
    for (const int factors : {64, 128, 256}) {
      TimeShape(by_user, factors, half);
      TimeShape(by_artist, factors, half);
    }
  }
  if (slow) TimeShape(by_user, 1024, true);
}

#else

void Times(bool) {}  // an emulation has none

#endif

}  // namespace check
