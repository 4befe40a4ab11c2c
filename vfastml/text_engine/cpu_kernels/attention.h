// Attention of one row's queries over the paged cache, with an online softmax (Milakov and Gimelshein 2018): keys are
// taken 64 at a time, and no score is ever written to memory beyond them.
#pragma once
#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "simd.h"

namespace vfastml {

constexpr int KEYS = 64;     // in a tile
constexpr int QUERIES = 24;  // in a tile: query heads that share a KV head, of neighbouring tokens

/// Where a layer's keys and values lie: [blocks][block_size][heads][head_dim], bf16 or float.
struct Cache {
  void* keys;
  void* values;
};

/// The queries of one tile and what they may see.
struct Queries {
  int count;           // at most QUERIES
  const float* at[QUERIES];
  int position[QUERIES];
};

/// What all tiles of a step have in common.
struct Paging {
  int block_size;
  int num_heads;  // KV heads
  int head_dim;
  bool is_bf16;
  float scaling;
};

/// Where in a layer's cache the keys of a tile begin, and their values.
struct Places {
  int count = 0;
  size_t at[KEYS];

  Places() = default;
  Places(const Paging& paging, const int32_t* table, int head, int first, int count) : count(count) {
    const size_t stride = static_cast<size_t>(paging.num_heads) * paging.head_dim;
    int block = first / paging.block_size, inside = first % paging.block_size;
    for (int key = 0; key < count; key++) {
      const size_t slot = static_cast<size_t>(table[block]) * paging.block_size + inside;
      at[key] = slot * stride + static_cast<size_t>(head) * paging.head_dim;
      if (++inside == paging.block_size) inside = 0, block++;
    }
    for (int key = count; key < up_to(count, 16); key++) at[key] = at[count - 1];  // masked, but readable
  }

  /// Asks for what will be read soon, keys `from` up to and without `to`: they lie apart, and no processor guesses where
  /// the next one is.
  void fetch(const Paging& paging, const void* cache, int from, int to) const {
    const int size = paging.is_bf16 ? 2 : 4, bytes = paging.head_dim * size;
    for (int key = from; key < std::min(to, count); key++)
      for (int byte = 0; byte < bytes; byte += 64)
        _mm_prefetch(static_cast<const char*>(cache) + at[key] * size + byte, _MM_HINT_T1);
  }
};

/// Memory that begins at a cache line: a vector that lies across two takes twice as long.
template <class T>
struct LineAligned {
  using value_type = T;
  LineAligned() = default;
  template <class U>
  LineAligned(const LineAligned<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* at, size_t) { ::operator delete(at, std::align_val_t(64)); }
  bool operator==(const LineAligned&) const { return true; }
  bool operator!=(const LineAligned&) const { return false; }
};
using Aligned = std::vector<float, LineAligned<float>>;

/// Room for one thread's tile. `width` is head_dim, rounded up to full vectors.
struct Scratch {
  explicit Scratch(int head_dim)
      : width(up_to(head_dim, 32)),
        queries(QUERIES * width),
        scores(QUERIES * KEYS),
        outputs(QUERIES * width),
        keys(KEYS * width),
        values(KEYS * width) {}

