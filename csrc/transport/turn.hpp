// A worker's turn at a decode step whose rows travel as they are: from the frame into the memory that its
// call reads, and from the memory that the call wrote into the next frame. hyperlane/worker/pump.py is the
// specification.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "transport/blocks.hpp"
#include "transport/frame.hpp"
#include "transport/receiver.hpp"
#include "transport/sender.hpp"

namespace hyperlane {

// Where a call of one row a slot has its inputs and outputs; the memory is somebody else's.
struct DecodeCall {
  std::size_t rows = 0;
  bool takes_ids = false, gives_candidates = false;
  std::uint8_t* input = nullptr;  // ids int64 [rows], or hidden states [rows, row_bytes]
  std::size_t width = 0, row_bytes = 0;
  std::int64_t *positions = nullptr, *slots = nullptr;  // [rows]
  const std::uint8_t* hidden = nullptr;                 // [rows, out_row_bytes]
  const std::int64_t* ids = nullptr;                    // [rows, out_width]
  const float *logits = nullptr, *logsumexp = nullptr;  // [rows, out_width], [rows]
  std::size_t out_width = 0, out_row_bytes = 0;
};

// What a session holds: positions of each slot, and how many there may be.
struct Slots {
  std::int64_t* live = nullptr;
  std::size_t count = 0, context = 0;
};

// In the order of hyperlane/timeline/record.py.
struct TurnRecord {
  std::uint64_t step;
  std::uint32_t lane, rows;
  std::int64_t arrived_ns, taken_ns, decoded_ns, computed_ns, encoded_ns, sent_ns;
};

class Turn {
 public:
  Turn(Receiver& receiver, Sender& sender, std::uint32_t epoch, std::size_t kept_records);

  void add(const DecodeCall& call, const Slots& slots);

  // Waits for the next frame. The rows of its call where it is a decode step with one, whose inputs are then
  // written; else 0, and `give_up` has the frame. Throws as Receiver::recv.
  std::size_t take(double timeout_s);
  void started();   // the call runs now
  void computed();  // and has run

  // The call's outputs, to the next of the chain. Throws as Sender::submit.
  void send(double timeout_s);

  // The frame that was taken.
  std::unique_ptr<FrameBlock> give_up();
  const TurnRecord& now() const { return now_; }

  Sender& sender() { return sender_; }
  std::vector<TurnRecord> records() const;
  std::uint64_t hidden_values() const;

 private:
  const DecodeCall* call_of(const FrameBlock& block) const;
  bool fits(const FrameBlock& block, std::size_t rows) const;
  void fill(const FrameBlock& block, const DecodeCall& call) const;
  std::vector<std::uint8_t> payload_of(const DecodeCall& call) const;

  Receiver& receiver_;
  Sender& sender_;
  const std::uint32_t epoch_;
  const std::size_t kept_records_;
  std::map<std::size_t, DecodeCall> calls_;  // by rows
  Slots slots_;
  std::unique_ptr<FrameBlock> block_;
  const DecodeCall* call_ = nullptr;
  TurnRecord now_{};

  mutable std::mutex mutex_;
  std::deque<TurnRecord> records_;
  std::uint64_t hidden_values_ = 0;
};

}  // namespace hyperlane
