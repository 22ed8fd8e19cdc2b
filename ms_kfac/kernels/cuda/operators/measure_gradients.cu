// The measurements that the capture check compares with the statistics' passes: r^T dW s and r^T W s, with the signs r
// and s of signs.h, and |dW|, per layer. Zeros where nothing is due.
//
// A block sums one chunk: each thread accumulates in float32, and everything after that is float64. The last block of a
// layer sums the chunks in a fixed order.

#include "../../interface/measured_arguments.h"
#include "../../interface/signs.h"
#include "../operator.h"
#include "../scheduling/array_chunks.h"
#include "../scheduling/counter_memory.h"
#include "../scheduling/counters.h"
#include "../scheduling/item_batch.h"
#include "../tile/block_sum.h"
#include "../tile/divisor.h"

namespace ms_kfac {
namespace {

constexpr int kMeasured = kMeasuredNumbers;

// The gradient and the value of a parameter.
struct Parameter {
  const float *gradient, *value;
  int64_t size;

  __host__ __device__ int64_t blocks() const { return chunks(size); }
};

struct MeasuredLayer {
  Parameter weight, bias;
  Divisor by_taps, by_columns;
  float* result;
  int64_t first_partial;
  int arrivals;

  __host__ __device__ int64_t blocks() const { return weight.blocks() + bias.blocks(); }
};

struct Measuring {
  const int32_t* due;
  double* partials;    // kMeasured per block
  unsigned* arrivals;  // one per layer
};

// Adds a chunk of a parameter to a thread's sums. sign_at(index) returns the sign of an element.
template <typename SignAt>
__device__ void measure(const Parameter& of, unsigned chunk, const SignAt& sign_at, float (&sums)[kMeasured]) {
  visit_chunk(chunk, of.size, aligned(of.gradient, of.value), [&](auto count, int64_t first) {
    using Numbers = Pack<decltype(count)::value>;
    const Numbers gradient = Numbers::load(of.gradient + first), value = Numbers::load(of.value + first);
#pragma unroll
    for (int i = 0; i < decltype(count)::value; ++i) {
      const float of_element = sign_at(static_cast<unsigned>(first + i));
      sums[0] = fmaf(of_element, gradient.values[i], sums[0]);
      sums[1] = fmaf(of_element, value.values[i], sums[1]);
      sums[2] = fmaf(gradient.values[i], gradient.values[i], sums[2]);
    }
  });
}

__global__ void __launch_bounds__(kChunkThreads)
    measure_gradients(const __grid_constant__ ItemBatch<MeasuredLayer, Measuring> batch) {
  unsigned block;
  const MeasuredLayer& of = batch.items[batch.find(block)];
  if (*batch.common.due == 0) {
    if (block == 0 && threadIdx.x < kMeasured) of.result[threadIdx.x] = 0.0f;
    return;
  }
  float sums[kMeasured] = {0.0f, 0.0f, 0.0f};
  const unsigned of_weight = static_cast<unsigned>(of.weight.blocks());
  if (block < of_weight) {
    measure(
        of.weight, block,
        [&](unsigned index) {
          const unsigned line = of.by_taps.quotient(index), row = of.by_columns.quotient(line);
          return sign(kRows, row) * sign(kColumns, line - row * of.by_columns.divisor) *
                 sign(kTaps, index - line * of.by_taps.divisor);
        },
        sums);
  } else {
    measure(of.bias, block - of_weight, [](unsigned index) { return sign(kRows, index); }, sums);
  }
  double* partials = batch.common.partials + of.first_partial * kMeasured;
  for (int i = 0; i < kMeasured; ++i) {
    const double sum = block_sum<kChunkThreads>(static_cast<double>(sums[i]));
    if (threadIdx.x == 0) partials[block * kMeasured + i] = sum;
  }
  unsigned* arrivals = batch.common.arrivals + of.arrivals;
  const unsigned blocks = static_cast<unsigned>(of.blocks());
  if (count_block(arrivals) + 1 != blocks) return;
  double totals[kMeasured];
  for (int i = 0; i < kMeasured; ++i) {
    double share = 0;
    for (unsigned part = threadIdx.x; part < blocks; part += kChunkThreads)
      share += __ldcg(partials + part * kMeasured + i);
    totals[i] = block_sum<kChunkThreads>(share);
  }
  if (threadIdx.x > 0) return;
  *arrivals = 0;
  of.result[0] = static_cast<float>(totals[0]);
  of.result[1] = static_cast<float>(totals[1]);
  of.result[2] = static_cast<float>(sqrt(totals[2]));
}

class MeasureGradientsKernel {
 public:
  MeasureGradientsKernel(AotExtra& extra, const Arguments& shapes) : measured_(extra), arrivals_(measured_.layers()) {
    const std::vector<MeasuredLayer> layers = layers_of(shapes);
    blocks_ = blocks_of(layers);
    partials_ = add_workspace(extra, blocks_ * kMeasured * sizeof(double));
  }

