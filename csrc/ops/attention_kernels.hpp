// The kernels of attention for one instruction set, whose file includes this behind HYPERLANE_LANES, the
// target attribute of its functions, and `Lanes`, 16 floats; kMostQueries and kMostVectors say what fits its
// registers. A query's arithmetic has one order, whatever is computed beside it.

struct Float32 {
  static constexpr int64_t kBytes = 4,
                           kHead = 0;  // of a number, and a position's share of what a tile begins with
  HYPERLANE_LANES static Lanes load(const uint8_t* at, int64_t index, int64_t count) {
    return Lanes::load(reinterpret_cast<const float*>(at) + index, count);
  }
};

struct Float16 {
  static constexpr int64_t kBytes = 2, kHead = 0;
  HYPERLANE_LANES static Lanes load(const uint8_t* at, int64_t index, int64_t count) {
    return Lanes::load_halves(reinterpret_cast<const uint16_t*>(at) + index, count);
  }
};

struct Int8 {
  static constexpr int64_t kBytes = 1, kHead = 4;
  HYPERLANE_LANES static Lanes load(const uint8_t* at, int64_t index, int64_t count) {
    return Lanes::load_bytes(reinterpret_cast<const int8_t*>(at) + index, count);
  }
};

// One head's tiles, keys or values.
template <typename Kind>
struct Tiles {
  const uint8_t* base;
  int64_t head_dim;

  HYPERLANE_LANES int64_t bytes() const { return kPositions * (head_dim * Kind::kBytes + Kind::kHead); }
  HYPERLANE_LANES const uint8_t* numbers(int64_t tile) const {
    return base + tile * bytes() + kPositions * Kind::kHead;
  }
  HYPERLANE_LANES const float* scales(int64_t tile) const {
    return reinterpret_cast<const float*>(base + tile * bytes());
  }
};

// Queries of one head of keys and values: `rows` rows of `group` heads, each query [head_dim], scaled.
struct Queries {
  const float* q;
  int64_t rows, group, position;  // of the first row
  float *weights, *out;           // of query i from i * stride, i * head_dim on
  int64_t stride;
};

HYPERLANE_LANES Lanes exponential_lanes(Lanes x) {
  x = Lanes::min(Lanes::max(x, Lanes::all(kExpLow)), Lanes::all(kExpHigh));
  const Lanes n = Lanes::round(Lanes::mul(x, Lanes::all(kLog2E)));
  const Lanes r =
      Lanes::sub(Lanes::sub(x, Lanes::mul(n, Lanes::all(kLn2High))), Lanes::mul(n, Lanes::all(kLn2Low)));
  Lanes p = Lanes::all(kExpTerms[0]);
  for (int i = 1; i < 6; ++i) p = Lanes::add(Lanes::mul(p, r), Lanes::all(kExpTerms[i]));
  return Lanes::scaled(Lanes::add(Lanes::add(Lanes::mul(Lanes::mul(p, r), r), r), Lanes::all(1.0f)), n);
}

// weights[m][16 t + lane] = query m . key, for kTiles tiles from `tile` on
template <typename Kind, int kQueries, int kTiles>
HYPERLANE_LANES void score_tiles(Tiles<Kind> keys, const float* q, int64_t tile, float* weights,
                                 int64_t stride) {
  Lanes sums[kTiles][kQueries];
  for (int t = 0; t < kTiles; ++t)
    for (int m = 0; m < kQueries; ++m) sums[t][m] = Lanes::all(0.0f);
  for (int64_t d = 0; d < keys.head_dim; ++d) {
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) {
      const Lanes key = Kind::load(keys.numbers(tile + t), d * kPositions, kPositions);
#pragma GCC unroll 8
      for (int m = 0; m < kQueries; ++m)
        sums[t][m] = Lanes::fma(Lanes::all(q[m * keys.head_dim + d]), key, sums[t][m]);
    }
  }
  for (int t = 0; t < kTiles; ++t)
    for (int m = 0; m < kQueries; ++m) {
      if (Kind::kHead) sums[t][m] = Lanes::mul(sums[t][m], Lanes::load(keys.scales(tile + t), kPositions));
      Lanes::store(sums[t][m], weights + m * stride + (tile + t) * kPositions, kPositions);
    }
}

