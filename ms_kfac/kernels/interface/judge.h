// Asks Python whether what is about to be committed belongs to the delivered gradients.
#pragma once

#include <cstdint>

namespace ms_kfac {

// What a layer tells the judge, in this order: passes, period, product, products, scale, then what was measured of its
// delivered gradient (r^T dW s, r^T W s, |dW|), then whether its staged batch is finite.
enum JudgedNumber { kJudgedMeasured = 5, kJudgedFinite = 8, kJudgedNumbers = 9 };

// The answer for each layer: 1 to commit its batch, 0 to refuse it, -1 to refuse it and to empty its averages; then the
// period of its coming passes.
constexpr int kAnswers = 2;

using Judge = void (*)(int64_t handle, int64_t layers, const float* numbers, int64_t* answers);

// The registered function; null before Python has registered one.
Judge judge();

}  // namespace ms_kfac

extern "C" void ms_kfac_set_judge(ms_kfac::Judge function);
