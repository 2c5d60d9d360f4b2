// A piece of scratch memory for each thread, from one allocation.
#ifndef TFREC_COMMON_WORKSPACES_H_
#define TFREC_COMMON_WORKSPACES_H_

#include <cstdint>

#include "op.h"
#include "planted_fault.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace tfrec {

// Each piece starts at a multiple of 64 bytes. Under AddressSanitizer there is a forbidden gap behind each, as one
// allocation would hide that a thread writes into its neighbour's piece.
class Workspaces {
 public:
  Workspaces() = default;
  Workspaces(const Workspaces&) = delete;
  Workspaces& operator=(const Workspaces&) = delete;
#if defined(__SANITIZE_ADDRESS__)
  ~Workspaces() {
    if (memory_ != nullptr) ASAN_UNPOISON_MEMORY_REGION(memory_, count_ * stride_);
  }
#endif

  Status Allocate(OpKernelContext* ctx, int64_t bytes, int count) {
    stride_ = (bytes + 63) / 64 * 64 + kGap;
    count_ = count;
    TF_RETURN_IF_ERROR(Scratch(ctx, count * stride_, &holder_, &memory_));
#if defined(__SANITIZE_ADDRESS__)
    for (int i = 0; i < count; ++i) ASAN_POISON_MEMORY_REGION(memory_ + i * stride_ + bytes, stride_ - bytes);
#endif
#ifdef TFREC_PLANTED_FAULTS
    if (PlantedFault("workspace")) static_cast<volatile char*>(memory_)[bytes] = 0;
#endif
    return absl::OkStatus();
  }

  void* Piece(int member) const { return memory_ + member * stride_; }
  float* Floats(int member) const { return static_cast<float*>(Piece(member)); }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int64_t kGap = 256;
#else
  static constexpr int64_t kGap = 0;
#endif
  Tensor holder_;
  char* memory_ = nullptr;
  int64_t stride_ = 0, count_ = 0;
};

}  // namespace tfrec

#endif  // TFREC_COMMON_WORKSPACES_H_
