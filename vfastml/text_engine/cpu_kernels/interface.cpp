// What Python calls. Plain functions and structs: no version of Python or torch is compiled in.
#include <exception>

#include "decoder.h"

using namespace vfastml;

extern "C" {

int32_t vfastml_panel() { return PANEL; }
int32_t vfastml_group() { return GROUP; }

void vfastml_pack(int32_t format, const void* from, void* to, float* scales, int32_t outputs, int32_t inputs) {
  switch (static_cast<Format>(format)) {
    case Format::F32:
      return pack_f32(static_cast<const float*>(from), static_cast<float*>(to), outputs, inputs);
    case Format::BF16:
      return pack_bf16(static_cast<const uint16_t*>(from), static_cast<uint16_t*>(to), outputs, inputs);
    case Format::I8:
      return pack_i8(static_cast<const float*>(from), static_cast<uint8_t*>(to), scales, outputs, inputs);
  }
}

/// Null if the system gives no memory or no threads.
void* vfastml_decoder_new(const Shape* shape, const Layer* layers, const Ends* ends, int32_t num_threads) try {
  return new Decoder(*shape, layers, *ends, num_threads);
} catch (const std::exception&) {
  return nullptr;
}

/// Whether there was memory for it.
bool vfastml_decoder_run(void* decoder, const Step* step) try {
  static_cast<Decoder*>(decoder)->run(*step);
  return true;
} catch (const std::exception&) {
  return false;
}

/// Of what Python declares again, so that a field which one side alone has is noticed.
int32_t vfastml_struct_bytes(int32_t number) {
  const size_t sizes[] = {sizeof(Matrix), sizeof(Shape), sizeof(Layer), sizeof(Ends), sizeof(Cache), sizeof(Step)};
  return static_cast<int32_t>(sizes[number]);
}

void vfastml_decoder_delete(void* decoder) { delete static_cast<Decoder*>(decoder); }

}  // extern "C"
