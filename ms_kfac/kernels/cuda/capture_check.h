// What ties a layer's statistics to its gradient: r^T dW s for the signs r and s of signs.h, from the vectors that the
// statistics are made of. The optimizer measures the same of the gradient that is delivered to it.
//
// With u = sum of signs times inputs and v = sum of signs times output gradients at a sample's location, it is the sum
// of u v over samples, locations and groups. A convolution's signs are products over channels and taps, so that u
// is a convolution of one channel, sum over channels of signs times x: every number is read once.
#pragma once

#include <memory>

#include "operator.h"
#include "staged_pass.h"

namespace ms_kfac {

// The last launch of an operator of statistics: computes the product and its scale, and records the pass.
class CaptureCheck {
 public:
  // The first two arrays are the layer's input and output gradient. Declares workspaces.
  CaptureCheck(const LayerGeometry& geometry, const Arguments& shapes, AotExtra& extra);
  ~CaptureCheck();

  // Refuses other shapes than those that it was created for.
  void run(const Call& call, const StagedPass& pass) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ms_kfac
