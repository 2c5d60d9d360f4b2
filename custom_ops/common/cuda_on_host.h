// Runs CUDA kernels on the CPU, so that their logic can be checked on a machine without a GPU. Included in place of the
// CUDA headers where no CUDA compiler is at work; built and run by each operation's check_on_host.sh, part of no
// product.
//
// Every thread of a block is a fiber; blocks run one after the other. A fiber runs until it meets a barrier of its warp
// (a shuffle, a vote, __syncwarp) or of its block. Which warp and which lane goes first is an environment variable,
// CUDA_ON_HOST_ORDER: 0 ascending, 1 descending, larger: a seed. A kernel that lacks a barrier gives different results
// in different orders; one with a barrier in divergent code stops with a message. "Device" and shared memory start as
// NaN and end at a page that must not be touched, so that reads of what nobody wrote and accesses behind the end show.
//
// It is an emulation of logic only. It says nothing of speed, of memory ordering between blocks, of alignment beyond 16
// bytes, or of what ptxas and the hardware do; the tensor core instruction is what its manual says, done in software.
#ifndef TFREC_CUDA_ON_HOST_H_
#define TFREC_CUDA_ON_HOST_H_

#include <setjmp.h>
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
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }

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

enum class State { kReady, kWarp, kBlock, kDone };
struct Fiber {
  ucontext_t start;
  jmp_buf jump;
  State state;
  bool started;
  int vote;
  int parity;  // of the next exchange: two slots let one barrier do for each
  alignas(16) char slot[2][32];
  std::vector<char> stack;
};
inline std::vector<Fiber> fibers;
inline jmp_buf scheduler;
inline int current;
inline const std::function<void()>* body;
inline void* shared_memory;

inline void Enter() {
  (*body)();
  fibers[current].state = State::kDone;
  _longjmp(scheduler, 1);
}
__attribute__((noinline)) inline void Wait(State state) {
  fibers[current].state = state;
  if (!_setjmp(fibers[current].jump)) _longjmp(scheduler, 1);
}
__attribute__((noinline)) inline void Resume(int index) {
  current = index;
  threadIdx = dim3(index);
  if (_setjmp(scheduler)) return;
  if (fibers[index].started) _longjmp(fibers[index].jump, 1);
  fibers[index].started = true;
  setcontext(&fibers[index].start);
}

inline std::vector<int> Order(int count) {
  static const int kind = getenv("CUDA_ON_HOST_ORDER") ? atoi(getenv("CUDA_ON_HOST_ORDER")) : 0;
  static std::mt19937 random(kind);
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (kind == 1) std::reverse(order.begin(), order.end());
  if (kind > 1) std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Lets one warp run until all of its lanes wait for the block or have ended.
inline void RunWarp(int warp) {
  for (;;) {
    for (int lane : Order(32)) {
      if (fibers[warp * 32 + lane].state == State::kReady) Resume(warp * 32 + lane);
    }
    int waiting = 0;
    for (int lane = 0; lane < 32; ++lane) waiting += fibers[warp * 32 + lane].state == State::kWarp;
    if (waiting == 0) return;
    if (waiting < 32) Fail("a barrier of a warp that only some lanes reach");
    for (int lane = 0; lane < 32; ++lane) fibers[warp * 32 + lane].state = State::kReady;
  }
}

__attribute__((noinline)) inline void Prepare(Fiber* f) {
  f->stack.resize(256 << 10);
  getcontext(&f->start);
  f->start.uc_stack.ss_sp = f->stack.data();
  f->start.uc_stack.ss_size = f->stack.size();
  f->start.uc_link = nullptr;
  makecontext(&f->start, Enter, 0);
  f->state = State::kReady;
  f->started = false;
  f->parity = 0;
}

inline void RunBlock(int threads) {
  for (int i = 0; i < threads; ++i) Prepare(&fibers[i]);
  for (;;) {
    for (int warp : Order(threads / 32)) RunWarp(warp);
    int done = 0;
    for (int i = 0; i < threads; ++i) done += fibers[i].state == State::kDone;
    if (done == threads) return;
    if (done > 0) Fail("__syncthreads after some threads have ended");
    for (int i = 0; i < threads; ++i) fibers[i].state = State::kReady;
  }
}

inline void RunGrid(dim3 grid, int threads, size_t shared_bytes, const std::function<void()>& kernel) {
  if (threads % 32 != 0 || threads > 1024 || grid.x == 0 || grid.y == 0) Fail("bad launch");
  fibers.resize(std::max<size_t>(fibers.size(), threads));
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
  static_assert(sizeof(T) <= 32, "one slot");
  const int self = current, parity = fibers[self].parity;
  memcpy(fibers[self].slot[parity], &value, sizeof(T));
  Wait(State::kWarp);
  memcpy(&value, fibers[self / 32 * 32 + source % 32].slot[parity], sizeof(T));
  fibers[self].parity = 1 - parity;
  return value;
}

// mma.m16n8k8 with tf32 operands, by the fragment layouts of the PTX manual.
inline void MmaTf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Operands {
    unsigned a[4], b[2];
  };
  const int self = current, parity = fibers[self].parity, warp = self / 32 * 32, group = self % 32 / 4,
            member = self % 4;
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  memcpy(fibers[self].slot[parity], &mine, sizeof(mine));
  Wait(State::kWarp);
  const auto operand = [&](int lane, int index) {
    unsigned bits;
    memcpy(&bits, fibers[warp + lane].slot[parity] + 4 * index, 4);
    bits &= 0xffffe000u;  // what the tensor core reads of a float
    float value;
    memcpy(&value, &bits, 4);
    return value;
  };
  for (int k = 0; k < 8; ++k) {
    for (int i = 0; i < 4; ++i) {
      const float left = operand(group * 4 + k % 4, (i >> 1) + 2 * (k >> 2));
      const float right = operand((member * 2 + (i & 1)) * 4 + k % 4, 4 + (k >> 2));
      c[i] += left * right;
    }
  }
  fibers[self].parity = 1 - parity;
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
  cuda_on_host::fibers[cuda_on_host::current].vote = predicate;
  __syncwarp();
  const int warp = cuda_on_host::current / 32 * 32;
  for (int i = 0; i < 32; ++i) any |= cuda_on_host::fibers[warp + i].vote;
  __syncwarp();
  return any;
}
inline int __syncthreads_or(int predicate) {
  int any = 0;
  cuda_on_host::fibers[cuda_on_host::current].vote = predicate;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x; ++i) any |= cuda_on_host::fibers[i].vote;
  __syncthreads();
  return any;
}
inline void atomicMin(unsigned long long* p, unsigned long long v) { *p = std::min(*p, v); }

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
