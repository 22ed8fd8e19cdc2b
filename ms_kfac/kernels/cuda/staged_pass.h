// One backward pass over a layer, as the kernels of its statistics see it: what the gate lets it take, and whether that
// joins what is staged or replaces it.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "../interface/arguments.h"
#include "../interface/layer_geometry.h"
#include "../interface/staged_batch.h"
#include "launch.h"

namespace ms_kfac {

// What a pass does with staged arrays.
enum class Taking { kNothing, kReplacing, kJoining };

// The same for both sides' arrays.
struct SidesTaken {
  Taking inputs, gradients;

  __device__ bool nothing() const { return inputs == Taking::kNothing && gradients == Taking::kNothing; }
};

// The gate's codes that let a pass take a side's statistics.
inline int codes_of(int side, bool separate) { return separate ? side : kInputs | kGradients; }
constexpr int kAnyCode = kInputs | kGradients | kBesideFactors;

// One weight of a layer's statistics.
struct PassWeight {
  float added;  // by a pass that takes the statistics
  int codes;    // bits of the gate; one of them is enough
  // Taken only while it is above 0; null: always.
  const float* flag;
};

struct StagedPass {
  static constexpr int kMostWeights = 4;

  const int32_t* gate = nullptr;
  // Nobody writes it before the pass is recorded, in the operator's last launch: every block before reads the same.
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
