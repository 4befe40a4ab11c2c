// The two limits of every kernel: how fast memory is read, and how fast registers multiply.
#pragma once
#include "gemm.h"

namespace vfastml {

/// A multiple of 64 bytes.
inline uint64_t read_bytes(const char* from, int64_t count) {
  __m256i sums[2] = {};
  for (const char* end = from + count; from < end; from += 64) {
    prefetch(from);
    sums[0] = _mm256_add_epi64(sums[0], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    sums[1] = _mm256_add_epi64(sums[1], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32)));
  }
  alignas(32) uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), _mm256_add_epi64(sums[0], sums[1]));
  return parts[0] + parts[1] + parts[2] + parts[3];
}

/// A tile of sums that do not wait for each other: enough to hide how long one takes, and with their factors no more
/// than AVX2 has registers.
constexpr int SIDE = 3;

/// The compiler is told that the value may have changed, so it can compute nothing ahead.
template <class T>
inline void change(T& value) {
  asm volatile("" : "+v"(value));
}

template <class T, class Add>
inline int64_t compute_tile(int rounds, int operations, T value, Add&& add) {
  T sums[SIDE][SIDE] = {}, left[SIDE], right[SIDE];
  UNROLLED for (T& one : left) one = value;
  UNROLLED for (T& one : right) one = value;
  for (int round = 0; round < rounds; round++) {
    UNROLLED for (T& one : left) change(one);
    UNROLLED for (T& one : right) change(one);
    UNROLLED for (int row = 0; row < SIDE; row++) UNROLLED for (int column = 0; column < SIDE; column++)
        sums[row][column] = add(sums[row][column], left[row], right[column]);
  }
  UNROLLED for (auto& row : sums) UNROLLED for (T& sum : row) change(sum);
  return static_cast<int64_t>(rounds) * SIDE * SIDE * operations;
}

/// Products and sums by the instruction that matrices of the format are multiplied with. Returns how many.
inline int64_t compute(Format format, int rounds) {
  if (format == Format::I8)
    return compute_tile(rounds, 8 * LANES, splat_i32(0x01010101),
                        [](Ints sum, Ints a, Ints b) { return add_products(sum, a, b); });
#if defined(__AVX512BF16__)
  if (format == Format::BF16)
    return compute_tile(rounds, 4 * LANES, splat(0.0f),
                        [](Vec sum, Vec a, Vec b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); });
#endif
  return compute_tile(rounds, 2 * LANES, splat(0.0f), [](Vec sum, Vec a, Vec b) { return fma(a, b, sum); });
}

}  // namespace vfastml
