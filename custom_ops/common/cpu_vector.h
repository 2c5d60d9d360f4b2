// Vectors of the instruction set that a file is compiled for, and the register tile that all matrix work is made of.
//
// Each CPU kernel is compiled once per instruction set (foo_baseline.cc, foo_avx2.cc, foo_avx512.cc include foo_impl.h)
// and one of the copies is taken when the library is loaded (cpu_dispatch.h). Everything here is static or in a
// namespace of the instruction set's name, and no standard template is used: the linker merges inline functions of
// equal name, and a merged one compiled with AVX-512 would end a process on an older machine.
#ifndef TFREC_COMMON_CPU_VECTOR_H_
#define TFREC_COMMON_CPU_VECTOR_H_

#include <stdint.h>
#include <string.h>

#include "planted_fault.h"

#if defined(__AVX512F__)
#define TFREC_ISA avx512
#define TFREC_LANES 16
#define TFREC_TILE_ROWS 8
#elif defined(__AVX2__)
#define TFREC_ISA avx2
#define TFREC_LANES 8
#define TFREC_TILE_ROWS 4
#else
#define TFREC_ISA baseline
#define TFREC_LANES 4
#define TFREC_TILE_ROWS 2
#endif

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace tfrec {
namespace TFREC_ISA {

typedef float Vec __attribute__((vector_size(TFREC_LANES * 4)));
typedef float UnalignedVec __attribute__((vector_size(TFREC_LANES * 4), aligned(4), may_alias));

constexpr int kLanes = TFREC_LANES;
constexpr int kTileRows = TFREC_TILE_ROWS;
constexpr int kTileColumns = 16;
constexpr int kTileVectors = kTileColumns / kLanes;

static inline Vec Load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
static inline void Store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
static inline Vec Fill(float x) { return x - Vec{}; }

// Sums of eight vectors, one after the other in out[8].
static inline void Sum8(const Vec* v, float* out) {
#if TFREC_LANES >= 8
  typedef float V8 __attribute__((vector_size(32)));
  typedef float V8u __attribute__((vector_size(32), aligned(4), may_alias));
  V8 a[8];
  for (int i = 0; i < 8; ++i) {
#if TFREC_LANES == 16
    a[i] = __builtin_shufflevector(v[i], v[i], 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(v[i], v[i], 8, 9, 10, 11, 12, 13, 14, 15);
#else
    a[i] = v[i];
#endif
  }
  V8 b[4], c[2];
  for (int i = 0; i < 4; ++i) {
    b[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
           __builtin_shufflevector(a[2 * i], a[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 2; ++i) {
    c[i] = __builtin_shufflevector(b[2 * i], b[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
           __builtin_shufflevector(b[2 * i], b[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  *reinterpret_cast<V8u*>(out) = __builtin_shufflevector(c[0], c[1], 0, 1, 2, 3, 8, 9, 10, 11) +
                                 __builtin_shufflevector(c[0], c[1], 4, 5, 6, 7, 12, 13, 14, 15);
#else
  for (int i = 0; i < 8; ++i) out[i] = (v[i][0] + v[i][1]) + (v[i][2] + v[i][3]);
#endif
}

// out[r, 0:16] = in[r, 0:16] + sign * sum_k a[r * a_row + k * a_step] * b[k * b_step + 0:16]   for r < Rows.
// The accumulators fill half the registers: enough chains to hide the latency of a multiply-add.
template <int Rows, bool Minus>
static inline void Tile(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step, int64_t depth,
                        const float* in, int64_t in_row, float* out, int64_t out_row) {
  Vec sum[Rows][kTileVectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = Load(in + r * in_row + v * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec right[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) right[v] = Load(b + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const Vec left = Fill(a[r * a_row]);
      for (int v = 0; v < kTileVectors; ++v) {
        if (Minus) {
          sum[r][v] -= left * right[v];
        } else {
          sum[r][v] += left * right[v];
        }
      }
    }
    a += a_step;
    b += b_step;
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) Store(out + r * out_row + v * kLanes, sum[r][v]);
  }
}

static inline float HalfToFloat(uint16_t h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#else
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else if (mantissa != 0) {  // subnormal: shift until the leading bit is in place
    exponent = 113;
    while (!(mantissa & 0x400u)) mantissa <<= 1, --exponent;
    bits = sign | (exponent << 23) | ((mantissa & 0x3ffu) << 13);
  } else {
    bits = sign;
  }
  float f;
  memcpy(&f, &bits, 4);
  return f;
#endif
}

// Round to nearest, ties to even; too large becomes infinity.
static inline uint16_t FloatToHalf(float f) {
#if defined(__F16C__)
  return static_cast<uint16_t>(_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT));
#else
  uint32_t bits;
  memcpy(&bits, &f, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (bits >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits < 0x38800000u) {  // below the smallest normal half: let float addition round to a multiple of 2^-24
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13));
#endif
}

static inline void HalvesToFloats(const uint16_t* in, int64_t n, float* out) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
#endif
  for (; i < n; ++i) out[i] = HalfToFloat(in[i]);
}

static inline void FloatsToHalves(const float* in, int64_t n, uint16_t* out) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < n; ++i) out[i] = FloatToHalf(in[i]);
}

// Row `row` of a [*, width] table of halves or floats, as floats.
static inline void LoadRow(const void* table, bool half_storage, int64_t row, int64_t width, float* out) {
#ifdef TFREC_PLANTED_FAULTS
  if (PlantedFault("read")) {  // behind the last row: behind the table
    volatile float behind = static_cast<const float*>(table)[(row + 1) * width];
    (void)behind;
  }
  if (PlantedFault("overflow")) {
    volatile int32_t largest = 0x7fffffff;
    largest = largest + 1;
  }
#endif
  if (half_storage) {
    HalvesToFloats(static_cast<const uint16_t*>(table) + row * width, width, out);
  } else {
    memcpy(out, static_cast<const float*>(table) + row * width, width * sizeof(float));
  }
}

static inline void PrefetchRow(const void* table, bool half_storage, int64_t row, int64_t width) {
  const int64_t bytes = width * (half_storage ? 2 : 4);
  const char* p = static_cast<const char*>(table) + row * bytes;
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

}  // namespace TFREC_ISA
}  // namespace tfrec

#endif  // TFREC_COMMON_CPU_VECTOR_H_
