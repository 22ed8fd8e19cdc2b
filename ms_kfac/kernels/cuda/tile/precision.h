// Warp-level matrix multiply-accumulate in float32, or on tensor cores with operands rounded to TF32 or BF16.
// Accumulation is always in float32.
//
// A piece of the result is 16 x 8. With g = l / 4 and t = l % 4, lane l of the warp holds its elements (g, 2t),
// (g, 2t + 1), (g + 8, 2t) and (g + 8, 2t + 1), as in the PTX instruction mma.m16n8. Operands lie in shared memory by
// rows of kDepth, in the swizzled order of place(), as float32, rounded to TF32, or in BF16.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ms_kfac {

enum class Precision { kFloat32, kTf32, kBfloat16 };

// Depth per call of multiply(): a multiple of the depth of the mma instructions.
constexpr int kDepth = 16;

// The precision that the architecture multiplies in: TF32 and BF16 need tensor cores of sm_80.
template <Precision kPrecision>
struct Used {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  static constexpr Precision kValue = Precision::kFloat32;
#else
  static constexpr Precision kValue = kPrecision;
#endif
};

// An operand's element in shared memory.
template <Precision kPrecision>
struct StoredAs {
  using Type = float;
};
template <>
struct StoredAs<Precision::kBfloat16> {
  using Type = uint16_t;
};
template <Precision kPrecision>
using Stored = typename StoredAs<Used<kPrecision>::kValue>::Type;

// Index of an operand's element in shared memory. A row has groups of 16 bytes: four float32 or eight BF16. Groups are
// permuted (swizzled) by row. Rows that are a multiple of 8 apart have the same order. So a warp has no bank conflicts
// when it reads the same group of eight adjacent rows, or two depths of eight adjacent rows or of four even ones. Nor
// has it any when it writes all depths of two rows, or four depths of eight rows. Writing two depths of 16 rows takes
// two passes. Tiles of 128 do so, except for operands that are loaded depth-first.
template <typename Number>
__host__ __device__ constexpr int place(int row, int depth) {
  constexpr int kGroup = 16 / sizeof(Number), kGroups = kDepth / kGroup;
  return row * kDepth + ((depth / kGroup) ^ (row / (8 / kGroups) % kGroups)) * kGroup + depth % kGroup;
}

struct LaneInPiece {
  int row, column;

  __device__ static LaneInPiece of(int lane) { return {lane / 4, 2 * (lane % 4)}; }
};

#ifdef __CUDACC__

__device__ inline uint32_t to_tf32(float value) {
  uint32_t bits;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  // One instruction. The other rounding takes four there.
  asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
#else
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
#endif
  return bits;
}

__device__ inline uint32_t to_bfloat16_pair(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

// Loads four matrices of 8 rows of 16 bytes from shared memory. Lane l gives the address of row l % 8 of matrix l / 8,
// and gets the word l % 4 of row l / 4 of each matrix.
__device__ inline void load_matrices(const void* row, uint32_t (&words)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

__device__ inline void mma_tf32(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

__device__ inline void mma_bfloat16(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

#else
#include "tensor_cores.h"
#endif

// A separate function, because nvcc's host compiler does not know intrinsics in templates.
__device__ inline float rounded_to_tf32(float value) { return __uint_as_float(to_tf32(value)); }

// Rounds an operand once, when it is written to shared memory.
template <Precision kPrecision>
__device__ inline Stored<kPrecision> rounded(float value) {
  if constexpr (Used<kPrecision>::kValue == Precision::kTf32)
    return rounded_to_tf32(value);
  else if constexpr (Used<kPrecision>::kValue == Precision::kBfloat16)
    return static_cast<uint16_t>(to_bfloat16_pair(value, 0.0f));
  else
    return value;
}

// sums[i][j] += left rows 16 i .. 16 i + 15 times right columns 8 j .. 8 j + 7, over kDepth. All lanes call it.
// Operands begin at a row that is a multiple of 8.
template <Precision kPrecision, int kRows, int kColumns>
__device__ inline void multiply(const Stored<kPrecision>* left, const Stored<kPrecision>* right, int lane,
                                float (&sums)[kRows][kColumns][4]) {
  using Number = Stored<kPrecision>;
  constexpr Precision kUsed = Used<kPrecision>::kValue;
  if constexpr (kUsed == Precision::kFloat32) {
    const int g = lane / 4, t = lane % 4;
    // Two depths at a time, to limit register use.
#pragma unroll 1
    for (int k = 0; k < kDepth; k += 2) {
      float2 a[kRows][2], b[kColumns][2];
      const auto* of_left = reinterpret_cast<const float2*>(left + place<float>(g, k));
      const auto* of_right = reinterpret_cast<const float2*>(right + place<float>(2 * t, k));
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        for (int half = 0; half < 2; ++half) a[i][half] = of_left[(16 * i + 8 * half) * (kDepth / 2)];
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        for (int next = 0; next < 2; ++next) b[j][next] = of_right[(8 * j + next) * (kDepth / 2)];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
#pragma unroll
          for (int element = 0; element < 4; ++element) {
            float& sum = sums[i][j][element];
            sum = fmaf(a[i][element / 2].x, b[j][element % 2].x, sum);
            sum = fmaf(a[i][element / 2].y, b[j][element % 2].y, sum);
          }
    }
  } else {
    static_assert(kColumns % 2 == 0, "columns are loaded 16 at a time");
    // The matrices of a left fragment are rows 0 .. 7 and 8 .. 15 of one group of depths, then both of the next. Those
    // of two right fragments are two groups of depths of columns 0 .. 7, then both of columns 8 .. 15.
    constexpr int kGroup = 16 / sizeof(Number);
#pragma unroll
    for (int k = 0; k < kDepth; k += 2 * kGroup) {
      const Number* of_left = left + place<Number>(lane % 16, k + lane / 16 * kGroup);
      const Number* of_right = right + place<Number>(lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * kGroup);
      uint32_t b[kColumns / 2][4];
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) load_matrices(of_right + 16 * j * kDepth, b[j]);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        uint32_t a[4];
        load_matrices(of_left + 16 * i * kDepth, a);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          const uint32_t of_columns[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          if constexpr (kUsed == Precision::kTf32)
            mma_tf32(sums[i][j], a, of_columns);
          else
            mma_bfloat16(sums[i][j], a, of_columns);
        }
      }
    }
  }
}

}  // namespace ms_kfac
