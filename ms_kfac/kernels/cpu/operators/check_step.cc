// Checks what is about to move the weights: the inner products of gradients and updates, which are NaN or infinite if
// either is, and the gradients of first-order parameters.
//
// Attributes:
//
//   owners         per product, the index of its parameter
//   first_order    indices of the parameters that have no product
//   reporter       handle of the reporter, or 0
//
// Inputs:
//
//   step           int32, number of steps before this one
//   due            int32; with another number than 0 the reporter is told of a finite step, too. It is also told at
//                  the first step after a failed refresh
//   scale          float32, that of the updates
//   products       float32
//   skipped        int32 (3,): number of skipped steps, the first and the last of them
//   gradients      one per parameter
//   weights        the same; read only if the step is not finite, to say which of them already are not
//
// Output: the scale, or NaN if the step is not finite. A momentum step with a scale of NaN changes nothing.

#include <cmath>
#include <limits>

#include "../../interface/reports.h"
#include "../operator.h"
#include "../step/not_finite.h"

namespace {

struct CheckStepAttributes {
  explicit CheckStepAttributes(AotExtra& extra)
      : owners(extra.GetAttrIntVec("owners")),
        first_order(extra.GetAttrIntVec("first_order")),
        reporter(extra.GetAttrInt("reporter")) {}
  std::vector<int64_t> owners, first_order;
  int64_t reporter;
};

constexpr int kGradients = 5;

// What is not finite, of every parameter.
std::vector<ms_kfac::Finding> findings(const ms_kfac::Arguments& arguments, const CheckStepAttributes& attributes,
                                       int parameters) {
  std::vector<ms_kfac::Finding> found;
  std::vector<char> finite(parameters);
  for (int index = 0; index < parameters; ++index) {
    const ms_kfac::NotFiniteKind gradient = ms_kfac::not_finite(arguments[kGradients + index]);
    const ms_kfac::NotFiniteKind weight = ms_kfac::not_finite(arguments[kGradients + parameters + index]);
    finite[index] = gradient == ms_kfac::kFinite;
    if (!finite[index]) found.push_back({ms_kfac::kGradient, index, gradient});
    if (weight != ms_kfac::kFinite) found.push_back({ms_kfac::kWeight, index, weight});
  }
  const float* products = arguments[3].floats();
  for (size_t index = 0; index < attributes.owners.size(); ++index) {
    const int64_t owner = attributes.owners[index];
    if (std::isfinite(products[index]) || !finite.at(owner)) continue;
    found.push_back({ms_kfac::kUpdate, owner, std::isnan(products[index]) ? ms_kfac::kNaN : ms_kfac::kInfinite});
  }
  return found;
}

}  // namespace

MS_KFAC_OPERATOR(CheckStep) {
  const int parameters = (arguments.count() - kGradients - 1) / 2;
  if (arguments.count() != kGradients + 2 * parameters + 1)
    throw std::invalid_argument("not one gradient for each weight");
  const ms_kfac::Array products = arguments[3], skipped = arguments[4];
  if (products.size() < static_cast<int64_t>(attributes.owners.size()))
    throw std::invalid_argument("not one product for each owner");
  if (skipped.size() != 3) throw std::invalid_argument("skipped must be three numbers");
  const int32_t step = arguments[0].integers()[0];
  bool finite = true;
  for (size_t index = 0; index < attributes.owners.size(); ++index)
    finite = finite && std::isfinite(products.floats()[index]);
  std::vector<ms_kfac::Array> first_order;
  for (const int64_t index : attributes.first_order)
    first_order.push_back(arguments[kGradients + static_cast<int>(index)]);
  finite = finite && ms_kfac::all_finite(first_order);
  arguments[arguments.count() - 1].floats()[0] =
      finite ? arguments[2].floats()[0] : std::numeric_limits<float>::quiet_NaN();
  const ms_kfac::Reporter report = attributes.reporter != 0 ? ms_kfac::reporter() : nullptr;
  std::vector<ms_kfac::Finding> found;
  if (!finite) {
    auto* counts = static_cast<int32_t*>(skipped.data);
    counts[1] = counts[0]++ == 0 ? step : counts[1];
    counts[2] = step;
    if (report != nullptr) found = findings(arguments, attributes, parameters);
  }
  if (report == nullptr) return;
  const bool failed = ms_kfac::failure_reported().exchange(false);
  if (!finite || failed || arguments[1].integers()[0] != 0)
    report(attributes.reporter, step, static_cast<int64_t>(found.size()), found.data(), nullptr);
}
