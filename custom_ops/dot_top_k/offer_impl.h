// Scores offered to a query's heap of the k best, for the instruction set that the including file is compiled for.
#ifndef TFREC_OFFER_IMPL_H_
#define TFREC_OFFER_IMPL_H_

#include <math.h>

#include "cpu_vector.h"
#include "dot_top_k.h"

namespace tfrec {
namespace TFREC_ISA {

using top_k::DotTopK;

// Bit l: lane l of a is at least that of b.
static inline unsigned AtLeast(Vec a, Vec b) {
#if TFREC_LANES == 16
  return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
#elif TFREC_LANES == 8
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
#else
  const auto better = a >= b;
  return (better[0] & 1) | (better[1] & 2) | (better[2] & 4) | (better[3] & 8);
#endif
}

// A score that at least k of scores[0:n] reach, or -infinity: the kth of the largest of some groups of them. n is a
// multiple of the lanes.
static inline float ReachedBy(const float* scores, int64_t n, int64_t k) {
  constexpr int kVectors = 4, kGroups = kVectors * kLanes;
  if (k > kGroups || n < kGroups) return -INFINITY;
  Vec most[kVectors];
  for (int v = 0; v < kVectors; ++v) most[v] = Load(scores + v * kLanes);
  for (int64_t i = kGroups; i + kGroups <= n; i += kGroups) {
    for (int v = 0; v < kVectors; ++v) {
      const Vec s = Load(scores + i + v * kLanes);
      most[v] = most[v] > s ? most[v] : s;
    }
  }
  float groups[kGroups], reached = -INFINITY;
  for (int v = 0; v < kVectors; ++v) Store(groups + v * kLanes, most[v]);
  for (float& group : groups) group = group > -INFINITY ? group : -INFINITY;  // not NaN
  for (int64_t rank = 0; rank < k; ++rank) {
    int best = 0;
    for (int g = 1; g < kGroups; ++g) best = groups[g] > groups[best] ? g : best;
    reached = groups[best];
    groups[best] = -INFINITY;
  }
  return reached;
}

// Offers scores[0:n] of items first, first + 1, ... to the heap. n is a multiple of the lanes.
static inline void Offer(const float* scores, int64_t n, int64_t first, int64_t k, float* heap_scores,
                         int32_t* heap_ids) {
  float worst = heap_scores[0];
  // Without it an empty heap would take one score after another, each better than most before.
  if (worst == -INFINITY) worst = ReachedBy(scores, n, k);
  for (int64_t i = 0; i < n; i += kLanes) {
    unsigned better = AtLeast(Load(scores + i), Fill(worst));
    for (; __builtin_expect(better != 0, 0); better &= better - 1) {
      const int64_t l = i + __builtin_ctz(better);
      // Not all come in order of id: an equal score with a lower one replaces the worst.
      const int32_t id = static_cast<int32_t>(first + l);
      if (scores[l] >= worst && scores[l] > -INFINITY && top_k::Below(heap_scores[0], heap_ids[0], scores[l], id)) {
        top_k::Replace(heap_scores, heap_ids, k, scores[l], id);
        if (heap_scores[0] > worst) worst = heap_scores[0];
      }
    }
  }
}

// Excluded items of a query inside a chunk, and columns behind its end, get -infinity.
static inline void Mask(const DotTopK& t, int64_t query, int64_t first, int64_t n, int64_t padded, float* scores) {
  // Binary search for the chunk's first excluded item: ascending, see the contract.
  int64_t low = t.excluded_offsets[query];
  const int64_t end = t.excluded_offsets[query + 1];
  for (int64_t high = end; low < high;) {
    const int64_t middle = low + (high - low) / 2;
    if (t.excluded[middle] < first) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (; low < end && t.excluded[low] < first + n; ++low) scores[t.excluded[low] - first] = -INFINITY;
  for (int64_t i = n; i < padded; ++i) scores[i] = -INFINITY;
}

}  // namespace TFREC_ISA
}  // namespace tfrec

#endif  // TFREC_OFFER_IMPL_H_
