// `int4`'s encoding of one row by one thread block, for the least time: nothing leaves shared memory but the
// payload.
#pragma once
#include "quant/entropy_single.cuh"
#include "quant/entropy_strings.cuh"

namespace hyperlane {
namespace {

// Offsets in shared memory, behind symbols' codes and vectors' tables.
struct OneRoom {
  unsigned codes, tables, room, values, string, payload, bytes;

  __host__ __device__ explicit OneRoom(const EntropyView& view) {
    const unsigned string_bytes = kStatesBytes + 32 * view.vector_count;
    codes = 0;
    tables = codes + code_bytes(view);
    room = tables + table_bytes(view);
    values = room + row_room_bytes(view);
    string = values + single_bytes(view);
    payload = string + (string_bytes + 15) / 16 * 16;
    bytes = payload +
            (kIdBytes + 1 + view.head_bytes + 4 + string_bytes + 1 + kPatchBytes * view.most_patches + 31) /
                16 * 16;
  }
};

// A coded row's payload into shared memory, but for its string, whose place is returned; by all threads.
__device__ __forceinline__ unsigned lay_out_one(const EntropyView& view, const RowRoom& room,
                                                const SingleRow& found, unsigned string_bytes,
                                                unsigned char* payload) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  unsigned char* head = payload + kIdBytes + 1;
  unsigned char* size = head + view.head_bytes;
  unsigned char* counts = size + 4 + string_bytes;
  if (threadIdx.x < kIdBytes) payload[threadIdx.x] = view.id[threadIdx.x];
  if (threadIdx.x == 0) {
    payload[kIdBytes] = kCoded;
    head[0] = static_cast<unsigned char>(found.r);
    head[1] = static_cast<unsigned char>(found.g | (found.patch_count ? kPatched : 0));
    put_u32(size, string_bytes);
    if (found.patch_count) counts[0] = static_cast<unsigned char>(found.patch_count);
  }
  if (warp == 1) write_low_bits(view, room.low, head + 2, lane);
  if (warp == 2 && found.patch_count) write_patches(room.patches, found.patch_count, counts + 1, lane);
  return kIdBytes + 1 + view.head_bytes + 4;
}

template <class T>
__device__ __forceinline__ std::size_t encode_one_row(const EntropyView& view, const EntropyJob& job,
                                                      const T* rows, unsigned char* memory,
                                                      SingleShared& shared, unsigned& string_shared) {
  const OneRoom at(view);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const RowRoom room = row_room(view, memory + at.room);
  const SingleRow found =
      quantize_single(view, job, rows, 0, room, reinterpret_cast<float*>(memory + at.values), shared);
  if (!found.coded) {
    const unsigned state = raw_state(rows, view.width, found.rms, lane);  // by every warp
    if (threadIdx.x < kIdBytes) job.payload[threadIdx.x] = view.id[threadIdx.x];
    if (threadIdx.x == 0) job.payload[kIdBytes] = static_cast<unsigned char>(state);
    if (warp == 0) write_raw(rows, view.width, state, job.payload + kIdBytes + 1, lane);
    return kIdBytes + 1 + 2 * std::size_t{view.width} * raw_units(state);
  }
  unsigned char* end = memory + at.payload;  // of the string
  if (warp == 0) {
    const unsigned row = 0;
    const unsigned bytes =
        encode_string(view, room.symbols, end, &row, 1, reinterpret_cast<const uint2*>(memory + at.codes),
                      reinterpret_cast<const unsigned*>(memory + at.tables), lane);
    if (lane == 0) string_shared = bytes;
  }
  __syncthreads();
  const unsigned bytes = string_shared;
  unsigned char* payload = memory + at.payload;
  const unsigned string_at = lay_out_one(view, room, found, bytes, payload);
  for (unsigned i = threadIdx.x; i < bytes; i += blockDim.x) payload[string_at + i] = (end - bytes)[i];
  __syncthreads();
  const unsigned length = string_at + bytes + (found.patch_count ? 1 + kPatchBytes * found.patch_count : 0);
  copy_out(job.payload, payload, length, threadIdx.x, blockDim.x);
  return length;
}

}  // namespace
}  // namespace hyperlane
