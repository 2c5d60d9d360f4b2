// Checks the CUDA kernels of tensor-train embeddings against float64 on the host (check_oracle.h), and times them.
// Stands alone: nvcc and a GPU, no TensorFlow (check_gpu.sh). Without a GPU it says so and exits with 77;
// check_on_host.sh runs the same checks on an emulation (cuda_on_host.h).
//
//   check_gpu         all checks, then the times
//   check_gpu quick   smaller tables and fewer ids, no times
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../common/cuda_check.cuh"
#include "check_oracle.h"
#include "tt_cuda.h"
#include "tt_device.cuh"

namespace {

using namespace tfrec::check;
using tfrec::tt::Backward;
using tfrec::tt::kMaxCores;
using tfrec::tt::Lookup;
using tfrec::tt::Optimizer;
using tfrec::tt::Storage;
using tfrec::tt::Table;
using tfrec::tt::Update;

constexpr Storage kStorages[] = {Storage::kFloat, Storage::kHalf, Storage::kBfloat16};
const char* NameOf(Storage s) { return s == Storage::kFloat ? "float" : s == Storage::kHalf ? "half" : "bfloat16"; }
size_t SizeOf(Storage s) { return s == Storage::kFloat ? 4 : 2; }
// What rounding to the storage type costs; sums are float32 for all.
double Tolerance(Storage s) { return s == Storage::kFloat ? 1e-5 : s == Storage::kHalf ? 1e-3 : 4e-3; }

// The host's own conversions of bfloat16, apart from the kernels'.
uint16_t BfloatOf(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  const uint32_t low = bits & 0xffffu, up = bits >> 16;
  return static_cast<uint16_t>(up + (low > 0x8000u || (low == 0x8000u && (up & 1u) != 0)));
}
float FloatOf(uint16_t bfloat) {
  const uint32_t bits = static_cast<uint32_t>(bfloat) << 16;
  float v;
  memcpy(&v, &bits, 4);
  return v;
}

std::vector<float> Stored(std::vector<float> values, Storage s) {
  for (float& v : values) {
    if (s == Storage::kHalf) v = __half2float(__float2half_rn(v));
    if (s == Storage::kBfloat16) v = FloatOf(BfloatOf(v));
  }
  return values;
}
// `skip` elements first, so that what follows is aligned to one element only.
Buffer ToDevice(const std::vector<float>& values, Storage s, size_t skip) {
  if (s == Storage::kFloat) return Buffer(values, skip);
  if (s == Storage::kHalf) {
    std::vector<__half> halves(values.size());
    for (size_t i = 0; i < values.size(); ++i) halves[i] = __float2half_rn(values[i]);
    return Buffer(halves, skip);
  }
  std::vector<uint16_t> bfloats(values.size());
  for (size_t i = 0; i < values.size(); ++i) bfloats[i] = BfloatOf(values[i]);
  return Buffer(bfloats, skip);
}
void* Skip(const Buffer& buffer, Storage s, size_t skip) { return buffer.Get<char>() + skip * SizeOf(s); }
std::vector<float> FromDevice(const Buffer& buffer, Storage s, size_t skip, size_t count) {
  std::vector<float> values(count);
  if (s == Storage::kFloat) {
    const std::vector<float> all = buffer.Read<float>(skip + count);
    return std::vector<float>(all.begin() + skip, all.end());
  }
  const std::vector<uint16_t> bits = buffer.Read<uint16_t>(skip + count);
  for (size_t i = 0; i < count; ++i) {
    const uint16_t v = bits[skip + i];
    values[i] = s == Storage::kHalf ? __half2float(__ushort_as_half(v)) : FloatOf(v);
  }
  return values;
}

// ||found - expected|| / ||expected||. What is exactly zero has to be found so: slices without ids, rows out of range.
double RelativeError(const std::vector<float>& found, const check::Vector& expected) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (expected[i] == 0.0 && found[i] != 0.0f) return INFINITY;
    difference += (found[i] - expected[i]) * (found[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return norm == 0.0 ? difference : std::sqrt(difference / norm);
}

enum class Ids { kUniform, kSkewed, kOne, kAll, kBad };
struct Case {
  std::vector<int64_t> p;
  std::vector<int> q, r;  // r: between the cores
  int64_t n;
  Ids ids;
  int num_tables;
  int64_t missing;  // how much smaller a table is than what its factors can form
  bool misaligned;
};

Table TableOf(const Case& c, Storage storage) {
  Table t = {};
  t.num_cores = static_cast<int>(c.p.size());
  t.num_tables = c.num_tables;
  t.num_rows = -c.missing;
  t.storage = storage;
  int64_t product = 1;
  for (int k = 0; k < t.num_cores; ++k) {
    t.p[k] = c.p[k];
    t.q[k] = c.q[k];
    t.r[k] = k == 0 ? 1 : c.r[k - 1];
    product *= c.p[k];
  }
  t.r[t.num_cores] = 1;
  t.num_rows += product;
  return t;
}

std::vector<int64_t> MakeIds(const Table& t, Ids kind, int64_t n, std::mt19937_64* random) {
  const int64_t rows = t.num_tables * t.num_rows;
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<int64_t> ids(n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t some = std::min<int64_t>(static_cast<int64_t>(uniform(*random) * rows), rows - 1);
    switch (kind) {
      case Ids::kUniform:
        ids[i] = some;
        break;
      case Ids::kSkewed:  // the popular ones scattered over the table
        ids[i] = static_cast<int64_t>(std::pow(static_cast<double>(rows), uniform(*random))) % rows * 7919 % rows;
        break;
      case Ids::kOne:
        ids[i] = rows - 1;
        break;
      case Ids::kAll:
        ids[i] = i * 7919 % rows;
        break;
      case Ids::kBad: {
        const int64_t bad[] = {-1, rows, INT64_MIN, INT64_MAX, rows + 12345};
        ids[i] = i % 3 == 1 ? bad[i / 3 % 5] : some;
      }
    }
  }
  return ids;
}

std::string NameOf(const Case& c, Storage storage) {
  std::string name = NameOf(storage);
  for (size_t k = 0; k < c.p.size(); ++k) name += (k == 0 ? " " : "x") + std::to_string(c.p[k]);
  for (size_t k = 0; k < c.q.size(); ++k) name += (k == 0 ? ", " : "x") + std::to_string(c.q[k]);
  for (size_t k = 0; k < c.r.size(); ++k) name += (k == 0 ? ", rank " : ",") + std::to_string(c.r[k]);
  const char* const kinds[] = {"uniform", "skewed", "one", "all", "bad"};
  name += ", " + std::to_string(c.n) + " ids " + kinds[static_cast<int>(c.ids)];
  if (c.num_tables > 1) name += ", " + std::to_string(c.num_tables) + " tables";
  if (c.misaligned) name += ", misaligned";
  return name;
}

void Check(const Case& c, Storage storage) {
  const Table t = TableOf(c, storage);
  const std::string name = NameOf(c, storage);
  const size_t skip = c.misaligned ? 1 : 0;
  const int64_t width = t.width();
  std::mt19937 random(static_cast<unsigned>(c.n + width));
  std::mt19937_64 random_ids(c.n);
  const std::vector<int64_t> ids = MakeIds(t, c.ids, c.n, &random_ids);
  Lookup lookup = {};
  lookup.table = t;
  lookup.n = c.n;
  std::vector<check::Vector> cores(t.num_cores);
  std::vector<Buffer> core_buffers, gradient_buffers;
  core_buffers.reserve(t.num_cores);
  gradient_buffers.reserve(t.num_cores);
  Backward backward = {};
  for (int k = 0; k < t.num_cores; ++k) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(t.r[k]));
    const std::vector<float> core = Stored(RandomNormal(t.core(k), scale, &random), storage);
    cores[k].assign(core.begin(), core.end());
    core_buffers.push_back(ToDevice(core, storage, skip));
    gradient_buffers.emplace_back((t.core(k) + skip) * sizeof(float));
    lookup.cores[k] = Skip(core_buffers[k], storage, skip);
    backward.gradients[k] = gradient_buffers[k].Get<float>() + skip;
  }
  const Buffer id_buffer(ids), rows((c.n * width + skip) * SizeOf(storage));
  lookup.ids = id_buffer.Get<int64_t>();
  {
    const Buffer scratch(tfrec::tt::ForwardCudaScratchBytes(lookup));
    RequireNoError(
        tfrec::tt::ForwardCuda(lookup, Skip(rows, storage, skip), scratch.Get<void>(), nullptr));
  }
  const std::vector<float> found = FromDevice(rows, storage, skip, c.n * width);
  Note(found.data(), found.size() * sizeof(float));
  check::Vector expected;
  for (const int64_t id : ids) {
    const check::Vector row = check::Row(t, cores, id);
    expected.insert(expected.end(), row.begin(), row.end());
  }
  Report("rows     " + name, RelativeError(found, expected), Tolerance(storage));

