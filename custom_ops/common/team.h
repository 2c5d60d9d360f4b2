// TensorFlow's threads as a team of numbered members, with the time that each has computed.
#ifndef TFREC_COMMON_TEAM_H_
#define TFREC_COMMON_TEAM_H_

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/platform/threadpool.h"

namespace tfrec {

class Team {
 public:
  explicit Team(::tensorflow::OpKernelContext* ctx) {
    const auto* threads = ctx->device()->tensorflow_cpu_worker_threads();
    pool_ = threads->workers;
    size_ = std::max(1, threads->num_threads);
    seconds_.resize(size_, 0.0f);
  }
  int size() const { return size_; }
  const std::vector<float>& seconds() const { return seconds_; }

  // Runs work(member) once for each member, in parallel.
  template <typename Work>
  void Run(const Work& work) {
    const auto timed = [&](int64_t first, int64_t last) {
      for (int64_t member = first; member < last; ++member) {
        const double begin = ThreadSeconds();
        work(static_cast<int>(member));
        seconds_[member] += static_cast<float>(ThreadSeconds() - begin);
      }
    };
    if (size_ == 1) {
      timed(0, 1);
    } else {
      pool_->ParallelFor(size_, tsl::thread::ThreadPool::SchedulingParams::Fixed(1), timed);
    }
  }

 private:
  // Time this thread has spent computing: what is compared between members, free of what else the machine does.
  static double ThreadSeconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }

  tsl::thread::ThreadPool* pool_;
  int size_;
  std::vector<float> seconds_;
};

}  // namespace tfrec

#endif  // TFREC_COMMON_TEAM_H_
