// A callback into Python: what in a step is NaN or infinite, and which inverses could not be computed.
#pragma once

#include <atomic>
#include <cstdint>

namespace ms_kfac {

// What holds NaN or infinity. An update counts only if its gradient is finite.
enum NotFiniteArray { kGradient = 0, kUpdate = 1, kWeight = 2 };
enum NotFiniteKind { kFinite = 0, kNaN = 1, kInfinite = 2 };

struct Finding {
  int64_t array;  // a NotFiniteArray
  int64_t parameter;
  int64_t kind;  // a NotFiniteKind
};

// A step ended with `count` findings, and was skipped if there are any. Or, with a failure: the inverses of a layer
// stay as they were, the text says why, and the step is unknown (-1).
using Reporter = void (*)(int64_t handle, int64_t step, int64_t count, const Finding* findings, const char* failure);

// The registered function. Null until Python registers one.
Reporter reporter();

// Whether a failure was reported since the last end of a step.
std::atomic<bool>& failure_reported();

}  // namespace ms_kfac

extern "C" void ms_kfac_set_reporter(ms_kfac::Reporter function);