  const std::vector<float> upstream = Stored(RandomNormal(c.n * width, 1.0f, &random), storage);
  const check::Vector upstream_double(upstream.begin(), upstream.end());
  const Buffer upstream_buffer = ToDevice(upstream, storage, skip);
  backward.lookup = lookup;
  backward.upstream = Skip(upstream_buffer, storage, skip);
  std::vector<check::Vector> gradients(t.num_cores);
  for (int k = 0; k < t.num_cores; ++k) gradients[k].assign(t.core(k), 0.0);
  for (int64_t i = 0; i < c.n; ++i) {
    check::AddGradient(t, cores, ids[i], upstream_double.data() + i * width, &gradients);
  }
  double worst = 0.0;
  bool same = true;
  std::vector<std::vector<float>> first(t.num_cores);
  for (int run = 0; run < 2; ++run) {  // the second has to give the same bits
    const Buffer scratch(tfrec::tt::BackwardCudaScratchBytes(lookup));
    RequireNoError(tfrec::tt::BackwardCuda(backward, scratch.Get<void>(), nullptr));
    for (int k = 0; k < t.num_cores; ++k) {
      const std::vector<float> result = FromDevice(gradient_buffers[k], Storage::kFloat, skip, t.core(k));
      if (run == 1) {
        same = same && memcmp(result.data(), first[k].data(), result.size() * sizeof(float)) == 0;
        continue;
      }
      Note(result.data(), result.size() * sizeof(float));
      const double error = RelativeError(result, gradients[k]);
      worst = error <= worst ? worst : error;  // takes NaN
      first[k] = result;
    }
  }
  Report("gradient " + name, worst, 1e-5);
  if (!same) Report("gradient differs between two runs: " + name, 1.0, 0.0);
}

