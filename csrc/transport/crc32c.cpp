#include "transport/crc32c.hpp"

#include <pybind11/pybind11.h>

#include <array>
#include <cstring>

#include "quant/isa.hpp"
#ifdef HYPERLANE_X86
#include <nmmintrin.h>
#endif

namespace hyperlane {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78;
using Table = std::array<std::uint32_t, 256>;

Table make_byte_table() {
  Table table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}

std::uint32_t by_table(const std::uint8_t* data, std::size_t bytes, std::uint32_t crc) {
  static const Table table = make_byte_table();
  for (std::size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ table[(crc ^ data[i]) & 0xFF];
  return crc;
}

#ifdef HYPERLANE_X86
// The instruction gives a result every cycle but takes three: three stretches run side by side and are joined
// by "append so many zero bytes", a linear map kept as four tables of 256. Short stretches are for short
// frames.
constexpr std::size_t kLong = 4096, kShort = 256;
using Shift = std::array<Table, 4>;

template <std::size_t bytes>
Shift make_shift() {
  const std::array<std::uint8_t, bytes> zeros{};
  std::array<std::uint32_t, 32> columns{};
  for (int bit = 0; bit < 32; ++bit) columns[bit] = by_table(zeros.data(), bytes, 1u << bit);
  Shift shift{};
  for (int byte = 0; byte < 4; ++byte)
    for (std::uint32_t value = 0; value < 256; ++value)
      for (int bit = 0; bit < 8; ++bit)
        if (value >> bit & 1) shift[byte][value] ^= columns[8 * byte + bit];
  return shift;
}

std::uint32_t append_zeros(const Shift& shift, std::uint32_t crc) {
  return shift[0][crc & 0xFF] ^ shift[1][crc >> 8 & 0xFF] ^ shift[2][crc >> 16 & 0xFF] ^ shift[3][crc >> 24];
}

std::uint64_t load64(const std::uint8_t* data) {
  std::uint64_t word;
  std::memcpy(&word, data, sizeof word);
  return word;
}

// Sums what is there of whole triples of stretches; moves `data` and `bytes` past it.
template <std::size_t stretch>
__attribute__((target("sse4.2"))) std::uint32_t by_stretches(const std::uint8_t*& data, std::size_t& bytes,
                                                             std::uint32_t crc) {
  static const Shift shift = make_shift<stretch>();
  for (; bytes >= 3 * stretch; bytes -= 3 * stretch, data += 3 * stretch) {
    std::uint64_t a = crc, b = 0, c = 0;
    for (std::size_t i = 0; i < stretch; i += 8) {
      a = _mm_crc32_u64(a, load64(data + i));
      b = _mm_crc32_u64(b, load64(data + stretch + i));
      c = _mm_crc32_u64(c, load64(data + 2 * stretch + i));
    }
    crc = append_zeros(shift, static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b);
    crc = append_zeros(shift, crc) ^ static_cast<std::uint32_t>(c);
  }
  return crc;
}

__attribute__((target("sse4.2"))) std::uint32_t by_instruction(const std::uint8_t* data, std::size_t bytes,
                                                               std::uint32_t crc) {
  crc = by_stretches<kLong>(data, bytes, crc);
  crc = by_stretches<kShort>(data, bytes, crc);
  for (; bytes >= 8; bytes -= 8, data += 8)
    crc = static_cast<std::uint32_t>(_mm_crc32_u64(crc, load64(data)));
  for (; bytes; --bytes, ++data) crc = _mm_crc32_u8(crc, *data);
  return crc;
}
#endif

}  // namespace

std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t crc) {
  const auto* start = static_cast<const std::uint8_t*>(data);
#ifdef HYPERLANE_X86
  static const bool hardware = __builtin_cpu_supports("sse4.2");
  if (hardware) return ~by_instruction(start, bytes, ~crc);
#endif
  return ~by_table(start, bytes, ~crc);
}

}  // namespace hyperlane

void bind_crc32c(pybind11::module_& module) {
  namespace py = pybind11;
  module.def(
      "crc32c",
      [](const py::buffer& data, std::uint32_t crc) {
        Py_buffer view;
        if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_C_CONTIGUOUS) != 0) throw py::error_already_set();
        const std::uint32_t result = hyperlane::crc32c(view.buf, static_cast<std::size_t>(view.len), crc);
        PyBuffer_Release(&view);
        return result;
      },
      py::arg("data"), py::arg("crc") = 0);
}
