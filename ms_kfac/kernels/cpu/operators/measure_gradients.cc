// Measures the delivered gradients. A commit compares the layers' statistics with these numbers. Writes zeros if no
// commit is due.

#include "../statistics/measure_gradients.h"

#include <algorithm>

#include "../../interface/measured_arguments.h"
#include "../operator.h"

using MeasureGradientsAttributes = ms_kfac::MeasuredArguments;

MS_KFAC_OPERATOR(MeasureGradients) {
  const ms_kfac::Array measured = attributes.output(arguments);
  if (arguments[0].integers()[0] == 0) {
    std::fill_n(measured.floats(), measured.size(), 0.0f);
    return;
  }
  std::vector<ms_kfac::MeasuredLayer> layers;
  int parameter = 0;
  const auto take = [&](const float*& gradient, const float*& value) {
    const ms_kfac::Array of_gradient = attributes.gradient(arguments, parameter);
    const ms_kfac::Array of_value = attributes.value(arguments, parameter++);
    if (of_gradient.size() != of_value.size()) throw std::invalid_argument("a gradient does not fit its parameter");
    gradient = of_gradient.floats();
    value = of_value.floats();
    return of_gradient;
  };
  for (int64_t index = 0; index < attributes.layers(); ++index) {
    ms_kfac::MeasuredLayer layer{};
    const ms_kfac::Array weight = take(layer.gradient, layer.weight);
    if (weight.axes < 1) throw std::invalid_argument("a weight must have rows");
    layer.rows = weight.shape[0];
    layer.columns = weight.axes > 1 ? weight.shape[1] : 1;
    layer.taps = 1;
    for (int axis = 2; axis < weight.axes; ++axis) layer.taps *= weight.shape[axis];
    if (attributes.biased(index)) layer.biases = take(layer.bias_gradient, layer.bias).size();
    layers.push_back(layer);
  }
  ms_kfac::measure_gradients(layers, measured.floats());
}
