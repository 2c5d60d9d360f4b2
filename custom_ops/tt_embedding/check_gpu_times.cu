// Times of the CUDA kernels for FBTT-Embedding's headline shape: a table of 11,000,000 x 64 as 200 x 220 x 250 by
// 4 x 4 x 4 of rank 32; batches of 512 x 20 ids and of a million, uniform and by Zipf's law (the probability of the
// i-th most popular id falls as 1 / i).
//
// What is counted are the multiplications and additions that are done, sorting not at all: with v_k distinct prefixes
// of k digits among the ids of the batch and f_k = 2 Q_{k-1} r_{k-1} q_k r_k operations for one product of level k,
//   forward   sum over k = 2..T of v_k f_k
//   backward  sum over k = 2..T of 2 v_k f_k, and for k < T once more v_k f_k: the products that it needs again
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <vector>

#include "tt_cuda.h"
#include "tt_device.cuh"

namespace check {

#ifdef __CUDACC__

namespace {

using namespace tfrec::tt;

void Require(const char* error) {
  if (error == nullptr) return;
  printf("FAIL: %s\n", error);
  exit(1);
}
void* Allocate(size_t bytes) {
  void* data = nullptr;
  Require(tfrec::ErrorMessage(cudaMalloc(&data, std::max<size_t>(bytes, 16))));
  return data;
}
// Small numbers, whatever the type: nothing here depends on them.
void* AllocateZeros(size_t bytes) {
  void* const data = Allocate(bytes);
  Require(tfrec::ErrorMessage(cudaMemset(data, 0, bytes)));
  return data;
}

// Until code is loaded, or compiled by the driver for a GPU that it was not built for, and clocks are up.
template <typename Run>
void WarmUp(int runs, const Run& run) {
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int r = 0; r < runs; ++r) Require(run());
    Require(tfrec::ErrorMessage(cudaDeviceSynchronize()));
  } while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(200));
}

// Seconds of one of `runs` in a row, the fastest of a few times.
template <typename Run>
double Seconds(int runs, const Run& run) {
  cudaEvent_t begin, end;
  Require(tfrec::ErrorMessage(cudaEventCreate(&begin)));
  Require(tfrec::ErrorMessage(cudaEventCreate(&end)));
  WarmUp(runs, run);
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    Require(tfrec::ErrorMessage(cudaEventRecord(begin)));
    for (int r = 0; r < runs; ++r) Require(run());
    Require(tfrec::ErrorMessage(cudaEventRecord(end)));
    Require(tfrec::ErrorMessage(cudaEventSynchronize(end)));
    float milliseconds = 0.0f;
    Require(tfrec::ErrorMessage(cudaEventElapsedTime(&milliseconds, begin, end)));
    best = std::min(best, milliseconds * 1e-3 / runs);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best;
}

void TimeShape(Storage storage, int64_t n, bool zipf) {
  Table t = {};
  t.num_cores = 3;
  t.num_tables = 1;
  t.num_rows = 11000000;
  t.storage = storage;
  const int p[] = {200, 220, 250}, r[] = {1, 32, 32, 1};
  for (int k = 0; k < 3; ++k) {
    t.p[k] = p[k];
    t.q[k] = 4;
    t.r[k] = r[k];
  }
  t.r[3] = 1;
  const size_t element = storage == Storage::kFloat ? 4 : 2;
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<int64_t> ids(n);
  for (int64_t& id : ids) {
    const double u = uniform(random), rows = static_cast<double>(t.num_rows);
    const double rank = zipf ? std::pow(rows, u) : rows * u;
    id = static_cast<int64_t>(rank) % t.num_rows * 7919 % t.num_rows;  // popular ids all over the table
  }
  double forward = 0.0, backward = 0.0;
  int64_t divisor = t.p[1] * t.p[2], q = 1;
  for (int k = 1; k < 3; ++k) {
    divisor /= t.p[k];
    q *= t.q[k - 1];
    std::set<int64_t> prefixes;
    for (const int64_t id : ids) prefixes.insert(id / divisor);
    const double operations = 2.0 * static_cast<double>(prefixes.size() * q) * t.r[k] * t.q[k] * t.r[k + 1];
    forward += operations;
    backward += (k < 2 ? 3 : 2) * operations;
  }

  Lookup lookup = {};
  lookup.table = t;
  lookup.n = n;
  int64_t* const device_ids = static_cast<int64_t*>(Allocate(n * sizeof(int64_t)));
  Require(tfrec::ErrorMessage(cudaMemcpy(device_ids, ids.data(), n * sizeof(int64_t), cudaMemcpyHostToDevice)));
  lookup.ids = device_ids;
  Backward b = {};
  std::vector<void*> all = {device_ids};
  float* slots[2][3];
  for (int k = 0; k < 3; ++k) {
    all.push_back(AllocateZeros(t.core(k) * element));
    lookup.cores[k] = all.back();
    all.push_back(AllocateZeros(t.core(k) * sizeof(float)));
    b.gradients[k] = static_cast<float*>(all.back());
    for (int s = 0; s < 2; ++s) {
      all.push_back(AllocateZeros(t.core(k) * sizeof(float)));
      slots[s][k] = static_cast<float*>(all.back());
    }
  }
  void* const rows = AllocateZeros(n * t.width() * element);
  b.lookup = lookup;
  b.upstream = rows;
  const size_t forward_bytes = ForwardCudaScratchBytes(lookup), backward_bytes = BackwardCudaScratchBytes(lookup);
  void* const scratch = Allocate(std::max(forward_bytes, backward_bytes));
  all.push_back(rows);
  all.push_back(scratch);

  const int runs = n < 100000 ? 20 : 2;
  const Update update = {Optimizer::kAdam, 1e-3f, 0.9f, 0.999f, 1e-7f};
  CoreUpdate updates[3];
  for (int k = 0; k < 3; ++k) {
    updates[k] = {t.core(k), b.gradients[k], const_cast<void*>(lookup.cores[k]), {slots[0][k], slots[1][k]}};
  }
  const auto print = [&](const char* what, double seconds, double operations, size_t bytes) {
    printf("%-8s %8lld ids %-7s %-16s %9.1f us %8.4f us per id %8.0f GFLOPS, scratch %5.0f MiB\n",
           storage == Storage::kFloat  ? "float"
           : storage == Storage::kHalf ? "half"
                                       : "bfloat16",
           static_cast<long long>(n), zipf ? "zipf" : "uniform", what, seconds * 1e6, seconds * 1e6 / n,
           operations / seconds * 1e-9, bytes / 1048576.0);
  };
  print("forward", Seconds(runs, [&] { return ForwardCuda(lookup, rows, scratch, nullptr); }), forward, forward_bytes);
  print("backward", Seconds(runs, [&] { return BackwardCuda(b, scratch, nullptr); }), backward, backward_bytes);
  print("backward + adam", Seconds(runs, [&] {
          const char* error = BackwardCuda(b, scratch, nullptr);
          return error != nullptr ? error : UpdateCuda(update, storage, 3, updates, nullptr);
        }),
        backward, backward_bytes);
  for (void* p : all) cudaFree(p);
}

}  // namespace

void Times() {
  for (const Storage storage : {Storage::kFloat, Storage::kHalf, Storage::kBfloat16}) {
    for (const int64_t n : {int64_t{512} * 20, int64_t{1} << 20}) {
      TimeShape(storage, n, false);
      TimeShape(storage, n, true);
    }
  }
}

#else

void Times() {}  // an emulation has none

#endif

}  // namespace check
