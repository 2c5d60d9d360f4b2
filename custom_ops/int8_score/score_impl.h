// The CPU scores, for the instruction set that the including file is compiled for.
//
// A few pairs at a time go through all layers, so that their activations, held as int16, stay in the first cache.
// Kernels are packed into panels of kColumns columns, two rows interleaved (cpu_shorts.h); a panel stays there too while
// the pairs pass.
//
// Narrowing two vectors of sums to one of int16 leaves them in a mixed order (`ColumnAt`). They stay in it: the next
// layer's packed kernel has its rows in the same order.
#include "cpu_shorts.h"
#include "int8_score.h"

namespace tfrec {
namespace TFREC_ISA {

using int8_score::Bounds;
using int8_score::Int8Score;

constexpr int kColumns = kShortColumns, kRows = kShortRows;
// Pairs that pass the layers together: 12 KiB of activations where a layer has 256 units.
constexpr int kPairs = 24;

// clamp(round(v) + zero_point, low, high). Only `high` is compared before rounding: far below it, and for NaN, the
// conversion gives the least int32, which narrowing turns into the least int16, below any `low`.
struct Range {
  Vec high;
  Shorts zero_point, low;
};

static inline Range MakeRange(const Bounds& b) {
  return {Fill(static_cast<float>(b.high - b.zero_point)), FillShorts(static_cast<int16_t>(b.zero_point)),
          FillShorts(static_cast<int16_t>(b.low))};
}

static inline Shorts Quantize(Vec a, Vec b, const Range& range) {
  return Narrow(RoundBelow(range.high, a), RoundBelow(range.high, b), range.zero_point, range.low);
}

// ---- packed kernels

static inline int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The column that lies at `place` of a row of activations: within kColumns of them, each 128 bits of a narrowed vector
// hold four values of the first vector and four of the second.
static inline int64_t ColumnAt(int64_t place) {
  const int64_t p = place % kColumns;
  return place - p + p % 8 / 4 * kLanes + p / 8 * 4 + p % 4;
}

// A layer: int16 [panels][depth / 2][kColumns][2], int32 bias and float multiplier [columns], all padded with zeros.
// Then int16 final kernel, and int16 GMF kernel (in plain order).
static inline int64_t KernelBytes(int64_t depth, int64_t width) {
  return RoundUp(depth, kColumns) * RoundUp(width, kColumns) * 2;
}
static inline int64_t LayerBytes(int64_t depth, int64_t width) {
  return KernelBytes(depth, width) + RoundUp(width, kColumns) * 8;
}

static inline int64_t LastWidth(const Int8Score& t) {
  return t.num_layers > 0 ? t.layers[t.num_layers - 1].width : t.width;
}

static int64_t PackedBytes(const Int8Score& t) {
  int64_t bytes = RoundUp(LastWidth(t), kColumns) * 2 + RoundUp(t.gmf_width, kColumns) * 2;
  for (int64_t l = 0; l < t.num_layers; ++l) bytes += LayerBytes(t.layers[l].depth, t.layers[l].width);
  return bytes;
}

static void Pack(const Int8Score& t, void* packed) {
  memset(packed, 0, PackedBytes(t));
  char* at = static_cast<char*>(packed);
  for (int64_t l = 0; l < t.num_layers; ++l) {
    const auto& layer = t.layers[l];
    const int64_t depth = RoundUp(layer.depth, kColumns), width = RoundUp(layer.width, kColumns);
    int16_t* out = reinterpret_cast<int16_t*>(at);
    for (int64_t column = 0; column < width; column += kColumns) {
      const int64_t columns = layer.width - column < kColumns ? layer.width - column : kColumns;
      for (int64_t place = 0; place < depth; place += 2, out += 2 * kColumns) {
        // Two neighbours stay neighbours.
        const int64_t row = ColumnAt(place);
        const int8_t* from = layer.kernel + row * layer.width + column;
        if (row + 1 < layer.depth && columns == kColumns) {
          for (int c = 0; c < kColumns; ++c) {
            out[2 * c] = from[c];
            out[2 * c + 1] = from[c + layer.width];
          }
        } else {
          for (int64_t c = 0; row < layer.depth && c < columns; ++c) {
            out[2 * c] = from[c];
            if (row + 1 < layer.depth) out[2 * c + 1] = from[c + layer.width];
          }
        }
      }
    }
    at += KernelBytes(layer.depth, layer.width);
    memcpy(at, layer.bias, layer.width * 4);
    memcpy(at + width * 4, layer.multiplier, layer.width * 4);
    at += width * 8;
  }
  const int64_t last = LastWidth(t), padded = RoundUp(last, kColumns);
  int16_t* kernel = reinterpret_cast<int16_t*>(at);
  for (int64_t place = 0; place < padded; ++place) {
    if (ColumnAt(place) < last) kernel[place] = t.final_kernel[ColumnAt(place)];
  }
  kernel += padded;
  for (int64_t g = 0; g < t.gmf_width; ++g) kernel[g] = t.gmf_kernel[g];
}

// ---- scores

static int64_t WidestRow(const Int8Score& t) {
  int64_t widest = t.width;
  for (int64_t l = 0; l < t.num_layers; ++l) widest = t.layers[l].width > widest ? t.layers[l].width : widest;
  return RoundUp(widest, kColumns);
}

static int64_t WorkspaceBytes(const Int8Score& t) {
  // activations before and after a layer, user times kernel of GMF, GMF's logits
  return RoundUp(2 * kPairs * WidestRow(t) * 2 + RoundUp(t.gmf_width, kColumns) * 2 + kPairs * 4, 64);
}

// The first hidden layer's activations of one pair.
static inline void FirstLayer(const float* user, const float* item, int64_t width, const Range& range, int16_t* out) {
  int64_t i = 0;
  for (; i + kColumns <= width; i += kColumns) {
    StoreShorts(out + i, Quantize(Load(user + i) + Load(item + i), Load(user + i + kLanes) + Load(item + i + kLanes),
                                  range));
  }
  if (i < width) {
    float rest[kColumns] = {};
    for (int64_t c = 0; i + c < width; ++c) rest[c] = user[i + c] + item[i + c];
    StoreShorts(out + i, Quantize(Load(rest), Load(rest + kLanes), range));
  }
}

// kColumns outputs of a layer for kRows pairs. `depth` is padded.
static inline void LayerTile(const int16_t* in, int64_t in_row, const int16_t* kernel, int64_t depth,
                             const int32_t* bias, const float* multiplier, const Range& range, int16_t* out,
                             int64_t out_row) {
  Sums sum[kRows][2];
  for (int r = 0; r < kRows; ++r) {
    sum[r][0] = LoadSums(bias);
    sum[r][1] = LoadSums(bias + kLanes);
  }
  ShortTile(in, in_row, kernel, depth, sum);
  const Vec first = Load(multiplier), second = Load(multiplier + kLanes);
  for (int r = 0; r < kRows; ++r) {
    StoreShorts(out + r * out_row, Quantize(ToFloats(sum[r][0]) * first, ToFloats(sum[r][1]) * second, range));
  }
}

// sum_i a_i * b_i; n is a multiple of kColumns.
static inline int32_t Dot(const int16_t* a, const int16_t* b, int64_t n) {
  Sums sum = MultiplyPairs(LoadShorts(a), LoadShorts(b));
  for (int64_t i = kColumns; i < n; i += kColumns) sum = Add(sum, MultiplyPairs(LoadShorts(a + i), LoadShorts(b + i)));
  return Total(sum);
}

// The products of a user's GMF row with the kernel: two int8, so they fit.
static inline void UserTimesKernel(const int8_t* user, const int16_t* kernel, int64_t width, int16_t* out) {
  for (int64_t g = 0; g < width; ++g) out[g] = static_cast<int16_t>(user[g] * kernel[g]);
}

static inline int32_t GmfDot(const int16_t* user, const int8_t* item, int64_t width) {
  int32_t total = 0;
  int64_t g = 0;
  if (width >= kColumns) {
    Sums sum = MultiplyPairs(LoadShorts(user), WidenBytes(item));
    for (g = kColumns; g + kColumns <= width; g += kColumns) {
      sum = Add(sum, MultiplyPairs(LoadShorts(user + g), WidenBytes(item + g)));
    }
    total = Total(sum);
  }
  for (; g < width; ++g) total += user[g] * item[g];
  return total;
}

static void Score(const Int8Score& t, const void* packed, int64_t first, int64_t last, float* logits,
                  void* workspace) {
  const int64_t widest = WidestRow(t), gmf_padded = RoundUp(t.gmf_width, kColumns);
  memset(workspace, 0, WorkspaceBytes(t));  // rows behind the last pair, and padding, are computed with, never used
  int16_t *before = static_cast<int16_t*>(workspace), *after = before + kPairs * widest,
          *user_kernel = after + kPairs * widest;
  float* gmf = reinterpret_cast<float*>(user_kernel + gmf_padded);
  const char* kernels = static_cast<const char*>(packed);
  const char* behind = kernels;  // the layers
  for (int64_t l = 0; l < t.num_layers; ++l) behind += LayerBytes(t.layers[l].depth, t.layers[l].width);
  const int16_t* final_kernel = reinterpret_cast<const int16_t*>(behind);
  const int64_t last_padded = RoundUp(LastWidth(t), kColumns);
  const int16_t* gmf_kernel = final_kernel + last_padded;
  const Range first_range = MakeRange(t.first);
  int64_t at_user = -1;  // whose products user_kernel holds

  for (int64_t begin = first; begin < last; begin += kPairs) {
    const int count = static_cast<int>(last - begin < kPairs ? last - begin : kPairs);
    int64_t p = begin / t.candidates, c = begin % t.candidates;
    for (int r = 0; r < count; ++r) {
      const int64_t user = t.user_index[p], item = t.item_index[begin + r];
      if (t.width > 0) {
        FirstLayer(t.user_terms + user * t.width, t.item_terms + item * t.width, t.width, first_range,
                   before + r * widest);
      }
      if (t.gmf_width > 0) {
        if (user != at_user) {
          UserTimesKernel(t.gmf_user + user * t.gmf_width, gmf_kernel, t.gmf_width, user_kernel);
          at_user = user;
        }
        const float scale = (t.gmf_user_scale[user] * t.gmf_item_scale[item]) * t.gmf_kernel_scale;
        gmf[r] = static_cast<float>(GmfDot(user_kernel, t.gmf_item + item * t.gmf_width, t.gmf_width)) * scale;
      }
      if (++c == t.candidates) {
        c = 0;
        ++p;
      }
    }
    if (t.width == 0) {
      for (int r = 0; r < count; ++r) logits[begin - first + r] = gmf[r] + t.bias;
      continue;
    }
    const char* at = kernels;
    for (int64_t l = 0; l < t.num_layers; ++l) {
      const auto& layer = t.layers[l];
      const int64_t depth = RoundUp(layer.depth, kColumns), width = RoundUp(layer.width, kColumns);
      const int16_t* kernel = reinterpret_cast<const int16_t*>(at);
      const int32_t* bias = reinterpret_cast<const int32_t*>(at + KernelBytes(layer.depth, layer.width));
      const float* multiplier = reinterpret_cast<const float*>(bias + width);
      const Range range = MakeRange(layer.bounds);
      for (int64_t j = 0; j < width; j += kColumns) {
        for (int r = 0; r < count; r += kRows) {
          LayerTile(before + r * widest, widest, kernel + j * depth, depth, bias + j, multiplier + j, range,
                    after + r * widest + j, widest);
        }
      }
      int16_t* swap = before;
      before = after;
      after = swap;
      at += LayerBytes(layer.depth, layer.width);
    }
    for (int r = 0; r < count; ++r) {
      const int32_t sum = static_cast<int32_t>(static_cast<uint32_t>(Dot(before + r * widest, final_kernel, last_padded)) +
                                               static_cast<uint32_t>(t.final_bias));
      const float mlp = static_cast<float>(sum) * t.final_scale;
      logits[begin - first + r] = (t.gmf_width > 0 ? gmf[r] + mlp : mlp) + t.bias;
    }
  }
}

static const int8_score::Kernels kInt8ScoreKernels = {PackedBytes, WorkspaceBytes, Pack, Score, kRows};

}  // namespace TFREC_ISA
}  // namespace tfrec
