// The CPU search, for the instruction set that the including file is compiled for.
//
// A chunk of items is repacked into tiles of 16 columns that stay in the second cache while all queries pass; the
// scores of four queries and a chunk never leave the first cache: they are compared with each query's worst kept score,
// a vector at a time, and almost none gets further. So the cost is that of the matrix product.
#include "offer_impl.h"

namespace tfrec {
namespace TFREC_ISA {

// Floats of a packed chunk of items: half of a 512 KiB second cache.
constexpr int64_t kChunkFloats = 65536;

static inline int64_t RoundUpTo(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static inline int64_t ChunkItems(int64_t width) {
  const int64_t items = kChunkFloats / width / 16 * 16;
  return items < 16 ? 16 : items > 1024 ? 1024 : items;
}

static int64_t WorkspaceFloats(const DotTopK& t) {
  const int64_t stride = RoundUpTo(t.width, 16), chunk = ChunkItems(t.width);
  // packed items, scores and rows of kTileRows queries, eight items unpacked
  return chunk * stride + kTileRows * (chunk + stride) + 8 * stride + 64;
}

static void Search(const DotTopK& t, int64_t first_query, int64_t last_query, int64_t first_item, int64_t last_item,
                   bool packed, float* scores, int32_t* ids, float* workspace) {
  const int64_t stride = RoundUpTo(t.width, 16), chunk = ChunkItems(t.width);
  float *tiles = workspace, *products = tiles + chunk * stride, *queries = products + kTileRows * chunk,
        *rows = queries + kTileRows * stride;
  static const float zeros[kTileColumns] = {};
  memset(queries, 0, kTileRows * stride * sizeof(float));
  memset(rows, 0, 8 * stride * sizeof(float));
  for (int64_t begin = first_item; begin < last_item; begin += chunk) {
    const int64_t n = last_item - begin < chunk ? last_item - begin : chunk, padded = RoundUpTo(n, 16);
    // tiles: packed [padded / 16][width][16], otherwise [n][stride].
    for (int64_t i = 0; i < padded; ++i) {
      float* row = packed ? rows : tiles + i * stride;
      if (i < n) {
        LoadRow(t.items, t.half_storage, begin + i, t.width, row);
      } else {
        memset(row, 0, t.width * sizeof(float));
      }
      if (packed) {
        float* out = tiles + i / 16 * 16 * t.width + i % 16;
        for (int64_t d = 0; d < t.width; ++d) out[d * 16] = row[d];
      } else {
        for (int64_t d = t.width; d < stride; ++d) row[d] = 0.0f;
      }
    }
    for (int64_t q = first_query; q < last_query; q += kTileRows) {
      const int64_t together = last_query - q < kTileRows ? last_query - q : kTileRows;
      for (int64_t r = 0; r < together; ++r) {
        LoadRow(t.queries, t.half_storage, q + r, t.width, queries + r * stride);
      }
      if (packed) {
        for (int64_t j = 0; j < padded; j += 16) {
          Tile<kTileRows, false>(queries, stride, 1, tiles + j * t.width, 16, t.width, zeros, 0, products + j, chunk);
        }
      } else {
        for (int64_t r = 0; r < together; ++r) {
          for (int64_t j = 0; j < padded; j += 8) {
            Vec sum[8];
            for (int e = 0; e < 8; ++e) sum[e] = Fill(0.0f);
            for (int64_t d = 0; d < stride; d += kLanes) {
              const Vec v = Load(queries + r * stride + d);
              for (int e = 0; e < 8; ++e) sum[e] += v * Load(tiles + (j + e) * stride + d);
            }
            Sum8(sum, products + r * chunk + j);
          }
        }
      }
      for (int64_t r = 0; r < together; ++r) {
        float* line = products + r * chunk;
        Mask(t, q + r, begin, n, padded, line);
        const int64_t at = (q + r - first_query) * t.k;
        Offer(line, padded, begin, t.k, scores + at, ids + at);
      }
    }
  }
}

using top_k::kBlock;

static void Pack(const DotTopK& t, int64_t first, int64_t n, float* tiles, float* row) {
  for (int64_t i = 0; i < kBlock; ++i) {
    if (i < n) {
      LoadRow(t.items, t.half_storage, first + i, t.width, row);
    } else {
      memset(row, 0, t.width * sizeof(float));
    }
    float* out = tiles + i / 16 * 16 * t.width + i % 16;
    for (int64_t d = 0; d < t.width; ++d) out[d * 16] = row[d];
  }
}

static void Multiply(const DotTopK& t, int64_t first, int64_t n, int64_t n_columns, const float* tiles, float* rows,
                     float* block) {
  static const float zeros[kTileColumns] = {};
  for (int64_t i = 0; i < n; ++i) LoadRow(t.items, t.half_storage, first + i, t.width, rows + i * t.width);
  const int64_t whole = n / kTileRows * kTileRows;
  for (int64_t j = 0; j < n_columns; j += 16) {
    for (int64_t i = 0; i < whole; i += kTileRows) {
      Tile<kTileRows, false>(rows + i * t.width, t.width, 1, tiles + j * t.width, 16, t.width, zeros, 0,
                             block + i * kBlock + j, kBlock);
    }
    for (int64_t i = whole; i < n; ++i) {
      Tile<1, false>(rows + i * t.width, t.width, 1, tiles + j * t.width, 16, t.width, zeros, 0, block + i * kBlock + j,
                     kBlock);
    }
  }
}

static void OfferRows(const DotTopK& t, const float* block, int64_t n_rows, int64_t n_columns, int64_t first_column,
                      float* scores, int32_t* ids) {
  const int64_t whole = n_columns / kLanes * kLanes;
  for (int64_t r = 0; r < n_rows; ++r) {
    const float* line = block + r * kBlock;
    Offer(line, whole, first_column, t.k, scores + r * t.k, ids + r * t.k);
    for (int64_t c = whole; c < n_columns; ++c) {
      const int32_t id = static_cast<int32_t>(first_column + c);
      if (line[c] >= scores[r * t.k] && top_k::Below(scores[r * t.k], ids[r * t.k], line[c], id)) {
        top_k::Replace(scores + r * t.k, ids + r * t.k, t.k, line[c], id);
      }
    }
  }
}

static void OfferColumns(const DotTopK& t, const float* block, int64_t n_rows, int64_t n_columns, int64_t first_row,
                         float* scores, int32_t* ids, float* worst) {
  for (int64_t c = 0; c < kBlock; ++c) worst[c] = c < n_columns ? scores[c * t.k] : INFINITY;
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t c = 0; c < n_columns; c += kLanes) {
      unsigned better = AtLeast(Load(block + r * kBlock + c), Load(worst + c));
      for (; __builtin_expect(better != 0, 0); better &= better - 1) {
        const int64_t l = c + __builtin_ctz(better);
        const float score = block[r * kBlock + l];
        const int32_t id = static_cast<int32_t>(first_row + r);
        if (top_k::Below(scores[l * t.k], ids[l * t.k], score, id)) {
          top_k::Replace(scores + l * t.k, ids + l * t.k, t.k, score, id);
          worst[l] = scores[l * t.k];
        }
      }
    }
  }
}

static const top_k::Kernels kTopKKernels = {WorkspaceFloats, Search, Pack, Multiply, OfferRows, OfferColumns};

}  // namespace TFREC_ISA
}  // namespace tfrec
