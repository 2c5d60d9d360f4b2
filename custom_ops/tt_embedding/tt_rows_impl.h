// The CPU kernels, for the instruction set that the including file is compiled for.
//
// Nearly all work is in the second core: 4 x 32 by 32 x 128 per prefix at q = 4, r = 32. Ids come ordered by i_2, so the
// prefixes of a block share the slice G_2[i_2]: their G_1[i_1] are stacked into one matrix, and a block is one product
// with a slice that stays in the first cache. Behind the second core the product goes down a tree, one product L_k for
// all ids below it. The last core is narrow (q_T is about 4): its slices are kept transposed, and an output is a dot
// product along the rank.
//
// Backward goes the same way and computes L_2 again rather than keep it: no array grows with ids times rank.
#include <math.h>

#include "cpu_vector.h"
#include "tt_rows.h"

namespace tfrec {
namespace TFREC_ISA {

using tt::Backward;
using tt::Distinct;
using tt::kMaxCores;
using tt::Lookup;
using tt::Packed;
using tt::Storage;
using tt::Sums;
using tt::Table;

// A tile of kTtRows by kTtVectors vectors: half the registers hold sums.
#if TFREC_LANES == 16
constexpr int kTtRows = 8;
#else
constexpr int kTtRows = 4;
#endif
constexpr int kTtVectors = 2;

// Floats of L_2 in a block of prefixes: half of a first cache of 32 KiB, so that a block and its gradient share it.
constexpr int64_t kTtBlockFloats = 8192;

static inline int64_t RoundUpToLanes(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// ---- storage

static inline void LoadStored(const void* in, Storage storage, int64_t at, int64_t n, float* out) {
  if (storage == Storage::kFloat) {
    memcpy(out, static_cast<const float*>(in) + at, n * sizeof(float));
  } else if (storage == Storage::kHalf) {
    HalvesToFloats(static_cast<const uint16_t*>(in) + at, n, out);
  } else {
    const uint16_t* p = static_cast<const uint16_t*>(in) + at;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
      memcpy(out + i, &bits, 4);
    }
  }
}

static inline void StoreStored(const float* in, Storage storage, int64_t n, void* out, int64_t at) {
  if (storage == Storage::kFloat) {
    memcpy(static_cast<float*>(out) + at, in, n * sizeof(float));
  } else if (storage == Storage::kHalf) {
    FloatsToHalves(in, n, static_cast<uint16_t*>(out) + at);
  } else {
    uint16_t* p = static_cast<uint16_t*>(out) + at;
    for (int64_t i = 0; i < n; ++i) {
      uint32_t bits;
      memcpy(&bits, in + i, 4);
      // Nearest, ties to even; a NaN stays one.
      p[i] = (bits & 0x7fffffffu) > 0x7f800000u
                 ? static_cast<uint16_t>((bits >> 16) | 0x40u)
                 : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
  }
}

// ---- products

template <int Rows, int Vectors, bool Add>
static inline void ProductTile(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step,
                               int64_t depth, float* out, int64_t out_row) {
  Vec sum[Rows][Vectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) sum[r][v] = Add ? Load(out + r * out_row + v * kLanes) : Fill(0.0f);
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec right[Vectors];
    for (int v = 0; v < Vectors; ++v) right[v] = Load(b + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const Vec left = Fill(a[r * a_row]);
      for (int v = 0; v < Vectors; ++v) sum[r][v] += left * right[v];
    }
    a += a_step;
    b += b_step;
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) Store(out + r * out_row + v * kLanes, sum[r][v]);
  }
}

template <int Vectors, bool Add>
static inline void ProductColumns(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step,
                                  int64_t rows, int64_t depth, float* out, int64_t out_row) {
  int64_t r = 0;
  for (; r + kTtRows <= rows; r += kTtRows) {
    ProductTile<kTtRows, Vectors, Add>(a + r * a_row, a_row, a_step, b, b_step, depth, out + r * out_row, out_row);
  }
  if (kTtRows == 8 && r + 4 <= rows) {
    ProductTile<4, Vectors, Add>(a + r * a_row, a_row, a_step, b, b_step, depth, out + r * out_row, out_row);
    r += 4;
  }
  for (; r < rows; ++r) {
    ProductTile<1, Vectors, Add>(a + r * a_row, a_row, a_step, b, b_step, depth, out + r * out_row, out_row);
  }
}

// out [rows, columns] = or += a [rows, depth] b [depth, columns]; columns a multiple of kLanes. Element (i, k) of a is
// a[i a_row + k a_step].
template <bool Add>
static void Product(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step, int64_t rows,
                    int64_t depth, int64_t columns, float* out, int64_t out_row) {
  int64_t c = 0;
  for (; c + kTtVectors * kLanes <= columns; c += kTtVectors * kLanes) {
    ProductColumns<kTtVectors, Add>(a, a_row, a_step, b + c, b_step, rows, depth, out + c, out_row);
  }
  for (; c < columns; c += kLanes) {
    ProductColumns<1, Add>(a, a_row, a_step, b + c, b_step, rows, depth, out + c, out_row);
  }
}

// out [rows, columns] = a [rows, width] b', b [columns, width]; width a multiple of kLanes.
static void DotProducts(const float* a, int64_t rows, const float* b, int64_t columns, int64_t width, float* out) {
  Vec sum[8];
  if (columns % 4 == 0) {
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) {
      const float *a0 = a + r * width, *a1 = a0 + width;
      for (int64_t c = 0; c < columns; c += 4) {
        const float* right = b + c * width;
        for (int i = 0; i < 8; ++i) sum[i] = Fill(0.0f);
        for (int64_t k = 0; k < width; k += kLanes) {
          const Vec x = Load(a0 + k), y = Load(a1 + k);
          for (int j = 0; j < 4; ++j) {
            const Vec z = Load(right + j * width + k);
            sum[j] += x * z;
            sum[4 + j] += y * z;
          }
        }
        if (columns == 4) {
          Sum8(sum, out + r * 4);
        } else {
          float found[8];
          Sum8(sum, found);
          memcpy(out + r * columns + c, found, 16);
          memcpy(out + (r + 1) * columns + c, found + 4, 16);
        }
      }
    }
    if (r == rows) return;
    a += r * width;
    out += r * columns;
    rows -= r;
  }
  const int64_t total = rows * columns;
  for (int64_t first = 0; first < total; first += 8) {
    const float *left[8], *right[8];
    for (int i = 0; i < 8; ++i) {
      const int64_t o = first + i < total ? first + i : total - 1;
      left[i] = a + o / columns * width;
      right[i] = b + o % columns * width;
      sum[i] = Fill(0.0f);
    }
    for (int64_t k = 0; k < width; k += kLanes) {
      for (int i = 0; i < 8; ++i) sum[i] += Load(left[i] + k) * Load(right[i] + k);
    }
    float found[8];
    Sum8(sum, found);
    memcpy(out + first, found, (total - first < 8 ? total - first : 8) * sizeof(float));
  }
}

