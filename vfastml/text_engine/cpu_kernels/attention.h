// Attention of one row's queries over the paged cache, with an online softmax (Milakov and Gimelshein 2018): keys are
// taken 64 at a time, and no score is ever written to memory beyond them.
#pragma once
#include <algorithm>
#include <limits>

#include "attention_pairs.h"

namespace vfastml {

// -- float: for caches in float, and where bf16 has no product instruction

inline void read_tile(const Paging& paging, const void* cache, const KeyOffsets& offsets, float* to, int width) {
  for (int key = 0; key < offsets.count; key++, to += width) {
    const size_t at = offsets.at[key];
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

inline void score_float(const Paging& paging, const Queries& queries, const Cache& cache, const KeyOffsets& offsets,
                        const KeyOffsets& next, Scratch& room) {
  const int width = room.width;
  next.prefetch(paging, cache.keys, 0, KEYS);
  read_tile(paging, cache.keys, offsets, room.keys.data(), width);
  for (int query = 0; query < queries.count; query++) {
    const float* q = room.queries.data() + query * width;
    for (int key = 0; key < offsets.count; key++) {
      Vec total = zero();
      for (int dim = 0; dim < width; dim += LANES)
        total = fma(load(q + dim), load(room.keys.data() + key * width + dim), total);
      room.scores[query * KEYS + key] = sum(total) * paging.scaling;
    }
  }
}

inline void gather_float(const Paging& paging, const Queries& queries, const Cache& cache, const KeyOffsets& offsets,
                         const KeyOffsets& next, Scratch& room) {
  const int width = room.width;
  next.prefetch(paging, cache.values, 0, KEYS);
  read_tile(paging, cache.values, offsets, room.values.data(), width);
  for (int query = 0; query < queries.count; query++) {
    float* output = room.outputs.data() + query * width;
    for (int dim = 0; dim < width; dim += LANES) {
      Vec total = load(output + dim);
      for (int key = 0; key < offsets.count; key++)
        total = fma(splat(room.scores[query * KEYS + key]), load(room.values.data() + key * width + dim), total);
      store(output + dim, total);
    }
  }
}

/// room.scores of each query and key of the tile.
inline void score(const Paging& paging, const Queries& queries, const Cache& cache, const KeyOffsets& offsets,
                  const KeyOffsets& next, Scratch& room) {
#if defined(__AVX512BF16__)
  if (takes_pairs(paging)) return score_pairs(paging, queries, cache, offsets, next, room);
#endif
  score_float(paging, queries, cache, offsets, next, room);
}

/// Adds the tile's values to room.outputs, each by its share of room.scores.
inline void gather(const Paging& paging, const Queries& queries, const Cache& cache, const KeyOffsets& offsets,
                   const KeyOffsets& next, Scratch& room) {
#if defined(__AVX512BF16__)
  if (takes_pairs(paging)) return gather_pairs(paging, queries, cache, offsets, next, room);
#endif
  gather_float(paging, queries, cache, offsets, next, room);
}

/// Scores of a tile become shares exp(score - top); earlier outputs are scaled down where the top has risen.
inline void update_softmax(const Queries& queries, int window, int first, Scratch& room) {
  for (int query = 0; query < queries.count; query++) {
    float* scores = room.scores.data() + query * KEYS;
    const VisibleKeys visible(queries.position[query], window, first);
    if (!visible.all())
      for (int key = 0; key < KEYS; key++)
        if (key < visible.from || key >= visible.to) scores[key] = -std::numeric_limits<float>::infinity();
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
inline int first_seen(int position, int window) {
  return window ? std::max(0, position - window + 1) / KEYS * KEYS : 0;
}

/// Calls `use(query, output)` with each query's [head_dim] result. `after` is what this thread will read next.
template <class Use>
void attend(const Paging& paging, const Queries& queries, const Cache& cache, const int32_t* table, int head,
            int window, const KeyOffsets& after, Scratch& room, Use&& use) {
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
  KeyOffsets offsets(paging, table, head, begin, std::min(KEYS, end - begin));
  offsets.prefetch(paging, cache.keys, 0, KEYS);
  offsets.prefetch(paging, cache.values, 0, KEYS);
  for (int first = begin; first < end; first += KEYS) {
    const int left = end - first - KEYS;
    const KeyOffsets next = left > 0 ? KeyOffsets(paging, table, head, first + KEYS, std::min(KEYS, left)) : after;
    score(paging, queries, cache, offsets, next, room);
    update_softmax(queries, window, first, room);
    gather(paging, queries, cache, offsets, next, room);
    offsets = next;
  }
  for (int query = 0; query < queries.count; query++) {
    float* output = room.outputs.data() + query * room.width;
    const Vec share = splat(1.0f / room.totals[query]);
    for (int dim = 0; dim < room.width; dim += LANES) store(output + dim, load(output + dim) * share);
    use(query, output);
  }
}

}  // namespace vfastml
