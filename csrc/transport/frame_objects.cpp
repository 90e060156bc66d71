#include "transport/frame_objects.hpp"

#include <cstring>
#include <limits>

#include "transport/frame.hpp"

namespace py = pybind11;

namespace hyperlane {
namespace {

// Places in a Frame.
enum Field { kKind, kCodec, kFlags, kEpoch, kLane, kStep, kRows, kWidth, kRuns, kPayload, kFields };
constexpr Py_ssize_t kRunFields = 4;

template <typename T>
T read(PyObject* tuple, Py_ssize_t index) {
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(PyTuple_GET_ITEM(tuple, index)));
  const unsigned long long value = number ? PyLong_AsUnsignedLongLong(number.ptr()) : 0;
  const bool failed = PyErr_Occurred() != nullptr;
  PyErr_Clear();
  if (failed || value > std::numeric_limits<T>::max())
    throw py::value_error("a field does not fit its place in a frame: " +
                          std::string(py::repr(PyTuple_GET_ITEM(tuple, index))));
  return static_cast<T>(value);
}

void require_tuple(PyObject* object, Py_ssize_t fields) {
  if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != fields)
    throw py::value_error("a tuple of " + std::to_string(fields) + " fields belongs there");
}

void pack_run(PyObject* run, std::uint8_t* entry) {
  require_tuple(run, kRunFields);
  const auto slot = read<std::uint16_t>(run, 0), outputs = read<std::uint16_t>(run, 1);
  const auto position = read<std::uint32_t>(run, 2);
  const auto count = read<std::uint16_t>(run, 3);
  std::memcpy(entry, &slot, 2);
  std::memcpy(entry + 2, &outputs, 2);
  std::memcpy(entry + 4, &position, 4);
  std::memcpy(entry + 8, &count, 2);
}

Header header_of(PyObject* frame, std::size_t runs, std::size_t payload_bytes) {
  if (runs > std::numeric_limits<std::uint16_t>::max()) throw py::value_error("more than 65535 runs");
  Header header{{'H', 'Y', 'P', 'L'}, kVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0, payload_bytes};
  header.kind = read<std::uint8_t>(frame, kKind);
  header.codec = read<std::uint8_t>(frame, kCodec);
  header.flags = read<std::uint8_t>(frame, kFlags);
  header.epoch = read<std::uint32_t>(frame, kEpoch);
  header.lane = read<std::uint16_t>(frame, kLane);
  header.runs = static_cast<std::uint16_t>(runs);
  header.step = read<std::uint64_t>(frame, kStep);
  header.rows = read<std::uint32_t>(frame, kRows);
  header.width = read<std::uint32_t>(frame, kWidth);
  return header;
}

// An instance of a named tuple's type with these fields.
py::object make_named(const py::handle& type, const py::tuple& fields) {
  const py::tuple args = py::make_tuple(fields);
  PyObject* made = PyTuple_Type.tp_new(reinterpret_cast<PyTypeObject*>(type.ptr()), args.ptr(), nullptr);
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

py::tuple unpack_runs(const std::uint8_t* table, std::size_t count, const py::handle& run_type) {
  py::tuple runs(count);
  for (std::size_t i = 0; i < count; ++i, table += kRunBytes) {
    std::uint16_t slot, outputs, length;
    std::uint32_t position;
    std::memcpy(&slot, table, 2);
    std::memcpy(&outputs, table + 2, 2);
    std::memcpy(&position, table + 4, 4);
    std::memcpy(&length, table + 8, 2);
    runs[i] = make_named(run_type, py::make_tuple(slot, outputs, position, length));
  }
  return runs;
}

}  // namespace

PyObject* payload_of(const py::tuple& frame) {
  require_tuple(frame.ptr(), kFields);
  return PyTuple_GET_ITEM(frame.ptr(), kPayload);
}

std::string pack_prefix(const py::tuple& frame, std::size_t payload_bytes) {
  PyObject* runs = PyTuple_GET_ITEM(frame.ptr(), kRuns);
  if (!PyTuple_Check(runs)) throw py::value_error("runs belong in a tuple");
  const auto count = static_cast<std::size_t>(PyTuple_GET_SIZE(runs));
  const Header header = header_of(frame.ptr(), count, payload_bytes);
  std::string prefix(header.prefix_bytes(), '\0');
  auto* bytes = reinterpret_cast<std::uint8_t*>(prefix.data());
  std::memcpy(bytes, &header, sizeof header);
  for (std::size_t i = 0; i < count; ++i)
    pack_run(PyTuple_GET_ITEM(runs, i), bytes + kHeaderBytes + i * kRunBytes);
  std::string fault = header_fault(header, std::numeric_limits<std::size_t>::max());
  if (fault.empty()) fault = runs_fault(header, bytes + kHeaderBytes);
  if (!fault.empty()) throw py::value_error(fault);
  return prefix;
}

py::object unpack_frame(std::unique_ptr<FrameBlock> block, const py::tuple& types) {
  Header header;
  std::memcpy(&header, block->data(), sizeof header);
  const py::tuple runs = unpack_runs(block->data() + kHeaderBytes, header.runs, types[1]);
  const py::object kind = py::tuple(types[2])[header.kind];
  const py::object held = py::cast(std::move(block));
  const auto payload = py::reinterpret_steal<py::object>(PyMemoryView_FromObject(held.ptr()));
  if (!payload) throw py::error_already_set();
  const py::tuple fields = py::make_tuple(kind, header.codec, header.flags, header.epoch, header.lane,
                                          header.step, header.rows, header.width, runs, payload);
  return make_named(types[0], fields);
}

}  // namespace hyperlane
