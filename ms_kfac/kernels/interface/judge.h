// A callback into Python: do the staged statistics belong to the delivered gradients?
#pragma once

#include <cstdint>

namespace ms_kfac {

// The numbers that the judge gets per layer, in this order:
//
//   passes, period, product, products, scale    from the record; the last three in the units of the delivered gradient
//   r^T dW s, r^T W s, |dW|                     measurements of the delivered gradient
//   finite                                      whether the staged batch is finite
//   kernels                                     number of kernels that staged it (pass_kernels.h); 0: unknown
enum JudgedNumber { kJudgedMeasured = 5, kJudgedFinite = 8, kJudgedKernels = 9, kJudgedNumbers = 10 };

// Four answers per layer. The first: 1 commits the batch, 0 refuses it, -1 refuses it and empties the averages (sets
// their weights to 0). The second: the period of the next passes. The third: the number of calls of the layer per
// backward pass. The fourth: how many of the next passes do not belong to the step, and come before those that do.
constexpr int kAnswers = 4;

using Judge = void (*)(int64_t handle, int64_t layers, const float* numbers, int64_t* answers);

// The registered function. Null until Python registers one.
Judge judge();

}  // namespace ms_kfac

extern "C" void ms_kfac_set_judge(ms_kfac::Judge function);
