// What the AdaCoF kernels share: sizes, the packed input, where a tap reads.
#pragma once

#include "lanes.h"

namespace vfikit {
namespace adacof {

struct Shape {
    int64_t batch, channels, height, width, kernel, out_height, out_width, dilation;
    int64_t taps() const { return kernel * kernel; }
    int64_t plane() const { return height * width; }
    int64_t pixels() const { return out_height * out_width; }
    int64_t reach() const { return (kernel - 1) * dilation; }
    int64_t pitch() const { return width + 2; }  // packed pixels a row
    int64_t packed() const { return (height + 2) * pitch(); }
};

// One batch item, one block of channels.
struct Job {
    Shape s;
    int64_t first;        // channel
    const float* packed;  // pixel (-1, -1)
    const float *weight, *offset_i, *offset_j;
    float* output;
    const float* grad;
    float *grad_weight, *grad_offset_i, *grad_offset_j;
};

constexpr int TILE = 512;  // output pixels, flat

struct alignas(64) Places {  // of a tile's pixels
    int32_t row[TILE], column[TILE];
};

template <int SIZE>
VFIKIT_INLINE void locate(const Shape& s, int64_t start, int count, int32_t* rows, int32_t* columns) {
    int32_t row = static_cast<int32_t>(start / s.out_width), column = static_cast<int32_t>(start % s.out_width);
    const int32_t width = static_cast<int32_t>(s.out_width);
    for (int p = 0; p < SIZE;) {  // beyond `count` too: whole vectors are computed
        const int run = SIZE - p < width - column ? SIZE - p : width - column;
        for (int q = 0; q < run; ++q) {
            rows[p + q] = row;
            columns[p + q] = column + q;
        }
        p += run, column = 0, ++row;
        if (p >= count + 16) break;
    }
}

// One coordinate of one tap. An offset is truncated towards zero and added to the pixel's place; the sum, kept within
// [-1, size - 1], is relative to the tap's own start. A NaN's fraction is NaN; with MENDED it moves by nothing, else
// anywhere within the input.
template <class V, class I, bool MENDED>
struct Axis {
    V high, low;
    I first, last;
    Axis(int64_t size, int64_t outputs, int64_t start)
        : high(static_cast<float>(size + outputs) - V{}), low(static_cast<float>(-size - outputs) - V{}),
          first(static_cast<int32_t>(-1 - start) - I{}), last(static_cast<int32_t>(size - 1 - start) - I{}) {}

    VFIKIT_INLINE I split(V offset, I place, V& fraction) const {
        V bounded = offset > high ? high : offset;
        bounded = bounded < low ? low : bounded;
        const I whole = __builtin_convertvector(MENDED ? (bounded == bounded ? bounded : V{}) : bounded, I);
        fraction = bounded - __builtin_convertvector(whole, V);
        I at = whole + place;
        at = at < first ? first : at;
        return at > last ? last : at;
    }
};

// One tap of one tile: the packed pixel of the upper left neighbour, relative to `base`, and its four factors.
struct alignas(64) Quads {
    float factor[TILE * 4];  // in store_quads' order
    int32_t index[TILE + 16];
    int64_t base;
};

struct alignas(64) Parts {
    float weight[TILE], down[TILE], right[TILE];
};

// Fills `quads` (its factors where FACTORS) and, where PARTS, the parts. Returns whether an index is outside
// [low, high), packed pixels.
template <int BYTES, bool FACTORS, bool PARTS>
VFIKIT_INLINE bool prepare(const Job& job, const Places& places, int64_t tap, int64_t start, int count, Quads& quads,
                           Parts* parts, int64_t low, int64_t high) {
    constexpr int N = BYTES / 4;
    typedef Vec<float, N> V;
    typedef Vec<int32_t, N> I;
    const Shape& s = job.s;
    const int64_t at = tap * s.pixels() + start;
    const float *weight = job.weight + at, *offset_i = job.offset_i + at, *offset_j = job.offset_j + at;
    const Axis<V, I, PARTS> rows(s.height, s.out_height, tap / s.kernel * s.dilation);
    const Axis<V, I, PARTS> columns(s.width, s.out_width, tap % s.kernel * s.dilation);
    const int32_t pitch = static_cast<int32_t>(s.pitch());
    // the packed ring: pixel (-1, -1) is 0
    quads.base = (tap / s.kernel * s.dilation + 1) * s.pitch() + tap % s.kernel * s.dilation + 1;
    const I least = static_cast<int32_t>(low - quads.base) - I{}, most = static_cast<int32_t>(high - quads.base) - I{};
    I outside = {};
    for (int p = 0; p < count; p += N) {
        V down, right;
        const I y = rows.split(load_some<V>(offset_i + p, count - p), load<I>(places.row + p), down);
        const I x = columns.split(load_some<V>(offset_j + p, count - p), load<I>(places.column + p), right);
        const V w = load_some<V>(weight + p, count - p);
        const I index = y * pitch + x;
        store(quads.index + p, index);
        if constexpr (PARTS) {
            outside |= (index < least) | (index >= most);
            store(parts->weight + p, w);
            store(parts->down + p, down);
            store(parts->right + p, right);
        }
        if constexpr (FACTORS) {
            const V below = w * down, above = w - below;
            const V above_right = above * right, below_right = below * right;
            store_quads<N>(quads.factor + 4 * p, above - above_right, above_right, below - below_right, below_right,
                           std::make_integer_sequence<int, N>());
        }
    }
    if constexpr (PARTS) {
        for (int k = 0; k < N; ++k)
            if (outside[k]) return true;
    }
    return false;
}

// Packs channels [first, first + B) of one frame, channels innermost, with a ring of one repeated pixel, so that an
// index within [-1, size - 1] has both its neighbours in place. Channels beyond the last are zero.
template <int B>
void pack(const Shape& s, const float* frame, int64_t first, int64_t threads, float* packed) {
    const int64_t pitch = s.pitch();
    parallel(s.height + 2, threads, [&](int64_t y, int64_t) {
        const int64_t row = y < 1 ? 0 : (y > s.height ? s.height - 1 : y - 1);
        float* to = packed + y * pitch * B;
        for (int b = 0; b < B; ++b) {
            if (first + b >= s.channels) {
                for (int64_t x = 0; x < pitch; ++x) to[x * B + b] = 0;
                continue;
            }
            const float* from = frame + (first + b) * s.plane() + row * s.width;
            to[b] = from[0];
            for (int64_t x = 0; x < s.width; ++x) to[(x + 1) * B + b] = from[x];
            to[(pitch - 1) * B + b] = from[s.width - 1];
        }
    });
}

}  // namespace adacof
}  // namespace vfikit
