#include "decoder.h"

#include <algorithm>

namespace vfastml {

namespace {

/// More than there are: an unused one costs nothing, and one too few would end the step.
constexpr int PHASES_PER_LAYER = 12;

float* row_of(std::vector<float>& rows, int number, int width) {
  return rows.data() + static_cast<size_t>(number) * width;
}

}  // namespace

void InputRows::reserve(int rows, int columns) {
  width = up_to(columns, GROUP);
  const size_t numbers = static_cast<size_t>(rows) * width;
  bytes_.assign(numbers * sizeof(float), 0);
  floats_.assign(numbers, 0.0f);
  scales_.assign(numbers / GROUP, 0.0f);
  sums_.assign(numbers / GROUP, 0);
  data = bytes_.data(), scales = scales_.data(), sums = sums_.data();
}

void InputRows::put(Format format, int row, int column, const float* values, int count) {
  if (input_bytes(format) == 2) {
    uint16_t* to = this->row<uint16_t>(row) + column;
    int at = 0;
    for (; at + LANES <= count; at += LANES) store_bf16(to + at, load(values + at));
    for (; at < count; at++) {
      float one[LANES] = {values[at]};
      uint16_t narrow[LANES];
      store_bf16(narrow, load(one));
      to[at] = narrow[0];
    }
  } else {
    float* to = format == Format::I8 ? row_of(floats_, row, width) : this->row<float>(row);
    memcpy(to + column, values, count * sizeof(float));
  }
}

void InputRows::quantize(Format format, int row) {
  if (format == Format::I8) quantize_row(*this, row, row_of(floats_, row, width));
}

void InputRows::move(Format format, int from, int to) {
  const int size = input_bytes(format) * width;
  if (format == Format::I8)
    memmove(row_of(floats_, to, width), row_of(floats_, from, width), width * sizeof(float));
  else
    memmove(this->row<char>(0) + static_cast<size_t>(to) * size, this->row<char>(0) + static_cast<size_t>(from) * size,
            size);
}

Decoder::Decoder(const Shape& shape, const Layer* layers, const Ends& ends, int num_threads)
    : shape_(shape),
      layers_(layers, layers + shape.num_layers),
      ends_(ends),
      hidden_width_(up_to(shape.hidden_size, GROUP)),
      qkv_width_(up_to((shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim, PANEL)),
      team_(num_threads, (shape.num_layers + 1) * PHASES_PER_LAYER) {}

void Decoder::run(const Step& step) {
  reserve(step.num_tokens);
  plan_query_tiles(shape_, step, query_tiles_);
  team_.run([&](Member& member) { work(step, member); });
}

void Decoder::reserve(int num_tokens) {
  if (num_tokens <= capacity_) return;
  const int rows = up_to(num_tokens, 64);
  capacity_ = 0;  // if there is no memory for one of them, the next step, a smaller one, must look after all
  residual_.assign(static_cast<size_t>(rows) * hidden_width_, 0.0f);
  qkv_.assign(static_cast<size_t>(rows) * qkv_width_, 0.0f);
  hidden_.reserve(rows, shape_.hidden_size);
  heads_.reserve(rows, shape_.num_heads * shape_.head_dim);
  inner_.reserve(rows, shape_.intermediate_size);
  capacity_ = rows;
}

void Decoder::work(const Step& step, Member& member) {
  each_row(step.num_tokens, member, [&](int token) { embed(step, token); });
  const int last = shape_.num_layers - 1;
  for (int number = 0; number < last; number++) {
    attend_layer(step, number, member);
    after_attention(layers_[number], step.num_tokens, member);
  }
  attend_layer(step, last, member);
  if (step.num_logits == 0) return;
  // Nobody reads what the last layer would make of the other tokens.
  member.phase(1, [&](int) { keep_asked(step); });
  after_attention(layers_[last], step.num_logits, member);
  project(step, member);
}

void Decoder::embed(const Step& step, int token) {
  float* to = row_of(residual_, token, hidden_width_);
  const int id = static_cast<int>(step.token_ids[token]);
  const size_t at = static_cast<size_t>(id) * shape_.hidden_size;
  if (!ends_.embedding)
    unpack_row(ends_.vocabulary, id, to);
  else if (shape_.embedding_is_bf16)
    for (int i = 0; i < shape_.hidden_size; i++)
      to[i] = from_bf16(static_cast<const uint16_t*>(ends_.embedding)[at + i]);
  else
    memcpy(to, static_cast<const float*>(ends_.embedding) + at, shape_.hidden_size * sizeof(float));
  // What a broken text left behind the row's end, infinities times zero, must not reach the norms of this one.
  std::fill(to + shape_.hidden_size, to + hidden_width_, 0.0f);
}

void Decoder::attend_layer(const Step& step, int number, Member& member) {
  const Layer& layer = layers_[number];
  norm_rows(layer.input_norm, layer.qkv.format, step.num_tokens, member);
  product(layer.qkv, hidden_, step.num_tokens, member, [&](int row, int panel, const float* results) {
    memcpy(row_of(qkv_, row, qkv_width_) + panel * PANEL, results, PANEL * sizeof(float));
  });
  const Cache& cache = step.caches[number];
  each_row(step.num_tokens, member,
           [&](int token) { rope_and_store(shape_, layer, step, cache, token, row_of(qkv_, token, qkv_width_)); });
  const LayerAttention layer_attention{shape_, step, cache, layer.window, Heads{qkv_.data(), qkv_width_}};
  attend_all(layer_attention, query_tiles_, member, [&](int token, int head, const float* output) {
    heads_.put(layer.o.format, token, head * shape_.head_dim, output, shape_.head_dim);
  });
}

/// Moves the rows whose logits are asked for to the front.
void Decoder::keep_asked(const Step& step) {
  for (int row = 0; row < step.num_logits; row++) {
    const int token = static_cast<int>(step.logits_index[row]);
    if (token == row) continue;
    memcpy(row_of(residual_, row, hidden_width_), row_of(residual_, token, hidden_width_),
           hidden_width_ * sizeof(float));
    heads_.move(layers_.back().o.format, token, row);
  }
}

void Decoder::after_attention(const Layer& layer, int num_rows, Member& member) {
  quantize_rows(heads_, layer.o.format, num_rows, member);
  add_product(layer.o, heads_, num_rows, member);
  norm_rows(layer.post_norm, layer.gate_up.format, num_rows, member);
  product(layer.gate_up, hidden_, num_rows, member, [&](int row, int panel, const float* results) {
    float activated[PANEL / 2];
    silu_times(results, activated);
    inner_.put(layer.down.format, row, panel * (PANEL / 2), activated, PANEL / 2);
  });
  quantize_rows(inner_, layer.down.format, num_rows, member);
  add_product(layer.down, inner_, num_rows, member);
}

void Decoder::project(const Step& step, Member& member) {
  norm_rows(ends_.final_norm, ends_.vocabulary.format, step.num_logits, member);
  product(ends_.vocabulary, hidden_, step.num_logits, member, [&](int row, int panel, const float* results) {
    memcpy(step.logits + static_cast<size_t>(row) * ends_.vocabulary.outputs + panel * PANEL, results,
           PANEL * sizeof(float));
  });
}

void Decoder::norm_rows(const float* weight, Format format, int num_rows, Member& member) {
  each_row(num_rows, member, [&](int row) {
    static thread_local std::vector<float> values;
    values.resize(hidden_width_);
    rms_norm(row_of(residual_, row, hidden_width_), weight, values.data(), shape_.hidden_size, hidden_width_,
             shape_.epsilon);
    hidden_.put(format, row, 0, values.data(), hidden_width_);
    hidden_.quantize(format, row);
  });
}

void Decoder::quantize_rows(InputRows& rows, Format format, int num_rows, Member& member) {
  if (format == Format::I8) each_row(num_rows, member, [&](int row) { rows.quantize(format, row); });
}

void Decoder::add_product(const Matrix& matrix, const Inputs& x, int num_rows, Member& member) {
  product(matrix, x, num_rows, member, [&](int row, int panel, const float* results) {
    float* to = row_of(residual_, row, hidden_width_) + panel * PANEL;
    for (int at = 0; at < PANEL; at += LANES) store(to + at, load(to + at) + load(results + at));
  });
}

}  // namespace vfastml
