// Lets the past of statistics fade: multiplies each array by the factor of its owner, in place, when it is due.
// Whether what waits for a flag may fade is decided on the device.

#include "../../interface/fading_arguments.h"
#include "../array_chunks.h"
#include "../item_batch.h"
#include "../operator.h"

namespace ms_kfac {
namespace {

struct FadingItem : FadingPart {
  int64_t blocks() const { return chunks(size); }
};

struct Fading {
  const int32_t* due;
  const float* factors;
};

__global__ void __launch_bounds__(kChunkThreads) decay(const __grid_constant__ ItemBatch<FadingItem, Fading> batch) {
  if (*batch.common.due == 0) return;
  unsigned chunk;
  const FadingItem& part = batch.items[batch.find(chunk)];
  const float factor = batch.common.factors[part.owner];
  if (factor == 1.0f || (part.flag != nullptr && !(*part.flag > 0.0f))) return;
  visit_chunk(chunk, part.size, aligned(part.values), [&](auto count, int64_t first) {
    auto pack = Pack<decltype(count)::value>::load(part.values + first);
#pragma unroll
    for (float& value : pack.values) value *= factor;
    pack.store(part.values + first);
  });
}

class DecayKernel {
 public:
  DecayKernel(AotExtra& extra, const Arguments&) : attributes_(extra) {}

  void run(const Call& call) const {
    std::vector<FadingItem> items;
    for (const FadingPart& part : fading_parts(call.arguments, attributes_)) items.push_back({part});
    const Fading common{call.arguments[0].integers(), call.arguments[1].floats()};
    launch_items(decay, items, common, kChunkThreads, call.stream);
  }

 private:
  FadingAttributes attributes_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(Decay, ms_kfac::DecayKernel)
