// Sums over segments, without atomics and in an order that depends on the ids alone.
//
// Terms lie in order of their segments. They are cut into chunks of equal length; a thread adds up one tile of one
// chunk, segment after segment. A segment within one chunk is done then. A segment cut by the end of its chunk leaves
// its sum so far in the chunk's partial sum `kBegun`; a chunk that it goes on in leaves its share in `kCarried`. A
// second kernel adds these up in the order of the chunks. So the work is even however many terms a segment has (popular
// ids), and one launch does for any number.
#ifndef TFREC_TT_SUM_CUH_
#define TFREC_TT_SUM_CUH_

#include "tt_product.cuh"

namespace tfrec {
namespace tt {

constexpr int64_t kLeastChunk = 8;
constexpr int64_t kSumThreads = 1 << 18;  // enough to fill any GPU: more chunks would only be more partial sums
constexpr int64_t kPartialBytes = int64_t{32} << 20;  // of partial sums, unless one chunk alone needs more

struct Sum {
  int m, n, tiles;         // a sum is [m, n] in so many tiles
  const int64_t* count;    // terms
  int64_t chunks;
  float* partial;          // [chunks, 2, m, n]; null for a single chunk
  float* out;              // [segments, m, n]
  bool add;                // to what is there; or replace it

  __host__ __device__ int64_t size() const { return static_cast<int64_t>(m) * n; }
};
enum Part { kCarried = 0, kBegun = 1 };

inline int64_t ChunksFor(int64_t most_terms, int64_t size, int tiles) {
  int64_t chunks = (most_terms + kLeastChunk - 1) / kLeastChunk;
  const int64_t by_threads = kSumThreads / tiles, by_memory = kPartialBytes / (2 * size * int64_t{sizeof(float)});
  if (chunks > by_threads) chunks = by_threads;
  if (chunks > by_memory) chunks = by_memory;
  return chunks < 1 ? 1 : chunks;
}
inline int64_t PartialFloats(int64_t chunks, int64_t size) { return chunks > 1 ? chunks * 2 * size : 0; }

struct Chunks {
  int64_t terms, length;

  __device__ explicit Chunks(const Sum& s) : terms(*s.count), length((terms + s.chunks - 1) / s.chunks) {
    if (length < kLeastChunk) length = kLeastChunk;
  }
  __device__ int64_t begin(int64_t chunk) const { return chunk * length; }
  __device__ int64_t end(int64_t chunk) const {
    return (chunk + 1) * length < terms ? (chunk + 1) * length : terms;
  }
};

// Terms has a constant kRows, the rows of its tiles; kVector; Segment(i) of term i; Add(i, tile's row and column, sum).
template <typename Terms>
__global__ void __launch_bounds__(kThreads) SumChunks(Terms terms, Sum s) {
  const Chunks chunks(s);
  const int tiles_n = (s.n + 3) / 4;
  const int64_t threads = s.chunks * s.tiles;
  for (int64_t i = FirstIndex(); i < threads; i += IndexStride()) {
    const Quotient at = Divide(i, s.tiles);
    const int64_t chunk = at.quotient, begin = chunks.begin(chunk), end = chunks.end(chunk);
    const int row = at.remainder / tiles_n * Terms::kRows, column = at.remainder % tiles_n * 4;
    if (begin >= end) continue;
    int64_t segment = terms.Segment(begin);
    bool carried = begin > 0 && terms.Segment(begin - 1) == segment;
    float sum[Terms::kRows][4] = {};
    for (int64_t term = begin; term < end; ++term) {
      terms.Add(term, row, column, sum);
      const int64_t next = term + 1 < chunks.terms ? terms.Segment(term + 1) : -1;
      if (next == segment && term + 1 < end) continue;
      if (carried || next == segment) {
        float* const partial = s.partial + (2 * chunk + (carried ? kCarried : kBegun)) * s.size();
        StoreTile<Terms::kVector>(sum, row, column, s.m, s.n, false, partial);
      } else {
        StoreTile<Terms::kVector>(sum, row, column, s.m, s.n, s.add, s.out + segment * s.size());
      }
#pragma unroll
      for (int r = 0; r < Terms::kRows; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[r][c] = 0.0f;
      }
      segment = next;
      carried = false;
    }
  }
}

// Segments cut by the end of a chunk: whoever has the chunk that such a segment begins in adds up its parts. A thread
// per element.
template <typename Terms>
__global__ void __launch_bounds__(kThreads) JoinChunks(Terms terms, Sum s) {
  const Chunks chunks(s);
  const int64_t size = s.size(), threads = s.chunks * size;
  for (int64_t i = FirstIndex(); i < threads; i += IndexStride()) {
    const Quotient at = Divide(i, static_cast<int>(size));
    const int64_t chunk = at.quotient, begin = chunks.begin(chunk), end = chunks.end(chunk);
    const int element = at.remainder;
    if (begin >= end || end == chunks.terms) continue;
    const int64_t segment = terms.Segment(end - 1);
    if (terms.Segment(end) != segment) continue;  // not cut
    if (begin > 0 && terms.Segment(begin - 1) == segment) continue;  // begun before: all of the chunk is its
    float sum = s.partial[(2 * chunk + kBegun) * size + element];
    for (int64_t c = chunk + 1; chunks.begin(c) < chunks.terms && terms.Segment(chunks.begin(c)) == segment; ++c) {
      sum += s.partial[(2 * c + kCarried) * size + element];
    }
    float* const to = s.out + segment * size + element;
    *to = s.add ? *to + sum : sum;
  }
}

// partial [PartialFloats] for the chunks of most_terms, the most that *count can be.
template <typename Terms>
const char* SumSegments(const Terms& terms, int m, int n, const int64_t* count, int64_t most_terms, float* partial,
                        float* out, bool add, void* stream) {
  Sum s = {m, n, (m + Terms::kRows - 1) / Terms::kRows * ((n + 3) / 4), count, 0, partial, out, add};
  s.chunks = ChunksFor(most_terms, s.size(), s.tiles);
  const char* error = Launch(SumChunks<Terms>, GridFor(s.chunks * s.tiles), kThreads, 0, stream, terms, s);
  if (error != nullptr || s.chunks == 1) return error;
  return Launch(JoinChunks<Terms>, GridFor(s.chunks * s.size()), kThreads, 0, stream, terms, s);
}
template <int kRows>
int64_t SumPartialFloats(int m, int n, int64_t most_terms) {
  const int64_t size = static_cast<int64_t>(m) * n;
  return PartialFloats(ChunksFor(most_terms, size, (m + kRows - 1) / kRows * ((n + 3) / 4)), size);
}

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_SUM_CUH_
