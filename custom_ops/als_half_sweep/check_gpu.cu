// Checks the CUDA kernels of the half-sweep against float64 on the host, row by row, and times them. Stands alone: nvcc
// and a GPU, no TensorFlow (check_gpu.sh). Without a GPU it says so and exits with 77; check_on_host.sh runs the same
// checks on an emulation (cuda_on_host.h).
//
//   check_gpu            all checks, then the times
//   check_gpu slow       also the times of 1,024 factors, whose matrices are in global memory: minutes
//   check_gpu quick [F]  fewer rows for many factors, no more than F of them, no times
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "../common/cuda_check.cuh"
#include "als_cuda.h"
#include "als_tiles.cuh"
#include "check_oracle.h"

namespace {

using namespace tfrec::check;
using tfrec::als::HalfSweep;
using tfrec::als::Solver;

// Numbers as the table stores them.
std::vector<__half> ToHalves(const std::vector<float>& values) {
  std::vector<__half> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = __float2half_rn(values[i]);
  return halves;
}
std::vector<float> Stored(std::vector<float> values, bool half) {
  for (float& v : values) v = half ? __half2float(__float2half_rn(v)) : v;
  return values;
}
Buffer ToDevice(const std::vector<float>& values, bool half, size_t skip = 0) {
  if (half) return Buffer(ToHalves(values), skip);
  return Buffer(values, skip);
}
std::vector<float> FromDevice(const Buffer& buffer, bool half, size_t count) {
  if (!half) return buffer.Read<float>(count);
  std::vector<float> values(count);
  const std::vector<__half> halves = buffer.Read<__half>(count);
  for (size_t i = 0; i < count; ++i) values[i] = __half2float(halves[i]);
  return values;
}

// |sums - expected| / |expected| over a matrix.
template <typename T>
double RelativeError(const std::vector<T>& sums, const std::vector<double>& expected) {
  double difference = 0.0, norm = 1e-300;
  for (size_t i = 0; i < sums.size(); ++i) {
    difference += (sums[i] - expected[i]) * (sums[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

// With `positive`, no product has another sign, as in rows of factors that share a direction: then nothing makes up for
// what sums that are cut off lose. The error must be at most three times that of float32 sums of the same parts, a row
// after another in a split, a split after another: a sum of 32 rows may still be cut off 12 times.
void CheckGramian(int64_t rows, int factors, bool half, bool positive = false) {
  std::mt19937 random(factors);
  std::vector<float> table = Stored(RandomNormal(rows * factors, 0.3f, &random), half);
  if (positive) {
    for (float& v : table) v = std::fabs(v);
  }
  const Buffer device = ToDevice(table, half), gramian(sizeof(float) * factors * factors);
  const Buffer scratch(tfrec::als::GramianCudaScratchBytes(rows, factors));
  RequireNoError(tfrec::als::GramianCuda(device.Get<void>(), half, rows, factors, gramian.Get<float>(),
                                         scratch.Get<void>(), nullptr));
  const std::vector<float> result = gramian.Read<float>(static_cast<size_t>(factors) * factors);
  Note(result.data(), result.size() * sizeof(float));
  std::vector<double> expected(result.size(), 0.0);
  std::vector<float> floats(result.size(), 0.0f), split(result.size(), 0.0f);
  const int64_t splits = 256, split_rows = tfrec::RoundUp<int64_t>((rows + splits - 1) / splits, 32);  // als_gramian.cu
  for (int64_t r = 0; r < rows; ++r) {
    const float* y = table.data() + r * factors;
    for (int i = 0; i < factors; ++i) {
      for (int j = 0; j < factors; ++j) expected[i * factors + j] += static_cast<double>(y[i]) * y[j];
      for (int j = 0; j < factors && positive; ++j) split[i * factors + j] += y[i] * y[j];
    }
    if ((r + 1) % split_rows == 0 || r + 1 == rows) {
      for (size_t i = 0; i < split.size(); ++i) floats[i] += split[i];
      std::fill(split.begin(), split.end(), 0.0f);
    }
  }
  Report("gramian " + std::to_string(rows) + " x " + std::to_string(factors) + (half ? " half" : " float") +
             (positive ? " positive" : ""),
         RelativeError(result, expected), positive ? 3 * RelativeError(floats, expected) : 1e-5);
}

__global__ void __launch_bounds__(256) ReciprocalSquareRoots(const float* values, float* results) {
  const int i = static_cast<int>(blockIdx.x) * 256 + threadIdx.x;
  results[i] = tfrec::als::ReciprocalSquareRoot(values[i]);
}

// Of pivots over all powers of two that a float has.
void CheckReciprocalSquareRoot() {
  const int count = 256 * 256;
  std::mt19937 random(5);
  std::uniform_real_distribution<float> mantissa(1.0f, 2.0f);
  std::vector<float> values(count);
  for (int i = 0; i < count; ++i) values[i] = std::ldexp(mantissa(random), i % 254 - 126);
  const Buffer from(values), to(sizeof(float) * count);
  RequireNoError(tfrec::Launch(ReciprocalSquareRoots, dim3(count / 256), 256, 0, nullptr, from.Get<float>(),
                               to.Get<float>()));
  const std::vector<float> results = to.Read<float>(count);
  Note(results.data(), results.size() * sizeof(float));
  double worst = 0.0;
  for (int i = 0; i < count; ++i) {
    const double error = std::fabs(results[i] * std::sqrt(static_cast<double>(values[i])) - 1.0);
    if (!(error <= worst)) worst = error;
  }
  Report("1 / sqrt of 65536 pivots", worst, 1e-7);
}

struct Case {
  Solver solver;
  bool half;
  int factors;
  float unobserved_weight, frequency_exponent;
  int block_size, cg_steps;
  std::vector<int> lengths;  // entries of each row
  int num_long;
  bool misaligned;  // the table begins at an address that is a multiple of one element only
  bool in_place;    // the solution overwrites the start
  bool nan_row;     // one fixed row is NaN: the rows that use it must be reported, and no other
  bool positive;    // all factors and values; the error must be no larger than that of float32 sums
};

const char* NameOf(Solver solver) {
  return solver == Solver::kCholesky ? "cholesky" : solver == Solver::kBlock ? "block" : "cg";
}

void Check(const Case& c) {
  std::mt19937 random(c.factors * 31 + c.lengths.size());
  const int64_t n = c.lengths.size(), m = 211;
  const int f = c.factors;
  // The rows are a range of a larger matrix's: the entries before the first are not theirs.
  constexpr int64_t kBefore = 37;
  std::vector<int64_t> offsets = {kBefore}, order(c.lengths.size());
  for (const int length : c.lengths) offsets.push_back(offsets.back() + length);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return c.lengths[a] > c.lengths[b]; });
  const int64_t nnz = offsets[n];
  std::vector<int32_t> columns(nnz);
  std::vector<float> values(nnz);
  std::uniform_int_distribution<int> column(1, m - 1);  // 0 is kept for the NaN row
  std::uniform_real_distribution<float> value(0.1f, 5.0f);
  for (int64_t k = 0; k < nnz; ++k) {
    columns[k] = column(random);
    values[k] = k % 5 == 3 ? -value(random) : k % 97 == 96 ? 0.0f : value(random);  // some dislikes
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(f));
  std::vector<float> fixed = Stored(RandomNormal(m * f, scale, &random), c.half);
  if (c.positive) {
    for (float& v : fixed) v = std::fabs(v);
    for (float& v : values) v = std::fabs(v);
  }
  const std::vector<float> start = Stored(RandomNormal(n * f, scale, &random), c.half);
  std::vector<float> gramian(static_cast<size_t>(f) * f), table = fixed;
  for (int i = 0; i < f; ++i) {
    for (int j = 0; j < f; ++j) {
      double sum = 0.0;
      for (int64_t r = 0; r < m; ++r) sum += static_cast<double>(fixed[r * f + i]) * fixed[r * f + j];
      gramian[i * f + j] = static_cast<float>(sum);
    }
  }
  const float regularization = c.frequency_exponent > 0.0f ? 0.02f : 0.5f;
  // Neither the regularization of a row nor far from it.
  const float shift = 1.5f * regularization * std::pow(20.0f + c.unobserved_weight * m, c.frequency_exponent);
  check::Vector base(gramian.begin(), gramian.end()), inverse;
  if (c.solver == Solver::kConjugateGradient) {
    for (double& v : base) v *= c.unobserved_weight;
    for (int i = 0; i < f; ++i) base[i * f + i] += shift;
    inverse = check::Inverse(base, f);
  }
  const std::vector<float> rounded(inverse.begin(), inverse.end());
  std::vector<bool> poisoned(n, false);
  if (c.nan_row) {
    std::fill(table.begin(), table.begin() + f, NAN);
    for (int64_t r : {n - 2, n / 2}) {
      if (c.lengths[r] == 0) continue;
      columns[offsets[r]] = 0;
      poisoned[r] = true;
    }
  }

  HalfSweep s = {};
  const Buffer d_offsets(offsets), d_columns(columns), d_values(values), d_order(order), d_gramian(gramian);
  const Buffer d_inverse(rounded);
  const Buffer d_fixed = ToDevice(table, c.half, c.misaligned), d_start = ToDevice(start, c.half);
  const Buffer d_solved(n * f * (c.half ? 2 : 4)), d_bad(sizeof(int64_t));
  s.num_rows = n;
  s.num_fixed = s.num_counted = m;
  s.num_entries = nnz;
  s.factors = f;
  s.row_offsets = d_offsets.Get<int64_t>();
  s.columns = d_columns.Get<int32_t>();
  s.values = d_values.Get<float>();
  s.fixed = d_fixed.Get<char>() + c.misaligned * (c.half ? 2 : 4);
  s.half_storage = c.half;
  s.gramian = d_gramian.Get<float>();
  s.inverse = d_inverse.Get<float>();
  s.shift = shift;
  s.start = d_start.Get<void>();
  s.solved = d_solved.Get<void>();
  s.alpha = 1.5f;
  s.regularization = regularization;
  s.unobserved_weight = c.unobserved_weight;
  s.frequency_exponent = c.frequency_exponent;
  s.solver = c.solver;
  s.cg_steps = c.cg_steps;
  s.block_size = c.block_size;
  std::vector<float> solved, again;
  int64_t bad = 0;
  for (std::vector<float>* result : {&solved, &again}) {
    const Buffer scratch(tfrec::als::HalfSweepCudaScratchBytes(s));
    if (c.in_place) {
      Require(cudaMemcpy(s.solved, s.start, n * f * (c.half ? 2 : 4), cudaMemcpyDeviceToDevice));
    } else {
      Require(cudaMemset(s.solved, 0xff, n * f * (c.half ? 2 : 4)));
    }
    HalfSweep placed = s;
    if (c.in_place) placed.start = s.solved;
    RequireNoError(tfrec::als::HalfSweepCuda(placed, d_order.Get<int64_t>(), c.num_long, scratch.Get<void>(),
                                             d_bad.Get<int64_t>(), nullptr));
    *result = FromDevice(d_solved, c.half, n * f);
    bad = d_bad.Read<int64_t>(1)[0];
#ifndef __CUDACC__
    break;  // the order of threads is fixed there; check_on_host.sh compares whole runs
#endif
  }
  Note(solved.data(), solved.size() * sizeof(float));
  double worst = again.empty() || memcmp(solved.data(), again.data(), solved.size() * sizeof(float)) == 0 ? 0.0 : NAN;
  double of_floats = 0.0;  // the error of float32 sums
  int64_t first_bad = -1;
  for (int64_t r = n - 1; r >= 0; --r) {
    if (poisoned[r]) {
      first_bad = r;
      continue;
    }
    const int64_t begin = offsets[r];
    const check::Vector expected = check::Solve(s, fixed, gramian, inverse, start.data() + r * f,
                                                columns.data() + begin, values.data() + begin, c.lengths[r]);
    // Where the exact solution is zero (a row of dislikes), what is left of a start is rounding, relative to the start.
    double norm = 1e-30;
    const double of_start = c.solver == Solver::kCholesky ? 0.0 : 0.01;
    for (int i = 0; i < f; ++i) norm += expected[i] * expected[i] + of_start * start[r * f + i] * start[r * f + i];
    const auto error_of = [&](const auto* x) {
      double difference = 0.0;
      for (int i = 0; i < f; ++i) difference += (x[i] - expected[i]) * (x[i] - expected[i]);
      return std::sqrt(difference / norm);
    };
    const double error = error_of(solved.data() + r * f);
    if (!(error <= worst)) worst = error;  // keeps NaN
    if (c.positive) {
      of_floats = std::max(of_floats, error_of(check::Solve<float>(s, fixed, gramian, inverse, start.data() + r * f,
                                                                   columns.data() + begin, values.data() + begin,
                                                                   c.lengths[r])
                                                   .data()));
    }
  }
  if (bad != first_bad) worst = NAN;
  char name[160];
  snprintf(name, sizeof(name), "%-8s %-5s F=%-4d w0=%-3g nu=%g rows=%d longest=%d long=%d block=%d%s%s%s%s",
           NameOf(c.solver), c.half ? "half" : "float", f, c.unobserved_weight, c.frequency_exponent,
           static_cast<int>(n), n == 0 ? 0 : c.lengths[order[0]], c.num_long, c.block_size,
           c.misaligned ? " misaligned" : "", c.in_place ? " in place" : "", c.nan_row ? " NaN" : "",
           c.positive ? " positive" : "");
  // Half: what rounding the solution costs, up to 4.4e-4. Float: float32 sums, times the condition of the matrix: up to
  // 6e-5 on the emulation, which rounds sums where tensor cores cut them off.
  Report(name, worst, c.positive ? of_floats : c.half ? 1e-3 : 5e-4);
}

void CheckAll(bool quick, int most_factors) {
  for (const int factors : {1, 7, 32, 64, 100, 128, 256, 513, 1024}) {
    if (factors > most_factors) break;
    for (const bool half : {false, true}) {
      CheckGramian(quick && factors > 128 ? 50 : 2000, factors, half);
      CheckGramian(1, factors, half);
      for (const Solver solver : {Solver::kCholesky, Solver::kConjugateGradient, Solver::kBlock}) {
        Case c = {};
        c.solver = solver;
        c.half = half;
        c.factors = factors;
        c.cg_steps = 3;
        const int longest = factors <= 64 ? 2500 : quick && factors > 128 ? 70 : 700;
        if (quick && factors > 128) {
          c.lengths = std::vector<int>{3, 0, longest, 33, 12};
        } else {
          c.lengths = std::vector<int>{0, 1, 40, 7, longest, 7, 31, 32, 33, 1, 64, 65, 0, 40, 40, 100, 5, 90, 0};
        }
        const auto run = [&](float unobserved_weight, float frequency_exponent, int block_size, int num_long) {
          c.unobserved_weight = unobserved_weight;
          c.frequency_exponent = frequency_exponent;
          c.block_size = std::max(1, std::min(block_size, factors));
          c.num_long = num_long;
          Check(c);
        };
        if (quick && factors > 128) {
          c.in_place = half;
          run(0.1f, 1.0f, 200, 1);
          continue;
        }
        run(1.0f, 0.0f, 32, 0);
        run(0.1f, 1.0f, factors / 3, 2);
        run(0.0f, 1.0f, 128, 1);
        run(0.0f, 0.0f, 17, 0);
        run(1.0f, 1.0f, factors, static_cast<int>(c.lengths.size()));  // every row shared, empty ones too
        c.misaligned = true;
        run(0.1f, 0.0f, 64, 1);
        c.misaligned = false;
        c.in_place = true;
        run(0.1f, 1.0f, 24, 1);
        c.in_place = false;
        c.cg_steps = 1;
        c.lengths = std::vector<int>{9};
        run(1.0f, 0.0f, 40, 0);
        c.lengths = std::vector<int>{0};
        run(1.0f, 0.0f, 40, 0);
        c.cg_steps = 60;  // rows converge and stop
        c.lengths = std::vector<int>(factors <= 128 ? 70 : 5, 12);
        run(0.0f, 0.0f, 40, 3);
        c.nan_row = true;
        run(0.0f, 0.0f, 40, 2);
      }
    }
  }
}

// Damaged matrices, each with the fault that must be found.
void CheckFaults() {
  using tfrec::als::MatrixFault;
  const int64_t rows = 700, fixed = 50, entries = 1400;
  struct Damage {
    const char* name;
    MatrixFault::Kind kind;
    int64_t position, value;
  };
  const int64_t far = int64_t{1} << 62;
  for (const Damage& damage :
       {Damage{"none", MatrixFault::kNone, 0, 0}, Damage{"offset below", MatrixFault::kOffset, 0, -far},
        Damage{"offset above", MatrixFault::kOffset, rows, entries + 1},
        Damage{"offset far above", MatrixFault::kOffset, rows, far},
        Damage{"falling offset", MatrixFault::kFallingOffset, 300, 603}, Damage{"column", MatrixFault::kColumn, 1399, 50},
        Damage{"negative column", MatrixFault::kColumn, 0, -1}, Damage{"order", MatrixFault::kOrder, 699, rows},
        Damage{"negative order", MatrixFault::kOrder, 5, -1}, Damage{"order twice", MatrixFault::kOrder, -1, 3}}) {
    std::vector<int64_t> offsets(rows + 1), order(rows);
    for (int64_t r = 0; r <= rows; ++r) offsets[r] = 2 * r;
    std::iota(order.rbegin(), order.rend(), 0);
    std::vector<int32_t> columns(entries, 7);
    if (damage.kind == MatrixFault::kOffset || damage.kind == MatrixFault::kFallingOffset) {
      offsets[damage.position] = damage.value;
    }
    if (damage.kind == MatrixFault::kColumn) columns[damage.position] = static_cast<int32_t>(damage.value);
    if (damage.kind == MatrixFault::kOrder) order[damage.position < 0 ? 650 : damage.position] = damage.value;
    const Buffer d_offsets(offsets), d_order(order), d_columns(columns);
    const Buffer scratch(tfrec::als::CheckMatrixCudaScratchBytes(rows));
    HalfSweep s = {};
    s.num_rows = rows;
    s.num_fixed = s.num_counted = fixed;
    s.row_offsets = d_offsets.Get<int64_t>();
    s.columns = d_columns.Get<int32_t>();
    MatrixFault found;
    RequireNoError(tfrec::als::CheckMatrixCuda(s, entries, d_order.Get<int64_t>(), scratch.Get<void>(), &found, nullptr));
    // Which of two equal ones is the second depends on the threads.
    const bool at = damage.kind == MatrixFault::kNone || damage.position < 0 || found.position == damage.position;
    Report(std::string("matrix with a fault: ") + damage.name, found.kind == damage.kind && at ? 0.0 : 1.0, 0.0);
  }
}

// Sums of many terms of one sign.
void CheckPositive() {
  for (const int num_long : {0, 1}) {
    Case c = {};
    c.solver = Solver::kCholesky;
    c.factors = 128;
    c.unobserved_weight = 0.1f;
    c.frequency_exponent = 1.0f;
    c.lengths = std::vector<int>{8000};
    c.num_long = num_long;
    c.positive = true;
    Check(c);
  }
  CheckGramian(360000, 32, false, true);
}

// More long rows than are solved at a time.
void CheckManyLong() {
  for (const Solver solver : {Solver::kCholesky, Solver::kBlock}) {
    Case c = {};
    c.solver = solver;
    c.factors = 9;
    c.unobserved_weight = 1.0f;
    c.block_size = 5;
    c.lengths = std::vector<int>(150, 21);
    c.lengths[149] = 0;
    c.num_long = 150;
    Check(c);
  }
}

}  // namespace

namespace check {
void Times(bool slow);  // check_gpu_times.cu
}

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    printf("SKIP: no GPU here, nothing was checked\n");
    return 77;
  }
  cudaDeviceProp properties;
  Require(cudaGetDeviceProperties(&properties, 0));
  printf("device: %s, compute capability %d.%d\n", properties.name, properties.major, properties.minor);
  const bool quick = argc > 1 && strcmp(argv[1], "quick") == 0, slow = argc > 1 && strcmp(argv[1], "slow") == 0;
  const int most_factors = argc > 2 ? atoi(argv[2]) : tfrec::als::kMaxFactors;
  CheckReciprocalSquareRoot();
  CheckManyLong();
  CheckFaults();
  if (most_factors >= 128) CheckPositive();
  CheckAll(quick, most_factors);
  printf("%d checks, %d failed, digest %016llx\n", checks, failures, static_cast<unsigned long long>(digest));
  if (!quick && failures == 0) check::Times(slow);
  return failures > 0;
}
