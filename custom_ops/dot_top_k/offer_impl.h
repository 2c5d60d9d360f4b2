// Scores offered to a query's heap of the k best, for the instruction set that the including file is compiled for.
#ifndef TFREC_OFFER_IMPL_H_
#define TFREC_OFFER_IMPL_H_

#include <math.h>

#include "cpu_vector.h"
#include "dot_top_k.h"

namespace tfrec {
namespace TFREC_ISA {

using top_k::DotTopK;

// Offers scores[0:n] of items first, first + 1, ... to the heap.
static inline void Offer(const float* scores, int64_t n, int64_t first, int64_t k, float* heap_scores,
                         int32_t* heap_ids) {
  float worst = heap_scores[0];
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec v = Load(scores + i);
#if TFREC_LANES == 16
    const bool any = _mm512_cmp_ps_mask(v, _mm512_set1_ps(worst), _CMP_GE_OQ) != 0;
#elif TFREC_LANES == 8
    const bool any = _mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(worst), _CMP_GE_OQ)) != 0;
#else
    const auto better = v >= Fill(worst);
    const bool any = (better[0] | better[1] | better[2] | better[3]) != 0;
#endif
    if (__builtin_expect(!any, 1)) continue;
    for (int64_t l = i; l < i + kLanes; ++l) {
      // Not all come in order of id: an equal score with a lower one replaces the worst.
      const int32_t id = static_cast<int32_t>(first + l);
      if (scores[l] >= worst && scores[l] > -INFINITY && top_k::Below(worst, heap_ids[0], scores[l], id)) {
        top_k::Replace(heap_scores, heap_ids, k, scores[l], id);
        worst = heap_scores[0];
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
