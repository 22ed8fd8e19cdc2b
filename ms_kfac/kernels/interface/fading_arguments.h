// The arrays that an operator lets fade: by whose factor, and what of them waits for a flag.
//
// Attributes, a number an array: owners, its element of the factors; flags, the flag that its first numbers wait for,
// -1 for none; leading, how many numbers those are.
// Inputs: due (int32 scalar), factors (float32), the arrays (float32), the flags (float32 scalars). Output: a float32
// that stands for its having run.
#pragma once

#include <algorithm>
#include <vector>

#include "aot_extra.h"
#include "arguments.h"

namespace ms_kfac {

struct FadingAttributes {
  explicit FadingAttributes(AotExtra& extra)
      : owners(extra.GetAttrIntVec("owners")),
        flags(extra.GetAttrIntVec("flags")),
        leading(extra.GetAttrIntVec("leading")) {}
  std::vector<int64_t> owners, flags, leading;
};

// Numbers that fade together.
struct FadingPart {
  float* values;
  int64_t size;
  // They fade only while it is above 0; null: always.
  const float* flag;
  int owner;
};

inline std::vector<FadingPart> fading_parts(const Arguments& arguments, const FadingAttributes& attributes) {
  const auto& [owners, flags, leading] = attributes;
  const int arrays = static_cast<int>(owners.size());
  if (arguments[0].size() != 1) throw std::invalid_argument("due must be one number");
  if (flags.size() != owners.size() || leading.size() != owners.size())
    throw std::invalid_argument("not a flag and a number of leading elements for each owner");
  int64_t used = 0;
  for (int64_t flag : flags) used = std::max(used, flag + 1);
  if (arguments.count() != arrays + used + 3)
    throw std::invalid_argument("not one array for each owner, and the flags");
  const int64_t factors = arguments[1].size();
  std::vector<FadingPart> parts;
  for (int index = 0; index < arrays; ++index) {
    if (owners[index] < 0 || owners[index] >= factors) throw std::out_of_range("an owner without a factor");
    const Array array = arguments[2 + index];
    float* values = array.floats();
    const int owner = static_cast<int>(owners[index]);
    const int64_t waiting = flags[index] < 0 ? 0 : leading[index], size = array.size();
    if (waiting < 0 || waiting > size) throw std::out_of_range("more leading elements than an array has");
    if (waiting > 0) {
      const Array flag = arguments[2 + arrays + static_cast<int>(flags[index])];
      if (flag.size() != 1) throw std::invalid_argument("a flag must be one number");
      parts.push_back({values, waiting, flag.floats(), owner});
    }
    if (waiting < size) parts.push_back({values + waiting, size - waiting, nullptr, owner});
  }
  return parts;
}

}  // namespace ms_kfac
