// codec=int8; hyperlane/transport/codec/int8.py is the specification.
#include <pybind11/pybind11.h>

#include "quant/group_codec.hpp"
#include "quant/groups.hpp"
#include "quant/groups_avx512.hpp"
#include "quant/isa.hpp"

namespace hyperlane {
namespace {

constexpr float kLevels = 127;
constexpr std::size_t kBytes = kGroup;  // of a group

template <class T>
half_bits encode_group(const T* values, std::size_t count, std::uint8_t* out) {
  const GroupScale scale = group_scale(values, count, kLevels);
  for (std::size_t i = 0; i < count; ++i)
    out[i] = static_cast<std::uint8_t>(group_code(widen(values[i]), scale, kLevels));
  return scale.half;
}

template <class T>
void decode_group(half_bits scale, const std::uint8_t* codes, std::size_t count, T* out) {
  const float factor = half_to_float(scale);
  for (std::size_t i = 0; i < count; ++i)
    store_value(out + i, static_cast<float>(static_cast<std::int8_t>(codes[i])) * factor);
}

template <class T>
void encode_scalar(const T* values, std::size_t groups, half_bits* scales, std::uint8_t* out) {
  for (std::size_t g = 0; g < groups; ++g)
    scales[g] = encode_group(values + g * kGroup, kGroup, out + g * kBytes);
}

template <class T>
void decode_scalar(const half_bits* scales, const std::uint8_t* packed, std::size_t groups, T* out) {
  for (std::size_t g = 0; g < groups; ++g)
    decode_group(scales[g], packed + g * kBytes, kGroup, out + g * kGroup);
}

#ifdef HYPERLANE_X86
template <class T>
HYPERLANE_AVX2 void encode_avx2(const T* values, std::size_t groups, half_bits* scales, std::uint8_t* out) {
  for (std::size_t g = 0; g < groups; ++g, values += kGroup, out += kBytes) {
    const GroupScale scale = group_scale_avx2(values, kLevels);
    if (!needs_no_clip(scale.half)) {
      scales[g] = encode_group(values, kGroup, out);
      continue;
    }
    scales[g] = scale.half;
    const __m256 inverse = _mm256_set1_ps(scale.inverse);
    for (std::size_t i = 0; i < kBytes; i += 8) store_bytes8(out + i, codes8(values + i, inverse));
  }
}

template <class T>
HYPERLANE_AVX2 void decode_avx2(const half_bits* scales, const std::uint8_t* codes, std::size_t groups,
                                T* out) {
  for (std::size_t g = 0; g < groups; ++g, codes += kBytes, out += kGroup) {
    const __m256 scale = _mm256_set1_ps(_cvtsh_ss(scales[g]));
    for (std::size_t i = 0; i < kBytes; i += 8) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i));
      store8(out + i, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), scale));
    }
  }
}

template <class T>
HYPERLANE_AVX512 void encode_avx512(const T* values, std::size_t groups, half_bits* scales,
                                    std::uint8_t* out) {
  for (std::size_t first = 0; first < groups; first += kGroupsAtOnce) {
    const std::size_t count = std::min(groups - first, kGroupsAtOnce);
    GroupScales found;
    scale_groups(values, count, kLevels, scales + first, found);
    for (std::size_t g = 0; g < count; ++g, values += kGroup, out += kBytes) {
      if (!(found.clean >> g & 1)) {
        scales[first + g] = encode_group(values, kGroup, out);
        continue;
      }
      const __m512 inverse = _mm512_set1_ps(found.inverse[g]);
      for (std::size_t i = 0; i < kBytes; i += 16)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm512_cvtepi32_epi8(codes16(values + i, inverse)));
    }
  }
}

template <class T>
HYPERLANE_AVX512 void decode_avx512(const half_bits* scales, const std::uint8_t* codes, std::size_t groups,
                                    T* out) {
  for (std::size_t g = 0; g < groups; ++g, codes += kBytes, out += kGroup) {
    const __m512 scale = _mm512_set1_ps(_cvtsh_ss(scales[g]));
    for (std::size_t i = 0; i < kBytes; i += 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
      store16(out + i, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scale));
    }
  }
}
#endif

struct Int8 {
  static constexpr std::size_t kGroupBytes = kBytes;
  static std::size_t tail_bytes(std::size_t values) { return values; }

  template <class T>
  static half_bits encode_group(const T* values, std::size_t count, std::uint8_t* out) {
    return hyperlane::encode_group(values, count, out);
  }

  template <class T>
  static void decode_group(half_bits scale, const std::uint8_t* packed, std::size_t count, T* out) {
    hyperlane::decode_group(scale, packed, count, out);
  }

  template <class T>
  static void encode_groups(const T* values, std::size_t groups, half_bits* scales, std::uint8_t* out,
                            Isa isa) {
#ifdef HYPERLANE_X86
    if (isa == Isa::avx512) return encode_avx512(values, groups, scales, out);
    if (isa == Isa::avx2) return encode_avx2(values, groups, scales, out);
#endif
    encode_scalar(values, groups, scales, out);
  }

  template <class T>
  static void decode_groups(const half_bits* scales, const std::uint8_t* packed, std::size_t groups, T* out,
                            Isa isa) {
#ifdef HYPERLANE_X86
    if (isa == Isa::avx512) return decode_avx512(scales, packed, groups, out);
    if (isa == Isa::avx2) return decode_avx2(scales, packed, groups, out);
#endif
    decode_scalar(scales, packed, groups, out);
  }
};

}  // namespace
}  // namespace hyperlane

void bind_int8(pybind11::module_& module) {
  using Codec = hyperlane::GroupCodec<hyperlane::Int8>;
  namespace py = pybind11;
  module.def("int8_encode", &Codec::encode, py::arg("hidden"), py::arg("payload"), py::arg("isa") = "");
  module.def("int8_decode", &Codec::decode, py::arg("payload"), py::arg("out"), py::arg("isa") = "");
}