  int width;
  Aligned queries, scores, outputs;
  Aligned keys, values;  // as bf16 pairs they need half of it
  float tops[QUERIES], totals[QUERIES];
};

/// Which keys of a tile a query sees: those from `from` up to and without `to`.
struct Sight {
  int from, to;
  Sight(int position, int window, int first_key)
      : from(window ? std::max(0, position - window + 1 - first_key) : 0), to(std::min(KEYS, position + 1 - first_key)) {}
  bool all() const { return from <= 0 && to >= KEYS; }
};

// -- float: for caches in float, and where bf16 has no product instruction

inline void read_tile(const Paging& paging, const void* cache, const Places& places, float* to, int width) {
  for (int key = 0; key < places.count; key++, to += width) {
    const size_t at = places.at[key];
    int dim = 0;
    if (paging.is_bf16) {
      const uint16_t* from = static_cast<const uint16_t*>(cache) + at;
      for (; dim + LANES <= paging.head_dim; dim += LANES) store(to + dim, load_bf16(from + dim));
      for (; dim < paging.head_dim; dim++) to[dim] = from_bf16(from[dim]);
    } else {
      const float* from = static_cast<const float*>(cache) + at;
      for (; dim + LANES <= paging.head_dim; dim += LANES) store(to + dim, load(from + dim));
      for (; dim < paging.head_dim; dim++) to[dim] = from[dim];
    }
    for (; dim < width; dim++) to[dim] = 0.0f;
  }
}

inline void score_float(const Paging& paging, const Queries& queries, const Cache& cache, const Places& places, const Places& next, Scratch& room) {
  const int width = room.width;
  next.fetch(paging, cache.keys, 0, KEYS);
  read_tile(paging, cache.keys, places, room.keys.data(), width);
  for (int query = 0; query < queries.count; query++) {
    const float* q = room.queries.data() + query * width;
    for (int key = 0; key < places.count; key++) {
      Vec total = zero();
      for (int dim = 0; dim < width; dim += LANES)
        total = fma(load(q + dim), load(room.keys.data() + key * width + dim), total);
      room.scores[query * KEYS + key] = sum(total) * paging.scaling;
    }
  }
}

inline void gather_float(const Paging& paging, const Queries& queries, const Cache& cache, const Places& places, const Places& next, Scratch& room) {
  const int width = room.width;
  next.fetch(paging, cache.values, 0, KEYS);
  read_tile(paging, cache.values, places, room.values.data(), width);
  for (int query = 0; query < queries.count; query++) {
    float* output = room.outputs.data() + query * width;
    for (int dim = 0; dim < width; dim += LANES) {
      Vec total = load(output + dim);
      for (int key = 0; key < places.count; key++)
        total = fma(splat(room.scores[query * KEYS + key]), load(room.values.data() + key * width + dim), total);
      store(output + dim, total);
    }
  }
}

// -- bf16 with product instructions: both products of attention are small matrix products of pairs

#if defined(__AVX512BF16__)

/// sums[row][64] (+)= pairs[row][num_pairs] * other[num_pairs][64][2]
template <int ROWS>
inline void pair_products(const uint16_t* pairs, int pairs_stride, const uint16_t* other, int other_stride, int num_pairs,
                          float* sums, int sums_stride, bool adds) {
  Vec total[ROWS][4];
  UNROLLED for (int row = 0; row < ROWS; row++)
    UNROLLED for (int part = 0; part < 4; part++) total[row][part] = adds ? load(sums + row * sums_stride + part * 16) : zero();
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
  UNROLLED for (int row = 0; row < ROWS; row++)
    UNROLLED for (int part = 0; part < 4; part++) store(sums + row * sums_stride + part * 16, total[row][part]);
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

inline void score_pairs(const Paging& paging, const Queries& queries, const Cache& cache, const Places& places, const Places& next, Scratch& room) {
  // keys become [head_dim / 2][64][2]
  uint16_t* keys = reinterpret_cast<uint16_t*>(room.keys.data());
  const uint16_t* from = static_cast<const uint16_t*>(cache.keys);
  const int num_pairs = paging.head_dim / 2;
  for (int key = 0; key < places.count; key += 16) {
    next.fetch(paging, cache.keys, key, key + 16);
    for (int pair = 0; pair < num_pairs; pair += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; i++) block[i] = _mm512_loadu_si512(from + places.at[key + i] + pair * 2);
      transpose(block);
      for (int i = 0; i < 16; i++) _mm512_storeu_si512(keys + ((pair + i) * KEYS + key) * 2, block[i]);
    }
  }
  const uint16_t* q = reinterpret_cast<const uint16_t*>(room.queries.data());
  pair_products(queries.count, q, room.width, keys, KEYS * 2, num_pairs, room.scores.data(), KEYS, false);
  const Vec scaling = splat(paging.scaling);
  for (int at = 0; at < queries.count * KEYS; at += LANES) store(&room.scores[at], load(&room.scores[at]) * scaling);
}

inline void gather_pairs(const Paging& paging, const Queries& queries, const Cache& cache, const Places& places, const Places& next, Scratch& room) {
  // values become [32][head_dim][2]: neighbouring keys side by side
  uint16_t* values = reinterpret_cast<uint16_t*>(room.values.data());
  const uint16_t* from = static_cast<const uint16_t*>(cache.values);
  const int dim = paging.head_dim;
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                       36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const int num_pairs = (places.count + 1) / 2;
  for (int pair = 0; pair < num_pairs; pair++) {
    next.fetch(paging, cache.values, pair * 2, pair * 2 + 2);
    const uint16_t *a = from + places.at[pair * 2], *b = from + places.at[pair * 2 + 1];
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
    pair_products(queries.count, shares, KEYS, values + at * 2, dim * 2, num_pairs, room.outputs.data() + at, room.width,
                  true);
}

inline bool takes_pairs(const Paging& paging) { return paging.is_bf16 && paging.head_dim % 64 == 0; }

#else

inline bool takes_pairs(const Paging&) { return false; }

#endif

/// room.scores of each query and key of the tile.
inline void score(const Paging& paging, const Queries& queries, const Cache& cache, const Places& places, const Places& next, Scratch& room) {
#if defined(__AVX512BF16__)
  if (takes_pairs(paging)) return score_pairs(paging, queries, cache, places, next, room);
#endif
  score_float(paging, queries, cache, places, next, room);
}

/// Adds the tile's values to room.outputs, each by its share of room.scores.
inline void gather(const Paging& paging, const Queries& queries, const Cache& cache, const Places& places, const Places& next, Scratch& room) {
#if defined(__AVX512BF16__)
  if (takes_pairs(paging)) return gather_pairs(paging, queries, cache, places, next, room);
#endif
  gather_float(paging, queries, cache, places, next, room);
}

/// Scores of a tile become shares exp(score - top); earlier outputs are scaled down where the top has risen.
inline void soften(const Queries& queries, int window, int first, Scratch& room) {
  for (int query = 0; query < queries.count; query++) {
    float* scores = room.scores.data() + query * KEYS;
    const Sight sight(queries.position[query], window, first);
    if (!sight.all())
      for (int key = 0; key < KEYS; key++)
        if (key < sight.from || key >= sight.to) scores[key] = -std::numeric_limits<float>::infinity();
    Vec most = load(scores);
    for (int key = LANES; key < KEYS; key += LANES) most = max(most, load(scores + key));
    const float top = std::max(room.tops[query], largest(most));
    if (top == -std::numeric_limits<float>::infinity()) {  // nothing seen so far
      for (int key = 0; key < KEYS; key++) scores[key] = 0.0f;
      continue;
    }
    if (top > room.tops[query]) {
      const Vec factor = exp(splat(room.tops[query] - top));
      float* output = room.outputs.data() + query * room.width;
      for (int dim = 0; dim < room.width; dim += LANES) store(output + dim, load(output + dim) * factor);
      float factors[LANES];
      store(factors, factor);
      room.totals[query] *= factors[0];
      room.tops[query] = top;
    }
    Vec total = zero();
    for (int key = 0; key < KEYS; key += LANES) {
      const Vec share = exp(load(scores + key) - splat(top));
      store(scores + key, share);
      total = total + share;
    }
    room.totals[query] += sum(total);
  }
}

/// The first of the keys that a query sees, down to a whole tile. `window` 0: all that came before.
inline int first_seen(int position, int window) { return window ? std::max(0, position - window + 1) / KEYS * KEYS : 0; }

/// Calls `use(query, output)` with each query's [head_dim] result. `after` is what this thread will read next.
template <class Use>
void attend(const Paging& paging, const Queries& queries, const Cache& cache, const int32_t* table, int head, int window,
            const Places& after, Scratch& room, Use&& use) {
  const bool pairs = takes_pairs(paging);
  for (int query = 0; query < queries.count; query++) {
    room.tops[query] = -std::numeric_limits<float>::infinity();
    room.totals[query] = 0.0f;
    if (pairs) {
      uint16_t* to = reinterpret_cast<uint16_t*>(room.queries.data()) + query * room.width;
      for (int dim = 0; dim < paging.head_dim; dim += LANES) store_bf16(to + dim, load(queries.at[query] + dim));
    } else {
      float* to = room.queries.data() + query * room.width;
      for (int dim = 0; dim < room.width; dim++) to[dim] = dim < paging.head_dim ? queries.at[query][dim] : 0.0f;
    }
  }
  std::fill_n(room.outputs.data(), queries.count * room.width, 0.0f);
  const int end = queries.position[queries.count - 1] + 1;
  const int begin = first_seen(queries.position[0], window);
  Places places(paging, table, head, begin, std::min(KEYS, end - begin));
  places.fetch(paging, cache.keys, 0, KEYS);
  places.fetch(paging, cache.values, 0, KEYS);
  for (int first = begin; first < end; first += KEYS) {
    const int left = end - first - KEYS;
    const Places next = left > 0 ? Places(paging, table, head, first + KEYS, std::min(KEYS, left)) : after;
    score(paging, queries, cache, places, next, room);
    soften(queries, window, first, room);
    gather(paging, queries, cache, places, next, room);
    places = next;
  }
  for (int query = 0; query < queries.count; query++) {
    float* output = room.outputs.data() + query * room.width;
    const Vec share = splat(1.0f / room.totals[query]);
    for (int dim = 0; dim < room.width; dim += LANES) store(output + dim, load(output + dim) * share);
    use(query, output);
  }
}

}  // namespace vfastml
