// Rows of inputs times a packed matrix. Each output is summed up over the inputs in one fixed order, whatever rows are
// computed beside it: a text does not depend on its neighbours.
#pragma once
#include <type_traits>

#include "matrix.h"

namespace vfastml {

constexpr int MOST_ROWS = 12;
constexpr int COLUMNS = PANEL / LANES;

/// A tile of results on its way from the kernel to what is done with it.
using Tile = float[MOST_ROWS][PANEL];

inline void prefetch(const char* at) {
  // Far enough ahead for memory, near enough for the first cache.
  _mm_prefetch(at + 2048, _MM_HINT_T0);
  _mm_prefetch(at + 2112, _MM_HINT_T0);
}

template <int ROWS>
inline void finish(const Vec (&sums)[ROWS][COLUMNS], Tile& tile) {
  UNROLLED for (int row = 0; row < ROWS; row++) UNROLLED for (int column = 0; column < COLUMNS; column++)
      store(tile[row] + column * LANES, sums[row][column]);
}

template <int ROWS>
void tile_f32(const float* const (&rows)[ROWS], const char* panel, int width, Tile& tile) {
  Vec sums[ROWS][COLUMNS];
  UNROLLED for (auto& row : sums) UNROLLED for (Vec& one : row) one = zero();
  const float* weights = reinterpret_cast<const float*>(panel);
  for (int input = 0; input < width; input++, weights += PANEL) {
    prefetch(reinterpret_cast<const char*>(weights));
    Vec w[COLUMNS];
    UNROLLED for (int column = 0; column < COLUMNS; column++) w[column] = load(weights + column * LANES);
    UNROLLED for (int row = 0; row < ROWS; row++) {
      const Vec x = splat(rows[row][input]);
      UNROLLED for (int column = 0; column < COLUMNS; column++) sums[row][column] =
          fma(x, w[column], sums[row][column]);
    }
  }
  finish<ROWS>(sums, tile);
}

#if defined(__AVX512BF16__)

template <int ROWS>
void tile_bf16(const uint16_t* const (&rows)[ROWS], const char* panel, int width, Tile& tile) {
  Vec sums[ROWS][COLUMNS];
  UNROLLED for (auto& row : sums) UNROLLED for (Vec& one : row) one = zero();
  const uint16_t* weights = reinterpret_cast<const uint16_t*>(panel);
  for (int input = 0; input < width; input += 2, weights += 2 * PANEL) {
    prefetch(reinterpret_cast<const char*>(weights));
    const __m512bh w0 = (__m512bh)_mm512_loadu_si512(weights), w1 = (__m512bh)_mm512_loadu_si512(weights + PANEL);
    UNROLLED for (int row = 0; row < ROWS; row++) {
      int32_t pair;
      memcpy(&pair, rows[row] + input, sizeof pair);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      sums[row][0] = _mm512_dpbf16_ps(sums[row][0], x, w0);
      sums[row][1] = _mm512_dpbf16_ps(sums[row][1], x, w1);
    }
  }
  finish<ROWS>(sums, tile);
}

#else

template <int ROWS>
void tile_bf16(const float* const (&rows)[ROWS], const char* panel, int width, Tile& tile) {
  Vec sums[ROWS][COLUMNS];
  UNROLLED for (auto& row : sums) UNROLLED for (Vec& one : row) one = zero();
  const uint16_t* weights = reinterpret_cast<const uint16_t*>(panel);
  for (int input = 0; input < width; input += 2, weights += 2 * PANEL) {
    prefetch(reinterpret_cast<const char*>(weights));
    UNROLLED for (int column = 0; column < COLUMNS; column++) {
      const Vec even = even_bf16(weights + 2 * column * LANES), odd = odd_bf16(weights + 2 * column * LANES);
      UNROLLED for (int row = 0; row < ROWS; row++) {
        sums[row][column] = fma(splat(rows[row][input]), even, sums[row][column]);
        sums[row][column] = fma(splat(rows[row][input + 1]), odd, sums[row][column]);
      }
    }
  }
  finish<ROWS>(sums, tile);
}

#endif

#if defined(__AVX512F__)
using Ints = __m512i;
inline Ints splat_i32(int32_t value) { return _mm512_set1_epi32(value); }
inline Ints load_i8(const uint8_t* from) { return _mm512_loadu_si512(from); }
inline Vec to_float(Ints value) { return _mm512_cvtepi32_ps(value); }
/// Adds the products of four unsigned weights with four signed inputs in each 32-bit lane.
inline Ints add_products(Ints sums, Ints weights, Ints inputs) {
#if defined(__AVX512VNNI__)
  // As an intrinsic GCC 12 copies every sum to another register and back.
  asm("vpdpbusd %[inputs], %[weights], %[sums]" : [sums] "+v"(sums) : [weights] "v"(weights), [inputs] "v"(inputs));
  return sums;
#else
  const Ints low = _mm512_set1_epi32(0x00ff00ff);
  const Ints even =
      _mm512_madd_epi16(_mm512_and_si512(weights, low), _mm512_srai_epi16(_mm512_slli_epi16(inputs, 8), 8));
  const Ints odd = _mm512_madd_epi16(_mm512_srli_epi16(weights, 8), _mm512_srai_epi16(inputs, 8));
  return _mm512_add_epi32(sums, _mm512_add_epi32(even, odd));
#endif
}
#else
using Ints = __m256i;
inline Ints splat_i32(int32_t value) { return _mm256_set1_epi32(value); }
inline Ints load_i8(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline Vec to_float(Ints value) { return _mm256_cvtepi32_ps(value); }
inline Ints add_products(Ints sums, Ints weights, Ints inputs) {
  const Ints low = _mm256_set1_epi32(0x00ff00ff);
  const Ints even =
      _mm256_madd_epi16(_mm256_and_si256(weights, low), _mm256_srai_epi16(_mm256_slli_epi16(inputs, 8), 8));
  const Ints odd = _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), _mm256_srai_epi16(inputs, 8));
  return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
}
#endif