// ---- packing

static void Padding(const Table& t, Packed* packed) {
  packed->padded[0] = packed->padded[t.num_cores] = 1;
  for (int k = 1; k < t.num_cores; ++k) packed->padded[k] = RoundUpToLanes(t.r[k]);
}

static int64_t PackedFloats(const Table& t, const Packed& p, int k) { return t.r[k] * t.q[k] * p.padded[k + 1]; }

static int64_t TransposedFloats(const Table& t, const Packed& p, int k) {
  return t.q[k] * p.padded[k + 1] * p.padded[k];
}

// Sums of the first core are [q_1, R_1], of middle ones [r_{k-1}, q_k R_k], of the last one transposed, [q_T, R_{T-1}].
static int64_t SumFloats(const Table& t, const Packed& p, int k) {
  return k + 1 == t.num_cores ? t.q[k] * p.padded[k] : PackedFloats(t, p, k);
}

// out [r_{k-1}, q_k R_k] = the slice, zeros in the padding. `row` has room for q_k r_k floats; none if nothing is padded.
static void PackSlice(const Lookup& l, const Packed& p, int k, int64_t slice, float* out) {
  const Table& t = l.table;
  const int64_t r = t.r[k + 1], padded = p.padded[k + 1], lines = static_cast<int64_t>(t.r[k]) * t.q[k];
  if (r == padded) {
    LoadStored(l.cores[k], t.storage, slice * t.slice(k), t.slice(k), out);
    return;
  }
  for (int64_t i = 0; i < lines; ++i) {
    LoadStored(l.cores[k], t.storage, slice * t.slice(k) + i * r, r, out + i * padded);
    for (int64_t j = r; j < padded; ++j) out[i * padded + j] = 0.0f;
  }
}

