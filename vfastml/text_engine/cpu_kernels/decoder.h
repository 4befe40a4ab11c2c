// A whole Llama-like decoder, one call for each step.
#pragma once
#include <vector>

#include "chunks.h"
#include "query_tiles.h"

namespace vfastml {

/// Rows of inputs with the memory that they lie in.
struct InputRows : Inputs {
  void reserve(int rows, int columns);
  /// Some columns of a row. As 8-bit groups they can only be stored once the row is whole: see `quantize`.
  void put(Format format, int row, int column, const float* values, int count);
  /// The row is whole.
  void quantize(Format format, int row);
  void move(Format format, int from, int to);

 private:
  std::vector<char> bytes_;
  std::vector<float> scales_, floats_;
  std::vector<int32_t> sums_;
};

class Decoder {
 public:
  Decoder(const Shape& shape, const Layer* layers, const Ends& ends, int num_threads);
  void run(const Step& step);

 private:
  using Member = Team::Member;

  void reserve(int num_tokens);
  void work(const Step& step, Member& member);
  void embed(const Step& step, int token);
  void attend_layer(const Step& step, int number, Member& member);
  void keep_asked(const Step& step);
  void after_attention(const Layer& layer, int num_rows, Member& member);
  void project(const Step& step, Member& member);
  void norm_rows(const float* weight, Format format, int num_rows, Member& member);
  void quantize_rows(InputRows& rows, Format format, int num_rows, Member& member);
  void add_product(const Matrix& matrix, const Inputs& x, int num_rows, Member& member);

  const Shape shape_;
  const std::vector<Layer> layers_;
  const Ends ends_;
  const int hidden_width_, qkv_width_;
  int capacity_ = 0;
  std::vector<float> residual_, qkv_;
  InputRows hidden_, heads_, inner_;
  std::vector<QueryTile> query_tiles_;
  Team team_;  // last: its threads end before what they work on
};

}  // namespace vfastml
