// Attention in bf16 where there is an instruction for products of pairs: both of its products are small matrix
// products.
#pragma once
#include "paging.h"

namespace vfastml {

#if defined(__AVX512BF16__)

/// sums[row][64] (+)= pairs[row][num_pairs] * other[num_pairs][64][2]
template <int ROWS>
inline void pair_products(const uint16_t* pairs, int pairs_stride, const uint16_t* other, int other_stride,
                          int num_pairs, float* sums, int sums_stride, bool adds) {
  Vec total[ROWS][4];
  UNROLLED for (int row = 0; row < ROWS; row++) UNROLLED for (int part = 0; part < 4; part++) total[row][part] =
      adds ? load(sums + row * sums_stride + part * 16) : zero();
  for (int pair = 0; pair < num_pairs; pair++, other += other_stride) {
    __m512bh b[4];
    UNROLLED for (int part = 0; part < 4; part++) b[part] = (__m512bh)_mm512_loadu_si512(other + part * 32);
    UNROLLED for (int row = 0; row < ROWS; row++) {
      int32_t two;
      memcpy(&two, pairs + row * pairs_stride + pair * 2, sizeof two);
      const __m512bh a = (__m512bh)_mm512_set1_epi32(two);
      UNROLLED for (int part = 0; part < 4; part++) total[row][part] = _mm512_dpbf16_ps(total[row][part], a, b[part]);
    }
  }
  UNROLLED for (int row = 0; row < ROWS; row++) UNROLLED for (int part = 0; part < 4; part++)
      store(sums + row * sums_stride + part * 16, total[row][part]);
}

inline void pair_products(int rows, const uint16_t* pairs, int pairs_stride, const uint16_t* other, int other_stride,
                          int num_pairs, float* sums, int sums_stride, bool adds) {
  while (rows > 0) {
    const int done = rows >= 6 ? 6 : rows >= 3 ? 3 : 1;
    if (done == 6) pair_products<6>(pairs, pairs_stride, other, other_stride, num_pairs, sums, sums_stride, adds);
    if (done == 3) pair_products<3>(pairs, pairs_stride, other, other_stride, num_pairs, sums, sums_stride, adds);
    if (done == 1) pair_products<1>(pairs, pairs_stride, other, other_stride, num_pairs, sums, sums_stride, adds);
    rows -= done, pairs += done * pairs_stride, sums += done * sums_stride;
  }
}

/// 16 rows of 16 32-bit numbers, columns for rows.
inline void transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

inline void score_pairs(const Paging& paging, const Queries& queries, const Cache& cache, const KeyOffsets& offsets,
                        const KeyOffsets& next, Scratch& room) {
  // keys become [head_dim / 2][64][2]
  uint16_t* keys = reinterpret_cast<uint16_t*>(room.keys.data());
  const uint16_t* from = static_cast<const uint16_t*>(cache.keys);
  const int num_pairs = paging.head_dim / 2;
  for (int key = 0; key < offsets.count; key += 16) {
    next.prefetch(paging, cache.keys, key, key + 16);
    for (int pair = 0; pair < num_pairs; pair += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; i++) block[i] = _mm512_loadu_si512(from + offsets.at[key + i] + pair * 2);
      transpose(block);
      for (int i = 0; i < 16; i++) _mm512_storeu_si512(keys + ((pair + i) * KEYS + key) * 2, block[i]);
    }
  }
  const uint16_t* q = reinterpret_cast<const uint16_t*>(room.queries.data());
  pair_products(queries.count, q, room.width, keys, KEYS * 2, num_pairs, room.scores.data(), KEYS, false);
  const Vec scaling = splat(paging.scaling);
  for (int at = 0; at < queries.count * KEYS; at += LANES) store(&room.scores[at], load(&room.scores[at]) * scaling);
}

inline void gather_pairs(const Paging& paging, const Queries& queries, const Cache& cache, const KeyOffsets& offsets,
                         const KeyOffsets& next, Scratch& room) {
  // values become [32][head_dim][2]: neighbouring keys side by side
  uint16_t* values = reinterpret_cast<uint16_t*>(room.values.data());
  const uint16_t* from = static_cast<const uint16_t*>(cache.values);
  const int dim = paging.head_dim;
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                       5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const int num_pairs = (offsets.count + 1) / 2;
  for (int pair = 0; pair < num_pairs; pair++) {
    next.prefetch(paging, cache.values, pair * 2, pair * 2 + 2);
    const uint16_t *a = from + offsets.at[pair * 2], *b = from + offsets.at[pair * 2 + 1];
    for (int at = 0; at < dim; at += 32) {
      const __m512i x = _mm512_loadu_si512(a + at), y = _mm512_loadu_si512(b + at);
      _mm512_storeu_si512(values + (pair * dim + at) * 2, _mm512_permutex2var_epi16(x, low, y));
      _mm512_storeu_si512(values + (pair * dim + at) * 2 + 32, _mm512_permutex2var_epi16(x, high, y));
    }
  }
  // the shares as bf16, in place
  uint16_t* shares = reinterpret_cast<uint16_t*>(room.scores.data());
  for (int query = 0; query < queries.count; query++)
    for (int key = 0; key < KEYS; key += LANES)
      store_bf16(shares + query * KEYS + key, load(&room.scores[query * KEYS + key]));
  for (int at = 0; at < dim; at += 64)
    pair_products(queries.count, shares, KEYS, values + at * 2, dim * 2, num_pairs, room.outputs.data() + at,
                  room.width, true);
}

inline bool takes_pairs(const Paging& paging) { return paging.is_bf16 && paging.head_dim % 64 == 0; }

#else

inline bool takes_pairs(const Paging&) { return false; }

#endif

}  // namespace vfastml
