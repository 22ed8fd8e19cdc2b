#include "lag_plan.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <vector>

#include "layer_batch.h"

namespace ms_kfac {
namespace {

// Multiply-adds in the time of one byte of L2 traffic. By the data sheets of GPUs from sm_70 to sm_90, float32 units do
// 3 to 6, and tensor cores ten times as many. This value was not measured.
constexpr double kMultiplyAddsOfByte = 16;

// Cost of one step in depth of a tile, including its operands' bytes; and of writing and reading a tile.
double cost_of_step(int side) { return side * side + kMultiplyAddsOfByte * 2 * side * sizeof(float); }
double cost_of_tile(int side) { return kMultiplyAddsOfByte * 2 * side * side * sizeof(float); }

// Splits an axis where the pixels of a lag change the taps that see them.
std::vector<Segment> segments(const Patches& patches, int axis, int lag) {
  const int size = axis == 0 ? patches.height : patches.width, taps = patches.kernel[axis];
  const int low = std::max(0, -lag), high = std::min(size, size - lag);
  if (low >= high) return {};
  std::vector<int> ends{low, high};
  const auto start = [&](int tap) { return tap - patches.before[axis]; };
  for (int tap = 0; tap < taps; ++tap)
    for (int end : {start(tap), start(tap) + patches.locations[axis]})
      if (low < end && end < high) ends.push_back(end);
  std::sort(ends.begin(), ends.end());
  std::vector<Segment> found;
  std::vector<bool> taps_before;
  for (size_t i = 0; i + 1 < ends.size(); ++i) {
    const int first = ends[i], last = ends[i + 1];
    if (first >= last) continue;
    std::vector<bool> seeing;
    for (int tap = std::max(0, -lag); tap < std::min(taps, taps - lag); ++tap)
      seeing.push_back(start(tap) <= first && first < start(tap) + patches.locations[axis]);
    const bool seen = std::find(seeing.begin(), seeing.end(), true) != seeing.end();
    if (seen && !found.empty() && found.back().last == first && seeing == taps_before)
      found.back().last = static_cast<int16_t>(last);
    else if (seen)
      found.push_back({static_cast<int16_t>(first), static_cast<int16_t>(last)});
    taps_before = seeing;
  }
  return found;
}

struct AxisSegments {
  int lag, first, count;
};

// The segments of all lags along an axis from `least` on; std::nullopt if the table is too small.
std::optional<std::vector<AxisSegments>> fill(const Patches& patches, int axis, int least,
                                              Segment (&table)[LagProducts::kMostSegments]) {
  std::vector<AxisSegments> filled;
  int used = 0;
  for (int lag = least; lag < patches.kernel[axis]; ++lag) {
    const std::vector<Segment> of_lag = segments(patches, axis, lag);
    const int count = static_cast<int>(of_lag.size());
    if (used + count > LagProducts::kMostSegments) return std::nullopt;
    std::copy(of_lag.begin(), of_lag.end(), table + used);
    if (count > 0) filled.push_back({lag, used, count});
    used += count;
  }
  return filled;
}

// Fills in lags and products. Returns false if they exceed the tables.
bool fill(const Patches& patches, LagProducts& plan) {
  // A kernel with more taps also has too many lags, except on tiny images. There its blocks might not fit in shared
  // memory.
  if (patches.kernel[0] * patches.kernel[1] > LagProducts::kMostLags) return false;
  const auto rows = fill(patches, 0, 0, plan.rows), columns = fill(patches, 1, 1 - patches.kernel[1], plan.columns);
  if (!rows || !columns) return false;
  for (const AxisSegments& row : *rows)
    for (const AxisSegments& column : *columns) {
      if (row.lag == 0 && column.lag < 0) continue;
      const int count = row.count * column.count;
      if (plan.lags == LagProducts::kMostLags || plan.products + count > LagProducts::kMostProducts) return false;
      plan.of_lag[plan.lags] = {static_cast<int16_t>(row.lag),       static_cast<int16_t>(column.lag),
                                static_cast<uint8_t>(row.first),     static_cast<uint8_t>(row.count),
                                static_cast<uint8_t>(column.first),  static_cast<uint8_t>(column.count),
                                static_cast<uint16_t>(plan.products)};
      std::fill_n(plan.lag_of + plan.products, count, static_cast<uint8_t>(plan.lags));
      plan.products += count;
      ++plan.lags;
    }
  return true;
}

// Calls visit(product, tiles of all groups, depth).
template <typename Visit>
void for_products(const LagProducts& plan, const Visit& visit) {
  for (int product = 0; product < plan.products; ++product) {
    const Lag& lag = plan.of_lag[plan.lag_of[product]];
    visit(product, plan.groups * plan.tiles(lag), plan.depth(lag, product));
  }
}

// Traffic of the sum itself is equal in both forms and left out. The split of the depth is not known yet. Where there
// are many parts, both forms have about as many.
double cost(const LagProducts& plan) {
  double sum = 0;
  for_products(plan, [&](int, int64_t tiles, int64_t depth) {
    sum +=
        static_cast<double>(tiles) * (cost_of_step(plan.side) * static_cast<double>(depth) + cost_of_tile(plan.side));
  });
  return sum;
}

double cost(const SymmetricSum& sum) {
  return static_cast<double>(sum.tiles()) * static_cast<double>(sum.depth) * cost_of_step(sum.side);
}

bool is_possible(const LayerSide& side) {
  const Patches& patches = side.patches;
  if (!side.of_patches || patches.kernel[0] * patches.kernel[1] == 1) return false;
  for (int axis : {0, 1})
    if (patches.stride[axis] != 1 || patches.dilation[axis] != 1) return false;
  const int64_t samples = side.sum.depth / (int64_t{patches.locations[0]} * patches.locations[1]);
  return std::max(patches.height, patches.width) <= INT16_MAX &&
         samples * patches.height * patches.width <= kMostPositions;
}

}  // namespace

LagProducts plan_lags(const LayerSide& side, PatchForm form) {
  if (form == PatchForm::kUnfolded) return {};
  LagProducts plan{};
  const Patches& patches = side.patches;
  if (is_possible(side)) {
    plan.channels = patches.channels;
    plan.samples = static_cast<int>(side.sum.depth / (int64_t{patches.locations[0]} * patches.locations[1]));
    plan.groups = side.sum.groups;
    plan.bias = patches.bias;
    if (fill(patches, plan)) {
      LagProducts small = plan, large = plan;
      small.side = 64;
      large.side = 128;
      plan = cost(small) <= cost(large) ? small : large;
    }
  }
  if (form == PatchForm::kLags && !plan.used())
    throw std::invalid_argument(
        "patches must be \"unfolded\" unless stride and dilation are 1 and the kernel is small, got \"lags\"");
  return plan.used() && (form == PatchForm::kLags || cost(plan) < cost(side.sum)) ? plan : LagProducts{};
}

double work(const LagProducts& plan) {
  double sum = 0;
  for_products(plan, [&](int, int64_t tiles, int64_t depth) {
    sum += static_cast<double>(tiles) * static_cast<double>(depth) * plan.side * plan.side;
  });
  return sum;
}

void share_out(LagProducts& plan, double share) {
  int64_t tasks = 0;
  for_products(plan, [&](int product, int64_t tiles, int64_t depth) {
    plan.first_task[product] = static_cast<uint32_t>(tasks);
    tasks += tiles * parts_of(static_cast<double>(depth) * plan.side * plan.side, depth, share);
    if (tasks > INT32_MAX) throw std::invalid_argument("too many products of shifted images for one launch");
  });
  plan.first_task[plan.products] = static_cast<uint32_t>(tasks);
}

}  // namespace ms_kfac
