// Runs CUDA kernels on the CPU, so that their logic can be checked on a machine without a GPU. Included in place of the
// CUDA headers where no CUDA compiler is at work; built and run by each operation's check_on_host.sh, part of no
// product.
//
// Every thread of a block is a fiber; blocks run one after the other. A fiber runs until it meets a barrier of its warp
// (a shuffle, a vote, __syncwarp) or of its block. Which warp and which lane goes first is an environment variable,
// CUDA_ON_HOST_ORDER: 0 ascending, 1 descending, larger: a seed. A kernel that lacks a barrier gives different results
// in different orders; one with a barrier in divergent code stops with a message. "Device" and shared memory start as
// NaN and end at a page that must not be touched, so that reads of what was never written and accesses behind the end show.
//
// It is an emulation of logic only. It says nothing of speed, of memory ordering between blocks, of alignment beyond 16
// bytes, or of what ptxas and the hardware do. The tensor core instruction is done in software: its layout is the
// manual's, its sums are cut off as has been measured on the hardware (MmaTf32).
#ifndef TFREC_CUDA_ON_HOST_H_
#define TFREC_CUDA_ON_HOST_H_

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct __half {
  _Float16 value;
};
inline float __half2float(__half h) { return static_cast<float>(h.value); }
inline __half __float2half_rn(float v) { return {static_cast<_Float16>(v)}; }
inline __half __ushort_as_half(unsigned short bits) {
  __half h;
  memcpy(&h, &bits, 2);
  return h;
}
inline unsigned short __half_as_ushort(__half h) {
  unsigned short bits;
  memcpy(&bits, &h, 2);
  return bits;
}
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <typename T>
T __ldg(const T* p) {
  return *p;
}
// The hardware's estimate is off by two units in the last place at most; here by up to two, one way or the other.
inline float rsqrtf(float v) {
  float result = static_cast<float>(1.0 / std::sqrt(static_cast<double>(v)));
  unsigned bits;
  memcpy(&bits, &v, 4);
  const int off = static_cast<int>(bits * 2654435761u >> 16) % 5 - 2;
  for (int i = 0; i < std::abs(off); ++i) result = std::nextafterf(result, off < 0 ? -INFINITY : INFINITY);
  return result;
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

[[noreturn]] inline void Fail(const char* message) {
  fprintf(stderr, "cuda_on_host: %s (block %u, thread %u)\n", message, blockIdx.x, threadIdx.x);
  abort();
}

// Memory of NaN whose end, rounded up to 16 bytes, is followed by a page that must not be touched.
constexpr size_t kPage = 4096;
inline size_t MappedBytes(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage + kPage; }
inline void* MakeGuarded(size_t bytes) {
  const size_t mapped = MappedBytes(bytes), used = (bytes + 15) / 16 * 16;
  void* raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) Fail("out of memory");
  char* guard = static_cast<char*>(raw) + mapped - kPage;
  mprotect(guard, kPage, PROT_NONE);
  memset(raw, 0xff, mapped - kPage);
  return guard - used;
}
inline void FreeGuarded(void* p, size_t bytes) {
  char* end = static_cast<char*>(p) + (bytes + 15) / 16 * 16 + kPage;
  munmap(end - MappedBytes(bytes), MappedBytes(bytes));
}

enum class State : unsigned char { kReady, kWarp, kBlock, kDone };
// What is looked at in turn lies side by side; a fiber itself is only touched when it runs. `parity` is of the next
// exchange: two slots let one barrier do for each.
constexpr int kMaxThreads = 1024;
inline State states[kMaxThreads];
inline int votes[kMaxThreads];
inline unsigned char parities[kMaxThreads];
struct alignas(32) Slot {
  char bytes[32];
};
inline Slot slots[2][kMaxThreads];

// gcc's own setjmp, which does not look for cleanups of a thread: five words.
using Jump = void* [5];
struct Fiber {
  ucontext_t start;
  Jump jump;
  bool started = false;
  std::vector<char> stack;
};
inline std::vector<Fiber> fibers;
inline Jump scheduler;
inline int current;
inline const std::function<void()>* body;
inline void* shared_memory;

__attribute__((noinline)) inline void ToScheduler() { __builtin_longjmp(scheduler, 1); }
__attribute__((noinline)) inline void Wait(State state) {
  states[current] = state;
  if (!__builtin_setjmp(fibers[current].jump)) ToScheduler();
}
// A fiber lives on from block to block and from kernel to kernel.
inline void Enter() {
  for (;;) {
    (*body)();
    Wait(State::kDone);
  }
}
__attribute__((noinline)) inline void ToFiber(Fiber* f) {
  if (f->started) __builtin_longjmp(f->jump, 1);
  f->started = true;
  setcontext(&f->start);
}
__attribute__((noinline)) inline void Resume(int index) {
  current = index;
  threadIdx = dim3(index);
  if (!__builtin_setjmp(scheduler)) ToFiber(&fibers[index]);
}