void CheckUpdate(Optimizer optimizer, Storage storage, int64_t count) {
  std::mt19937 random(5);
  const std::vector<float> weights = Stored(RandomNormal(count, 0.1f, &random), storage);
  const std::vector<float> gradient = RandomNormal(count, 1.0f, &random);
  std::vector<float> slots[2] = {RandomNormal(count, 0.1f, &random), RandomNormal(count, 0.1f, &random)};
  // Sums of squares are not negative; the first slot of Adam is a mean.
  for (float& v : slots[1]) v = std::fabs(v);
  if (optimizer == Optimizer::kAdagrad) {
    for (float& v : slots[0]) v = std::fabs(v);
  }
  const Update u = {optimizer, 0.05f, 0.9f, 0.999f, 1e-7f};
  check::Vector expected(count), expected_slots[2] = {check::Vector(count), check::Vector(count)};
  for (int64_t i = 0; i < count; ++i) {
    const double g = gradient[i], beta_1 = u.beta_1, beta_2 = u.beta_2;
    double step = u.rate * g;
    if (optimizer == Optimizer::kAdagrad) {
      expected_slots[0][i] = slots[0][i] + g * g;
      step /= std::sqrt(expected_slots[0][i] + u.epsilon);
    } else if (optimizer == Optimizer::kAdam) {
      expected_slots[0][i] = beta_1 * slots[0][i] + (1.0 - beta_1) * g;
      expected_slots[1][i] = beta_2 * slots[1][i] + (1.0 - beta_2) * g * g;
      step = u.rate * expected_slots[0][i] / (std::sqrt(expected_slots[1][i]) + u.epsilon);
    }
    expected[i] = weights[i] - step;
  }
  const int num_slots = tfrec::tt::NumSlots(optimizer);
  const Buffer weight_buffer = ToDevice(weights, storage, 0), gradient_buffer(gradient), slot_0(slots[0]),
               slot_1(slots[1]);
  // Slots that the optimizer has not are null, as they may be.
  const tfrec::tt::CoreUpdate core = {count,
                                      gradient_buffer.Get<float>(),
                                      weight_buffer.Get<void>(),
                                      {num_slots > 0 ? slot_0.Get<float>() : nullptr,
                                       num_slots > 1 ? slot_1.Get<float>() : nullptr}};
  RequireNoError(tfrec::tt::UpdateCuda(u, storage, 1, &core, nullptr));
  const std::vector<float> found = FromDevice(weight_buffer, storage, 0, count);
  Note(found.data(), found.size() * sizeof(float));
  double worst = RelativeError(found, expected);
  const char* const names[] = {"sgd", "adagrad", "adam"};
  const std::string name = std::string("update ") + names[num_slots] + " " + NameOf(storage) + ", " +
                           std::to_string(count) + " weights";
  Report(name, worst, Tolerance(storage));
  for (int s = 0; s < num_slots; ++s) {
    Report(name + ", slot", RelativeError((s == 0 ? slot_0 : slot_1).Read<float>(count), expected_slots[s]), 1e-6);
  }
}

