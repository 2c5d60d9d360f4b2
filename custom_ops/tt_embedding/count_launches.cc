// What a forward, and a backward with Adam's step, put on their stream at FBTT-Embedding's headline shape (see
// check_gpu_times.cu): every kernel and memset with its grid and, from the compiler's report, its registers. Runs
// without a GPU, on cuda_counting.cc; nothing is computed. Built and run by count_launches.sh.
//
//   count_launches REPORT [ids]    REPORT: what nvcc --resource-usage has said
#include <cxxabi.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "../common/cuda_counting.h"
#include "tt_cuda.h"

namespace {

using namespace tfrec::tt;

// Of a kernel, by its mangled name: "48 registers, 40 bytes of stack, 0 of spills, 0 of static shared memory".
struct Resources {
  std::string registers = "?", stack = "?", spilled = "?", shared = "0";
};
std::map<std::string, Resources> ReadReport(const char* path) {
  std::map<std::string, Resources> all;
  std::ifstream report(path);
  std::string line, kernel;
  const auto before = [&](const char* what) {
    const size_t end = line.find(what);
    if (end == std::string::npos) return std::string();
    const size_t begin = line.find_last_of(" ,", end - 1);
    return line.substr(begin + 1, end - begin - 1);
  };
  const auto take = [&](const char* what, std::string* to) {
    const std::string number = before(what);
    if (!number.empty()) *to = number;
  };
  while (std::getline(report, line)) {
    const size_t quote = line.find("entry function '");
    if (quote != std::string::npos) {
      const size_t begin = quote + 16;
      kernel = line.substr(begin, line.find('\'', begin) - begin);
    } else if (!kernel.empty()) {
      Resources& r = all[kernel];
      take(" registers", &r.registers);
      take(" bytes stack frame", &r.stack);
      take(" bytes spill stores", &r.spilled);
      take(" bytes smem", &r.shared);
    }
  }
  return all;
}

// Without arguments and namespaces.
std::string Demangled(const std::string& name) {
  int status = 0;
  char* const text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  if (status != 0) return name;
  std::string all = text;
  free(text);
  for (const char* drop : {"(anonymous namespace)::", "tfrec::tt::", "tfrec::", "void ", "(Optimizer)"}) {
    for (size_t at; (at = all.find(drop)) != std::string::npos;) all.erase(at, std::string(drop).size());
  }
  if (all.find("cub::") != std::string::npos) {
    all = all.substr(0, all.find('<'));
    return "CUB " + all.substr(all.rfind("::") + 2);
  }
  return all.substr(0, all.find('(', 1));
}

void Print(const char* what, const std::map<std::string, Resources>& report) {
  size_t memsets = 0;
  for (const tfrec::CountedLaunch& l : tfrec::launches) memsets += l.threads == 0;
  printf("\n%s: %zu launches, %zu of them memsets\n", what, tfrec::launches.size(), memsets);
  printf("%6s %7s %8s %9s %5s %6s  %s\n", "blocks", "threads", "shared B", "registers", "stack", "spills", "kernel");
  for (const tfrec::CountedLaunch& l : tfrec::launches) {
    if (l.threads == 0) {
      printf("%6s %7s %8s %9s %5s %6s  %s of %zu bytes\n", "", "", "", "", "", "", l.name.c_str(), l.bytes);
      continue;
    }
    const auto found = report.find(l.name);
    const Resources r = found == report.end() ? Resources() : found->second;
    const size_t shared = l.shared_bytes + strtoul(r.shared.c_str(), nullptr, 10);
    printf("%6zu %7zu %8zu %9s %5s %6s  %s\n", l.blocks, l.threads, shared, r.registers.c_str(), r.stack.c_str(),
           r.spilled.c_str(), Demangled(l.name).c_str());
  }
  tfrec::launches.clear();
}

void Require(const char* error) {
  if (error == nullptr) return;
  printf("FAIL: %s\n", error);
  exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return printf("count_launches REPORT [ids]\n"), 2;
  const auto report = ReadReport(argv[1]);
  const int64_t n = argc > 2 ? atoll(argv[2]) : 512 * 20;
  Table t = {};
  t.num_cores = 3;
  t.num_tables = 1;
  t.num_rows = 11000000;
  t.storage = Storage::kFloat;
  const int p[] = {200, 220, 250}, r[] = {1, 32, 32, 1};
  for (int k = 0; k < 3; ++k) {
    t.p[k] = p[k];
    t.q[k] = 4;
    t.r[k] = r[k];
  }
  t.r[3] = 1;
  // Addresses that are never read.
  char* const memory = reinterpret_cast<char*>(uintptr_t{1} << 40);
  Backward b = {};
  b.lookup.table = t;
  b.lookup.n = n;
  b.lookup.ids = reinterpret_cast<const int64_t*>(memory);
  b.upstream = memory;
  for (int k = 0; k < 3; ++k) {
    b.lookup.cores[k] = memory;
    b.gradients[k] = reinterpret_cast<float*>(memory);
  }
  printf("%lld ids; as on a GPU with 132 multiprocessors and compute capability 9.0\n", static_cast<long long>(n));
  Require(ForwardCuda(b.lookup, memory, memory, nullptr));
  Print("forward", report);
  Require(BackwardCuda(b, memory, nullptr));
  const Update update = {Optimizer::kAdam, 1e-3f, 0.9f, 0.999f, 1e-7f};
  float* const slot = reinterpret_cast<float*>(memory);
  CoreUpdate updates[3];
  for (int k = 0; k < 3; ++k) updates[k] = {t.core(k), b.gradients[k], memory, {slot, slot}};
  Require(UpdateCuda(update, t.storage, 3, updates, nullptr));
  Print("backward and Adam's step", report);
  printf("\nscratch memory: %.1f MB forward, %.1f MB backward\n", ForwardCudaScratchBytes(b.lookup) * 1e-6,
         BackwardCudaScratchBytes(b.lookup) * 1e-6);
}
