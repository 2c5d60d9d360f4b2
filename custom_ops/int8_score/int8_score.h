// The contract of int8 scoring: logits of pairs of a user and an item from a quantized NeuMF, activations and sums as
// integers.
//
//   h_1 = clamp(round(user_term + item_term) + zero_point, low, high)                     float32 addition
//   h_k = clamp(round(float(h_{k-1} @ kernel + bias) * multiplier) + zero_point, low, high)     int32 sums
//   mlp = float(h_last @ final_kernel + final_bias) * final_scale
//   gmf = float(sum_g user_g * item_g * kernel_g) * ((user_scale * item_scale) * kernel_scale)
//   logit = (gmf + mlp) + bias
//
// Rounding is half to even, NaN counts as `low`, and the float steps are taken in this order without fused
// multiply-add: the result is the same to the last bit on every instruction set.
#ifndef TFREC_INT8_SCORE_H_
#define TFREC_INT8_SCORE_H_

#include <cstdint>

namespace tfrec {
namespace int8_score {

// Activations lie in [kLowest, kHighest]; zero points may lie further out.
constexpr int32_t kLowest = -128, kHighest = 255, kLargestZeroPoint = 16384;
// Up to here every sum fits 32 bits.
constexpr int64_t kMaxDepth = 4096, kMaxGmfWidth = 1024;

struct Bounds {
  int32_t zero_point, low, high;
};

struct Layer {
  int64_t depth, width;
  const int8_t* kernel;  // [depth, width]
  const int32_t* bias;   // [width]
  const float* multiplier;
  Bounds bounds;
};

struct Int8Score {
  int64_t candidates;         // pairs per user: pair n is of user_index[n / candidates] and item_index[n]
  const int32_t* user_index;  // [pairs / candidates]
  const int32_t* item_index;  // [pairs]

  int64_t width;            // of the first hidden layer; 0: no MLP
  const float* user_terms;  // [*, width]
  const float* item_terms;
  Bounds first;
  int64_t num_layers;
  const Layer* layers;
  const int8_t* final_kernel;  // as wide as the last layer
  int32_t final_bias;
  float final_scale;

  int64_t gmf_width;       // 0: no GMF
  const int8_t* gmf_user;  // [*, gmf_width]
  const int8_t* gmf_item;
  const float* gmf_user_scale;
  const float* gmf_item_scale;
  const int8_t* gmf_kernel;  // [gmf_width]
  float gmf_kernel_scale;

  float bias;
};

struct Kernels {
  // Bytes of the packed kernels, which all threads read, and of a thread's workspace.
  int64_t (*packed_bytes)(const Int8Score&);
  int64_t (*workspace_bytes)(const Int8Score&);
  void (*pack)(const Int8Score&, void* packed);
  // logits[n - first] of the pairs first <= n < last. `packed` and `workspace` start at a multiple of 64 bytes.
  void (*score)(const Int8Score&, const void* packed, int64_t first, int64_t last, float* logits, void* workspace);
  // A thread's share should be a multiple of this.
  int64_t pairs_together;
};

const Kernels* BaselineKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();  // also needs AVX-512BW

}  // namespace int8_score
}  // namespace tfrec

#endif  // TFREC_INT8_SCORE_H_
