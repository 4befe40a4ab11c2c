// What a layer's attention does with a step: each token's place in the cache, and who computes which queries.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "attention.h"
#include "model.h"
#include "rows.h"
#include "team.h"

namespace vfastml {

/// A chunk of attention: some of a row's queries that share a KV head, token by token.
struct QueryTile {
  int row, head, first, count;
};

inline void plan_query_tiles(const Shape& shape, const Step& step, std::vector<QueryTile>& query_tiles) {
  query_tiles.clear();
  const int sharing = shape.num_heads / shape.num_kv_heads;
  for (int row = 0; row < step.num_rows; row++) {
    const int queries = (step.query_starts[row + 1] - step.query_starts[row]) * sharing;
    for (int first = 0; first < queries; first += QUERIES)
      for (int head = 0; head < shape.num_kv_heads; head++)
        query_tiles.push_back({row, head, first, std::min(QUERIES, queries - first)});
  }
}

/// Where a step's queries lie: rows of `width`, each beginning with the token's query heads.
struct Heads {
  const float* rows;
  int width;
};

/// One layer's attention: the same for all of a step's query_tiles.
struct LayerAttention {
  const Shape& shape;
  const Step& step;
  const Cache& cache;
  int window;
  Heads heads;

  Paging paging() const {
    return {shape.block_size, shape.num_kv_heads, shape.head_dim, shape.cache_is_bf16 != 0, shape.scaling};
  }
  int sharing() const { return shape.num_heads / shape.num_kv_heads; }
  int token_of(const QueryTile& tile, int query) const {
    return step.query_starts[tile.row] + (tile.first + query) / sharing();
  }
  int position_of(const QueryTile& tile, int query) const {
    return static_cast<int>(step.positions[token_of(tile, query)]);
  }
  const int32_t* table_of(const QueryTile& tile) const { return step.block_tables + step.block_starts[tile.row]; }
  /// What a tile reads first.
  KeyOffsets opening(const QueryTile& tile) const {
    const int begin = first_seen(position_of(tile, 0), window);
    const int end = position_of(tile, tile.count - 1) + 1;
    return KeyOffsets(paging(), table_of(tile), tile.head, begin, std::min(KEYS, end - begin));
  }
};

/// Calls `use(token, head, output)` with the result of each query of the tile; `next` is this thread's next one, or
/// null.
template <class Use>
void attend_tile(const LayerAttention& layer_attention, const QueryTile& tile, const QueryTile* next, Use&& use) {
  static thread_local std::unique_ptr<Scratch> scratch;
  const int dim = layer_attention.shape.head_dim;
  if (!scratch || scratch->width != up_to(dim, 32)) scratch = std::make_unique<Scratch>(dim);
  const auto head_of = [&](int query) {
    return tile.head * layer_attention.sharing() + (tile.first + query) % layer_attention.sharing();
  };
  Queries queries;
  queries.count = tile.count;
  for (int query = 0; query < tile.count; query++) {
    const size_t row = static_cast<size_t>(layer_attention.token_of(tile, query)) * layer_attention.heads.width;
    queries.at[query] = layer_attention.heads.rows + row + head_of(query) * dim;
    queries.position[query] = layer_attention.position_of(tile, query);
  }
  attend(layer_attention.paging(), queries, layer_attention.cache, layer_attention.table_of(tile), tile.head,
         layer_attention.window, next ? layer_attention.opening(*next) : KeyOffsets(), *scratch,
         [&](int query, const float* output) { use(layer_attention.token_of(tile, query), head_of(query), output); });
}

/// All query_tiles of a layer, some one after the other in each chunk: while one is computed, the next one's keys come.
template <class Use>
void attend_all(const LayerAttention& layer_attention, const std::vector<QueryTile>& query_tiles, Team::Member& member,
                Use&& use) {
  const int count = static_cast<int>(query_tiles.size());
  const int at_once = std::clamp(count / (member.team_size() * 4), 1, 2 * layer_attention.shape.num_kv_heads);
  member.phase((count + at_once - 1) / at_once, [&](int chunk) {
    const int end = std::min((chunk + 1) * at_once, count);
    for (int number = chunk * at_once; number < end; number++)
      attend_tile(layer_attention, query_tiles[number], number + 1 < end ? &query_tiles[number + 1] : nullptr, use);
  });
}

/// Turns a token's queries and key by its position, and puts key and value into the cache. `heads` [heads + 2 * KV
/// heads][head_dim]: queries, keys, values.
inline void rope_and_store(const Shape& shape, const Layer& layer, const Step& step, const Cache& cache, int token,
                           float* heads) {
  const int dim = shape.head_dim;
  const size_t angle = static_cast<size_t>(step.positions[token]) * (dim / 2);
  for (int head = 0; head < shape.num_heads + shape.num_kv_heads; head++) {
    const float* norm = head < shape.num_heads ? layer.q_norm : layer.k_norm;
    if (norm) rms_norm_head(heads + head * dim, norm, dim, shape.epsilon);
    rotate(heads + head * dim, step.cosines + angle, step.sines + angle, dim);
  }
  const float* keys = heads + shape.num_heads * dim;
  const int count = shape.num_kv_heads * dim;
  const size_t bytes = shape.cache_is_bf16 ? sizeof(uint16_t) : sizeof(float);
  const size_t at = static_cast<size_t>(step.slots[token]) * count * bytes;
  put_cached(keys, static_cast<char*>(cache.keys) + at, shape.cache_is_bf16, count);
  put_cached(keys + count, static_cast<char*>(cache.values) + at, shape.cache_is_bf16, count);
}

}  // namespace vfastml
