#include "transport/answer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "transport/link.hpp"

namespace hyperlane {
namespace {

template <typename T>
T value_at(const std::uint8_t* bytes, std::size_t index) {
  T value;
  std::memcpy(&value, bytes + index * sizeof value, sizeof value);
  return value;
}

// The id of the largest logit, the lower one on a tie; where one is NaN, the first id.
std::int32_t greedy(const std::uint8_t* ids, const std::uint8_t* logits, std::size_t width) {
  auto best_id = value_at<std::int32_t>(ids, 0);
  auto best = value_at<float>(logits, 0);
  for (std::size_t i = 0; i < width; ++i) {
    const auto logit = value_at<float>(logits, i);
    const auto id = value_at<std::int32_t>(ids, i);
    if (std::isnan(logit)) return value_at<std::int32_t>(ids, 0);
    if (logit > best || (logit == best && id < best_id)) best = logit, best_id = id;
  }
  return best_id;
}

}  // namespace

Answer::Answer(Sender& sender, std::uint64_t step, std::string prefix, std::vector<std::int32_t> stop_ids)
    : sender_(sender), step_(step), prefix_(std::move(prefix)), stop_ids_(std::move(stop_ids)) {
  std::memcpy(&header_, prefix_.data(), sizeof header_);
}

std::vector<std::int32_t> Answer::send(const FrameBlock& block) {
  Header header;
  std::memcpy(&header, block.data(), sizeof header);
  if (!is_answered(header)) return {};
  const std::uint8_t* ids = block.data() + block.payload_start;
  const std::uint8_t* logits = ids + 4 * std::size_t{header.rows} * header.width;
  const auto tokens = std::make_shared<std::vector<std::int32_t>>();
  for (std::size_t row = 0; row < header.rows; ++row) {
    const std::size_t start = 4 * row * header.width;
    const std::int32_t token = greedy(ids + start, logits + start, header.width);
    if (std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end()) return {};
    tokens->push_back(token);
  }
  try {
    const auto* payload = reinterpret_cast<const std::uint8_t*>(tokens->data());
    sender_.submit({prefix_, payload, 4 * tokens->size(), tokens}, 0);
  } catch (const LinkBroken&) {  // whoever sends by itself will be told
    return {};
  } catch (const TimedOut&) {
    return {};
  }
  return *tokens;
}

bool Answer::is_answered(const Header& header) const {
  return header.kind == kCandidates && header.epoch == header_.epoch && header.step == step_ &&
         header.rows == header_.rows;
}

}  // namespace hyperlane
