#include "unit_wise_moments.h"

#include <algorithm>
#include <cmath>

#include "../../interface/signs.h"
#include "../threads/multiversion.h"
#include "../threads/threads.h"

namespace ms_kfac {
namespace {

constexpr int kLanes = 16;
// Numbers that justify another thread: some tens of microseconds of work.
constexpr int64_t kFloatsPerThread = 64 << 10;
// Numbers whose moments are computed together: both passes over them read the first-level cache, and sums in float32
// stay short.
constexpr int64_t kRunFloats = 4 << 10;

// x_hat = (x - mean) factor.
struct Affine {
  float mean, factor;
};

float factor_of(double mean_square, float epsilon) {
  return static_cast<float>(1.0 / std::sqrt(mean_square + epsilon));
}

MS_KFAC_CLONES double sum_of(const float* values, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  double sum = 0;
  for (; i < count; ++i) sum += values[i];
  for (float lane : lanes) sum += lane;
  return sum;
}

MS_KFAC_CLONES double squared_deviations(const float* values, float mean, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const float deviation = values[i + lane] - mean;
      lanes[lane] += deviation * deviation;
    }
  double sum = 0;
  for (; i < count; ++i) sum += static_cast<double>(values[i] - mean) * (values[i] - mean);
  for (float lane : lanes) sum += lane;
  return sum;
}

// The sums over the positions of one sample and channel, with d = x - mean.
enum PositionSum { kGD, kG, kGG, kD, kDD, kPositionSums };

MS_KFAC_CLONES void sum_positions(const float* x, const float* g, float mean, int64_t count, double* sums) {
  float lanes[kPositionSums][kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const float d = x[i + lane] - mean, of_g = g[i + lane];
      lanes[kGD][lane] += of_g * d;
      lanes[kG][lane] += of_g;
      lanes[kGG][lane] += of_g * of_g;
      lanes[kD][lane] += d;
      lanes[kDD][lane] += d * d;
    }
  for (; i < count; ++i) {
    const int lane = static_cast<int>(i % kLanes);
    const float d = x[i] - mean, of_g = g[i];
    lanes[kGD][lane] += of_g * d;
    lanes[kG][lane] += of_g;
    lanes[kGG][lane] += of_g * of_g;
    lanes[kD][lane] += d;
    lanes[kDD][lane] += d * d;
  }
  for (int sum = 0; sum < kPositionSums; ++sum) {
    sums[sum] = 0;
    for (float lane : lanes[sum]) sums[sum] += lane;
  }
}

// The moments of numbers that come in runs. Merged as in Chan, Golub and LeVeque 1979, eq. 2.1, so that a large mean
// does not cancel.
class RunningMoments {
 public:
  void add(const float* values, int64_t count) {
    const double n = static_cast<double>(count), mean = sum_of(values, count) / n, total = count_ + n;
    const double step = mean - mean_;
    squares_ += squared_deviations(values, static_cast<float>(mean), count) + step * step * count_ * n / total;
    mean_ += step * n / total;
    count_ = total;
  }
  Affine affine(float epsilon) const { return {static_cast<float>(mean_), factor_of(squares_ / count_, epsilon)}; }

 private:
  double count_ = 0, mean_ = 0, squares_ = 0;
};

// One layer's batch, the signs of the capture check and the results.
class UnitWiseBatch {
 public:
  UnitWiseBatch(const NormalizationGeometry& geometry, const FloatArray& x, const FloatArray& dout)
      : geometry_(geometry),
        of_(batch_of(geometry, x.shape, dout.shape)),
        x_(x.data, x.type),
        dout_(dout.data, dout.type),
        scale_(geometry.gradient_scale * (geometry.mean_reduction ? static_cast<float>(of_.samples) : 1.0f)),
        gamma_signs_(of_.channels),
        beta_signs_(of_.channels) {
    const int64_t of_row = of_.channels / geometry.shape.at(0);
    const int64_t columns = geometry.shape.size() > 1 ? geometry.shape[1] : 1, taps = of_row / columns;
    for (int64_t c = 0; c < of_.channels; ++c) {
      const int64_t column = c % of_row;
      gamma_signs_[c] = sign(kRows, static_cast<uint32_t>(c / of_row)) *
                        sign(kColumns, static_cast<uint32_t>(column / taps)) *
                        sign(kTaps, static_cast<uint32_t>(column % taps));
      beta_signs_[c] = geometry.bias ? sign(kRows, static_cast<uint32_t>(c)) : 0.0f;
    }
  }

  CaptureCheck add(float* squares, float* cross) const {
    // With one position per sample both layouts are the same, and rows of channels are longer.
    const Results found = geometry_.channels_last || of_.locations == 1 ? over_rows() : over_columns();
    for (int64_t c = 0; c < of_.channels; ++c) {
      squares[c] += static_cast<float>(found.gamma[c]);
      squares[of_.channels + c] += static_cast<float>(found.beta[c]);
      cross[c] += static_cast<float>(found.cross[c]);
    }
    return {static_cast<float>(found.product), static_cast<float>(std::sqrt(found.uu) * std::sqrt(found.vv))};
  }

