// What Python hands over: a model's shape and weights, and the steps that it computes.
#pragma once
#include "matrix.h"
#include "paging.h"

namespace vfastml {

struct Shape {
  int32_t num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, block_size;
  int32_t cache_is_bf16, embedding_is_bf16;
  float epsilon, scaling;
};

/// Vectors are float and padded with zeros to the width of what they are applied to.
struct Layer {
  const float *input_norm, *post_norm;
  const float *q_norm, *k_norm;  // [head_dim], or null
  Matrix qkv, o, gate_up, down;  // gate_up: panels of 16 gates and the same columns' 16 ups
  int32_t window;                // tokens that a token sees, itself included; 0: all
};

/// What comes before and after the layers. Without an `embedding` the vocabulary's own rows are it.
struct Ends {
  Matrix vocabulary;
  const void* embedding;  // [tokens][hidden_size], float or bf16; or null
  const float* final_norm;
};

/// One step: R rows of together T tokens, and S tokens whose logits are asked for, in ascending order.
struct Step {
  const int64_t *token_ids, *positions, *slots, *logits_index;
  const int32_t *query_starts, *block_tables, *block_starts;
  const float *cosines, *sines;  // [positions][head_dim / 2]
  const Cache* caches;           // for each layer
  float* logits;                 // [S][vocabulary, padded to PANEL]
  int32_t num_tokens, num_rows, num_logits;
};

}  // namespace vfastml
