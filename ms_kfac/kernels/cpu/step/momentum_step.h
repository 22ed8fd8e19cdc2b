// The momentum step: turns updates into new weights in one pass over each array.
#pragma once

#include <cstdint>
#include <vector>

namespace ms_kfac {

struct MomentumRule {
  float momentum;
  bool nesterov;
  bool decoupled;  // decoupled weight decay: shrinks the weights outside the momentum
};

struct MomentumArrays {
  const float* update;
  float* weight;
  float* moment;
  int64_t size;
  float learning_rate;
  float scale;  // of the update
  float decay;
};

// With u = scale update + decay w: v <- momentum v + u. Then w <- w - learning_rate v, or with Nesterov momentum w <- w
// - learning_rate (u + momentum v).
void momentum_step(const MomentumRule& rule, const std::vector<MomentumArrays>& arrays);

}  // namespace ms_kfac
