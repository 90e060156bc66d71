// Turn as Python sees it. The GIL is free while a frame is waited for and sent.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>

#include "transport/frame_objects.hpp"
#include "transport/turn.hpp"

namespace py = pybind11;

namespace hyperlane {
namespace {

template <typename T>
T* memory_of(py::array array, py::ssize_t dimensions, py::ssize_t rows) {
  const bool fits = array.ndim() == dimensions && array.shape(0) == rows;
  if (!fits || !(array.flags() & py::array::c_style)) throw py::value_error("a call's arrays do not fit");
  return static_cast<T*>(array.mutable_data());
}

template <typename T>
T* typed(const py::array& array, py::ssize_t dimensions, py::ssize_t rows) {
  if (!array.dtype().equal(py::dtype::of<T>())) throw py::value_error("a call's array has another type");
  return memory_of<T>(array, dimensions, rows);
}

std::size_t row_bytes(const py::array& array) {
  return static_cast<std::size_t>(array.shape(1) * array.itemsize());
}

// Keeps the arrays: a Turn writes to them without the GIL.
class PyTurn {
 public:
  PyTurn(Receiver& receiver, Sender& sender, std::uint32_t epoch, std::size_t kept_records)
      : turn_(receiver, sender, epoch, kept_records) {}

  // As hyperlane/worker/decode_call.py describes them.
  void add(const py::array& rows, const py::array& positions, const py::array& slots,
           const py::tuple& outputs, const py::array& live, std::size_t context) {
    const py::ssize_t count = positions.shape(0);
    DecodeCall call;
    call.rows = static_cast<std::size_t>(count);
    call.takes_ids = rows.ndim() == 1;
    if (call.takes_ids) {
      call.input = reinterpret_cast<std::uint8_t*>(typed<std::int64_t>(rows, 1, count));
    } else {
      call.input = memory_of<std::uint8_t>(rows, 2, count);
      call.width = static_cast<std::size_t>(rows.shape(1)), call.row_bytes = row_bytes(rows);
    }
    call.positions = typed<std::int64_t>(positions, 1, count);
    call.slots = typed<std::int64_t>(slots, 1, count);
    call.gives_candidates = outputs.size() == 3;
    const py::array first = outputs[0];
    if (call.gives_candidates) {
      call.ids = typed<std::int64_t>(first, 2, count);
      call.logits = typed<float>(outputs[1], 2, count);
      call.logsumexp = typed<float>(outputs[2], 1, count);
      if (py::array(outputs[1]).shape(1) != first.shape(1))
        throw py::value_error("a call gives as many logits as ids");
    } else {
      call.hidden = memory_of<std::uint8_t>(first, 2, count);
      call.out_row_bytes = row_bytes(first);
    }
    call.out_width = static_cast<std::size_t>(first.shape(1));
    const Slots held{typed<std::int64_t>(live, 1, live.shape(0)), static_cast<std::size_t>(live.shape(0)),
                     context};
    turn_.add(call, held);
    kept_.append(py::make_tuple(rows, positions, slots, outputs, live));
  }

  std::size_t take(double timeout_s) {
    std::size_t rows;
    {
      py::gil_scoped_release unlocked;
      rows = turn_.take(timeout_s);
    }
    turn_.started();
    return rows;
  }

  void send(double timeout_s) {
    turn_.computed();
    {
      py::gil_scoped_release unlocked;
      turn_.send(timeout_s);
    }
    turn_.sender().take_spent();
  }

  // The frame that was taken, when it had come and when it was taken. `types` are Frame, Run and the kinds.
  py::tuple give_up(const py::tuple& types) {
    const TurnRecord now = turn_.now();
    return py::make_tuple(unpack_frame(turn_.give_up(), types), now.arrived_ns, now.taken_ns);
  }

  py::list records() const {
    py::list found;
    for (const TurnRecord& r : turn_.records())
      found.append(py::make_tuple(r.step, r.lane, r.rows, false, r.arrived_ns, r.taken_ns, r.decoded_ns,
                                  r.decoded_ns, r.computed_ns, r.computed_ns, r.encoded_ns, r.sent_ns));
    return found;
  }

  std::uint64_t hidden_values() const { return turn_.hidden_values(); }

 private:
  Turn turn_;
  py::list kept_;
};

}  // namespace
}  // namespace hyperlane

void bind_turn(py::module_& module) {
  using namespace hyperlane;
  py::class_<PyTurn>(module, "Turn")
      .def(py::init<Receiver&, Sender&, std::uint32_t, std::size_t>(), py::keep_alive<1, 2>(),
           py::keep_alive<1, 3>(), py::arg("receiver"), py::arg("sender"), py::arg("epoch"),
           py::arg("kept_records"))
      .def("add", &PyTurn::add, py::arg("rows"), py::arg("positions"), py::arg("slots"), py::arg("outputs"),
           py::arg("live"), py::arg("context"))
      .def("take", &PyTurn::take, py::arg("timeout_s"))
      .def("send", &PyTurn::send, py::arg("timeout_s"))
      .def("give_up", &PyTurn::give_up, py::arg("types"))
      .def("records", &PyTurn::records)
      .def_property_readonly("hidden_values", &PyTurn::hidden_values);
}