// out [columns, padded_rows] = in' of in [rows, columns], zeros in the padding.
static void Transpose(const float* in, int64_t rows, int64_t columns, int64_t padded_rows, float* out) {
  for (int64_t c = 0; c < columns; c += 16) {
    const int64_t end = c + 16 < columns ? c + 16 : columns;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = c; j < end; ++j) out[j * padded_rows + r] = in[r * columns + j];
    }
    for (int64_t j = c; j < end; ++j) {
      for (int64_t r = rows; r < padded_rows; ++r) out[j * padded_rows + r] = 0.0f;
    }
  }
}

static void Pack(const Lookup& l, const Packed& p, int k, int64_t slice, bool backward) {
  const Table& t = l.table;
  if (k + 1 == t.num_cores) {
    // [r, q] -> [q, R]
    float* out = p.transposed[k] + slice * TransposedFloats(t, p, k);
    float line[64];
    const int64_t r = t.r[k], q = t.q[k], padded = p.padded[k];
    for (int64_t i = 0; i < padded; ++i) {
      for (int64_t first = 0; first < q; first += 64) {
        const int64_t n = q - first < 64 ? q - first : 64;
        if (i < r) {
          LoadStored(l.cores[k], t.storage, slice * t.slice(k) + i * q + first, n, line);
        } else {
          memset(line, 0, n * sizeof(float));
        }
        for (int64_t j = 0; j < n; ++j) out[(first + j) * padded + i] = line[j];
      }
    }
    return;
  }
  float* out = p.slices[k] + slice * PackedFloats(t, p, k);
  PackSlice(l, p, k, slice, out);
  if (backward) {
    Transpose(out, t.r[k], t.q[k] * p.padded[k + 1], p.padded[k], p.transposed[k] + slice * TransposedFloats(t, p, k));
  }
}

// ---- one thread's walk over distinct ids

static inline int64_t PrefixWidth(const Table& t, int cores) {  // Q_k
  int64_t q = 1;
  for (int k = 0; k < cores; ++k) q *= t.q[k];
  return q;
}

static inline int64_t BlockPrefixes(const Table& t, const Packed& p) {
  const int64_t n = kTtBlockFloats / (static_cast<int64_t>(t.q[0]) * t.q[1] * p.padded[2]);
  return n < 1 ? 1 : n > 64 ? 64 : n;
}

struct Walk {
  const Lookup* lookup;
  const Backward* backward;  // null: forward
  const Distinct* distinct;
  const Packed* packed;
  const Sums* sums;
  void* rows;
  float* row;                    // [D]: a row, or the sum of its upstream
  float* product[kMaxCores + 1];  // L_k for k > 2, of the prefix that the walk is in
  float* upstream[kMaxCores + 1];  // its gradient
};

static int64_t WorkspaceFloats(const Table& t, const Packed& p) {
  int64_t floats = RoundUpToLanes(t.width()) + 64;
  if (t.num_cores == 2) {
    floats += 2 * t.q[0] * p.padded[1];
  } else {
    const int64_t m = BlockPrefixes(t, p), wide = t.q[1] * p.padded[2];
    // stacked G_1 and its gradient, L_2 and its gradient, the slice of the second core, transposed, and its gradient
    floats += m * t.q[0] * (t.r[1] + p.padded[1]) + 2 * m * t.q[0] * wide + wide * (2 * t.r[1] + p.padded[1]);
    for (int k = 3; k < t.num_cores; ++k) floats += 2 * PrefixWidth(t, k) * p.padded[k];
  }
  return RoundUpToLanes(floats) + 16 * kLanes;
}

