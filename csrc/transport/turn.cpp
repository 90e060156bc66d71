#include "transport/turn.hpp"

#include <cstring>
#include <stdexcept>
#include <utility>

#include "transport/link.hpp"

namespace hyperlane {
namespace {

std::int64_t now_ns() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }

Header header_of(const FrameBlock& block) {
  Header header;
  std::memcpy(&header, block.data(), sizeof header);
  return header;
}

RunEntry run_of(const FrameBlock& block, std::size_t index) {
  return read_run(block.data() + kHeaderBytes + index * kRunBytes);
}

template <typename T>
void append(std::vector<std::uint8_t>& bytes, const T* values, std::size_t count) {
  const auto* from = reinterpret_cast<const std::uint8_t*>(values);
  bytes.insert(bytes.end(), from, from + count * sizeof(T));
}

}  // namespace

Turn::Turn(Receiver& receiver, Sender& sender, std::uint32_t epoch, std::size_t kept_records)
    : receiver_(receiver), sender_(sender), epoch_(epoch), kept_records_(kept_records) {}

void Turn::add(const DecodeCall& call, const Slots& slots) {
  calls_[call.rows] = call;
  slots_ = slots;
}

std::size_t Turn::take(double timeout_s) {
  call_ = nullptr;
  block_ = receiver_.recv(timeout_s);
  now_ = {};
  now_.arrived_ns = block_->arrived_ns;
  now_.taken_ns = now_ns();
  call_ = call_of(*block_);
  if (!call_) return 0;
  fill(*block_, *call_);
  return call_->rows;
}

void Turn::started() { now_.decoded_ns = now_ns(); }

void Turn::computed() { now_.computed_ns = now_ns(); }

void Turn::send(double timeout_s) {
  if (!block_ || !call_) throw std::logic_error("a turn sends what it has taken, once");
  const std::unique_ptr<FrameBlock> block = std::move(block_);
  const DecodeCall& call = *std::exchange(call_, nullptr);
  for (std::size_t i = 0; i < call.rows; ++i) slots_.live[call.slots[i]] = call.positions[i] + 1;
  Header header = header_of(*block);
  header.kind = call.gives_candidates ? kCandidates : kHidden;
  header.width = static_cast<std::uint32_t>(call.out_width);
  const auto payload = std::make_shared<std::vector<std::uint8_t>>(payload_of(call));
  header.payload_bytes = payload->size();
  std::string prefix(reinterpret_cast<const char*>(block->data()), header.prefix_bytes());
  std::memcpy(prefix.data(), &header, sizeof header);
  now_.step = header.step, now_.lane = header.lane, now_.rows = header.rows;
  now_.encoded_ns = now_ns();
  sender_.submit({std::move(prefix), payload->data(), payload->size(), payload}, timeout_s);
  now_.sent_ns = now_ns();
  const std::lock_guard<std::mutex> lock(mutex_);
  records_.push_back(now_);
  if (records_.size() > kept_records_) records_.pop_front();
  if (!call.gives_candidates) hidden_values_ += call.rows * call.out_width;
}

std::unique_ptr<FrameBlock> Turn::give_up() {
  if (!block_) throw std::logic_error("a turn gives up what it has taken, once");
  return std::move(block_);
}

std::vector<TurnRecord> Turn::records() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {records_.begin(), records_.end()};
}

std::uint64_t Turn::hidden_values() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return hidden_values_;
}

// Null for whatever is not as plain as it can be: Python computes that, or says what is wrong with it.
const DecodeCall* Turn::call_of(const FrameBlock& block) const {
  const Header header = header_of(block);
  const auto found = calls_.find(header.runs);
  if (found == calls_.end()) return nullptr;
  const DecodeCall& call = found->second;
  if (header.epoch != epoch_ || header.flags || header.codec || header.rows != call.rows) return nullptr;
  if (header.kind != (call.takes_ids ? kTokens : kHidden)) return nullptr;
  if (!call.takes_ids && (header.width != call.width || header.payload_bytes != call.rows * call.row_bytes))
    return nullptr;
  return fits(block, call.rows) ? &call : nullptr;
}

// Whether each run is the next row of a slot of its own.
bool Turn::fits(const FrameBlock& block, std::size_t rows) const {
  for (std::size_t i = 0; i < rows; ++i) {
    const RunEntry run = run_of(block, i);
    if (run.count != 1 || run.outputs != 1 || run.slot >= slots_.count || run.position >= slots_.context)
      return false;
    if (static_cast<std::int64_t>(run.position) > slots_.live[run.slot]) return false;
    for (std::size_t j = 0; j < i; ++j)
      if (run_of(block, j).slot == run.slot) return false;
  }
  return true;
}

void Turn::fill(const FrameBlock& block, const DecodeCall& call) const {
  const std::uint8_t* payload = block.data() + block.payload_start;
  for (std::size_t i = 0; i < call.rows; ++i) {
    const RunEntry run = run_of(block, i);
    call.positions[i] = run.position;
    call.slots[i] = run.slot;
    if (!call.takes_ids) continue;
    std::int32_t id;
    std::memcpy(&id, payload + i * sizeof id, sizeof id);
    reinterpret_cast<std::int64_t*>(call.input)[i] = id;
  }
  if (!call.takes_ids) std::memcpy(call.input, payload, call.rows * call.row_bytes);
}

// A copy: what the link has no room for waits, while the next call writes the memory anew.
std::vector<std::uint8_t> Turn::payload_of(const DecodeCall& call) const {
  if (!call.gives_candidates) return {call.hidden, call.hidden + call.rows * call.out_row_bytes};
  const std::size_t count = call.rows * call.out_width;
  const std::vector<std::int32_t> ids(call.ids, call.ids + count);
  std::vector<std::uint8_t> bytes;
  append(bytes, ids.data(), count);
  append(bytes, call.logits, count);
  append(bytes, call.logsumexp, call.rows);
  return bytes;
}

}  // namespace hyperlane
