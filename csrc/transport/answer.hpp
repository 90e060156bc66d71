// The answer to a step's candidates, sent before Python sees them; hyperlane/transport/answer.py is the
// specification.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "transport/blocks.hpp"
#include "transport/frame.hpp"
#include "transport/sender.hpp"

namespace hyperlane {

class Answer {
 public:
  // To the candidates of `step`; `prefix` are header and run table of the frame that takes their tokens.
  Answer(Sender& sender, std::uint64_t step, std::string prefix, std::vector<std::int32_t> stop_ids);

  // The tokens that were sent; none where `block` is not what it answers, or the link has no room.
  std::vector<std::int32_t> send(const FrameBlock& block);

  Sender& sender() { return sender_; }

 private:
  bool is_answered(const Header& header) const;

  Sender& sender_;
  const std::uint64_t step_;
  const std::string prefix_;
  const std::vector<std::int32_t> stop_ids_;
  Header header_;
};

}  // namespace hyperlane
