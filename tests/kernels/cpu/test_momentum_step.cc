// Compares all variants of the momentum step with their formula in float64, on arrays of one and of several chunks.

#include "check.h"
#include "step/momentum_step.h"

namespace {

void run(bool nesterov, bool decoupled, const std::vector<int64_t>& sizes) {
  std::vector<std::vector<float>> updates, weights, moments;
  std::vector<std::vector<double>> expected_weights, expected_moments;
  std::vector<ms_kfac::MomentumArrays> arrays;
  const double momentum = 0.9f;
  for (size_t index = 0; index < sizes.size(); ++index) {
    const unsigned seed = static_cast<unsigned>(index) * 3 + 1;
    updates.push_back(check::normal(sizes[index], seed));
    weights.push_back(check::normal(sizes[index], seed + 1));
    moments.push_back(check::normal(sizes[index], seed + 2));
    const float rate = 0.1f + 0.2f * static_cast<float>(index), scale = index % 2 ? 1.0f : 0.3f;
    const float decay = index % 3 ? 0.05f : 0.0f;
    std::vector<double> w(weights[index].begin(), weights[index].end()),
        v(moments[index].begin(), moments[index].end());
    for (size_t i = 0; i < w.size(); ++i) {
      const double u = static_cast<double>(scale) * updates[index][i] + (decoupled ? 0.0 : decay * w[i]);
      if (decoupled) w[i] *= 1.0 - static_cast<double>(rate) * decay;
      v[i] = momentum * v[i] + u;
      w[i] -= rate * (nesterov ? u + momentum * v[i] : v[i]);
    }
    expected_weights.push_back(w);
    expected_moments.push_back(v);
    arrays.push_back(
        {updates[index].data(), weights[index].data(), moments[index].data(), sizes[index], rate, scale, decay});
  }
  ms_kfac::momentum_step({static_cast<float>(momentum), nesterov, decoupled}, arrays);
  for (size_t index = 0; index < sizes.size(); ++index) {
    // A few roundings of float32.
    check::close("weights", weights[index].data(), expected_weights[index], 1e-6);
    check::close("moments", moments[index].data(), expected_moments[index], 1e-6);
  }
}

}  // namespace

int main(int argc, char** argv) {
  check::start(argc, argv);
  for (bool nesterov : {false, true})
    for (bool decoupled : {false, true}) {
      run(nesterov, decoupled, {1, 17, 1000, 70001});
      run(nesterov, decoupled, {});
    }
}
