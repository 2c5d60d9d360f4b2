// What the TensorFlow ops share, on the CPU and on a GPU: an op that fails with a status, and how it reads its inputs.
//
// An exception ends the process, and so do checks inside TensorFlow: Tensor::scalar() of more than one element,
// Tensor::flat() of memory that is not aligned to 64 bytes (an array lent by NumPy need not be), a TensorShape of more
// than 2^63 elements. An op may be called with anything, so it reads its inputs with what is here.
#ifndef TFREC_COMMON_OP_H_
#define TFREC_COMMON_OP_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace tfrec {

using Status = ::absl::Status;
using ::tensorflow::OpKernelContext;
using ::tensorflow::Tensor;
using ::tensorflow::TensorShape;

class SafeOp : public ::tensorflow::OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* ctx) final {
    Status status;
    try {
      status = CheckAlignment(ctx);
      if (status.ok()) status = Run(ctx);
    } catch (const std::bad_alloc&) {
      status = NoMemory();
    } catch (const std::length_error&) {
      status = NoMemory();
    }
    OP_REQUIRES_OK(ctx, status);
  }

 protected:
  // On this thread alone may it allocate other than by the context: what is thrown on TensorFlow's threads is not caught.
  virtual Status Run(OpKernelContext* ctx) = 0;

 private:
  Status NoMemory() const { return absl::ResourceExhaustedError(absl::StrCat(name(), ": not enough memory.")); }

  // Every element at a multiple of its size, as compiled code takes for granted.
  static Status CheckAlignment(OpKernelContext* ctx) {
    for (int i = 0; i < ctx->num_inputs(); ++i) {
      const Tensor& tensor = ctx->input(i);
      const int size = tensorflow::DataTypeSize(tensor.dtype());  // 0 for resources
      if (size > 1 && reinterpret_cast<uintptr_t>(tensor.data()) % size != 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("input ", i, " must lie in memory at a multiple of ", size, " bytes, the size of its elements."));
      }
    }
    return absl::OkStatus();
  }
};

// The elements, which SafeOp has found aligned. Device memory on a GPU.
template <typename T>
const T* Elements(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data());
}

// Host memory.
template <typename T>
Status ReadScalar(const Tensor& tensor, const char* name, T* value) {
  if (tensor.dims() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", name, "` must be a scalar. Received shape: ", tensor.shape().DebugString()));
  }
  std::memcpy(value, tensor.data(), sizeof(T));
  return absl::OkStatus();
}

inline Status ReadNotNegative(const Tensor& tensor, const char* name, float* value) {
  TF_RETURN_IF_ERROR(ReadScalar(tensor, name, value));
  if (*value >= 0.0f && std::isfinite(*value)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("`", name, "` must be a finite number >= 0. Received: ", *value));
}

// The variable whose handle is an input; its tensor may be read and written under its mutex only.
inline Status ReadVariable(OpKernelContext* ctx, int input, const char* name,
                           ::tensorflow::core::RefCountPtr<::tensorflow::Var>* variable) {
  const Tensor& handle = ctx->input(input);
  if (handle.dims() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", name, "` must be a variable. Received handles of shape: ", handle.shape().DebugString()));
  }
  return ::tensorflow::LookupResource(ctx, handle.scalar<::tensorflow::ResourceHandle>()(), variable);
}

// `count` numbers of `T` that hold nothing yet, for as long as `holder` lives.
template <typename T>
Status Scratch(OpKernelContext* ctx, int64_t count, Tensor* holder, T** memory) {
  if (count > std::numeric_limits<int64_t>::max() / static_cast<int64_t>(sizeof(T))) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", count, " numbers."));
  }
  TF_RETURN_IF_ERROR(ctx->allocate_temp(tensorflow::DT_INT8, TensorShape({count * static_cast<int64_t>(sizeof(T))}),
                                        holder));
  *memory = static_cast<T*>(holder->data());
  return absl::OkStatus();
}

}  // namespace tfrec

#endif  // TFREC_COMMON_OP_H_
