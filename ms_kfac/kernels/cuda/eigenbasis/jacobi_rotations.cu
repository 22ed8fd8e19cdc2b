#include "../scheduling/item_batch.h"
#include "jacobi.h"

namespace ms_kfac {
namespace {

constexpr int kThreads = 256;
constexpr int kMeetings = kPair / 2;

// One block per pair of panels.
struct Item {
  JacobiRound round;

  int64_t blocks() const { return round.of.pairs(); }
};

using Batch = ItemBatch<Item, Verdicts>;

// An off-diagonal element up to this share of the larger of its two diagonal elements is taken as zero, and so is one
// up to the other share of the largest eigenvalue, which is the noise that rounding leaves in F.
constexpr float kNegligible = 1.0f / (1 << 24), kNoise = 1.0f / (1 << 25);

// A rotation of rows x and y by the angle with sine s and tau = s / (1 + cos). In this form tiny rotations do not
// lengthen their rows (Rutishauser 1966, "The Jacobi method for real symmetric matrices").
struct Rotation {
  float s, tau;

  // The one that makes element (x, y) zero.
  __device__ static Rotation of(float xx, float xy, float yy) {
    const float theta = (yy - xx) / (2.0f * xy);
    const float t = copysignf(1.0f, theta) / (fabsf(theta) + sqrtf(fmaf(theta, theta, 1.0f)));
    const float c = 1.0f / sqrtf(fmaf(t, t, 1.0f));
    return {t * c, t * c / (1.0f + c)};
  }

  __device__ void apply(float& x, float& y) const {
    const float before = x;
    x = fmaf(-s, fmaf(tau, x, y), x);
    y = fmaf(s, fmaf(-tau, y, before), y);
  }
};

// The largest magnitude on the diagonal of F, which is the largest eigenvalue once F is near to diagonal. In all
// threads.
__device__ float largest_diagonal(const JacobiMatrix& of) {
  __shared__ unsigned largest;
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  float own = 0.0f;
  for (int64_t i = threadIdx.x; i < of.size; i += kThreads) own = fmaxf(own, fabsf(of.matrix[i * of.stride() + i]));
  // Floats that are not negative have the order of their bits.
  atomicMax(&largest, __float_as_uint(own));
  __syncthreads();
  return __uint_as_float(largest);
}

__global__ void __launch_bounds__(kThreads) jacobi_rotations(const __grid_constant__ Batch batch) {
  __shared__ float F[kPair][kPair + 1], U[kPair][kPair + 1];
  __shared__ Rotation rotations[kMeetings];
  __shared__ Meeting meetings[kMeetings];
  __shared__ unsigned any;
  unsigned block;
  const JacobiRound& round = batch.items[batch.find(block)].round;
  const JacobiMatrix& of = round.of;
  const int pair = static_cast<int>(block), thread = threadIdx.x;
  if (!batch.common.written(of.index)) return;
  if (round.sweep > 0 && of.rotated_in_sweep[round.sweep - 1] == 0) {
    if (thread == 0) of.rotated[pair] = 0;
    return;
  }
  for (int place = thread; place < kPairNumbers; place += kThreads) {
    const int i = place / kPair, j = place % kPair;
    F[i][j] = of.matrix[static_cast<int64_t>(round.row(pair, i)) * of.stride() + round.row(pair, j)];
    U[i][j] = i == j ? 1.0f : 0.0f;
  }
  if (thread == 0) any = 0;
  const float noise = kNoise * largest_diagonal(of);
  const auto is_large = [&](int x, int y) {
    return fabsf(F[x][y]) > fmaxf(noise, kNegligible * fmaxf(fabsf(F[x][x]), fabsf(F[y][y])));
  };
  bool own = false;
  for (int place = thread; place < kPairNumbers; place += kThreads) {
    const int i = place / kPair, j = place % kPair;
    own = own || (i < j && is_large(i, j));
  }
  if (own) atomicMax(&any, 1u);
  __syncthreads();
  const bool rotates = any != 0;
  if (thread == 0) {
    of.rotated[pair] = rotates;
    if (rotates) atomicMax(of.rotated_in_sweep + round.sweep, 1u);
  }
  if (!rotates) return;
  for (int step = 0; step < kPair - 1; ++step) {
    if (thread < kMeetings) {
      const Meeting at = Meeting::of(thread, step, kPair);
      const int x = at.first, y = at.second;
      meetings[thread] = at;
      rotations[thread] = is_large(x, y) ? Rotation::of(F[x][x], F[x][y], F[y][y]) : Rotation{0.0f, 0.0f};
    }
    __syncthreads();
    // A thread has the four elements in which the rows of one meeting cross the columns of another one.
    const int of_columns = thread % kMeetings, first = thread / kMeetings;
    const Meeting columns = meetings[of_columns];
    const Rotation right = rotations[of_columns];
    for (int of_rows = first; of_rows < kMeetings; of_rows += kThreads / kMeetings) {
      const Meeting rows = meetings[of_rows];
      const Rotation left = rotations[of_rows];
      float &xx = F[rows.first][columns.first], &xy = F[rows.first][columns.second];
      float &yx = F[rows.second][columns.first], &yy = F[rows.second][columns.second];
      left.apply(xx, yx);
      left.apply(xy, yy);
      right.apply(xx, xy);
      right.apply(yx, yy);
      if (of_rows == of_columns && left.s != 0.0f) xy = yx = 0.0f;
      for (int k = of_columns; k < kPair; k += kMeetings) left.apply(U[rows.first][k], U[rows.second][k]);
    }
    __syncthreads();
  }
  float* to = of.rotations + static_cast<int64_t>(pair) * kPairNumbers;
  for (int place = thread; place < kPairNumbers; place += kThreads) to[place] = U[place / kPair][place % kPair];
}

}  // namespace

void find_rotations(const std::vector<JacobiRound>& rounds, const Verdicts& verdicts, cudaStream_t stream) {
  std::vector<Item> items;
  for (const JacobiRound& round : rounds) items.push_back({round});
  launch_items(jacobi_rotations, items, verdicts, kThreads, stream);
}

}  // namespace ms_kfac
