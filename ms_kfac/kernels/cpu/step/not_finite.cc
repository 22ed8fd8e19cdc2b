#include "not_finite.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>

#include "../linalg/finite.h"
#include "../threads/threads.h"

namespace ms_kfac {
namespace {

constexpr int64_t kChunk = 1 << 15;

// Of numbers whose exponent and mantissa have these bits. NaN and infinity have all bits of the exponent.
template <typename Bits>
NotFiniteKind kind_of(const Array& array, Bits exponent, Bits mantissa, int64_t first, int64_t last) {
  const auto* numbers = static_cast<const Bits*>(array.data);
  NotFiniteKind kind = kFinite;
  for (int64_t i = first; i < last; ++i) {
    if ((numbers[i] & exponent) != exponent) continue;
    if ((numbers[i] & mantissa) != 0) return kNaN;
    kind = kInfinite;
  }
  return kind;
}

NotFiniteKind kind_of(const Array& array, int64_t first, int64_t last) {
  const auto is = [&](const char* type) { return std::strcmp(array.type, type) == 0; };
  if (is("float32")) return kind_of<uint32_t>(array, 0x7F800000, 0x007FFFFF, first, last);
  if (is("float16")) return kind_of<uint16_t>(array, 0x7C00, 0x03FF, first, last);
  if (is("bfloat16")) return kind_of<uint16_t>(array, 0x7F80, 0x007F, first, last);
  if (is("float64")) return kind_of<uint64_t>(array, 0x7FF0000000000000, 0x000FFFFFFFFFFFFF, first, last);
  throw std::invalid_argument(std::string("expected a floating-point type, got ") + array.type);
}

bool finite(const Array& array, int64_t first, int64_t last) {
  if (std::strcmp(array.type, "float32") == 0) return all_finite(array.floats() + first, last - first);
  return kind_of(array, first, last) == kFinite;
}

}  // namespace

bool all_finite(const std::vector<Array>& arrays) {
  struct Part {
    const Array* array;
    int64_t first, last;
  };
  std::vector<Part> parts;
  int64_t total = 0;
  for (const Array& array : arrays) {
    const int64_t size = array.size();
    for (int64_t first = 0; first < size; first += kChunk)
      parts.push_back({&array, first, std::min(first + kChunk, size)});
    total += size;
  }
  const auto of_part = [](const Part& part) { return finite(*part.array, part.first, part.last); };
  // Waking the threads costs more than reading a few numbers.
  if (total <= kChunk) return std::all_of(parts.begin(), parts.end(), of_part);
  std::atomic<bool> all{true};
  parallel_for(static_cast<int64_t>(parts.size()), [&](int64_t index) {
    if (!of_part(parts[index])) all = false;
  });
  return all;
}

NotFiniteKind not_finite(const Array& array) { return kind_of(array, 0, array.size()); }

}  // namespace ms_kfac
