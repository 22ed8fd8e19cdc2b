#include <algorithm>

#include "../operands/layer_batch.h"
#include "../operands/signed_rows.h"
#include "../scheduling/counter_memory.h"
#include "../scheduling/phases.h"
#include "../tile/axis_sums.h"
#include "capture_check.h"
#include "check_sums.h"

namespace ms_kfac {
namespace {

// kChannels sums over the channels of images; rows skip it. kProducts follows.
enum Phase { kChannels, kProducts, kPhases };

struct Check {
  StagedPass pass;
  Phases<kPhases> phases;
  bool of_patches, bias;
  // For rows.
  Rows inputs, gradients;
  // For images: sums over the channels of x (`pixels`) and of the output gradient (`outputs`, which is v), and the
  // window over `pixels`.
  AxisSums pixels, outputs;
  Patches window;
  int groups, parts;
  int64_t depth;
  double* partials;

  Check(const LayerBatch& batch, const StagedPass& of_pass, int multiprocessors)
      : pass(of_pass), phases{}, pixels{}, outputs{}, window{} {
    const LayerSide x = batch.inputs(), dout = batch.gradients();
    of_patches = x.of_patches;
    inputs = x.rows;
    gradients = dout.rows;
    bias = of_patches ? x.patches.bias : x.rows.bias;
    groups = x.sum.groups;
    depth = x.sum.depth;
    partials = nullptr;
    if (of_patches) {
      const int64_t images = batch.samples() * groups;
      pixels = AxisSums::over_channels(x.patches, images, multiprocessors);
      outputs = AxisSums::over_channels(dout.patches, images, multiprocessors);
      // The raw output gradient, without the scale of the statistics.
      outputs.numbers.scale = 1.0f;
      window = without_channels(x.patches, groups);
    }
    const int64_t at_once = of_patches ? kThreads : kSignedRows * kThreads / 32;
    parts = static_cast<int>(
        std::clamp<int64_t>((depth + at_once - 1) / at_once, 1, std::max(4 * multiprocessors / groups, 1)));
    phases.blocks[kChannels] = pixels.blocks + outputs.blocks;
    phases.blocks[kProducts] = static_cast<int64_t>(groups) * parts;
    phases.ordered = true;
  }

  int64_t channel_sums() const { return of_patches ? pixels.numbers_of_sums() + outputs.numbers_of_sums() : 0; }
  int64_t partial_sums() const { return phases.blocks[kProducts] * CheckSums::kSums; }
};

__device__ void sum_channels(const Check& of, int64_t block) {
  if (block < of.pixels.blocks) {
    sum_axis(of.pixels, block, [](float sum, int64_t, int64_t channel, float value) {
      return fmaf(sign(kColumns, static_cast<uint32_t>(channel)), value, sum);
    });
    return;
  }
  const int groups = of.groups;
  const int64_t count = of.outputs.count;
  sum_axis(of.outputs, block - of.pixels.blocks, [=](float sum, int64_t image, int64_t channel, float value) {
    return fmaf(sign(kRows, static_cast<uint32_t>(image % groups * count + channel)), value, sum);
  });
}

// u at one location, computed by one thread.
__device__ float signed_patch(const Check& of, int group, int64_t depth) {
  const Patches& window = of.window;
  const Corner corner = Corner::at(window, group, depth);
  float sum = of.bias ? 1.0f : 0.0f;
  uint32_t index = 0;
  for (int row = 0; row < window.kernel[0]; ++row)
    for (int column = 0; column < window.kernel[1]; ++column) {
      const int down = row * window.dilation[0], right = column * window.dilation[1];
      const Tap tap = Tap::at(down * window.width + right, down, right);
      sum = fmaf(sign(kTaps, index++), seen(window, of.pixels.sums, corner, tap), sum);
    }
  return sum;
}

// Computes a block's part of the sums of one group.
__device__ void multiply(const Check& of, int64_t block) {
  const int group = static_cast<int>(block / of.parts);
  const int64_t part = block % of.parts, first = part * of.depth / of.parts, last = (part + 1) * of.depth / of.parts;
  CheckSums sums;
  if (of.of_patches) {
    const int64_t area = of.window.by_area.divisor;
    for (int64_t depth = first + threadIdx.x; depth < last; depth += kThreads) {
      const int64_t sample = of.window.by_area.quotient(static_cast<unsigned>(depth));
      const int64_t image = sample * of.groups + group;
      sums.add(signed_patch(of, group, depth), of.outputs.sums[image * area + depth - sample * area]);
    }
  } else {
    const float tap = sign(kTaps, 0), one = of.bias ? 1.0f : 0.0f;
    for (int64_t row = first + threadIdx.x / 32 * kSignedRows; row < last; row += kThreads / 32 * kSignedRows) {
      const int count = static_cast<int>(last - row < kSignedRows ? last - row : kSignedRows);
      float u[kSignedRows], v[kSignedRows];
      signed_rows<kColumns>(of.inputs, row, count, u);
      signed_rows<kRows>(of.gradients, row, count, v);
      if (threadIdx.x % 32 != 0) continue;
#pragma unroll
      for (int i = 0; i < kSignedRows; ++i)
        if (i < count) sums.add(fmaf(tap, u[i], one), v[i]);
    }
  }
  sums.write(of.partials, block);
}

__global__ void __launch_bounds__(kThreads) check_capture(const __grid_constant__ Check check) {
  if (!check.pass.open()) return;
  const Claim claim = check.phases.claim();
  if (claim.phase == kChannels) {
    sum_channels(check, claim.index);
    check.phases.finish(kChannels);
  } else {
    check.phases.wait_for(kChannels);
    multiply(check, claim.index);
  }
  if (check.phases.leave()) record_check(check.pass, check.partials, check.groups, check.parts);
}

}  // namespace

struct CaptureCheck::State {
  State(const LayerGeometry& of, const Arguments& shapes, AotExtra& extra)
      : geometry(with_all_locations(of)),
        multiprocessors(ms_kfac::multiprocessors()),
        counters(Phases<kPhases>::kCounters) {
    const Check check(LayerBatch(geometry, shapes[0], shapes[1]), StagedPass{}, multiprocessors);
    channel_sums = check.channel_sums();
    partial_sums = check.partial_sums();
    of_channels = add_workspace(extra, channel_sums * sizeof(float));
    of_partials = add_workspace(extra, partial_sums * sizeof(double));
  }

  LayerGeometry geometry;
  int multiprocessors;
  CounterRange counters;
  int64_t channel_sums, partial_sums;
  int of_channels, of_partials;  // workspaces
};

CaptureCheck::CaptureCheck(const LayerGeometry& geometry, const Arguments& shapes, AotExtra& extra)
    : state_(std::make_unique<State>(geometry, shapes, extra)) {}

CaptureCheck::~CaptureCheck() { PassKernels::forget(this); }

void CaptureCheck::run(const Call& call, const StagedPass& pass) const {
  const State& state = *state_;
  Check check(LayerBatch(state.geometry, call.arguments[0], call.arguments[1]), pass, state.multiprocessors);
  if (check.channel_sums() != state.channel_sums || check.partial_sums() != state.partial_sums)
    throw std::invalid_argument("shapes must be those that the kernel was created with");
  check.pixels.sums = call.workspace<float>(state.of_channels);
  check.outputs.sums = check.pixels.sums + check.pixels.numbers_of_sums();
  check.partials = call.workspace<double>(state.of_partials);
  check.phases.counters = state.counters.device();
  PassKernels::note(pass.record, this);
  launch(check_capture, check.phases.total(), kThreads, call.stream, check);
}

}  // namespace ms_kfac
