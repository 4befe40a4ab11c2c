// Weights packed for the kernels: panels of 32 outputs, within a panel one step of the inner loop after the other.
#pragma once
#include "simd.h"

namespace vfastml {

constexpr int PANEL = 32;
/// Inputs whose 8-bit values share a scale, and what every row of inputs is padded to.
constexpr int GROUP = 64;
/// Below it numbers are zero in 8 bits: their scale would be none.
constexpr float SMALLEST = 1e-30f;

enum class Format : int32_t { F32 = 0, BF16 = 1, I8 = 2 };

/// [outputs, inputs], both padded with zeros: outputs to a multiple of PANEL, inputs to one of GROUP.
///   F32:  [panel][input][32]
///   BF16: [panel][input / 2][32][2]
///   I8:   [panel][input / 4][32][4], unsigned with 128 for zero, and `scales` [outputs]
struct Matrix {
  Format format = Format::F32;
  const void* data = nullptr;
  const float* scales = nullptr;
  const float* bias = nullptr;  // [outputs] or none
  int outputs = 0;
  int inputs = 0;

  int panels() const { return outputs / PANEL; }
  size_t panel_bytes() const {
    return static_cast<size_t>(inputs) * PANEL * (format == Format::F32 ? 4 : format == Format::BF16 ? 2 : 1);
  }
  const char* panel(int number) const { return static_cast<const char*>(data) + number * panel_bytes(); }
};

/// Whether bf16 weights are multiplied with bf16 inputs by an instruction made for it, or widened to float.
#if defined(__AVX512BF16__)
constexpr bool BF16_PRODUCTS = true;
#else
constexpr bool BF16_PRODUCTS = false;
#endif

/// Rows of inputs in the form that the matrices of a format are multiplied with.
struct Inputs {
  void* data = nullptr;     // [rows][width]: float, bf16 or int8
  float* scales = nullptr;  // I8: [rows][width / GROUP]
  int32_t* sums = nullptr;  // I8: 128 times the sum of each group
  int width = 0;

  template <class T>
  T* row(int number) const {
    return static_cast<T*>(data) + static_cast<size_t>(number) * width;
  }
  float* scales_of(int row) const { return scales + static_cast<size_t>(row) * (width / GROUP); }
  int32_t* sums_of(int row) const { return sums + static_cast<size_t>(row) * (width / GROUP); }
};

/// Bytes of one input.
constexpr int input_bytes(Format format) {
  return format == Format::I8 ? 1 : format == Format::BF16 && BF16_PRODUCTS ? 2 : 4;
}

/// A row's `values`, whole groups of them, in 8 bits.
inline void quantize_row(const Inputs& inputs, int row, const float* values) {
  int8_t* to = inputs.row<int8_t>(row);
  for (int group = 0; group < inputs.width / GROUP; group++) {
    const float* from = values + group * GROUP;
    Vec most = zero();
    for (int at = 0; at < GROUP; at += LANES) most = max(most, abs(load(from + at)));
    const float top = largest(most);
    const Vec inverse = splat(top > SMALLEST ? 127.0f / top : 0.0f);
    Vec total = zero();
    for (int at = 0; at < GROUP; at += LANES) {
      const Vec whole = round(load(from + at) * inverse);
      total = total + whole;
      store_i8(to + group * GROUP + at, whole);
    }
    inputs.scales_of(row)[group] = top / 127.0f;
    inputs.sums_of(row)[group] = 128 * static_cast<int32_t>(sum(total));
  }
}

// -- packing, from [outputs, inputs] as the weights lie in their file

inline void pack_f32(const float* from, float* to, int outputs, int inputs) {
  const int width = up_to(inputs, GROUP);
  for (int output = 0; output < outputs; output++) {
    float* panel = to + static_cast<size_t>(output / PANEL) * width * PANEL + output % PANEL;
    for (int input = 0; input < inputs; input++) panel[static_cast<size_t>(input) * PANEL] = from[input];
    from += inputs;
  }
}

inline void pack_bf16(const uint16_t* from, uint16_t* to, int outputs, int inputs) {
  const int width = up_to(inputs, GROUP);
  for (int output = 0; output < outputs; output++) {
    uint16_t* panel = to + static_cast<size_t>(output / PANEL) * width * PANEL + output % PANEL * 2;
    for (int input = 0; input < inputs; input++)
      panel[static_cast<size_t>(input / 2) * 2 * PANEL + input % 2] = from[input];
    from += inputs;
  }
}

/// `from` in float; one scale for each output, so that its largest weight becomes 127.
inline void pack_i8(const float* from, uint8_t* to, float* scales, int outputs, int inputs) {
  const int width = up_to(inputs, GROUP);
  memset(to, 128, static_cast<size_t>(up_to(outputs, PANEL)) * width);
  for (int output = 0; output < outputs; output++) {
    float top = 0.0f;
    for (int input = 0; input < inputs; input++) top = __builtin_fmaxf(top, __builtin_fabsf(from[input]));
    scales[output] = top / 127.0f;
    const float inverse = top > SMALLEST ? 127.0f / top : 0.0f;
    uint8_t* panel = to + static_cast<size_t>(output / PANEL) * width * PANEL + output % PANEL * 4;
    for (int input = 0; input < inputs; input++) {
      const float whole = __builtin_rintf(from[input] * inverse);
      panel[static_cast<size_t>(input / 4) * 4 * PANEL + input % 4] =
          static_cast<uint8_t>(static_cast<int>(whole) + 128);
    }
    from += inputs;
  }
}

/// One output's weights as float: the row of an embedding that is also the vocabulary projection.
inline void unpack_row(const Matrix& matrix, int output, float* to) {
  const char* panel = matrix.panel(output / PANEL);
  const int column = output % PANEL;
  if (matrix.format == Format::F32) {
    const float* from = reinterpret_cast<const float*>(panel) + column;
    for (int input = 0; input < matrix.inputs; input++) to[input] = from[static_cast<size_t>(input) * PANEL];
  } else {
    const uint16_t* from = reinterpret_cast<const uint16_t*>(panel) + column * 2;
    for (int input = 0; input < matrix.inputs; input++)
      to[input] = from_bf16(from[static_cast<size_t>(input / 2) * 2 * PANEL + input % 2]);
  }
}

}  // namespace vfastml