inline const std::vector<int>& Order(int count) {
  static const int kind = getenv("CUDA_ON_HOST_ORDER") ? atoi(getenv("CUDA_ON_HOST_ORDER")) : 0;
  static std::mt19937 random(kind);
  static std::vector<int> orders[33];  // of up to 32 lanes or warps
  std::vector<int>& order = orders[count];
  if (order.empty() && count > 0) {
    order.resize(count);
    std::iota(order.begin(), order.end(), 0);
    if (kind == 1) std::reverse(order.begin(), order.end());
  }
  if (kind > 1) std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Lets one warp run until all of its lanes wait for the block or have ended.
inline void RunWarp(int warp) {
  State* const state = states + warp * 32;
  for (;;) {
    for (int lane : Order(32)) {
      if (state[lane] == State::kReady) Resume(warp * 32 + lane);
    }
    const auto waiting = std::count(state, state + 32, State::kWarp);
    if (waiting == 0) return;
    if (waiting < 32) Fail("a barrier of a warp that only some lanes reach");
    std::fill(state, state + 32, State::kReady);
  }
}

inline void RunBlock(int threads) {
  std::fill(states, states + threads, State::kReady);
  std::fill(parities, parities + threads, 0);
  for (;;) {
    const std::vector<int> warps = Order(threads / 32);
    for (int warp : warps) RunWarp(warp);
    const auto done = std::count(states, states + threads, State::kDone);
    if (done == threads) return;
    if (done > 0) Fail("__syncthreads after some threads have ended");
    std::fill(states, states + threads, State::kReady);
  }
}

inline void RunGrid(dim3 grid, int threads, size_t shared_bytes, const std::function<void()>& kernel) {
  if (threads % 32 != 0 || threads > kMaxThreads || grid.x == 0 || grid.y == 0) Fail("bad launch");
  if (fibers.empty()) {
    fibers.resize(kMaxThreads);  // once: a fiber's context must not move
    for (Fiber& f : fibers) {
      getcontext(&f.start);
      f.stack.resize(256 << 10);
      f.start.uc_stack.ss_sp = f.stack.data();
      f.start.uc_stack.ss_size = f.stack.size();
      f.start.uc_link = nullptr;
      makecontext(&f.start, Enter, 0);
    }
  }
  body = &kernel;
  gridDim = grid;
  blockDim = dim3(threads);
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
      shared_memory = MakeGuarded(shared_bytes);
      RunBlock(threads);
      FreeGuarded(shared_memory, shared_bytes);
    }
  }
}

template <typename T>
T Exchange(T value, int source) {
  static_assert(sizeof(T) <= sizeof(Slot), "one slot");
  const int self = current, parity = parities[self];
  memcpy(&slots[parity][self], &value, sizeof(T));
  Wait(State::kWarp);
  memcpy(&value, &slots[parity][self / 32 * 32 + source % 32], sizeof(T));
  parities[self] = 1 - parity;
  return value;
}

// mma.m16n8k8 with tf32 operands, by the fragment layouts of the PTX manual.
//
// NVIDIA does not document how it sums. Measured: Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor
// cores", PeerJ Computer Science 7:e330, 2021 (V100, T4, A100: products exact, sums aligned to the largest term and cut
// off, not rounded); Xie, Wang, Yang, Yang, "MMA-Sim", arXiv:2511.10909, 2025, bit for bit for ten architectures; with
// it agrees Khattak, Mikaitis, "Accurate Models of NVIDIA Tensor Cores", arXiv:2512.07004, 2025. By MMA-Sim a step adds
// to c the products of 4 neighbours in k on Ampere, of all 8 on Hopper: each term is cut off (toward zero) below 2^-24
// (Ampere) or 2^-25 (Hopper) of the largest term's power of two, the rest is exact, and the sum is cut off to a float.
//
// CUDA_ON_HOST_TENSOR_CORES: ampere (without the variable) or hopper, or nearest: each product is added by a float add
// of its own, which no tensor core does, to tell what the cutting off costs.
struct TensorCores {
  int products, bits;
};
inline TensorCores ChosenTensorCores() {
  const char* name = getenv("CUDA_ON_HOST_TENSOR_CORES");
  if (name == nullptr || strcmp(name, "ampere") == 0) return {4, 24};
  if (strcmp(name, "hopper") == 0) return {8, 25};
  if (strcmp(name, "nearest") == 0) return {0, 0};
  Fail("CUDA_ON_HOST_TENSOR_CORES is ampere, hopper or nearest");
}

// A tf32 operand; the power of two of a number below float's normal ones is that of the smallest normal one.
struct Operand {
  float value;
  int power;
};
inline int PowerOf(unsigned bits) { return std::max(1, static_cast<int>(bits >> 23 & 255)) - 127; }

inline Operand ReadOperand(const Slot& slot, int index) {
  unsigned bits;
  memcpy(&bits, slot.bytes + 4 * index, 4);
  bits &= 0xffffe000u;  // what the tensor core reads of a float
  Operand read = {0.0f, PowerOf(bits)};
  memcpy(&read.value, &bits, 4);
  return read;
}

