// Keys and values as they lie in the paged cache, and one thread's room for computing with some of them.
#pragma once
#include <algorithm>
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
  int count;  // at most QUERIES
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
struct KeyOffsets {
  int count = 0;
  size_t at[KEYS];

  KeyOffsets() = default;
  KeyOffsets(const Paging& paging, const int32_t* table, int head, int first, int count) : count(count) {
    const size_t stride = static_cast<size_t>(paging.num_heads) * paging.head_dim;
    int block = first / paging.block_size, inside = first % paging.block_size;
    for (int key = 0; key < count; key++) {
      const size_t slot = static_cast<size_t>(table[block]) * paging.block_size + inside;
      at[key] = slot * stride + static_cast<size_t>(head) * paging.head_dim;
      if (++inside == paging.block_size) inside = 0, block++;
    }
    for (int key = count; key < up_to(count, 16); key++) at[key] = at[count - 1];  // masked, but readable
  }

  /// Asks for what will be read soon, keys `from` up to and without `to`: they lie apart, and no processor guesses
  /// where the next one is.
  void prefetch(const Paging& paging, const void* cache, int from, int to) const {
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
struct VisibleKeys {
  int from, to;
  VisibleKeys(int position, int window, int first_key)
      : from(window ? std::max(0, position - window + 1 - first_key) : 0),
        to(std::min(KEYS, position + 1 - first_key)) {}
  bool all() const { return from <= 0 && to >= KEYS; }
};

}  // namespace vfastml
