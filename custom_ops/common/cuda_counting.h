// What cuda_counting.cc has written down.
#ifndef TFREC_CUDA_COUNTING_H_
#define TFREC_CUDA_COUNTING_H_

#include <cstddef>
#include <string>
#include <vector>

namespace tfrec {

struct CountedLaunch {
  std::string name;  // mangled, of a kernel; or memset, memcpy
  size_t blocks, threads, shared_bytes;
  size_t bytes;  // of a memset or memcpy
};
extern std::vector<CountedLaunch> launches;

}  // namespace tfrec

#endif  // TFREC_CUDA_COUNTING_H_