inline double PowerOfTwo(int power) {
  const uint64_t bits = static_cast<uint64_t>(power + 1023) << 52;
  double value;
  memcpy(&value, &bits, 8);
  return value;
}

inline float AddCutOff(float c, const Operand* a, const Operand* b, const TensorCores& cores) {
  unsigned c_bits;
  memcpy(&c_bits, &c, 4);
  int largest = PowerOf(c_bits);
  bool finite = largest < 128;
  for (int k = 0; k < cores.products; ++k) {
    finite &= a[k].power < 128 && b[k].power < 128;
    if (a[k].value != 0.0f && b[k].value != 0.0f) largest = std::max(largest, a[k].power + b[k].power);
  }
  if (!finite) {
    for (int k = 0; k < cores.products; ++k) c += a[k].value * b[k].value;
    return c;
  }
  const double scale = PowerOfTwo(cores.bits - largest);
  int64_t sum = static_cast<int64_t>(c * scale);
  for (int k = 0; k < cores.products; ++k) {
    sum += static_cast<int64_t>(static_cast<double>(a[k].value) * b[k].value * scale);
  }
  const double exact = static_cast<double>(sum) * PowerOfTwo(largest - cores.bits);
  const float rounded = static_cast<float>(exact);
  return std::fabs(rounded) > std::fabs(exact) && std::isfinite(rounded) ? std::nextafterf(rounded, 0.0f) : rounded;
}

inline void MmaTf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  static const TensorCores cores = ChosenTensorCores();
  struct Fragment {
    unsigned a[4], b[2];
  };
  const int self = current, parity = parities[self], group = self % 32 / 4, member = self % 4;
  const Fragment mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  memcpy(&slots[parity][self], &mine, sizeof(mine));
  Wait(State::kWarp);
  const Slot* const from = slots[parity] + self / 32 * 32;
  Operand rows[2][8], columns[2][8];
  for (int i = 0; i < 2; ++i) {
    for (int k = 0; k < 8; ++k) {
      rows[i][k] = ReadOperand(from[group * 4 + k % 4], i + k / 4 * 2);
      columns[i][k] = ReadOperand(from[(member * 2 + i) * 4 + k % 4], 4 + k / 4);
    }
  }
  for (int i = 0; i < 4; ++i) {
    const Operand *left = rows[i / 2], *right = columns[i % 2];
    if (cores.products == 0) {
      for (int k = 0; k < 8; ++k) c[i] += left[k].value * right[k].value;
    } else {
      for (int k = 0; k < 8; k += cores.products) c[i] = AddCutOff(c[i], left + k, right + k, cores);
    }
  }
  parities[self] = 1 - parity;
}

}  // namespace cuda_on_host

template <typename T>
T __shfl_sync(unsigned, T value, int source) {
  return cuda_on_host::Exchange(value, source);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_on_host::Exchange(value, (cuda_on_host::current % 32) ^ mask);
}
inline void __syncwarp() { cuda_on_host::Wait(cuda_on_host::State::kWarp); }
inline void __syncthreads() { cuda_on_host::Wait(cuda_on_host::State::kBlock); }
inline int __any_sync(unsigned, int predicate) {
  int any = 0;
  cuda_on_host::votes[cuda_on_host::current] = predicate;
  __syncwarp();
  const int warp = cuda_on_host::current / 32 * 32;
  for (int i = 0; i < 32; ++i) any |= cuda_on_host::votes[warp + i];
  __syncwarp();
  return any;
}
inline int __syncthreads_or(int predicate) {
  int any = 0;
  cuda_on_host::votes[cuda_on_host::current] = predicate;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x; ++i) any |= cuda_on_host::votes[i];
  __syncthreads();
  return any;
}
inline void atomicMin(unsigned long long* p, unsigned long long v) { *p = std::min(*p, v); }
inline int atomicAdd(int* p, int v) {
  const int before = *p;
  *p = before + v;
  return before;
}

// The part of the runtime that the host code here uses. CUDA_ON_HOST_SHARED is the shared memory of a block in bytes.
using cudaError_t = int;
using cudaStream_t = void*;
using cudaEvent_t = std::chrono::steady_clock::time_point;
constexpr cudaError_t cudaSuccess = 0;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaDeviceProp {
  char name[64] = "none: cuda_on_host, an emulation of logic only";
  int major = 0, minor = 0;
};

inline std::map<void*, size_t> cuda_on_host_memory;
template <typename T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
  *p = static_cast<T*>(cuda_on_host::MakeGuarded(bytes));
  cuda_on_host_memory[*p] = bytes;
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
  cuda_on_host::FreeGuarded(p, cuda_on_host_memory.at(p));
  cuda_on_host_memory.erase(p);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  memset(p, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(p, value, bytes);
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = cudaDeviceProp();
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const char* shared = getenv("CUDA_ON_HOST_SHARED");
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : shared ? atoi(shared) : 232448;
  return cudaSuccess;
}

#endif  // TFREC_CUDA_ON_HOST_H_