// The upstream of id u: the sum over its positions.
static const float* UpstreamOf(const Walk& w, int64_t u) {
  const Table& t = w.lookup->table;
  const int64_t d = t.width(), first = w.distinct->starts[u], last = w.distinct->starts[u + 1];
  const void* upstream = w.backward->upstream;
  if (t.storage == Storage::kFloat) {
    const float* p = static_cast<const float*>(upstream);
    if (last - first == 1) return p + w.distinct->order[first] * d;
    memcpy(w.row, p + w.distinct->order[first] * d, d * sizeof(float));
    for (int64_t i = first + 1; i < last; ++i) {
      const float* other = p + w.distinct->order[i] * d;
      for (int64_t j = 0; j < d; ++j) w.row[j] += other[j];
    }
    return w.row;
  }
  LoadStored(upstream, t.storage, w.distinct->order[first] * d, d, w.row);
  float other[64];
  for (int64_t i = first + 1; i < last; ++i) {
    for (int64_t from = 0; from < d; from += 64) {
      const int64_t n = d - from < 64 ? d - from : 64;
      LoadStored(upstream, t.storage, w.distinct->order[i] * d + from, n, other);
      for (int64_t j = 0; j < n; ++j) w.row[from + j] += other[j];
    }
  }
  return w.row;
}

static void WriteRow(const Walk& w, int64_t u) {
  const int64_t d = w.lookup->table.width();
  for (int64_t i = w.distinct->starts[u]; i < w.distinct->starts[u + 1]; ++i) {
    StoreStored(w.row, w.lookup->table.storage, d, w.rows, w.distinct->order[i] * d);
  }
}

// Ids [begin, end) have the prefix of `cores` cores in common, of product [Q, R]; `gradient` is added to. Not inlined into
// itself: the compiler does not know where the recursion ends.
__attribute__((noinline, noclone)) static void Descend(const Walk& w, int cores, const float* product, float* gradient, int64_t begin, int64_t end) {
  const Table& t = w.lookup->table;
  const Packed& p = *w.packed;
  const int64_t q = PrefixWidth(t, cores), width = p.padded[cores], count = t.num_cores;
  const int64_t* slices = w.distinct->slices;
  if (cores + 1 == count) {
    const int64_t last = t.q[cores], floats = TransposedFloats(t, p, cores);
    for (int64_t u = begin; u < end; ++u) {
      const int64_t slice = slices[u * count + cores];
      const float* right = p.transposed[cores] + slice * floats;
      if (w.backward == nullptr) {
        if (u + 1 < end) __builtin_prefetch(p.transposed[cores] + slices[(u + 1) * count + cores] * floats);
        DotProducts(product, q, right, last, width, w.row);
        WriteRow(w, u);
      } else {
        const float* upstream = UpstreamOf(w, u);
        Product<true>(upstream, last, 1, right, width, q, last, width, gradient, width);
        Product<true>(upstream, 1, last, product, width, last, q, width, w.sums->cores[cores] + slice * last * width,
                      width);
      }
    }
    return;
  }
  const int64_t wide = t.q[cores] * p.padded[cores + 1], r = t.r[cores];
  float *next = w.product[cores + 1], *back = w.upstream[cores + 1];
  for (int64_t u = begin, to; u < end; u = to) {
    const int64_t slice = slices[u * count + cores];
    for (to = u + 1; to < end && slices[to * count + cores] == slice;) ++to;
    const int64_t floats = PackedFloats(t, p, cores);
    Product<false>(product, width, 1, p.slices[cores] + slice * floats, wide, q, r, wide, next, wide);
    if (w.backward == nullptr) {
      Descend(w, cores + 1, next, nullptr, u, to);
      continue;
    }
    memset(back, 0, q * wide * sizeof(float));
    Descend(w, cores + 1, next, back, u, to);
    Product<true>(product, 1, width, back, wide, r, q, wide, w.sums->cores[cores] + slice * floats, wide);
    Product<true>(back, wide, 1, p.transposed[cores] + slice * TransposedFloats(t, p, cores), width, q, wide, width,
                  gradient, width);
  }
}

static inline void AddTo(float* sum, const float* more, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += more[i];
}

