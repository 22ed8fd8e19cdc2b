// One backward pass over a layer, for the kernels of its statistics: which statistics the gate lets it take, and
// whether they are added to the staged ones or replace them.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "../../interface/arguments.h"
#include "../../interface/layer_geometry.h"
#include "../../interface/pass_kernels.h"
#include "../../interface/staged_batch.h"
#include "../scheduling/launch.h"

namespace ms_kfac {

// How a pass updates a staged array.
enum class Taking { kNothing, kReplacing, kJoining };

// The same for the arrays of both sides.
struct SidesTaken {
  Taking inputs, gradients;

  __device__ bool nothing() const { return inputs == Taking::kNothing && gradients == Taking::kNothing; }
};

// The gate codes for which a pass takes a side's statistics.
inline int codes_of(int side, bool separate) { return separate ? side : kInputs | kGradients; }
constexpr int kAnyCode = kInputs | kGradients | kCorrectedEigenvalues;

// One weight of a layer's statistics.
struct PassWeight {
  float added;  // by a pass that takes these statistics
  int codes;    // bit mask; the gate needs one of the bits
  // The statistics are taken only while *flag > 0; null: always.
  const float* flag;
  // The weight of a batch does not exceed *most if that is below `size`; null: no limit.
  const float* most = nullptr;
  int size = 0;
};

struct StagedPass {
  static constexpr int kMostWeights = 4;

  const int32_t* gate = nullptr;
  // Written only by the operator's last launch, which records the pass. Until then all blocks read the same values.
  float* record = nullptr;
  int count = 0;
  PassWeight weights[kMostWeights] = {};

  StagedPass() = default;
  StagedPass(const Array& gate_array, const Array& record_array, std::initializer_list<PassWeight> of_weights)
      : gate(gate_array.integers()), record(record_array.floats()) {
    for (const PassWeight& weight : of_weights) weights[count++] = weight;
    if (record_array.size() != kStagedWeights + count)
      throw std::invalid_argument("the record has " + std::to_string(record_array.size()) + " numbers, expected " +
                                  std::to_string(kStagedWeights + count));
  }

  __device__ bool takes(int weight) const {
    const PassWeight& of = weights[weight];
    const int code = *gate;
    return code > 0 && (code & of.codes) != 0 && (of.flag == nullptr || *of.flag > 0.0f);
  }
  // What a pass adds to a weight.
  __device__ float added(int weight) const {
    if (!takes(weight)) return 0.0f;
    const PassWeight& of = weights[weight];
    if (of.most == nullptr || !(*of.most < static_cast<float>(of.size))) return of.added;
    const float staged = joins_batch(record) ? record[kStagedWeights + weight] : 0.0f;
    return fminf(staged + of.added, *of.most) - staged;
  }
  __device__ bool open() const {
    bool any = false;
    for (int weight = 0; weight < count; ++weight) any = any || takes(weight);
    return any;
  }
  __device__ Taking taking(int weight) const {
    if (!takes(weight)) return Taking::kNothing;
    return joins_array(record, weight) ? Taking::kJoining : Taking::kReplacing;
  }
  __device__ SidesTaken sides(int inputs, int gradients) const { return {taking(inputs), taking(gradients)}; }
};

}  // namespace ms_kfac
