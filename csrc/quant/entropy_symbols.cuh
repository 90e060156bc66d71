// rANS, forwards: a warp decodes a string. Two ways of a step that give the same symbols: by its turn, a lane
// that is short of a byte fetches it and then looks up what it stands for; or all lanes look up in advance
// what the next bytes would stand for, and one shuffle hands them out. The first takes less, the second waits
// less.
#pragma once
#include "quant/entropy_feed.cuh"
#include "quant/entropy_tables.cuh"

namespace hyperlane {
namespace {

// Of a lane. A slot's word has symbol - 16, frequency, slot - start, slot in its bytes.
template <bool kAhead>
class Decoder {
 public:
  // `first`: the address of the first step's table's slots.
  __device__ __forceinline__ Decoder(Feed& feed, unsigned first, unsigned lane)
      : feed_(feed), below_((1u << lane) - 1), lane_(lane) {
    const unsigned at = feed.lead() + 2 * lane;
    const unsigned state = feed.byte(at) | feed.byte(at + 1) << 8;
    factors_ = (state & 0xFF00) | kOne;
    word_ = load_word(first + 4 * (state & 0xFF));
    place_ = feed.lead() + kStatesBytes + lane;
  }

  // The symbol - 16 of this step, in the lowest byte; `next` is where the next step's table's slots are.
  __device__ __forceinline__ unsigned take(unsigned next, bool present = true) {
    unsigned candidate = 0;
    if (kAhead) candidate = load_word(next + 4 * feed_.byte(place_));
    const unsigned word = word_;
    const unsigned state = present ? __dp4a(word, factors_, 0u) : (factors_ & 0xFF00) | word >> 24;
    const bool is_short = state < 256;
    const unsigned all = __ballot_sync(kAllLanes, is_short);
    const unsigned rank = __popc(all & below_);
    if (kAhead) {
      const unsigned handed = __shfl_sync(kAllLanes, candidate, rank);
      if (is_short)
        word_ = handed, factors_ = state * 256 + kOne;
      else
        word_ = load_word(next + 4 * (state & 0xFF)), factors_ = (state & 0xFF00) | kOne;
    } else {
      const unsigned byte = feed_.byte(place_ - lane_ + rank);
      factors_ = is_short ? state * 256 + kOne : (state & 0xFF00) | kOne;
      word_ = load_word(next + 4 * (is_short ? byte : state & 0xFF));
    }
    place_ += __popc(all);
    return word;
  }

  __device__ __forceinline__ void refill() { feed_.refill(place_ - lane_); }

 private:
  static constexpr unsigned kOne = 1u << 16;

  Feed& feed_;
  // factors: what a word's bytes are multiplied by and summed up: 0, the state's upper byte, 1, 0.
  unsigned below_, lane_, factors_, word_;
  unsigned place_;  // of the byte that lane after lane would take
};

}  // namespace
}  // namespace hyperlane
