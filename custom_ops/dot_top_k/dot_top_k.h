// The contract of exact top-k by inner product: for each query the k items of highest score q.y, best first, equal
// scores by lower id first, without the query's excluded items. Halves are read as floats, sums are float32.
#ifndef TFREC_DOT_TOP_K_H_
#define TFREC_DOT_TOP_K_H_

#include <cstdint>

namespace tfrec {
namespace top_k {

// A list may be longer than there are items, up to this many; more would be memory for nothing.
constexpr int64_t kMaxPadding = 65536;

struct DotTopK {
  int64_t num_queries, num_items, width;
  int64_t k;            // 1 to the larger of num_items and kMaxPadding
  const void* queries;  // [num_queries, width]
  const void* items;    // [num_items, width]
  bool half_storage;
  const int64_t* excluded_offsets;  // [num_queries + 1]
  const int32_t* excluded;          // ascending within a query
};

struct Kernels {
  // Floats that a thread needs.
  int64_t (*workspace_floats)(const DotTopK&);
  // Searches items [first_item, last_item) for queries [first_query, last_query). scores and ids, [queries, k] of this
  // range, hold a heap per query with its worst at the front; they must start as -infinity and -1. `packed`: for many
  // queries, repack the items into tiles first.
  void (*search)(const DotTopK&, int64_t first_query, int64_t last_query, int64_t first_item, int64_t last_item,
                 bool packed, float* scores, int32_t* ids, float* workspace);

  // For all items against all (queries are the items): a block of scores serves the items of its rows and those of its
  // columns, which halves the products. A block is kBlock items by kBlock.
  // tiles [kBlock / 16][width][16] = items [first, first + n), zeros behind.
  void (*pack)(const DotTopK&, int64_t first, int64_t n, float* tiles, float* row);
  // block [n, kBlock] = items [first, first + n) times the first n_columns of the packed ones. `rows` has room for n rows.
  void (*multiply)(const DotTopK&, int64_t first, int64_t n, int64_t n_columns, const float* tiles, float* rows,
                   float* block);
  // Row r of the block has scores of the n_columns items from first_column on: offers them to heap r.
  void (*offer_rows)(const DotTopK&, const float* block, int64_t n_rows, int64_t n_columns, int64_t first_column,
                     float* scores, int32_t* ids);
  // Column c has scores of the n_rows items from first_row on: offers them to heap c. worst [kBlock]: workspace.
  void (*offer_columns)(const DotTopK&, const float* block, int64_t n_rows, int64_t n_columns, int64_t first_row,
                        float* scores, int32_t* ids, float* worst);
};

constexpr int64_t kBlock = 256;

const Kernels* BaselineKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();

// Heap of the k best: whether (a, i) ranks below (b, j).
inline bool Below(float a, int32_t i, float b, int32_t j) { return a < b || (a == b && i > j); }

// Replaces the worst of the heap.
inline void Replace(float* scores, int32_t* ids, int64_t k, float score, int32_t id) {
  int64_t at = 0;
  for (;;) {
    int64_t child = 2 * at + 1;
    if (child >= k) break;
    if (child + 1 < k && Below(scores[child + 1], ids[child + 1], scores[child], ids[child])) ++child;
    if (!Below(scores[child], ids[child], score, id)) break;
    scores[at] = scores[child];
    ids[at] = ids[child];
    at = child;
  }
  scores[at] = score;
  ids[at] = id;
}

}  // namespace top_k
}  // namespace tfrec

#endif  // TFREC_DOT_TOP_K_H_