// Two cores: the prefix is the first core's slice.
static void WalkTwoCores(const Walk& w, int64_t begin, int64_t end, float* memory) {
  const Table& t = w.lookup->table;
  const int64_t floats = t.q[0] * w.packed->padded[1];
  float *product = memory, *gradient = memory + floats;
  for (int64_t u = begin, to; u < end; u = to) {
    const int64_t slice = w.distinct->slices[u * 2];
    for (to = u + 1; to < end && w.distinct->slices[to * 2] == slice;) ++to;
    PackSlice(*w.lookup, *w.packed, 0, slice, product);
    if (w.backward != nullptr) memset(gradient, 0, floats * sizeof(float));
    Descend(w, 1, product, gradient, u, to);
    if (w.backward != nullptr) AddTo(w.sums->cores[0] + slice * floats, gradient, floats);
  }
}

// gradients of the second core, [r_1, q_2 r_2], from [r_1, q_2 R_2].
static void StoreSlice(const Table& t, const Packed& p, int k, const float* in, float* out) {
  const int64_t lines = static_cast<int64_t>(t.r[k]) * t.q[k];
  for (int64_t i = 0; i < lines; ++i) memcpy(out + i * t.r[k + 1], in + i * p.padded[k + 1], t.r[k + 1] * sizeof(float));
}

static void WalkCores(const Walk& w, int64_t begin, int64_t end, float* memory) {
  const Table& t = w.lookup->table;
  const Packed& p = *w.packed;
  const int64_t count = t.num_cores, q = t.q[0], r = t.r[1], wide = t.q[1] * p.padded[2], most = BlockPrefixes(t, p);
  const int64_t back_width = p.padded[1], of_prefix = q * wide, *slices = w.distinct->slices;
  const bool in_place = t.storage == Storage::kFloat && t.r[2] == p.padded[2];
  float *product = memory, *gradient = product + most * of_prefix, *slice_memory = gradient + most * of_prefix,
        *transposed = slice_memory + r * wide, *slice_gradient = transposed + wide * back_width,
        *stacked = slice_gradient + r * wide, *stacked_gradient = stacked + most * q * r;
  const float* matrix = nullptr;
  int64_t firsts[65];  // where the ids of each prefix in the block begin
  bool first_slice = true;
  for (int64_t u = begin; u < end;) {
    const int64_t second = slices[u * count + 1];
    int64_t group_end = u + 1;
    while (group_end < end && slices[group_end * count + 1] == second) ++group_end;
    if (in_place) {
      matrix = static_cast<const float*>(w.lookup->cores[1]) + second * t.slice(1);
    } else {
      PackSlice(*w.lookup, p, 1, second, slice_memory);
      matrix = slice_memory;
    }
    if (w.backward != nullptr) {
      Transpose(matrix, r, wide, back_width, transposed);
      memset(slice_gradient, 0, r * wide * sizeof(float));
    }
    while (u < group_end) {
      int64_t prefixes = 0;
      for (; u < group_end; ++u) {
        if (prefixes > 0 && slices[u * count] == slices[(u - 1) * count]) continue;
        if (prefixes == most) break;
        LoadStored(w.lookup->cores[0], t.storage, slices[u * count] * q * r, q * r, stacked + prefixes * q * r);
        firsts[prefixes++] = u;
      }
      firsts[prefixes] = u;
      const int64_t lines = prefixes * q;
      Product<false>(stacked, r, 1, matrix, wide, lines, r, wide, product, wide);
      if (w.backward == nullptr) {
        for (int64_t i = 0; i < prefixes; ++i) {
          Descend(w, 2, product + i * of_prefix, nullptr, firsts[i], firsts[i + 1]);
        }
        continue;
      }
      memset(gradient, 0, prefixes * of_prefix * sizeof(float));
      for (int64_t i = 0; i < prefixes; ++i) {
        Descend(w, 2, product + i * of_prefix, gradient + i * of_prefix, firsts[i], firsts[i + 1]);
      }
      Product<true>(stacked, 1, r, gradient, wide, r, lines, wide, slice_gradient, wide);
      Product<false>(gradient, wide, 1, transposed, back_width, lines, wide, back_width, stacked_gradient, back_width);
      for (int64_t i = 0; i < prefixes; ++i) {
        AddTo(w.sums->cores[0] + slices[firsts[i] * count] * q * back_width, stacked_gradient + i * q * back_width,
              q * back_width);
      }
    }
    if (w.backward != nullptr) {
      const bool shared = first_slice && w.sums->shared != nullptr;
      StoreSlice(t, p, 1, slice_gradient, shared ? w.sums->shared : w.sums->second + second * t.slice(1));
    }
    first_slice = false;
  }
}

