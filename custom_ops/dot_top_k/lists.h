// What the ops of top-k share: which items each query leaves out, how threads share the search, and the lists they find.
#ifndef TFREC_LISTS_H_
#define TFREC_LISTS_H_

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "dot_top_k.h"
#include "team.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

namespace tfrec {
namespace top_k {

// Sets excluded_offsets, excluded and k of t, whose num_queries is known, and checks them.
inline absl::Status ReadLists(const ::tensorflow::Tensor& offsets, const ::tensorflow::Tensor& excluded,
                              const ::tensorflow::Tensor& k, DotTopK* t) {
  if (offsets.dims() != 1 || offsets.dim_size(0) != t->num_queries + 1 || excluded.dims() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`excluded_offsets` must be [num_queries + 1] and `excluded` a vector. Received shapes: ",
        offsets.shape().DebugString(), " and ", excluded.shape().DebugString()));
  }
  if (k.dims() != 0 || k.scalar<int32_t>()() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("`k` must be a number of 1 or more. Received: ", k.DebugString()));
  }
  t->k = k.scalar<int32_t>()();
  t->excluded_offsets = offsets.flat<int64_t>().data();
  t->excluded = excluded.flat<int32_t>().data();
  const int64_t size = excluded.NumElements();
  if (t->excluded_offsets[0] < 0 || t->excluded_offsets[t->num_queries] > size) {
    return absl::InvalidArgumentError("`excluded_offsets` must lie inside `excluded`.");
  }
  for (int64_t q = 0; q < t->num_queries; ++q) {
    const int64_t begin = t->excluded_offsets[q], end = t->excluded_offsets[q + 1];
    if (begin > end || end > size) {
      return absl::InvalidArgumentError("`excluded_offsets` must not fall, and lie inside `excluded`.");
    }
    for (int64_t i = begin; i < end; ++i) {
      if (t->excluded[i] < 0 || (i > begin && t->excluded[i - 1] > t->excluded[i])) {
        return absl::InvalidArgumentError(
            absl::StrCat("`excluded` must be 0 or more and ascending within a query. Received: ", t->excluded[i],
                         " at query ", q));
      }
    }
  }
  return absl::OkStatus();
}

// The two outputs, [num_queries, k], of an op whose inputs 0, `items` and `k` are the queries, the items and k.
inline absl::Status ListsShape(::tensorflow::shape_inference::InferenceContext* c, int items, int k) {
  ::tensorflow::shape_inference::ShapeHandle queries, table;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &queries));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(items), 2, &table));
  ::tensorflow::shape_inference::DimensionHandle length;
  TF_RETURN_IF_ERROR(c->MakeDimForScalarInput(k, &length));
  c->set_output(0, c->Matrix(c->Dim(queries, 0), length));
  c->set_output(1, c->Matrix(c->Dim(queries, 0), length));
  return absl::OkStatus();
}

// Heaps [num_queries, k] of nothing.
inline void EmptyLists(const DotTopK& t, float* best, int32_t* best_ids) {
  std::fill_n(best, t.num_queries * t.k, -std::numeric_limits<float>::infinity());
  std::fill_n(best_ids, t.num_queries * t.k, -1);
}

// Many queries: each thread takes its share of them over all items. Few: each thread takes its share of the items, and
// the heaps are merged. search(member, first_query, last_query, first_item, last_item, packed, scores, ids).
template <typename Search>
void SearchInParts(Team* team, const DotTopK& t, float* best, int32_t* best_ids, const Search& search) {
  const int64_t size = team->size(), all = t.num_queries * t.k;
  if (t.num_queries >= 16 * size) {
    team->Run([&](int member) {
      const int64_t first = t.num_queries * member / size, last = t.num_queries * (member + 1) / size;
      search(member, first, last, int64_t{0}, t.num_items, true, best + first * t.k, best_ids + first * t.k);
    });
    return;
  }
  std::vector<float> parts(size * all, -std::numeric_limits<float>::infinity());
  std::vector<int32_t> part_ids(size * all, -1);
  team->Run([&](int member) {
    search(member, int64_t{0}, t.num_queries, t.num_items * member / size, t.num_items * (member + 1) / size,
           t.num_queries >= 16, parts.data() + member * all, part_ids.data() + member * all);
  });
  for (int64_t i = 0; i < size * all; ++i) {
    const int64_t at = i % all / t.k * t.k;
    if (part_ids[i] >= 0 && Below(best[at], best_ids[at], parts[i], part_ids[i])) {
      Replace(best + at, best_ids + at, t.k, parts[i], part_ids[i]);
    }
  }
}

// Heaps to lists, best first: by insertion, as lists are short; long ones by sorting.
inline void SortLists(Team* team, const DotTopK& t, float* best, int32_t* best_ids) {
  const int64_t size = team->size();
  team->Run([&](int member) {
    std::vector<int64_t> order(t.k);
    std::vector<float> sorted(t.k);
    std::vector<int32_t> sorted_ids(t.k);
    for (int64_t q = t.num_queries * member / size; q < t.num_queries * (member + 1) / size; ++q) {
      float* s = best + q * t.k;
      int32_t* i = best_ids + q * t.k;
      if (t.k <= 32) {
        for (int64_t n = 1; n < t.k; ++n) {
          const float score = s[n];
          const int32_t id = i[n];
          int64_t at = n;
          for (; at > 0 && Below(s[at - 1], i[at - 1], score, id); --at) {
            s[at] = s[at - 1];
            i[at] = i[at - 1];
          }
          s[at] = score;
          i[at] = id;
        }
        continue;
      }
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return Below(s[b], i[b], s[a], i[a]); });
      for (int64_t n = 0; n < t.k; ++n) {
        sorted[n] = s[order[n]];
        sorted_ids[n] = i[order[n]];
      }
      std::copy(sorted.begin(), sorted.end(), s);
      std::copy(sorted_ids.begin(), sorted_ids.end(), i);
    }
  });
}

}  // namespace top_k
}  // namespace tfrec

#endif  // TFREC_LISTS_H_
