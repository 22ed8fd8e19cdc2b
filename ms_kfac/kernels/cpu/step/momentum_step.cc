#include "momentum_step.h"

#include <algorithm>

#include "../threads/multiversion.h"
#include "../threads/threads.h"

// Products are rounded before they are added, as in ApplyMomentum. So weights without preconditioning are bitwise equal
// to those of mindspore.nn.Momentum.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace ms_kfac {
namespace {

constexpr int64_t kChunk = 1 << 15;

struct Factors {
  float momentum, learning_rate, scale, decay, shrink;
};

MS_KFAC_CLONES
void heavy_ball(const Factors& f, const float* __restrict update, float* __restrict weight, float* __restrict moment,
                int64_t size) {
  const float momentum = f.momentum, rate = f.learning_rate, scale = f.scale, decay = f.decay, shrink = f.shrink;
  for (int64_t i = 0; i < size; ++i) {
    const float velocity = momentum * moment[i] + (scale * update[i] + decay * weight[i]);
    moment[i] = velocity;
    weight[i] = shrink * weight[i] - rate * velocity;
  }
}

MS_KFAC_CLONES
void nesterov(const Factors& f, const float* __restrict update, float* __restrict weight, float* __restrict moment,
              int64_t size) {
  const float momentum = f.momentum, rate = f.learning_rate, scale = f.scale, decay = f.decay, shrink = f.shrink;
  for (int64_t i = 0; i < size; ++i) {
    const float direction = scale * update[i] + decay * weight[i];
    const float velocity = momentum * moment[i] + direction;
    moment[i] = velocity;
    weight[i] = shrink * weight[i] - rate * (direction + momentum * velocity);
  }
}

}  // namespace

void momentum_step(const MomentumRule& rule, const std::vector<MomentumArrays>& arrays) {
  struct Chunk {
    size_t array;
    int64_t first;
  };
  std::vector<Chunk> chunks;
  for (size_t array = 0; array < arrays.size(); ++array)
    for (int64_t first = 0; first < arrays[array].size; first += kChunk) chunks.push_back({array, first});
  parallel_for(static_cast<int64_t>(chunks.size()), [&](int64_t task) {
    const auto [index, first] = chunks[task];
    const MomentumArrays& a = arrays[index];
    const Factors factors{rule.momentum, a.learning_rate, a.scale, rule.decoupled ? 0.0f : a.decay,
                          rule.decoupled ? 1.0f - a.learning_rate * a.decay : 1.0f};
    const auto step = rule.nesterov ? nesterov : heavy_ball;
    step(factors, a.update + first, a.weight + first, a.moment + first, std::min(kChunk, a.size - first));
  });
}

}  // namespace ms_kfac
