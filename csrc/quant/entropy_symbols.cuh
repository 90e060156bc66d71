// rANS, forwards: a warp decodes a string. Two ways of a step that give the same symbols: by its turn, a lane that
// is short of a byte fetches it and then looks up what it stands for; or all lanes look up in advance what the next
// bytes would stand for, and one shuffle hands them out. The first takes less, the second waits less.
#pragma once
#include "quant/entropy_feed.cuh"
#include "quant/entropy_tables.cuh"

namespace hyperlane {
namespace {

// Of a lane. A slot's word has symbol - 16, frequency, slot - start, slot in its bytes.
template <bool kAhead>
class Decoder {
 public:
  // `first`: the slots of the first step's table.
  __device__ __forceinline__ Decoder(Feed& feed, const unsigned* first, unsigned lane)
      : feed_(feed), below_((1u << lane) - 1), lane_(lane) {
    const unsigned at = feed.lead() + 2 * lane;
    const unsigned state = feed.byte(at) | feed.byte(at + 1) << 8;
    high_ = state >> 8;
    word_ = first[state & 0xFF];
    position_ = feed.lead() + kStatesBytes;
  }

  // The symbol - 16 of this step, in the lowest byte; `next` are the slots of the next step's table.
  __device__ __forceinline__ unsigned take(const unsigned* next, bool present = true) {
    unsigned candidate = 0;
    if (kAhead) candidate = next[feed_.byte(position_ + lane_)];
    const unsigned word = word_;
    const unsigned state =
        present ? (word >> 8 & 0xFF) * high_ + (word >> 16 & 0xFF) : high_ << 8 | word >> 24;
    const bool is_short = state < 256;
    const unsigned all = __ballot_sync(kAllLanes, is_short);
    const unsigned rank = __popc(all & below_);
    if (kAhead) {
      const unsigned handed = __shfl_sync(kAllLanes, candidate, rank);
      if (is_short)
        word_ = handed, high_ = state;
      else
        word_ = next[state & 0xFF], high_ = state >> 8;
    } else {
      const unsigned byte = feed_.byte(position_ + rank);
      high_ = is_short ? state : state >> 8;
      word_ = next[is_short ? byte : state & 0xFF];
    }
    position_ += __popc(all);
    return word;
  }

  __device__ __forceinline__ void refill() { feed_.refill(position_); }

  // Whether the string ended where its symbols did; for the whole warp.
  __device__ __forceinline__ bool ended(unsigned bytes) const {
    return __all_sync(kAllLanes, high_ == 1 && word_ >> 24 == 0 && position_ == feed_.lead() + bytes);
  }

 private:
  Feed& feed_;
  unsigned below_, lane_, position_, high_, word_;
};

}  // namespace
}  // namespace hyperlane