static void Run(Walk* w, int64_t begin, int64_t end, float* workspace) {
  const Table& t = w->lookup->table;
  w->row = workspace;
  float* memory = workspace + RoundUpToLanes(t.width()) + 64;
  if (t.num_cores == 2) {
    WalkTwoCores(*w, begin, end, memory);
    return;
  }
  for (int k = 3; k < t.num_cores; ++k) {
    const int64_t floats = PrefixWidth(t, k) * w->packed->padded[k];
    w->product[k] = memory;
    w->upstream[k] = memory + floats;
    memory += 2 * floats;
  }
  WalkCores(*w, begin, end, memory);
}

static void Forward(const Lookup& l, const Distinct& distinct, const Packed& packed, int64_t begin, int64_t end,
                    void* rows, float* workspace) {
  Walk w = {&l, nullptr, &distinct, &packed, nullptr, rows, nullptr, {}, {}};
  Run(&w, begin, end, workspace);
}

static void Backwards(const Backward& b, const Distinct& distinct, const Packed& packed, int64_t begin, int64_t end,
                      const Sums& sums, float* workspace) {
  Walk w = {&b.lookup, &b, &distinct, &packed, &sums, nullptr, nullptr, {}, {}};
  Run(&w, begin, end, workspace);
}

static void Reduce(const Table& t, const Packed& p, int k, int64_t slice, const Sums* sums, int threads,
                   float* gradient) {
  const int64_t floats = SumFloats(t, p, k), r = t.r[k + 1];
  const bool last = k + 1 == t.num_cores;
  // Lines of the sums, and where their elements go.
  const int64_t lines = last ? t.q[k] : static_cast<int64_t>(t.r[k]) * t.q[k], width = floats / lines,
                used = last ? t.r[k] : r;
  float* out = gradient + slice * t.slice(k);
  for (int64_t i = 0; i < lines; ++i) {
    for (int64_t j = 0; j < used; ++j) {
      float sum = sums[0].cores[k][slice * floats + i * width + j];
      for (int thread = 1; thread < threads; ++thread) sum += sums[thread].cores[k][slice * floats + i * width + j];
      out[last ? j * lines + i : i * r + j] = sum;
    }
  }
}

static void UpdateCore(const tt::Update& update, Storage storage, const float* gradient, void* weights, float* slot_0,
                       float* slot_1, int64_t begin, int64_t end) {
  float buffer[256];
  for (int64_t from = begin; from < end; from += 256) {
    const int64_t n = end - from < 256 ? end - from : 256;
    const float* g = gradient + from;
    float *w = buffer, *a = slot_0 == nullptr ? nullptr : slot_0 + from, *b = slot_1 == nullptr ? nullptr : slot_1 + from;
    if (storage == Storage::kFloat) {
      w = static_cast<float*>(weights) + from;
    } else {
      LoadStored(weights, storage, from, n, w);
    }
    if (update.optimizer == tt::Optimizer::kSgd) {
      for (int64_t i = 0; i < n; ++i) w[i] -= update.rate * g[i];
    } else if (update.optimizer == tt::Optimizer::kAdagrad) {
      for (int64_t i = 0; i < n; ++i) {
        a[i] += g[i] * g[i];
        w[i] -= update.rate * g[i] / sqrtf(a[i] + update.epsilon);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) {
        a[i] += (g[i] - a[i]) * (1.0f - update.beta_1);
        b[i] += (g[i] * g[i] - b[i]) * (1.0f - update.beta_2);
        w[i] -= update.rate * a[i] / (sqrtf(b[i]) + update.epsilon);
      }
    }
    if (storage != Storage::kFloat) StoreStored(w, storage, n, weights, from);
  }
}

static const tt::RowKernels kTtRowKernels = {
    TFREC_ISA_NAME, Padding, PackedFloats, TransposedFloats, SumFloats, Pack, WorkspaceFloats, Forward, Backwards,
    Reduce,         UpdateCore};

}  // namespace TFREC_ISA
}  // namespace tfrec