template <typename Kind, int kQueries>
HYPERLANE_LANES_CALL void score(Tiles<Kind> keys, const Queries& queries, int64_t first_tile,
                                int64_t stop_tile) {
  constexpr int kTiles = kQueries * 2 <= Lanes::kMostQueries ? 2 : 1;  // two chains where few hide no latency
  int64_t tile = first_tile;
  for (; tile + kTiles <= stop_tile; tile += kTiles)
    score_tiles<Kind, kQueries, kTiles>(keys, queries.q, tile, queries.weights, queries.stride);
  for (; tile < stop_tile; ++tile)
    score_tiles<Kind, kQueries, 1>(keys, queries.q, tile, queries.weights, queries.stride);
}

// Scores at positions start to stop become e^(score - largest); returns their sum, a NaN where a score is not
// finite.
HYPERLANE_LANES_CALL float soften(float* scores, int64_t start, int64_t stop, float softcap) {
  const Lanes lowest = Lanes::all(-std::numeric_limits<float>::infinity());
  const int64_t first = start / kPositions * kPositions;
  Lanes largest = lowest, broken = Lanes::all(0.0f);
  for (int64_t t = first; t < stop; t += kPositions) {
    Lanes x = Lanes::load(scores + t, kPositions);
    broken = Lanes::fma(Lanes::keep(x, start - t, stop - t, Lanes::all(0.0f)), Lanes::all(0.0f), broken);
    if (softcap > 0) {  // softcap * tanh(x / softcap), and tanh(y) = 1 - 2 / (e^(2 y) + 1)
      const Lanes e = exponential_lanes(Lanes::mul(x, Lanes::all(2.0f / softcap)));
      const Lanes tanh =
          Lanes::sub(Lanes::all(1.0f), Lanes::div(Lanes::all(2.0f), Lanes::add(e, Lanes::all(1.0f))));
      x = Lanes::mul(tanh, Lanes::all(softcap));
    }
    x = Lanes::keep(x, start - t, stop - t, lowest);
    largest = Lanes::max(x, largest);
    Lanes::store(x, scores + t, kPositions);
  }
  const Lanes offset = Lanes::all(Lanes::largest(largest));
  Lanes sum = Lanes::all(0.0f);
  for (int64_t t = first; t < stop; t += kPositions) {
    const Lanes power = exponential_lanes(Lanes::sub(Lanes::load(scores + t, kPositions), offset));
    const Lanes kept = Lanes::keep(power, start - t, stop - t, Lanes::all(0.0f));
    sum = Lanes::add(sum, kept);
    Lanes::store(kept, scores + t, kPositions);
  }
  return Lanes::sum(sum) + Lanes::sum(broken);
}

// out[m][first .. ] += weights[m][t] * value[t][first ..] for positions start to stop; kVectors vectors of
// elements
template <typename Kind, int kQueries, int kVectors>
HYPERLANE_LANES void gather_part(Tiles<Kind> values, const float* weights, int64_t stride, int64_t start,
                                 int64_t stop, int64_t first, int64_t count, float* out) {
  Lanes sums[kQueries][kVectors];
  const int64_t D = values.head_dim;
  for (int m = 0; m < kQueries; ++m)
    for (int v = 0; v < kVectors; ++v) sums[m][v] = Lanes::load(out + m * D + first + 16 * v, count);
  for (int64_t t = start; t < stop; ++t) {
    const uint8_t* numbers = values.numbers(t / kPositions);
    const float scale = Kind::kHead ? values.scales(t / kPositions)[t % kPositions] : 1.0f;
    Lanes row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      row[v] = Kind::load(numbers, t % kPositions * D + first + 16 * v, count);
#pragma GCC unroll 8
    for (int m = 0; m < kQueries; ++m) {
      const float weight = weights[m * stride + t];
      const Lanes all = Lanes::all(Kind::kHead ? weight * scale : weight);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[m][v] = Lanes::fma(all, row[v], sums[m][v]);
    }
  }
  for (int m = 0; m < kQueries; ++m)
    for (int v = 0; v < kVectors; ++v) Lanes::store(sums[m][v], out + m * D + first + 16 * v, count);
}

template <typename Kind, int kQueries>
HYPERLANE_LANES_CALL void gather(Tiles<Kind> values, const Queries& queries, int64_t first_query,
                                 int64_t start, int64_t stop) {
  const float* weights = queries.weights + first_query * queries.stride;
  float* out = queries.out + first_query * values.head_dim;
  int64_t d = 0;
  for (constexpr int kMost = Lanes::kMostVectors; d + 16 * kMost <= values.head_dim; d += 16 * kMost)
    gather_part<Kind, kQueries, kMost>(values, weights, queries.stride, start, stop, d, 16, out);
  for (; d < values.head_dim; d += 16)
    gather_part<Kind, kQueries, 1>(values, weights, queries.stride, start, stop, d,
                                   std::min<int64_t>(16, values.head_dim - d), out);
}

