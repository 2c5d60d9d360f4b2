// Sums over segments, without atomics and in an order that depends on the ids alone.
//
// Terms lie in order of their segments. They are cut into chunks of equal length; a thread adds up one tile of one
// chunk, segment after segment. A segment within one chunk is done then. A segment cut by the end of its chunk leaves
// its sum so far in the chunk's partial sum `kBegun`; a chunk that it goes on in leaves its share in `kCarried`. A
// second kernel adds these up in the order of the chunks. So the work is even however many terms a segment has (popular
// ids), and one launch does for any number; also for the segments of two sums that do not need each other.
#ifndef TFREC_TT_SUM_CUH_
#define TFREC_TT_SUM_CUH_

#include "tt_product.cuh"

namespace tfrec {
namespace tt {

// Multiplications that an element of a chunk's sum takes at least: 8 terms, or fewer where a term is a long product.
constexpr int64_t kLeastWork = 64, kLongestLeast = 8;
// Threads for each multiprocessor, one wave of these kernels: more chunks would only be more partial sums.
constexpr int64_t kSumThreads = 512;
constexpr int64_t kPartialBytes = int64_t{32} << 20;  // of partial sums, unless one chunk alone needs more

struct Sum {
  int m, n, tiles;           // a sum is [m, n] in so many tiles
  const int64_t* count;      // terms
  const int64_t* segment;    // of a term, plus first_segment
  int64_t first_segment;
  int64_t chunks, least;     // chunks, and terms of one at least
  float* partial;            // [chunks, 2, m, n]; null for a single chunk
  float* out;                // [m, n] for each segment
  const int64_t* place;      // where in out the sum of a segment goes, or null: by its number
  bool add;                  // to what is there; or replace it

  __host__ __device__ int64_t size() const { return static_cast<int64_t>(m) * n; }
  __device__ int64_t Segment(int64_t term) const { return segment[term] - first_segment; }
  __device__ float* Out(int64_t segment) const { return out + (place == nullptr ? segment : place[segment]) * size(); }
};
enum Part { kCarried = 0, kBegun = 1 };

// depth: multiplications that a term takes for each element.
inline int64_t LeastChunk(int depth) {
  const int64_t least = kLeastWork / depth;
  return least < 1 ? 1 : least < kLongestLeast ? least : kLongestLeast;
}
inline int64_t ChunksFor(int64_t most_terms, int64_t size, int tiles, int64_t least) {
  int64_t chunks = (most_terms + least - 1) / least;
  const int64_t by_threads = Device().processors * kSumThreads / tiles,
                by_memory = kPartialBytes / (2 * size * int64_t{sizeof(float)});
  if (chunks > by_threads) chunks = by_threads;
  if (chunks > by_memory) chunks = by_memory;
  return chunks < 1 ? 1 : chunks;
}
inline int64_t PartialFloats(int64_t chunks, int64_t size) { return chunks > 1 ? chunks * 2 * size : 0; }

struct Chunks {
  int64_t terms, length;

