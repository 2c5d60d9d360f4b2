// What the ops of top-k share: which items each query leaves out, how threads share the search, and the lists they find.
#ifndef TFREC_LISTS_H_
#define TFREC_LISTS_H_

#include <algorithm>
#include <limits>

#include "dot_top_k.h"
#include "op.h"
#include "team.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

namespace tfrec {
namespace top_k {

// Sets excluded_offsets, excluded and k of t, whose num_queries and num_items are known, and checks them.
inline Status ReadLists(const ::tensorflow::Tensor& offsets, const ::tensorflow::Tensor& excluded,
                              const ::tensorflow::Tensor& k, DotTopK* t) {
  if (offsets.dims() != 1 || offsets.dim_size(0) != t->num_queries + 1 || excluded.dims() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`excluded_offsets` must be [num_queries + 1] and `excluded` a vector. Received shapes: ",
        offsets.shape().DebugString(), " and ", excluded.shape().DebugString()));
  }
  int32_t length;
  TF_RETURN_IF_ERROR(ReadScalar(k, "k", &length));
  if (length < 1) {
    return absl::InvalidArgumentError(absl::StrCat("`k` must be a number of 1 or more. Received: ", length));
  }
  const int64_t longest = std::max(t->num_items, kMaxPadding);
  if (length > longest || t->num_queries > std::numeric_limits<int64_t>::max() / length) {
    return absl::InvalidArgumentError(absl::StrCat("`k` must be at most ", longest, ", the larger of the number of items, ",
                                                   t->num_items, ", and ", kMaxPadding, ". Received: ", length));
  }
  t->k = length;
  t->excluded_offsets = Elements<int64_t>(offsets);
  t->excluded = Elements<int32_t>(excluded);
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
// the heaps, no longer than that share, are merged. search(t, member, first_query, last_query, first_item, last_item,
// packed, scores, ids).
template <typename Search>
Status SearchInParts(OpKernelContext* ctx, Team* team, const DotTopK& t, float* best, int32_t* best_ids,
                     const Search& search) {
  const int64_t size = team->size();
  if (t.num_queries >= 16 * size) {
    team->Run([&](int member) {
      const int64_t first = t.num_queries * member / size, last = t.num_queries * (member + 1) / size;
      search(t, member, first, last, int64_t{0}, t.num_items, true, best + first * t.k, best_ids + first * t.k);
    });
    return absl::OkStatus();
  }
  DotTopK part = t;
  part.k = std::max<int64_t>(1, std::min(t.k, (t.num_items + size - 1) / size));
  const int64_t all = part.num_queries * part.k;
  Tensor score_memory, id_memory;
  float* parts;
  int32_t* part_ids;
  TF_RETURN_IF_ERROR(Scratch(ctx, size * all, &score_memory, &parts));
  TF_RETURN_IF_ERROR(Scratch(ctx, size * all, &id_memory, &part_ids));
  team->Run([&](int member) {
    EmptyLists(part, parts + member * all, part_ids + member * all);
    search(part, member, int64_t{0}, t.num_queries, t.num_items * member / size, t.num_items * (member + 1) / size,
           t.num_queries >= 16, parts + member * all, part_ids + member * all);
  });
  for (int64_t i = 0; i < size * all; ++i) {
    const int64_t at = i % all / part.k * t.k;
    if (part_ids[i] >= 0 && Below(best[at], best_ids[at], parts[i], part_ids[i])) {
      Replace(best + at, best_ids + at, t.k, parts[i], part_ids[i]);
    }
  }
  return absl::OkStatus();
}

// Heaps to lists, best first: by insertion, as lists are short; long ones by sorting.
inline Status SortLists(OpKernelContext* ctx, Team* team, const DotTopK& t, float* best, int32_t* best_ids) {
  struct Scored {
    float score;
    int32_t id;
  };
  const int64_t size = team->size();
  Tensor holder;
  Scored* memory;
  TF_RETURN_IF_ERROR(Scratch(ctx, t.k <= 32 ? 0 : size * t.k, &holder, &memory));
  team->Run([&](int member) {
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
      Scored* sorted = memory + member * t.k;
      for (int64_t n = 0; n < t.k; ++n) sorted[n] = {s[n], i[n]};
      std::sort(sorted, sorted + t.k,
                [](const Scored& a, const Scored& b) { return Below(b.score, b.id, a.score, a.id); });
      for (int64_t n = 0; n < t.k; ++n) {
        s[n] = sorted[n].score;
        i[n] = sorted[n].id;
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace top_k
}  // namespace tfrec

#endif  // TFREC_LISTS_H_
