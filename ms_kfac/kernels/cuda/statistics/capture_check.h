// The capture check compares a layer's statistics with its gradient. It computes r^T dW s, with the signs r and s of
// signs.h, from the vectors that the statistics are made of. The optimizer computes the same product from the gradient
// that it receives.
//
// At each location of a sample, u = sum of signs times inputs and v = sum of signs times output gradients. The product
// is the sum of u v over samples, locations and groups. A convolution's signs are products over channels and taps. So u
// is a convolution with one channel, the sum over channels of signs times x, and each element is read once.
#pragma once

#include <memory>

#include "../operator.h"
#include "staged_pass.h"

namespace ms_kfac {

// The last launch of a statistics operator. Computes the product and its scale, and records the pass.
class CaptureCheck {
 public:
  // The first two arrays are the layer's input and output gradient. Declares workspaces.
  CaptureCheck(const LayerGeometry& geometry, const Arguments& shapes, AotExtra& extra);
  ~CaptureCheck();

  // Throws std::invalid_argument if the shapes differ from those at creation.
  void run(const Call& call, const StagedPass& pass) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ms_kfac