 private:
  struct Results {
    explicit Results(int64_t channels) : gamma(channels), beta(channels), cross(channels) {}

    // A sample's gradients of a channel, for dout as delivered. Scaled before they are squared: the square of a
    // gradient of a large batch's mean could underflow.
    void add(int64_t channel, float of_gamma, float of_beta, float scale) {
      const double of_scaled_gamma = scale * of_gamma, of_scaled_beta = scale * of_beta;
      gamma[channel] += of_scaled_gamma * of_scaled_gamma;
      beta[channel] += of_scaled_beta * of_scaled_beta;
      cross[channel] += of_scaled_gamma * of_scaled_beta;
    }

    std::vector<double> gamma, beta, cross;
    double product = 0, uu = 0, vv = 0;
  };

  Results over_columns() const;
  Results over_rows() const;
  std::vector<Affine> column_affines() const;
  std::vector<Affine> channel_affines() const;

  int64_t parts(int64_t most) const {
    return std::clamp<int64_t>(of_.size() / kFloatsPerThread, 1,
                               std::max<int64_t>(std::min<int64_t>(threads(), most), 1));
  }

  const NormalizationGeometry& geometry_;
  NormalizationBatch of_;
  Values x_, dout_;
  float scale_;
  std::vector<float> gamma_signs_, beta_signs_;
};

// In the layout (N, C, T): one per channel, or one per sample and group.
std::vector<Affine> UnitWiseBatch::column_affines() const {
  const bool of_batch = geometry_.moments == SharedMoments::kBatch;
  if (!of_batch && geometry_.moments != SharedMoments::kGroup)
    throw std::invalid_argument("moments must be batch or group for channels before positions");
  const int64_t groups = geometry_.channel_groups, run = of_.channels / groups * of_.locations;
  std::vector<Affine> affines(of_batch ? of_.channels : of_.samples * groups);
  parallel_for(static_cast<int64_t>(affines.size()), [&](int64_t index) {
    std::vector<float> scratch;
    RunningMoments moments;
    if (of_batch) {
      for (int64_t n = 0; n < of_.samples; ++n)
        moments.add(x_.read((n * of_.channels + index) * of_.locations, of_.locations, scratch), of_.locations);
    } else {
      for (int64_t first = 0; first < run; first += kRunFloats) {
        const int64_t count = std::min(kRunFloats, run - first);
        moments.add(x_.read(index * run + first, count, scratch), count);
      }
    }
    affines[index] = moments.affine(geometry_.epsilon);
  });
  return affines;
}

UnitWiseBatch::Results UnitWiseBatch::over_columns() const {
  const std::vector<Affine> affines = column_affines();
  const bool of_batch = geometry_.moments == SharedMoments::kBatch;
  const int64_t channels = of_.channels, locations = of_.locations, of_group = channels / geometry_.channel_groups;
  Results results(channels);
  std::vector<double> product(channels), uu(channels), vv(channels);
  parallel_for(channels, [&](int64_t c) {
    std::vector<float> of_x, of_dout;
    const double gamma_sign = gamma_signs_[c], beta_sign = beta_signs_[c];
    for (int64_t n = 0; n < of_.samples; ++n) {
      const int64_t first = (n * channels + c) * locations;
      const Affine affine = affines[of_batch ? c : n * geometry_.channel_groups + c / of_group];
      double sums[kPositionSums];
      sum_positions(x_.read(first, locations, of_x), dout_.read(first, locations, of_dout), affine.mean, locations,
                    sums);
      const double factor = affine.factor, gamma = factor * sums[kGD], beta = sums[kG];
      results.add(c, static_cast<float>(gamma), static_cast<float>(beta), scale_);
      product[c] += gamma_sign * gamma + beta_sign * beta;
      uu[c] += factor * factor * sums[kDD] + 2 * gamma_sign * beta_sign * factor * sums[kD] +
               beta_sign * beta_sign * static_cast<double>(locations);
      vv[c] += sums[kGG];
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    results.product += product[c];
    results.uu += uu[c];
    results.vv += vv[c];
  }
  return results;
}

MS_KFAC_CLONES void add_row(const float* values, int64_t count, double* sums) {
  for (int64_t c = 0; c < count; ++c) sums[c] += values[c];
}

MS_KFAC_CLONES void add_squared_deviations(const float* values, const float* means, int64_t count, double* sums) {
  for (int64_t c = 0; c < count; ++c) {
    const double deviation = values[c] - means[c];
    sums[c] += deviation * deviation;
  }
}

// Adds a position to the sums of its sample. Each sum has one number per channel.
MS_KFAC_CLONES void add_position(const float* __restrict x, const float* __restrict g, const float* __restrict means,
                                 const float* __restrict factors, const float* __restrict gamma_signs,
                                 const float* __restrict beta_signs, int64_t count, float* __restrict gamma,
                                 float* __restrict beta, float* __restrict uu, float* __restrict vv) {
  for (int64_t c = 0; c < count; ++c) {
    const float x_hat = (x[c] - means[c]) * factors[c], u = gamma_signs[c] * x_hat + beta_signs[c];
    gamma[c] += g[c] * x_hat;
    beta[c] += g[c];
    uu[c] += u * u;
    vv[c] += g[c] * g[c];
  }
}

// In the layout (N, T, C): the moments of the batch, one per channel.
std::vector<Affine> UnitWiseBatch::channel_affines() const {
  const int64_t channels = of_.channels, rows = of_.samples * of_.locations, count = parts(rows);
  std::vector<float> means(channels);
  const auto over_batch = [&](const auto& add) {
    std::vector<double> sums(count * channels);
    parallel_for(count, [&](int64_t part) {
      std::vector<float> scratch;
      for (int64_t row = part * rows / count; row < (part + 1) * rows / count; ++row)
        add(x_.read(row * channels, channels, scratch), sums.data() + part * channels);
    });
    for (int64_t i = channels; i < count * channels; ++i) sums[i % channels] += sums[i];
    return sums;
  };
  const std::vector<double> sums =
      over_batch([&](const float* row, double* of_part) { add_row(row, channels, of_part); });
  for (int64_t c = 0; c < channels; ++c) means[c] = static_cast<float>(sums[c] / static_cast<double>(rows));
  const std::vector<double> squares = over_batch(
      [&](const float* row, double* of_part) { add_squared_deviations(row, means.data(), channels, of_part); });
  std::vector<Affine> affines(channels);
  for (int64_t c = 0; c < channels; ++c)
    affines[c] = {means[c], factor_of(squares[c] / static_cast<double>(rows), geometry_.epsilon)};
  return affines;
}

UnitWiseBatch::Results UnitWiseBatch::over_rows() const {
  const int64_t channels = of_.channels, locations = of_.locations, count = parts(of_.samples);
  std::vector<Affine> of_batch(channels, Affine{0.0f, 1.0f});
  if (geometry_.moments == SharedMoments::kBatch) of_batch = channel_affines();
  // The channels of a position that share moments.
  const int64_t run = geometry_.moments == SharedMoments::kGroup ? channels / geometry_.channel_groups : channels;
  const bool of_position = geometry_.moments == SharedMoments::kGroup || geometry_.moments == SharedMoments::kPosition;
  std::vector<Results> results(count, Results(channels));
  parallel_for(count, [&](int64_t part) {
    Results& own = results[part];
    std::vector<float> of_x, of_dout, means(channels), factors(channels), sums(4 * channels);
    for (int64_t c = 0; c < channels; ++c) {
      means[c] = of_batch[c].mean;
      factors[c] = of_batch[c].factor;
    }
    float *gamma = sums.data(), *beta = gamma + channels, *uu = beta + channels, *vv = uu + channels;
    for (int64_t n = part * of_.samples / count; n < (part + 1) * of_.samples / count; ++n) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (int64_t row = n * locations; row < (n + 1) * locations; ++row) {
        const float* x = x_.read(row * channels, channels, of_x);
        for (int64_t first = 0; of_position && first < channels; first += run) {
          const double size = static_cast<double>(run);
          const float mean = geometry_.centered ? static_cast<float>(sum_of(x + first, run) / size) : 0.0f;
          std::fill_n(means.begin() + first, run, mean);
          std::fill_n(factors.begin() + first, run,
                      factor_of(squared_deviations(x + first, mean, run) / size, geometry_.epsilon));
        }
        add_position(x, dout_.read(row * channels, channels, of_dout), means.data(), factors.data(),
                     gamma_signs_.data(), beta_signs_.data(), channels, gamma, beta, uu, vv);
      }
      for (int64_t c = 0; c < channels; ++c) {
        own.add(c, gamma[c], beta[c], scale_);
        own.product += static_cast<double>(gamma_signs_[c]) * gamma[c] + static_cast<double>(beta_signs_[c]) * beta[c];
        own.uu += uu[c];
        own.vv += vv[c];
      }
    }
  });
  Results& total = results[0];
  for (int64_t part = 1; part < count; ++part) {
    const Results& other = results[part];
    for (int64_t c = 0; c < channels; ++c) {
      total.gamma[c] += other.gamma[c];
      total.beta[c] += other.beta[c];
      total.cross[c] += other.cross[c];
    }
    total.product += other.product;
    total.uu += other.uu;
    total.vv += other.vv;
  }
  return total;
}

}  // namespace

CaptureCheck add_unit_wise_moments(const NormalizationGeometry& geometry, const FloatArray& x, const FloatArray& dout,
                                   float* squares, float* cross) {
  return UnitWiseBatch(geometry, x, dout).add(squares, cross);
}

}  // namespace ms_kfac