  void run(const Call& call) const {
    const Arguments& arguments = call.arguments;
    const Array output = measured_.output(arguments);
    std::vector<MeasuredLayer> layers = layers_of(arguments);
    if (blocks_of(layers) != blocks_)
      throw std::invalid_argument("shapes must be those that the kernel was created with");
    for (size_t index = 0; index < layers.size(); ++index) layers[index].result = output.floats() + index * kMeasured;
    const Measuring common{arguments[0].integers(), call.workspace<double>(partials_), arrivals_.device()};
    launch_items(measure_gradients, layers, common, kChunkThreads, call.stream);
  }

 private:
  std::vector<MeasuredLayer> layers_of(const Arguments& arguments) const {
    std::vector<MeasuredLayer> layers;
    int next = 0;
    int64_t blocks = 0;
    for (int64_t index = 0; index < measured_.layers(); ++index) {
      const bool bias = measured_.biased(index);
      const Array weight = measured_.gradient(arguments, next);
      MeasuredLayer layer{};
      layer.weight = parameter(arguments, next++);
      if (bias) layer.bias = parameter(arguments, next++);
      // A normalization over several axes has as many biases as weights.
      if (weight.axes < 1 || (bias && layer.bias.size != weight.shape[0] && layer.bias.size != weight.size()))
        throw std::invalid_argument("a bias does not fit its weight");
      const int64_t rows = weight.shape[0], columns = weight.axes > 1 ? weight.shape[1] : 1;
      // Kernels count elements in 32 bits.
      if (layer.weight.size >= (int64_t{1} << 31))
        throw std::invalid_argument("a weight must have fewer than 2^31 elements");
      layer.by_columns = Divisor::of(static_cast<unsigned>(columns));
      layer.by_taps = Divisor::of(static_cast<unsigned>(layer.weight.size / (rows * columns)));
      layer.first_partial = blocks;
      layer.arrivals = static_cast<int>(index);
      blocks += layer.blocks();
      layers.push_back(layer);
    }
    return layers;
  }

  Parameter parameter(const Arguments& arguments, int index) const {
    const Array gradient = measured_.gradient(arguments, index), value = measured_.value(arguments, index);
    if (gradient.size() != value.size()) throw std::invalid_argument("a gradient does not fit its parameter");
    return {gradient.floats(), value.floats(), gradient.size()};
  }

  static int64_t blocks_of(const std::vector<MeasuredLayer>& layers) {
    return layers.empty() ? 0 : layers.back().first_partial + layers.back().blocks();
  }

  MeasuredArguments measured_;
  CounterRange arrivals_;
  int64_t blocks_;
  int partials_;
};

}  // namespace
}  // namespace ms_kfac

MS_KFAC_OPERATOR(MeasureGradients, ms_kfac::MeasureGradientsKernel)
