// Lets the past of statistics fade: multiplies each array by the factor of its owner, in place, when it is due.
//
// Attribute: owners, for every array its element of the factors. Inputs: due (int32 scalar), factors (float32), then
// the arrays (float32). Output: a float32 that stands for its having run.

#include "../array_chunks.h"
#include "../item_batch.h"
#include "../operator.h"

namespace ms_kfac {
namespace {

struct FadingArray {
  float* values;
  int64_t size;
  int owner;

  int64_t blocks() const { return chunks(size); }
};

struct Fading {
  const int32_t* due;
  const float* factors;
};

__global__ void __launch_bounds__(kChunkThreads) decay(const __grid_constant__ ItemBatch<FadingArray, Fading> batch) {
  if (*batch.common.due == 0) return;
  unsigned chunk;
  const FadingArray& array = batch.items[batch.find(chunk)];
  const float factor = batch.common.factors[array.owner];
  if (factor == 1.0f) return;
  visit_chunk(chunk, array.size, aligned(array.values), [&](auto count, int64_t first) {
    auto pack = Pack<decltype(count)::value>::load(array.values + first);
#pragma unroll
    for (float& value : pack.values) value *= factor;
    pack.store(array.values + first);
  });
}

class DecayKernel {
 public:
  DecayKernel(AotExtra& extra, const Arguments&) : owners_(extra.GetAttrIntVec("owners")) {}

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const Array factors = arguments[1];
    if (arguments.count() != static_cast<int>(owners_.size()) + 3)
      throw std::invalid_argument("not one array for each owner");
    if (arguments[0].size() != 1) throw std::invalid_argument("due must be one number");
    std::vector<FadingArray> arrays;
    for (size_t index = 0; index < owners_.size(); ++index) {
      if (owners_[index] < 0 || owners_[index] >= factors.size()) throw std::out_of_range("an owner without a factor");
      const Array array = arguments[static_cast<int>(index) + 2];
      arrays.push_back({array.floats(), array.size(), static_cast<int>(owners_[index])});
    }
    launch_items(decay, arrays, Fading{arguments[0].integers(), factors.floats()}, kChunkThreads, call.stream);
  }

 private:
  std::vector<int64_t> owners_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(Decay, ms_kfac::DecayKernel)
