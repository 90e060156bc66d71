// Sender and Receiver as Python sees them. The GIL is free in every wait.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "transport/answer.hpp"
#include "transport/frame_objects.hpp"
#include "transport/receiver.hpp"
#include "transport/sender.hpp"

namespace py = pybind11;

namespace hyperlane {
namespace {

// Any object with the buffer protocol; its memory stays valid, and is not copied, until the frame is sent.
Message make_message(const py::tuple& frame) {
  const auto release = [](Py_buffer* view) {
    PyBuffer_Release(view);
    delete view;
  };
  auto* view = new Py_buffer;
  if (PyObject_GetBuffer(payload_of(frame), view, PyBUF_C_CONTIGUOUS) != 0) {
    delete view;
    throw py::error_already_set();
  }
  std::shared_ptr<Py_buffer> keep(view, release);
  const auto* data = static_cast<const std::uint8_t*>(view->buf);
  const auto bytes = static_cast<std::size_t>(view->len);
  return {pack_prefix(frame, bytes), data, bytes, keep};
}

std::uint64_t submit(Sender& sender, const py::tuple& frame, double timeout_s) {
  Message message = make_message(frame);
  sender.take_spent();  // with the GIL, as dropping a buffer needs it
  const std::shared_ptr<void> keep = message.keep;
  py::gil_scoped_release unlocked;
  return sender.submit(std::move(message), timeout_s);
}

std::int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

// `types` are Frame, Run and the tuple of kinds. Also gives when the frame had come, the tokens that answered
// it, if any, and when they were being sent and had been sent.
py::tuple recv(Receiver& receiver, double timeout_s, const py::tuple& types, Answer* answer) {
  std::unique_ptr<FrameBlock> block;
  std::vector<std::int32_t> tokens;
  std::int64_t sending_ns = 0, sent_ns = 0;
  {
    py::gil_scoped_release unlocked;
    block = receiver.recv(timeout_s);
    if (answer) {
      sending_ns = now_ns();
      tokens = answer->send(*block);
      sent_ns = now_ns();
    }
  }
  if (answer) answer->sender().take_spent();
  const std::int64_t arrived_ns = block->arrived_ns;
  return py::make_tuple(unpack_frame(std::move(block), types), arrived_ns, tokens, sending_ns, sent_ns);
}

// `frame` is without its tokens, one a row.
std::unique_ptr<Answer> make_answer(Sender& sender, std::uint64_t step, const py::tuple& frame,
                                    std::size_t rows, std::vector<std::int32_t> stop_ids) {
  return std::make_unique<Answer>(sender, step, pack_prefix(frame, sizeof(std::int32_t) * rows),
                                  std::move(stop_ids));
}

void wait(Sender& sender, std::uint64_t handle, double timeout_s) {
  {
    py::gil_scoped_release unlocked;
    sender.wait(handle, timeout_s);
  }
  sender.take_spent();
}

void close_sender(Sender& sender) {
  {
    py::gil_scoped_release unlocked;
    sender.close();
  }
  sender.take_spent();
}

py::buffer_info payload_view(FrameBlock& block) {
  return {block.data() + block.payload_start, static_cast<py::ssize_t>(block.payload_bytes), true};
}

void bind_sender(py::module_& module) {
  py::class_<Sender>(module, "Sender")
      .def(py::init<int, std::size_t>(), py::arg("fd"), py::arg("queue_depth"))
      .def("submit", &submit, py::arg("frame"), py::arg("timeout_s"))
      .def("wait", &wait, py::arg("handle"), py::arg("timeout_s"))
      .def("close", &close_sender)
      .def_property_readonly("submitted", &Sender::submitted)
      .def_property_readonly("frames", &Sender::frames)
      .def_property_readonly("wire_bytes", &Sender::wire_bytes);
}

void bind_answer(py::module_& module) {
  py::class_<Answer>(module, "Answer")
      .def(py::init(&make_answer), py::keep_alive<1, 2>(), py::arg("sender"), py::arg("step"),
           py::arg("frame"), py::arg("rows"), py::arg("stop_ids"));
}

void bind_receiver(py::module_& module) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  py::class_<FrameBlock>(module, "FrameBlock", py::buffer_protocol()).def_buffer(&payload_view);
  py::class_<Receiver>(module, "Receiver")
      .def(py::init([](int fd, const py::bytes& greeting, std::size_t queue_depth,
                       std::size_t max_frame_bytes, long spin_us) {
             return std::make_unique<Receiver>(fd, std::string(greeting), queue_depth, max_frame_bytes,
                                               spin_us);
           }),
           py::arg("fd"), py::arg("greeting"), py::arg("queue_depth"), py::arg("max_frame_bytes"),
           py::arg("spin_us"))
      .def("recv", &recv, py::arg("timeout_s"), py::arg("types"), py::arg("answer") = nullptr)
      .def("ready", &Receiver::ready, Unlocked())
      .def("close", &Receiver::close, Unlocked())
      .def_property_readonly("rejected", &Receiver::rejected)
      .def_property_readonly("departed", &Receiver::departed)
      .def_property_readonly("peers", &Receiver::peers)
      .def_property_readonly("frames", &Receiver::frames)
      .def_property_readonly("wire_bytes", &Receiver::wire_bytes);
}

}  // namespace
}  // namespace hyperlane

void bind_link(py::module_& module) {
  py::register_exception<hyperlane::LinkBroken>(module, "LinkBroken", PyExc_ConnectionError);
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const hyperlane::TimedOut& timeout) {
      PyErr_SetString(PyExc_TimeoutError, timeout.what());
    }
  });
  hyperlane::bind_sender(module);
  hyperlane::bind_answer(module);
  hyperlane::bind_receiver(module);
}
