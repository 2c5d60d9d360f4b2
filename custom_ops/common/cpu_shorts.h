// Vectors of int16, and the register tile of products of integers.
//
// A product of bytes is computed as one of int16: a multiplication of two neighbours with two weights and the addition
// of both products is one instruction (vpmaddwd), exact for every value, where the one for bytes would saturate.
//
// AVX-512's copy of these needs AVX-512BW as well, which its first processors lack: ask before choosing it.
#ifndef TFREC_COMMON_CPU_SHORTS_H_
#define TFREC_COMMON_CPU_SHORTS_H_

#include "cpu_vector.h"

#if TFREC_LANES == 4
#include <emmintrin.h>
#endif

namespace tfrec {
namespace TFREC_ISA {

// A panel's columns, and a register tile: kShortRows by 2 vectors of sums fill most of the registers.
constexpr int kShortColumns = 2 * kLanes;
constexpr int kShortRows = TFREC_LANES == 16 ? 12 : 6;

// Sums are kLanes int32, Shorts 2 * kLanes int16.
//
// MultiplyPairs: sum l is a[2 l] b[2 l] + a[2 l + 1] b[2 l + 1].
// RoundBelow: the lesser of v and high, rounded half to even; the least int32 for NaN and below it. x86's minimum gives
// its second operand for NaN, so the order matters.
// Narrow: a and b as int16, by four values each in turn, plus zero_point, at least low; all three saturate.
#if TFREC_LANES == 16

typedef __m512i Sums;
typedef __m512i Shorts;
static inline Sums LoadSums(const int32_t* p) { return _mm512_loadu_si512(p); }
static inline Shorts LoadShorts(const int16_t* p) { return _mm512_loadu_si512(p); }
static inline void StoreShorts(int16_t* p, Shorts v) { _mm512_storeu_si512(p, v); }
static inline Shorts FillShorts(int16_t x) { return _mm512_set1_epi16(x); }
static inline Shorts FillPair(const int16_t* p) {
  int32_t both;
  memcpy(&both, p, 4);
  return _mm512_set1_epi32(both);
}
static inline Shorts WidenBytes(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline Sums MultiplyPairs(Shorts a, Shorts b) { return _mm512_madd_epi16(a, b); }
static inline Sums Add(Sums a, Sums b) { return _mm512_add_epi32(a, b); }
static inline Vec ToFloats(Sums v) { return (Vec)_mm512_cvtepi32_ps(v); }
static inline int32_t Total(Sums v) { return _mm512_reduce_add_epi32(v); }
static inline Sums RoundBelow(Vec high, Vec v) { return _mm512_cvtps_epi32(_mm512_min_ps((__m512)high, (__m512)v)); }
static inline Shorts Narrow(Sums a, Sums b, Shorts zero_point, Shorts low) {
  return _mm512_max_epi16(_mm512_adds_epi16(_mm512_packs_epi32(a, b), zero_point), low);
}

#elif TFREC_LANES == 8

typedef __m256i Sums;
typedef __m256i Shorts;
static inline Sums LoadSums(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline Shorts LoadShorts(const int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline void StoreShorts(int16_t* p, Shorts v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
static inline Shorts FillShorts(int16_t x) { return _mm256_set1_epi16(x); }
static inline Shorts FillPair(const int16_t* p) {
  int32_t both;
  memcpy(&both, p, 4);
  return _mm256_set1_epi32(both);
}
static inline Shorts WidenBytes(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline Sums MultiplyPairs(Shorts a, Shorts b) { return _mm256_madd_epi16(a, b); }
static inline Sums Add(Sums a, Sums b) { return _mm256_add_epi32(a, b); }
static inline Vec ToFloats(Sums v) { return (Vec)_mm256_cvtepi32_ps(v); }
static inline int32_t Total(Sums v) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
  return _mm_cvtsi128_si32(sum);
}
static inline Sums RoundBelow(Vec high, Vec v) { return _mm256_cvtps_epi32(_mm256_min_ps((__m256)high, (__m256)v)); }
static inline Shorts Narrow(Sums a, Sums b, Shorts zero_point, Shorts low) {
  return _mm256_max_epi16(_mm256_adds_epi16(_mm256_packs_epi32(a, b), zero_point), low);
}

#else  // SSE2, which every x86-64 has

typedef __m128i Sums;
typedef __m128i Shorts;
static inline Sums LoadSums(const int32_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
static inline Shorts LoadShorts(const int16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
static inline void StoreShorts(int16_t* p, Shorts v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
static inline Shorts FillShorts(int16_t x) { return _mm_set1_epi16(x); }
static inline Shorts FillPair(const int16_t* p) {
  int32_t both;
  memcpy(&both, p, 4);
  return _mm_set1_epi32(both);
}
static inline Shorts WidenBytes(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
}
static inline Sums MultiplyPairs(Shorts a, Shorts b) { return _mm_madd_epi16(a, b); }
static inline Sums Add(Sums a, Sums b) { return _mm_add_epi32(a, b); }
static inline Vec ToFloats(Sums v) { return (Vec)_mm_cvtepi32_ps(v); }
static inline int32_t Total(Sums v) {
  v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}
static inline Sums RoundBelow(Vec high, Vec v) { return _mm_cvtps_epi32(_mm_min_ps((__m128)high, (__m128)v)); }
static inline Shorts Narrow(Sums a, Sums b, Shorts zero_point, Shorts low) {
  return _mm_max_epi16(_mm_adds_epi16(_mm_packs_epi32(a, b), zero_point), low);
}

#endif

// sum[r] += the products of row r of a, [kShortRows, depth], and a panel [depth / 2][kShortColumns][2].
static inline void ShortTile(const int16_t* a, int64_t a_row, const int16_t* panel, int64_t depth,
                             Sums (&sum)[kShortRows][2]) {
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; k += 2) {
    const Shorts left = LoadShorts(panel + k * kShortColumns);
    const Shorts right = LoadShorts(panel + k * kShortColumns + kShortColumns);
    for (int r = 0; r < kShortRows; ++r) {
      const Shorts pair = FillPair(a + r * a_row + k);
      sum[r][0] = Add(sum[r][0], MultiplyPairs(pair, left));
      sum[r][1] = Add(sum[r][1], MultiplyPairs(pair, right));
    }
  }
}

}  // namespace TFREC_ISA
}  // namespace tfrec

#endif  // TFREC_COMMON_CPU_SHORTS_H_
