// What is done to single rows between the matrix products: norms, rotary positions, activation.
#pragma once
#include <cmath>

#include "simd.h"

namespace vfastml {

/// RMSNorm (Zhang and Sennrich 2019). `width` is padded with zeros to full vectors, `count` is the row's real length.
inline void rms_norm(const float* from, const float* weight, float* to, int count, int width, float epsilon) {
  Vec squares = zero();
  for (int at = 0; at < width; at += LANES) squares = fma(load(from + at), load(from + at), squares);
  const Vec factor = splat(1.0f / std::sqrt(sum(squares) / count + epsilon));
  for (int at = 0; at < width; at += LANES) store(to + at, load(from + at) * factor * load(weight + at));
}

/// The same for one head of any length, in place.
inline void rms_norm_head(float* head, const float* weight, int count, float epsilon) {
  float squares = 0.0f;
  for (int at = 0; at < count; at++) squares += head[at] * head[at];
  const float factor = 1.0f / std::sqrt(squares / count + epsilon);
  for (int at = 0; at < count; at++) head[at] = head[at] * factor * weight[at];
}

/// Rotary position (Su et al. 2021), halves form: `cosines` and `sines` [head_dim / 2].
inline void rotate(float* head, const float* cosines, const float* sines, int head_dim) {
  const int half = head_dim / 2;
  int at = 0;
  for (; at + LANES <= half; at += LANES) {
    const Vec a = load(head + at), b = load(head + half + at), c = load(cosines + at), s = load(sines + at);
    store(head + at, a * c - b * s);
    store(head + half + at, b * c + a * s);
  }
  for (; at < half; at++) {
    const float a = head[at], b = head[half + at];
    head[at] = a * cosines[at] - b * sines[at];
    head[half + at] = b * cosines[at] + a * sines[at];
  }
}

/// silu(gate) * up for a panel whose first half are gates and whose second half are the same columns' ups.
inline void silu_times(const float* panel, float* to) {
  for (int at = 0; at < 16; at += LANES) {
    const Vec gate = load(panel + at);
    store(to + at, gate / (splat(1.0f) + exp(zero() - gate)) * load(panel + 16 + at));
  }
}

/// Into the cache, which stays finite.
inline void put_cached(const float* from, void* to, bool is_bf16, int count) {
  int at = 0;
  for (; at + LANES <= count; at += LANES) {
    const Vec value = finite(load(from + at));
    if (is_bf16)
      store_bf16(static_cast<uint16_t*>(to) + at, value);
    else
      store(static_cast<float*>(to) + at, value);
  }
  if (at == count) return;
  float rest[LANES] = {}, kept[LANES];
  uint16_t narrow[LANES];
  memcpy(rest, from + at, (count - at) * sizeof(float));
  store(kept, finite(load(rest)));
  store_bf16(narrow, load(kept));
  if (is_bf16)
    memcpy(static_cast<uint16_t*>(to) + at, narrow, (count - at) * sizeof(uint16_t));
  else
    memcpy(static_cast<float*>(to) + at, kept, (count - at) * sizeof(float));
}

}  // namespace vfastml