// Once through all ids, fused with each optimizer: every row of every core has to move.
void CheckEverySliceMoves(const Case& c, Storage storage, Optimizer optimizer) {
  const Table t = TableOf(c, storage);
  std::mt19937 random(11);
  std::mt19937_64 random_ids(11);
  const std::vector<int64_t> ids = MakeIds(t, c.ids, c.n, &random_ids);
  Lookup lookup = {};
  lookup.table = t;
  lookup.n = c.n;
  Backward backward = {};
  std::vector<Buffer> core_buffers, gradient_buffers;
  core_buffers.reserve(t.num_cores);
  gradient_buffers.reserve(t.num_cores);
  std::vector<std::vector<float>> before;
  for (int k = 0; k < t.num_cores; ++k) {
    before.push_back(Stored(RandomNormal(t.core(k), 0.3f, &random), storage));
    core_buffers.push_back(ToDevice(before[k], storage, 0));
    gradient_buffers.emplace_back(t.core(k) * sizeof(float));
    lookup.cores[k] = core_buffers[k].Get<void>();
    backward.gradients[k] = gradient_buffers[k].Get<float>();
  }
  const Buffer id_buffer(ids), upstream = ToDevice(RandomNormal(c.n * t.width(), 1.0f, &random), storage, 0);
  lookup.ids = id_buffer.Get<int64_t>();
  backward.lookup = lookup;
  backward.upstream = upstream.Get<void>();
  const Buffer scratch(tfrec::tt::BackwardCudaScratchBytes(lookup));
  RequireNoError(tfrec::tt::BackwardCuda(backward, scratch.Get<void>(), nullptr));
  const Update update = {optimizer, 0.1f, 0.9f, 0.999f, 1e-7f};
  std::vector<Buffer> slots;
  slots.reserve(2 * t.num_cores);
  tfrec::tt::CoreUpdate updates[kMaxCores];
  for (int k = 0; k < t.num_cores; ++k) {
    const std::vector<float> zeros(t.core(k), 0.0f);
    for (int s = 0; s < 2; ++s) slots.emplace_back(zeros);
    updates[k] = {t.core(k), backward.gradients[k], core_buffers[k].Get<void>(),
                  {slots[2 * k].Get<float>(), slots[2 * k + 1].Get<float>()}};
  }
  RequireNoError(tfrec::tt::UpdateCuda(update, storage, t.num_cores, updates, nullptr));
  int64_t still = 0;
  for (int k = 0; k < t.num_cores; ++k) {
    const std::vector<float> after = FromDevice(core_buffers[k], storage, 0, t.core(k));
    for (int64_t slice = 0; slice < t.slices(k); ++slice) {
      const int64_t begin = slice * t.slice(k);
      still += std::equal(after.begin() + begin, after.begin() + begin + t.slice(k), before[k].begin() + begin);
    }
  }
  const char* const names[] = {"sgd", "adagrad", "adam"};
  Report(std::string("slices that did not move, ") + names[static_cast<int>(optimizer)] + " " + NameOf(c, storage),
         static_cast<double>(still), 0.0);
}

