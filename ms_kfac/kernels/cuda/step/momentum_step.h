// Momentum, weight decay and learning rate in one pass over each array.
//
// Products and sums are fused (FMA), as nvcc does by default.
#pragma once

#include "../scheduling/array_chunks.h"

namespace ms_kfac {

// Device pointers to the numbers that all parameters share.
struct MomentumRule {
  const float* momentum;
  const float* scale;
  bool nesterov;
  bool decoupled;  // weight decay shrinks the weights outside the momentum
};

struct MomentumArrays {
  const float* update;
  float *weight, *moment;
  int64_t size;
  const float* learning_rate;
  const float* decay;  // null for none
  bool scaled;         // whether the rule's scale multiplies the update

  int64_t blocks() const { return chunks(size); }
};

// With u = scale update + decay w: v <- momentum v + u, then w <- w - learning_rate v. With Nesterov momentum
// w <- w - learning_rate (u + momentum v). With a scale of NaN nothing changes.
__device__ inline void step_chunk(const MomentumRule& rule, const MomentumArrays& arrays, unsigned chunk) {
  // The step is skipped.
  if (isnan(*rule.scale)) return;
  const float momentum = *rule.momentum, scale = arrays.scaled ? *rule.scale : 1.0f;
  const float rate = *arrays.learning_rate, weight_decay = arrays.decay != nullptr ? *arrays.decay : 0.0f;
  const float decay = rule.decoupled ? 0.0f : weight_decay;
  const float shrink = rule.decoupled ? 1.0f - rate * weight_decay : 1.0f;
  const bool nesterov = rule.nesterov;
  visit_chunk(chunk, arrays.size, aligned(arrays.update, arrays.weight, arrays.moment), [&](auto count, int64_t first) {
    using Numbers = Pack<decltype(count)::value>;
    const Numbers update = Numbers::load(arrays.update + first);
    Numbers weight = Numbers::load(arrays.weight + first), moment = Numbers::load(arrays.moment + first);
#pragma unroll
    for (int i = 0; i < decltype(count)::value; ++i) {
      const float direction = fmaf(decay, weight.values[i], scale * update.values[i]);
      const float velocity = fmaf(momentum, moment.values[i], direction);
      const float step = nesterov ? fmaf(momentum, velocity, direction) : velocity;
      moment.values[i] = velocity;
      weight.values[i] = fmaf(-rate, step, shrink * weight.values[i]);
    }
    moment.store(arrays.moment + first);
    weight.store(arrays.weight + first);
  });
}

}  // namespace ms_kfac