  __device__ explicit Chunks(const Sum& s) : terms(*s.count), length((terms + s.chunks - 1) / s.chunks) {
    if (length < s.least) length = s.least;
  }
  __device__ int64_t begin(int64_t chunk) const { return chunk * length; }
  __device__ int64_t end(int64_t chunk) const {
    return (chunk + 1) * length < terms ? (chunk + 1) * length : terms;
  }
};

// Terms has a constant kRows, the rows of its tiles; kVector; Add(term, tile's row and column, sum).
template <typename Terms>
__device__ inline void SumChunksOf(const Terms& terms, const Sum& s) {
  const Chunks chunks(s);
  const int tiles_n = (s.n + 3) / 4;
  const int64_t threads = s.chunks * s.tiles;
  for (int64_t i = FirstIndex(); i < threads; i += IndexStride()) {
    const Quotient at = Divide(i, s.tiles);
    const int64_t chunk = at.quotient, begin = chunks.begin(chunk), end = chunks.end(chunk);
    const int row = at.remainder / tiles_n * Terms::kRows, column = at.remainder % tiles_n * 4;
    if (begin >= end) continue;
    int64_t segment = s.Segment(begin);
    bool carried = begin > 0 && s.Segment(begin - 1) == segment;
    float sum[Terms::kRows][4] = {};
    for (int64_t term = begin; term < end; ++term) {
      terms.Add(term, row, column, sum);
      const int64_t next = term + 1 < chunks.terms ? s.Segment(term + 1) : -1;
      if (next == segment && term + 1 < end) continue;
      if (carried || next == segment) {
        float* const partial = s.partial + (2 * chunk + (carried ? kCarried : kBegun)) * s.size();
        StoreTile<Terms::kVector>(sum, row, column, s.m, s.n, false, partial);
      } else {
        StoreTile<Terms::kVector>(sum, row, column, s.m, s.n, s.add, s.Out(segment));
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
// per element, which reads a few chunks at a time: for a popular id there are hundreds.
constexpr int kJoined = 8;
__device__ inline void JoinChunksOf(const Sum& s) {
  const Chunks chunks(s);
  const int64_t size = s.size(), threads = s.chunks * size;
  for (int64_t i = FirstIndex(); i < threads; i += IndexStride()) {
    const Quotient at = Divide(i, static_cast<int>(size));
    const int64_t chunk = at.quotient, begin = chunks.begin(chunk), end = chunks.end(chunk);
    const int element = at.remainder;
    if (begin >= end || end == chunks.terms) continue;
    const int64_t segment = s.Segment(end - 1);
    if (s.Segment(end) != segment) continue;  // not cut
    if (begin > 0 && s.Segment(begin - 1) == segment) continue;  // begun before: all of the chunk is its
    float sum = s.partial[(2 * chunk + kBegun) * size + element];
    for (int64_t c = chunk + 1;; c += kJoined) {
      bool goes_on[kJoined];
      float part[kJoined];
#pragma unroll
      for (int j = 0; j < kJoined; ++j) {
        goes_on[j] = chunks.begin(c + j) < chunks.terms && s.Segment(chunks.begin(c + j)) == segment;
      }
#pragma unroll
      for (int j = 0; j < kJoined; ++j) {
        part[j] = goes_on[j] ? s.partial[(2 * (c + j) + kCarried) * size + element] : 0.0f;
      }
#pragma unroll
      for (int j = 0; j < kJoined; ++j) {
        if (goes_on[j]) sum += part[j];
      }
      if (!goes_on[kJoined - 1]) break;
    }
    float* const to = s.Out(segment) + element;
    *to = s.add ? *to + sum : sum;
  }
}

// One sum, or two: the first is that of the grid's row 0.
template <typename Terms>
__global__ void __launch_bounds__(kThreads) SumChunks(Terms terms, Sum s) {
  SumChunksOf(terms, s);
}
template <typename First, typename Second>
__global__ void __launch_bounds__(kThreads) SumChunksOfTwo(First first, Sum s, Second second, Sum t) {
  if (blockIdx.y == 0) {
    SumChunksOf(first, s);
  } else {
    SumChunksOf(second, t);
  }
}
static __global__ void __launch_bounds__(kThreads) JoinChunks(Sum s, Sum t) {
  if (blockIdx.y == 0) {
    JoinChunksOf(s);
  } else {
    JoinChunksOf(t);
  }
}

// The sum of most_terms, the most that *count can be; partial [PartialFloats].
template <typename Terms>
Sum SumOf(const Terms&, int m, int n, int depth, const int64_t* count, int64_t most_terms, const int64_t* segment,
          int64_t first_segment, float* partial, float* out, const int64_t* place, bool add) {
  Sum s = {m, n, (m + Terms::kRows - 1) / Terms::kRows * ((n + 3) / 4), count, segment, first_segment, 0,
           LeastChunk(depth), partial, out, place, add};
  s.chunks = ChunksFor(most_terms, s.size(), s.tiles, s.least);
  return s;
}
template <int kRows>
int64_t SumPartialFloats(int m, int n, int depth, int64_t most_terms) {
  const int64_t size = static_cast<int64_t>(m) * n;
  const int tiles = (m + kRows - 1) / kRows * ((n + 3) / 4);
  return PartialFloats(ChunksFor(most_terms, size, tiles, LeastChunk(depth)), size);
}

inline dim3 GridForTwo(int64_t threads, int64_t other) { return dim3(GridFor(threads > other ? threads : other).x, 2); }

template <typename Terms>
const char* SumSegments(const Terms& terms, const Sum& s, void* stream) {
  const char* error = Launch(SumChunks<Terms>, GridFor(s.chunks * s.tiles), kThreads, 0, stream, terms, s);
  if (error != nullptr || s.chunks == 1) return error;
  return Launch(JoinChunks, GridFor(s.chunks * s.size()), kThreads, 0, stream, s, s);
}
template <typename First, typename Second>
const char* SumSegmentsOfTwo(const First& first, const Sum& s, const Second& second, const Sum& t, void* stream) {
  const char* error = Launch(SumChunksOfTwo<First, Second>, GridForTwo(s.chunks * s.tiles, t.chunks * t.tiles),
                             kThreads, 0, stream, first, s, second, t);
  if (error != nullptr || (s.chunks == 1 && t.chunks == 1)) return error;
  return Launch(JoinChunks, GridForTwo(s.chunks * s.size(), t.chunks * t.size()), kThreads, 0, stream, s, t);
}

}  // namespace tt
}  // namespace tfrec

#endif  // TFREC_TT_SUM_CUH_
