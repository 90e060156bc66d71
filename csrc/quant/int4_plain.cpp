// codec=int4_plain; hyperlane/transport/codec/int4_plain.py is the specification.
#include <pybind11/pybind11.h>

#include "quant/group_codec.hpp"
#include "quant/groups.hpp"
#include "quant/groups_avx512.hpp"
#include "quant/isa.hpp"

namespace hyperlane {
namespace {

constexpr float kLevels = 7;
constexpr int kBias = 8;
constexpr std::size_t kBytes = kGroup / 2;  // of a group

template <class T>
half_bits encode_group(const T* values, std::size_t count, std::uint8_t* out) {
  const GroupScale scale = group_scale(values, count, kLevels);
  const std::size_t half = (count + 1) / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const int low = group_code(widen(values[i]), scale, kLevels) + kBias;
    const int high = half + i < count ? group_code(widen(values[half + i]), scale, kLevels) + kBias : kBias;
    out[i] = static_cast<std::uint8_t>(low | high << 4);
  }
  return scale.half;
}

template <class T>
void decode_group(half_bits scale, const std::uint8_t* packed, std::size_t count, T* out) {
  const float factor = half_to_float(scale);
  const std::size_t half = (count + 1) / 2;
  for (std::size_t i = 0; i < count; ++i) {
    const int nibble = i < half ? packed[i] & 15 : packed[i - half] >> 4;
    store_value(out + i, static_cast<float>(nibble - kBias) * factor);
  }
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
    for (std::size_t i = 0; i < kBytes; i += 8) {
      const __m256i low = codes8(values + i, inverse);
      const __m256i high = codes8(values + kBytes + i, inverse);
      const __m256i pair = _mm256_add_epi32(_mm256_slli_epi32(high, 4), low);
      store_bytes8(out + i, _mm256_add_epi32(pair, _mm256_set1_epi32(kBias | kBias << 4)));
    }
  }
}

template <class T>
HYPERLANE_AVX2 void decode_avx2(const half_bits* scales, const std::uint8_t* packed, std::size_t groups,
                                T* out) {
  const __m256i bias = _mm256_set1_epi32(kBias), mask = _mm256_set1_epi32(15);
  for (std::size_t g = 0; g < groups; ++g, packed += kBytes, out += kGroup) {
    const __m256 scale = _mm256_set1_ps(_cvtsh_ss(scales[g]));
    for (std::size_t i = 0; i < kBytes; i += 8) {
      const __m256i bytes =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed + i)));
      const __m256i low = _mm256_sub_epi32(_mm256_and_si256(bytes, mask), bias);
      const __m256i high = _mm256_sub_epi32(_mm256_srli_epi32(bytes, 4), bias);
      store8(out + i, _mm256_mul_ps(_mm256_cvtepi32_ps(low), scale));
      store8(out + kBytes + i, _mm256_mul_ps(_mm256_cvtepi32_ps(high), scale));
    }
  }
}

// Sixteen codes, biased, in the lowest byte of each lane: adding 1.5 * 2^23 rounds to nearest even.
template <class T>
HYPERLANE_AVX512 inline __m512i biased16(const T* values, __m512 inverse) {
  const __m512 round = _mm512_set1_ps(0x1.8p23f + kBias);
  return _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(load16(values), inverse), round));
}

// The 32 bytes of a group whose scale is clean.
template <class T>
HYPERLANE_AVX512 inline void pack_group(const T* values, float inverse_scale, std::uint8_t* out) {
  const __m512 inverse = _mm512_set1_ps(inverse_scale);
  __m512i bytes[2];  // one in each 32 bits
  for (std::size_t i = 0; i < 2; ++i) {
    const __m512i low = biased16(values + 16 * i, inverse);
    const __m512i high = biased16(values + kBytes + 16 * i, inverse);
    // A product, not a shift: Zen shifts on the ports of the sums.
    bytes[i] = _mm512_or_si512(low, _mm512_madd_epi16(high, _mm512_set1_epi32(16)));
  }
  alignas(64) static constexpr std::uint16_t kEven[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20,
                                                          22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42,
                                                          44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
  const __m512i words = _mm512_permutex2var_epi16(bytes[0], _mm512_load_si512(kEven), bytes[1]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi16_epi8(words));
}

template <class T>
HYPERLANE_AVX512 void encode_avx512(const T* values, std::size_t groups, half_bits* scales,
                                    std::uint8_t* out) {
  for (std::size_t first = 0; first < groups; first += kGroupsAtOnce) {
    const std::size_t count = std::min(groups - first, kGroupsAtOnce);
    GroupScales found;
    scale_groups(values, count, kLevels, scales + first, found);
    for (std::size_t g = 0; g < count; ++g, values += kGroup, out += kBytes) {
      prefetch_group(values + kGroupsAtOnce * kGroup);
      if (found.clean >> g & 1)
        pack_group(values, found.inverse[g], out);
      else
        scales[first + g] = encode_group(values, kGroup, out);
    }
  }
}

// Sixteen codes times one scale are a table; decoding looks values up in it.
HYPERLANE_AVX512 inline __m512 code_table(half_bits scale) {
  const __m512 codes = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
  return _mm512_mul_ps(codes, _mm512_set1_ps(_cvtsh_ss(scale)));
}

HYPERLANE_AVX512 void decode_avx512(const half_bits* scales, const std::uint8_t* packed, std::size_t groups,
                                    float* out) {
  for (std::size_t g = 0; g < groups; ++g, packed += kBytes, out += kGroup) {
    const __m512 table = code_table(scales[g]);
    for (std::size_t i = 0; i < kBytes; i += 16) {
      const __m512i bytes =
          _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + i)));
      _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(bytes, table));  // takes the low four bits as index
      _mm512_storeu_ps(out + kBytes + i, _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table));
    }
  }
}

HYPERLANE_AVX512 void decode_avx512(const half_bits* scales, const std::uint8_t* packed, std::size_t groups,
                                    half_bits* out) {
  for (std::size_t g = 0; g < groups; ++g, packed += kBytes, out += kGroup) {
    half_bits halves[16];
    store16(halves, code_table(scales[g]));
    const __m512i table =
        _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
    const __m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)));
    // The index is five bits wide; the table stands in it twice.
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(bytes, table));
    _mm512_storeu_si512(out + kBytes, _mm512_permutexvar_epi16(_mm512_srli_epi16(bytes, 4), table));
  }
}
#endif

struct Int4Plain {
  static constexpr std::size_t kGroupBytes = kBytes;
  static std::size_t tail_bytes(std::size_t values) { return (values + 1) / 2; }

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

void bind_int4_plain(pybind11::module_& module) {
  using Codec = hyperlane::GroupCodec<hyperlane::Int4Plain>;
  namespace py = pybind11;
  module.def("int4_plain_encode", &Codec::encode, py::arg("hidden"), py::arg("payload"), py::arg("isa") = "");
  module.def("int4_plain_decode", &Codec::decode, py::arg("payload"), py::arg("out"), py::arg("isa") = "");
}
