// Fused update: a pass over the weights, gradients and slots of all cores. The formulas are those of tt_embedding.h.
#include "tt_cuda.h"
#include "tt_device.cuh"

namespace tfrec {
namespace tt {
namespace {

struct Cores {
  CoreUpdate core[kMaxCores];
};

template <Optimizer kOptimizer, typename T>
__global__ void __launch_bounds__(kThreads) Apply(Update u, Cores cores, int64_t count) {
  for (int64_t at = FirstIndex(); at < count; at += IndexStride()) {
    int k = 0;
    int64_t i = at;
    for (; i >= cores.core[k].count; ++k) i -= cores.core[k].count;
    T* const weights = static_cast<T*>(cores.core[k].weights);
    float* const slot_0 = cores.core[k].slots[0];
    float* const slot_1 = cores.core[k].slots[1];
    const float g = cores.core[k].gradient[i];
    float step;
    if constexpr (kOptimizer == Optimizer::kSgd) {
      step = u.rate * g;
    } else if constexpr (kOptimizer == Optimizer::kAdagrad) {
      const float a = slot_0[i] + g * g;
      slot_0[i] = a;
      step = u.rate * g / sqrtf(a + u.epsilon);
    } else {
      const float m = slot_0[i] + (g - slot_0[i]) * (1.0f - u.beta_1);
      const float v = slot_1[i] + (g * g - slot_1[i]) * (1.0f - u.beta_2);
      slot_0[i] = m;
      slot_1[i] = v;
      step = u.rate * m / (sqrtf(v) + u.epsilon);
    }
    FromFloat(ToFloat(weights[i]) - step, weights + i);
  }
}

}  // namespace

const char* UpdateCuda(const Update& update, Storage storage, int num_cores, const CoreUpdate* core, void* stream) {
  Cores cores = {};
  int64_t count = 0;
  for (int k = 0; k < num_cores; ++k) {
    cores.core[k] = core[k];
    count += core[k].count;
  }
  if (count == 0) return nullptr;
  return WithStorage(storage, [&](auto* type) -> const char* {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto launch = [&](auto* kernel) {
      return Launch(kernel, GridFor(count), kThreads, 0, stream, update, cores, count);
    };
    switch (update.optimizer) {
      case Optimizer::kSgd:
        return launch(Apply<Optimizer::kSgd, T>);
      case Optimizer::kAdagrad:
        return launch(Apply<Optimizer::kAdagrad, T>);
      case Optimizer::kAdam:
        return launch(Apply<Optimizer::kAdam, T>);
    }
    return "unknown optimizer";
  });
}

const char* CopyCuda(void* to, const void* from, size_t bytes, void* stream) {
  return ErrorMessage(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream)));
}

}  // namespace tt
}  // namespace tfrec