void CheckAll(bool quick) {
  const int64_t some = quick ? 300 : 3000, many = quick ? 3000 : 100000;
  // FBTT-Embedding's headline shape; where it is quick, with fewer rows in the cores.
  Case headline = {{200, 220, 250}, {4, 4, 4}, {32, 32}, 10240, Ids::kUniform, 1, 0, false};
  if (quick) {
    headline.p = {20, 22, 25};
    headline.n = 120;
  }
  Case popular = headline, moving = headline;
  popular.ids = Ids::kSkewed;
  moving.n *= 4;
  if (quick) moving.r = {8, 8};
  const std::vector<Case> cases = {
      headline,
      popular,
      // Two to five cores.
      {{30, 40}, {4, 8}, {16}, some, Ids::kUniform, 1, 7, false},
      {{30, 40}, {4, 8}, {16}, some, Ids::kSkewed, 3, 7, true},
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, some, Ids::kUniform, 1, 100, false},
      {{5, 6, 7, 8}, {2, 4, 2, 4}, {8, 16, 8}, some, Ids::kSkewed, 2, 11, false},
      {{4, 3, 5, 3, 4}, {2, 2, 2, 2, 4}, {4, 8, 8, 4}, some, Ids::kUniform, 1, 0, false},
      // No dimension a multiple of four.
      {{9, 10}, {3, 5}, {7}, some, Ids::kUniform, 1, 1, false},
      {{9, 10, 4}, {3, 1, 5}, {7, 2}, some, Ids::kSkewed, 2, 13, false},
      {{3, 4, 2, 5}, {1, 3, 1, 2}, {1, 5, 3}, some, Ids::kUniform, 1, 0, true},
      {{3, 2, 2, 2, 3}, {1, 2, 3, 1, 1}, {3, 1, 6, 2}, some, Ids::kSkewed, 1, 5, false},
      // More slices than a block has threads, and more than are sorted by counting.
      {{4, 1500}, {1, 2}, {2}, some, Ids::kSkewed, 1, 0, false},
      {{40, 3000, 3}, {1, 2, 1}, {2, 4}, some, Ids::kUniform, 1, 0, false},
      // One row; one row of a core; one column.
      {{1, 1}, {1, 1}, {1}, 5, Ids::kUniform, 1, 0, false},
      {{1, 50, 1}, {4, 4, 4}, {4, 4}, some, Ids::kUniform, 1, 0, false},
      {{6, 7, 8}, {1, 1, 1}, {4, 4}, some, Ids::kUniform, 1, 0, false},
      // Ids: none, one, one many times, all of a table, some out of range, more than 32 bits.
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, 0, Ids::kUniform, 1, 0, false},
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, 1, Ids::kUniform, 1, 0, false},
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, many, Ids::kOne, 1, 0, false},
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, 2 * 385, Ids::kAll, 2, 0, false},
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, some, Ids::kBad, 2, 3, false},
      {{7, 11, 5}, {2, 3, 2}, {8, 4}, 2, Ids::kBad, 1, 3, true},
      {{2500, 2000, 3000}, {2, 2, 2}, {4, 4}, some, Ids::kUniform, 1, 12345, false},
      // Many ids: many tiles of positions, and segments over many chunks.
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, many, Ids::kUniform, 1, 0, false},
      {{7, 11, 5}, {2, 4, 2}, {8, 4}, many, Ids::kSkewed, 3, 0, false},
      {{1, 2, 1}, {4, 4, 4}, {4, 4}, many, Ids::kSkewed, 1, 0, false},
      {{40, 50, 60}, {2, 2, 2}, {4, 4}, many, Ids::kUniform, 1, 0, false},
      {{2, 3, 4}, {1, 2, 1}, {3, 2}, many, Ids::kBad, 1, 0, false},
      {{3, 4, 5, 6, 7}, {2, 1, 2, 1, 2}, {4, 4, 4, 4}, many, Ids::kUniform, 1, 0, false},
      // Tensor cores: later left sides, more rows than a tile has, columns that are no multiple of a warp's.
      {{6, 7, 8, 9}, {3, 4, 4, 2}, {8, 16, 24}, quick ? 60 : 3000, Ids::kUniform, 1, 0, false},
      // Wide: fewer chunks than usual, of more ids, since a sum has many tiles.
      {{3, 60, 5}, {4, 8, 4}, {64, 32}, quick ? 60 : 3000, Ids::kUniform, 1, 0, false},
      {{3, 4}, {16, 64}, {128}, quick ? 40 : 3000, Ids::kUniform, 1, 0, false},
  };
  for (const Storage storage : kStorages) {
    for (const Case& c : cases) Check(c, storage);
    for (const Optimizer optimizer : {Optimizer::kSgd, Optimizer::kAdagrad, Optimizer::kAdam}) {
      CheckUpdate(optimizer, storage, 1);
      CheckUpdate(optimizer, storage, many + 1);
      CheckEverySliceMoves(moving, storage, optimizer);
    }
  }
}

}  // namespace

namespace check {
void Times();  // check_gpu_times.cu
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
  const bool quick = argc > 1 && strcmp(argv[1], "quick") == 0;
  CheckAll(quick);
  printf("%d checks, %d failed, digest %016llx\n", checks, failures, static_cast<unsigned long long>(digest));
  if (!quick && failures == 0) check::Times();
  return failures > 0;
}
