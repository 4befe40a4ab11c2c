// Each kernel by itself, as tests and benchmarks call it: what a decoder computes in one step, taken apart. Several
// layers are one call, as in a step: threads are woken up once, and no layer's data is in the caches from the one
// before.
#include "decoder.h"
#include "peak.h"

using namespace vfastml;

namespace {

constexpr int BYTES_AT_ONCE = 1 << 20;

void copy_panel(const Matrix& matrix, float* results, int row, int panel, const float* from) {
  memcpy(results + static_cast<size_t>(row) * matrix.outputs + panel * PANEL, from, PANEL * sizeof(float));
}

}  // namespace

extern "C" {

/// `max_layers`: what one call may compute one after the other.
Team* vfastml_team_new(int32_t num_threads, int32_t max_layers) { return new Team(num_threads, max_layers); }

void vfastml_team_delete(Team* team) { delete team; }

/// `values` [num_rows][columns]
InputRows* vfastml_inputs_new(int32_t format, const float* values, int32_t num_rows, int32_t columns) {
  auto* inputs = new InputRows;
  inputs->reserve(num_rows, columns);
  for (int row = 0; row < num_rows; row++) {
    inputs->put(static_cast<Format>(format), row, 0, values + static_cast<size_t>(row) * columns, columns);
    inputs->quantize(static_cast<Format>(format), row);
  }
  return inputs;
}

void vfastml_inputs_delete(InputRows* inputs) { delete inputs; }

/// `results` [num_rows][outputs, padded to PANEL] are the last matrix's; all have the same shape.
void vfastml_products(Team* team, const Matrix* matrices, int32_t num_matrices, const InputRows* inputs,
                      int32_t num_rows, float* results) {
  team->run([&](Team::Member& member) {
    for (int number = 0; number < num_matrices; number++) {
      const Matrix& matrix = matrices[number];
      product(matrix, *inputs, num_rows, member,
              [&](int row, int panel, const float* from) { copy_panel(matrix, results, row, panel, from); });
    }
  });
}

/// `queries` and `outputs` [tokens][heads][head_dim]; one cache for each layer of the shape, outputs of the last.
void vfastml_attend(Team* team, const Shape* shape, const Step* step, int32_t window, const float* queries,
                    float* outputs) {
  const int dim = shape->head_dim, width = shape->num_heads * dim;
  std::vector<QueryTile> query_tiles;
  plan_query_tiles(*shape, *step, query_tiles);
  team->run([&](Team::Member& member) {
    for (int layer = 0; layer < shape->num_layers; layer++) {
      const LayerAttention layer_attention{*shape, *step, step->caches[layer], window, Heads{queries, width}};
      attend_all(layer_attention, query_tiles, member, [&](int token, int head, const float* output) {
        memcpy(outputs + static_cast<size_t>(token) * width + head * dim, output, dim * sizeof(float));
      });
    }
  });
}

/// `rows` [tokens][heads + 2 * KV heads][head_dim] are turned in place: once for each layer of the shape.
void vfastml_rope_and_store(Team* team, const Shape* shape, const Layer* layer, const Step* step, float* rows) {
  const int width = (shape->num_heads + 2 * shape->num_kv_heads) * shape->head_dim;
  team->run([&](Team::Member& member) {
    for (int number = 0; number < shape->num_layers; number++)
      each_row(step->num_tokens, member, [&](int token) {
        rope_and_store(*shape, *layer, *step, step->caches[number], token, rows + static_cast<size_t>(token) * width);
      });
  });
}

/// `rows`, `results` [num_rows][width] and `weight` [width] are padded with zeros from `count` on.
void vfastml_rms_norm(Team* team, const float* rows, const float* weight, float* results, int32_t num_rows,
                      int32_t count, int32_t width, float epsilon, int32_t times) {
  team->run([&](Team::Member& member) {
    for (int time = 0; time < times; time++)
      each_row(num_rows, member, [&](int row) {
        const size_t at = static_cast<size_t>(row) * width;
        rms_norm(rows + at, weight, results + at, count, width, epsilon);
      });
  });
}

/// `gate_up` [num_rows][panels][PANEL], `results` [num_rows][panels][PANEL / 2]
void vfastml_silu_times(Team* team, const float* gate_up, float* results, int32_t num_rows, int32_t panels,
                        int32_t times) {
  team->run([&](Team::Member& member) {
    for (int time = 0; time < times; time++)
      each_row(num_rows, member, [&](int row) {
        for (size_t panel = static_cast<size_t>(row) * panels; panel < static_cast<size_t>(row + 1) * panels; panel++)
          silu_times(gate_up + panel * PANEL, results + panel * (PANEL / 2));
      });
  });
}

// -- what this machine can

/// Reads all bytes, a multiple of 64. Returns a sum of them, so that they are read indeed.
uint64_t vfastml_read(Team* team, const char* data, int64_t num_bytes) {
  std::atomic<uint64_t> total{0};
  team->run([&](Team::Member& member) {
    member.phase(static_cast<int>((num_bytes + BYTES_AT_ONCE - 1) / BYTES_AT_ONCE), [&](int chunk) {
      const int64_t begin = static_cast<int64_t>(chunk) * BYTES_AT_ONCE;
      total += read_bytes(data + begin, std::min<int64_t>(BYTES_AT_ONCE, num_bytes - begin));
    });
  });
  return total;
}

/// Multiplies and adds in registers alone. Returns how many operations that were, a product and its sum being two.
double vfastml_compute(Team* team, int32_t format, int32_t rounds) {
  std::atomic<int64_t> operations{0};
  team->run([&](Team::Member& member) {
    // more chunks than threads: one that comes late still takes its share
    member.phase(member.team_size() * 16, [&](int) { operations += compute(static_cast<Format>(format), rounds); });
  });
  return static_cast<double>(operations);
}

}  // extern "C"
