// Emulates the mma instructions of tensor cores, with the fragment layouts of the PTX manual.
//
// Included inside namespace ms_kfac.
inline uint32_t to_tf32(float value) {
  uint32_t bits = __float_as_uint(value);
  // Rounds to nearest, ties away from zero, and keeps 10 bits of mantissa.
  if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x1000u;
  return bits & ~0x1fffu;
}

inline uint32_t to_bfloat16_pair(float low, float high) {
  const auto round = [](float value) {
    const uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) return (bits >> 16) | ((bits & 0xffffu) != 0 ? 1u : 0u);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  };
  return round(low) | round(high) << 16;
}

// ldmatrix.x4 of the PTX manual.
inline void load_matrices(const void* row, uint32_t (&words)[4]) {
  struct Lane {
    const void* given;
    const unsigned char* rows[4];
  } lane{row, {}};
  emulator::with_warp(&lane, [](void** of_lane) {
    for (int l = 0; l < 32; ++l)
      for (int matrix = 0; matrix < 4; ++matrix)
        static_cast<Lane*>(of_lane[l])->rows[matrix] =
            static_cast<const unsigned char*>(static_cast<Lane*>(of_lane[8 * matrix + l / 4])->given);
  });
  for (int matrix = 0; matrix < 4; ++matrix)
    std::memcpy(&words[matrix], lane.rows[matrix] + threadIdx.x % 4 * sizeof(uint32_t), sizeof(uint32_t));
}

struct MmaLane {
  float* sum;
  const uint32_t* left;
  const uint32_t* right;
};

// The number at position `packed` of a 32-bit register, which holds kPacked numbers.
template <int kPacked>
float mma_element(const uint32_t* registers, int index, int packed) {
  if (kPacked == 1) return __uint_as_float(registers[index]);
  return __uint_as_float((packed == 0 ? registers[index] << 16 : registers[index] & 0xffff0000u));
}

// A is 16 x 8 kPacked, row-major; B is 8 kPacked x 8, column-major. Register r of A is at row g + 8 (r % 2), depth
// kPacked t + 4 kPacked (r / 2). Register r of B is at column g, depth kPacked t + 4 kPacked r.
template <int kPacked>
void mma_of_warp(void** of_lane) {
  constexpr int kWidth = 8 * kPacked;
  double a[16][kWidth], b[kWidth][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& own = *static_cast<MmaLane*>(of_lane[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r)
      for (int packed = 0; packed < kPacked; ++packed)
        a[g + 8 * (r % 2)][kPacked * t + 4 * kPacked * (r / 2) + packed] = mma_element<kPacked>(own.left, r, packed);
    for (int r = 0; r < 2; ++r)
      for (int packed = 0; packed < kPacked; ++packed)
        b[kPacked * t + 4 * kPacked * r + packed][g] = mma_element<kPacked>(own.right, r, packed);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& own = *static_cast<MmaLane*>(of_lane[lane]);
    for (int element = 0; element < 4; ++element) {
      const int row = lane / 4 + 8 * (element / 2), column = 2 * (lane % 4) + element % 2;
      double sum = own.sum[element];
      for (int k = 0; k < kWidth; ++k) sum += a[row][k] * b[k][column];
      own.sum[element] = static_cast<float>(sum);
    }
  }
}

inline void mma_tf32(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  MmaLane lane{sum, left, right};
  emulator::with_warp(&lane, mma_of_warp<1>);
}

inline void mma_bfloat16(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  MmaLane lane{sum, left, right};
  emulator::with_warp(&lane, mma_of_warp<2>);
}
