// The CPU search over bytes, for the instruction set that the including file is compiled for. As search_impl.h: a chunk
// of items is repacked and stays in the second cache while all queries pass, the scores of a few queries stay in the
// first. For few queries the bytes are read as they lie, which is what such a search waits for.
#include "cpu_shorts.h"
#include "int8_dot_top_k.h"
#include "offer_impl.h"

namespace tfrec {
namespace TFREC_ISA {

using int8_top_k::Int8DotTopK;

constexpr int kColumns = kShortColumns, kRows = kShortRows;
// Int16 of a packed chunk of items: half of a 512 KiB second cache. Items of a chunk: scores of kRows queries take half
// of the first cache.
constexpr int64_t kChunkShorts = 131072, kMaxChunkItems = 4096 / kRows / kColumns * kColumns;

static inline int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static inline int64_t ChunkItems(int64_t padded_width) {
  const int64_t items = kChunkShorts / padded_width / kColumns * kColumns;
  return items < kColumns ? kColumns : items > kMaxChunkItems ? kMaxChunkItems : items;
}

static int64_t WorkspaceBytes(const Int8DotTopK& t) {
  const int64_t stride = RoundUp(t.lists.width, kColumns), chunk = ChunkItems(stride);
  // int16: packed items, kRows queries, an item; float: scores, the items' scales
  return RoundUp((chunk + kRows + 1) * stride * 2 + (kRows + 1) * chunk * 4, 64);
}

static inline void WidenRow(const int8_t* row, int64_t width, int16_t* out) {
  for (int64_t d = 0; d < width; ++d) out[d] = row[d];
}

static inline int32_t DotRow(const int16_t* query, const int8_t* item, int64_t width) {
  int32_t total = 0;
  int64_t d = 0;
  if (width >= kColumns) {
    Sums sum = MultiplyPairs(LoadShorts(query), WidenBytes(item));
    for (d = kColumns; d + kColumns <= width; d += kColumns) {
      sum = Add(sum, MultiplyPairs(LoadShorts(query + d), WidenBytes(item + d)));
    }
    total = Total(sum);
  }
  for (; d < width; ++d) total += query[d] * item[d];
  return total;
}

static void Search(const Int8DotTopK& t, int64_t first_query, int64_t last_query, int64_t first_item,
                   int64_t last_item, bool packed, float* scores, int32_t* ids, void* workspace) {
  const DotTopK& lists = t.lists;
  const int64_t width = lists.width, stride = RoundUp(width, kColumns), chunk = ChunkItems(stride);
  int16_t *panels = static_cast<int16_t*>(workspace), *queries = panels + chunk * stride,
          *row = queries + kRows * stride;
  float *products = reinterpret_cast<float*>(row + stride), *item_scales = products + kRows * chunk;
  const int8_t *all_queries = static_cast<const int8_t*>(lists.queries), *items = static_cast<const int8_t*>(lists.items);
  memset(queries, 0, (kRows + 1) * stride * 2);
  for (int64_t begin = first_item; begin < last_item; begin += chunk) {
    const int64_t n = last_item - begin < chunk ? last_item - begin : chunk, padded = RoundUp(n, kColumns);
    memset(item_scales + n, 0, (padded - n) * 4);
    memcpy(item_scales, t.item_scales + begin, n * 4);
    if (packed) {
      // int16 [padded / kColumns][stride / 2][kColumns][2]
      for (int64_t i = 0; i < padded; ++i) {
        if (i < n) {
          WidenRow(items + (begin + i) * width, width, row);
        } else {
          memset(row, 0, stride * 2);
        }
        int16_t* out = panels + i / kColumns * kColumns * stride + i % kColumns * 2;
        for (int64_t d = 0; d < stride; d += 2) memcpy(out + d * kColumns, row + d, 4);
      }
    }
    for (int64_t q = first_query; q < last_query; q += kRows) {
      const int64_t together = last_query - q < kRows ? last_query - q : kRows;
      for (int64_t r = 0; r < together; ++r) WidenRow(all_queries + (q + r) * width, width, queries + r * stride);
      if (packed) {
        float query_scales[kRows] = {};
        memcpy(query_scales, t.query_scales + q, together * 4);
        for (int64_t j = 0; j < padded; j += kColumns) {
          Sums sum[kRows][2] = {};
          ShortTile(queries, stride, panels + j * stride, stride, sum);
          const Vec left = Load(item_scales + j), right = Load(item_scales + j + kLanes);
          for (int r = 0; r < kRows; ++r) {
            const Vec scale = Fill(query_scales[r]);
            Store(products + r * chunk + j, ToFloats(sum[r][0]) * (scale * left));
            Store(products + r * chunk + j + kLanes, ToFloats(sum[r][1]) * (scale * right));
          }
        }
      } else {
        for (int64_t r = 0; r < together; ++r) {
          const float scale = t.query_scales[q + r];
          for (int64_t i = 0; i < n; ++i) {
            const int32_t sum = DotRow(queries + r * stride, items + (begin + i) * width, width);
            products[r * chunk + i] = static_cast<float>(sum) * (scale * item_scales[i]);
          }
        }
      }
      for (int64_t r = 0; r < together; ++r) {
        float* line = products + r * chunk;
        Mask(lists, q + r, begin, n, padded, line);
        const int64_t at = (q + r - first_query) * lists.k;
        Offer(line, padded, begin, lists.k, scores + at, ids + at);
      }
    }
  }
}

static const int8_top_k::Kernels kInt8TopKKernels = {WorkspaceBytes, Search};

}  // namespace TFREC_ISA
}  // namespace tfrec