/// Within a group of inputs in whole numbers, exactly; then with the group's scale in float.
template <int ROWS>
void tile_i8(const Inputs& x, int first, const char* panel, const float* scales, Tile& tile) {
  Vec sums[ROWS][COLUMNS];
  UNROLLED for (auto& row : sums) UNROLLED for (Vec& one : row) one = zero();
  const uint8_t* weights = reinterpret_cast<const uint8_t*>(panel);
  for (int group = 0; group < x.width / GROUP; group++) {
    Ints whole[ROWS][COLUMNS];
    UNROLLED for (int row = 0; row < ROWS; row++)  // a weight w is stored as w + 128
        UNROLLED for (Ints& one : whole[row]) one = splat_i32(-x.sums_of(first + row)[group]);
    for (int input = group * GROUP; input < (group + 1) * GROUP; input += 4, weights += 4 * PANEL) {
      prefetch(reinterpret_cast<const char*>(weights));
      Ints w[COLUMNS];
      UNROLLED for (int column = 0; column < COLUMNS; column++) w[column] = load_i8(weights + 4 * column * LANES);
      UNROLLED for (int row = 0; row < ROWS; row++) {
        int32_t four;
        memcpy(&four, x.row<int8_t>(first + row) + input, sizeof four);
        UNROLLED for (int column = 0; column < COLUMNS; column++) whole[row][column] =
            add_products(whole[row][column], w[column], splat_i32(four));
      }
    }
    UNROLLED for (int row = 0; row < ROWS; row++) {
      const Vec scale = splat(x.scales_of(first + row)[group]);
      UNROLLED for (int column = 0; column < COLUMNS; column++) sums[row][column] =
          fma(to_float(whole[row][column]), scale, sums[row][column]);
    }
  }
  UNROLLED for (int row = 0; row < ROWS; row++) UNROLLED for (int column = 0; column < COLUMNS; column++)
      store(tile[row] + column * LANES, sums[row][column] * load(scales + column * LANES));
}

template <int ROWS>
void tile_of(const Matrix& matrix, const Inputs& x, int first, int panel, Tile& tile) {
  const char* weights = matrix.panel(panel);
  if (matrix.format == Format::I8) {
    tile_i8<ROWS>(x, first, weights, matrix.scales + panel * PANEL, tile);
  } else if (matrix.format == Format::BF16) {
    using Number = std::conditional_t<BF16_PRODUCTS, uint16_t, float>;
    const Number* rows[ROWS];
    UNROLLED for (int row = 0; row < ROWS; row++) rows[row] = x.row<Number>(first + row);
    tile_bf16<ROWS>(rows, weights, x.width, tile);
  } else {
    const float* rows[ROWS];
    UNROLLED for (int row = 0; row < ROWS; row++) rows[row] = x.row<float>(first + row);
    tile_f32<ROWS>(rows, weights, x.width, tile);
  }
}

/// One tile, as high as the registers hold and the rows that are left fill. Returns its height.
template <int ROWS, int... LOWER>
int next_tile(const Matrix& matrix, const Inputs& x, int first, int left, int panel, Tile& tile) {
  if constexpr (sizeof...(LOWER) > 0)
    if (left < ROWS) return next_tile<LOWER...>(matrix, x, first, left, panel, tile);
  tile_of<ROWS>(matrix, x, first, panel, tile);
  return ROWS;
}

/// Computes rows first ... end - 1 of one panel of outputs; `use(row, results)` gets each row's 32, bias included.
template <class Use>
void multiply(const Matrix& matrix, const Inputs& x, int first, int end, int panel, Use&& use) {
  Tile tile;
  while (first < end) {
#if defined(__AVX512F__)
    // 8-bit tiles hold their sums twice, in whole numbers and in float
    const int rows = matrix.format == Format::I8
                         ? next_tile<6, 4, 2, 1>(matrix, x, first, end - first, panel, tile)
                         : next_tile<12, 8, 6, 4, 2, 1>(matrix, x, first, end - first, panel, tile);
#else
    const int rows = next_tile<3, 2, 1>(matrix, x, first, end - first, panel, tile);
#endif
    for (int row = 0; row < rows; row++) {
      if (matrix.bias)
        for (int at = 0; at < PANEL; at += LANES)
          store(tile[row] + at, load(tile[row] + at) + load(matrix.bias + panel * PANEL + at));
      use(first + row, tile[row]);
    }
    first += rows;
  }
}

}  // namespace vfastml