template <typename Kind, int kQueries>
void score_any(Tiles<Kind> keys, const Queries& queries, int64_t count, int64_t first_tile,
               int64_t stop_tile) {
  if constexpr (kQueries > 1) {
    if (count < kQueries) return score_any<Kind, kQueries - 1>(keys, queries, count, first_tile, stop_tile);
  }
  score<Kind, kQueries>(keys, queries, first_tile, stop_tile);
}

template <typename Kind, int kQueries>
void gather_any(Tiles<Kind> values, const Queries& queries, int64_t first, int64_t count, int64_t start,
                int64_t stop) {
  if constexpr (kQueries > 1) {
    if (count < kQueries) return gather_any<Kind, kQueries - 1>(values, queries, first, count, start, stop);
  }
  if (start < stop) gather<Kind, kQueries>(values, queries, first, start, stop);
}

template <typename Kind>
void attend_queries(const Attention& attention, Tiles<Kind> keys, Tiles<Kind> values,
                    const Queries& queries) {
  const auto start_of = [&](int64_t row) {
    const int64_t stop = queries.position + row + 1;
    return attention.window > 0 ? std::max<int64_t>(0, stop - attention.window) : 0;
  };
  const int64_t last = queries.rows - 1, count = queries.rows * queries.group;
  const int64_t stop_tile = (queries.position + last) / kPositions + 1;
  score_any<Kind, Lanes::kMostQueries>(keys, queries, count, start_of(0) / kPositions, stop_tile);
  std::vector<float> sums(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = i / queries.group;
    sums[i] = soften(queries.weights + i * queries.stride, start_of(row), queries.position + row + 1,
                     attention.softcap);
  }
  // What all rows look back on together; before and behind it each row alone, so that none meets what it may
  // not see.
  const int64_t common = start_of(last), stop = std::max(common, queries.position + 1);
  constexpr int kMost = Lanes::kMostQueries;
  for (int64_t row = 0; row < queries.rows; ++row)
    gather_any<Kind, kMost>(values, queries, row * queries.group, queries.group, start_of(row),
                            std::min(common, queries.position + row + 1));
  gather_any<Kind, kMost>(values, queries, 0, count, common, stop);
  for (int64_t row = 0; row < queries.rows; ++row)
    gather_any<Kind, kMost>(values, queries, row * queries.group, queries.group, stop,
                            queries.position + row + 1);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < keys.head_dim; ++d) queries.out[i * keys.head_dim + d] *= 1.0f / sums[i];
}

template <typename Kind>
void attend_kind(const Attention& attention, const float* q, const uint8_t* keys, const uint8_t* values,
                 RowBlock block, int64_t position, int64_t kv_head, float* out) {
  const int64_t D = attention.head_dim, group = attention.heads / attention.kv_heads;
  const int64_t stride = (position + block.count + kPositions - 1) / kPositions * kPositions;
  const int64_t most = std::min<int64_t>(group, Lanes::kMostQueries);
  static thread_local std::vector<float> memory;
  const int64_t needed = block.count * most * (2 * D + stride);
  if (static_cast<int64_t>(memory.size()) < needed) memory.resize(needed);
  for (int64_t first = 0; first < group; first += most) {
    const int64_t heads = std::min(most, group - first), count = block.count * heads;
    float *scaled = memory.data(), *sums = scaled + count * D, *weights = sums + count * D;
    std::fill(sums, sums + count * D, 0.0f);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = block.first + i / heads, head = kv_head * group + first + i % heads;
      rotate(attention, q + (row * attention.heads + head) * D, row, scaled + i * D);
      for (int64_t d = 0; d < D; ++d) scaled[i * D + d] *= attention.scale;
    }
    attend_queries<Kind>(attention, {keys, D}, {values, D},
                         {scaled, block.count, heads, position, weights, sums, stride});
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = block.first + i / heads, head = kv_head * group + first + i % heads;
      std::copy(sums + i * D, sums + (i + 1) * D, out + (row * attention.heads + head) * D);
    }
  }
}

void attend(const Attention& attention, const float* q, const uint8_t* keys, const uint8_t* values,
            RowBlock block, int64_t position, int64_t kv_head, float* out) {
  const auto attend_as = attention.kind == CacheKind::float32   ? attend_kind<Float32>
                         : attention.kind == CacheKind::float16 ? attend_kind<Float16>
                                                                : attend_kind<Int8>;
  attend_as(attention, q, keys, values, block, position, kv_head, out);
}
