// What the kernels that sample at free taps (AdaCoF, DSepConv) share: sizes, the packed input, where a tap reads.
//
// An op is a class `Op` with: SEPARABLE, whether two more maps of F rows make the weight; RING, how many pixels the
// packed input has around it, and BORDER, how many times each counts the border that it repeats; `split`, which finds
// the first of two neighbours on one axis, in the ring or not, and the fraction that the second has; `weight` and
// `add_gradient`, what stands for a tap's weight in the maps.
#pragma once

#include "lanes.h"

namespace vfikit {
namespace taps {

struct Shape {
    int64_t batch, channels, height, width, kernel, out_height, out_width, dilation;
    int64_t origin;  // of the first tap, on both axes, relative to its output pixel
    int64_t ring;    // Op::RING
    int64_t taps() const { return kernel * kernel; }
    int64_t plane() const { return height * width; }
    int64_t pixels() const { return out_height * out_width; }
    int64_t reach() const { return (kernel - 1) * dilation; }
    int64_t pitch() const { return width + 2 * ring; }  // packed pixels a row
    int64_t packed() const { return (height + 2 * ring) * pitch(); }
    int64_t base() const { return ring * (pitch() + 1); }  // packed: pixel (0, 0) of the input
};

// One batch item, one block of channels; where there is no `output`, a gradient.
template <class T>
struct JobOf {
    Shape s;
    int64_t first;    // channel
    const T* packed;  // the ring's first pixel
    const T *weight, *offset_i, *offset_j;  // F * F maps each; the offsets along the rows' and along the columns' axis
    const T *vertical, *horizontal;         // F maps each, of a separable op
    int64_t step, from;  // from a tap's map to the next one's; the pixel that they begin with
    float* planes;       // null, or where the maps of a chunk are laid out: taps_layout.h
    T* output;
    const T* grad;
    T *grad_weight, *grad_offset_i, *grad_offset_j, *grad_vertical, *grad_horizontal;

    // In the maps.
    int64_t at(int64_t tap, int64_t pixel) const { return tap * step + pixel - from; }

    // `*this` is that of item 0.
    template <class Op>
    JobOf item(int64_t n) const {
        JobOf job = *this;
        const int64_t maps = n * s.taps() * s.pixels(), few = n * s.kernel * s.pixels();
        job.weight += maps, job.offset_i += maps, job.offset_j += maps;
        if (output) job.output += n * s.channels * s.pixels();
        else job.grad += n * s.channels * s.pixels();
        if (grad) job.grad_weight += maps, job.grad_offset_i += maps, job.grad_offset_j += maps;
        if (Op::SEPARABLE) job.vertical += few, job.horizontal += few;
        if (Op::SEPARABLE && grad) job.grad_vertical += few, job.grad_horizontal += few;
        return job;
    }
};
typedef JobOf<float> Job;

constexpr int TILE = 512;  // output pixels, flat

struct alignas(64) Places {  // of a tile's pixels
    int32_t row[TILE], column[TILE];
};

// Where the first tap of each pixel is before it is moved.
template <int SIZE>
VFIKIT_INLINE void locate(const Shape& s, int64_t start, int count, int32_t* rows, int32_t* columns) {
    const int32_t width = static_cast<int32_t>(s.out_width), origin = static_cast<int32_t>(s.origin);
    int32_t row = static_cast<int32_t>(start / s.out_width), column = static_cast<int32_t>(start % s.out_width);
    for (int p = 0; p < SIZE;) {  // beyond `count` too: whole vectors are computed
        const int run = SIZE - p < width - column ? SIZE - p : width - column;
        for (int q = 0; q < run; ++q) {
            rows[p + q] = row + origin;
            columns[p + q] = column + q + origin;
        }
        p += run, column = 0, ++row;
        if (p >= count + 16) break;
    }
}

// One coordinate, in vectors or numbers: the bounds of offsets, beyond which all is far beyond the border, and the last
// pixel.
template <class V, class I>
struct Axis {
    V high, low;
    I last;
    Axis(const Shape& s, int64_t size, int64_t outputs)
        : high(static_cast<float>(size + outputs + s.kernel) - V{}), low(-high),
          last(static_cast<int32_t>(size - 1) - I{}) {}

    VFIKIT_INLINE V bound(V offset) const {
        const V bounded = offset > high ? high : offset;
        return bounded < low ? low : bounded;
    }
    // Towards zero. A NaN is 0 where MENDED, else anything.
    template <bool MENDED>
    static VFIKIT_INLINE I truncate(V bounded) {
        const V number = MENDED ? (bounded == bounded ? bounded : V{}) : bounded;
        if constexpr (std::is_floating_point<V>::value) return static_cast<I>(number);
        else return __builtin_convertvector(number, I);
    }
    static VFIKIT_INLINE V widen(I whole) {
        if constexpr (std::is_floating_point<V>::value) return static_cast<V>(whole);
        else return __builtin_convertvector(whole, V);
    }
};

// Both axes of an image.
template <int BYTES>
struct Axes {
    Axis<Vec<float, BYTES / 4>, Vec<int32_t, BYTES / 4>> rows, columns;
    explicit Axes(const Shape& s) : rows(s, s.height, s.out_height), columns(s, s.width, s.out_width) {}
};

// One tap of one tile: the packed pixel of the upper left neighbour, relative to `base`, and its four factors.
struct alignas(64) Quads {
    float factor[TILE * 4];  // in store_quads' order
    int32_t index[TILE + 16];
};

// The same apart.
struct alignas(64) Parts {
    float weight[TILE], down[TILE], right[TILE];
};

// How two neighbours share a weight.
template <class V>
VFIKIT_INLINE void divide(V weight, V fraction, V& first, V& second) {
    second = weight * fraction, first = weight - second;
}

// Fills `parts` and `quads` (its factors where FACTORS). Returns whether an index is outside [low, high), packed pixels.
template <class Op, int BYTES, bool FACTORS>
VFIKIT_INLINE bool prepare(const Job& job, const Axes<BYTES>& axes, const Places& places, int64_t tap, int64_t start,
                           int count, Quads& quads, Parts& parts, int64_t low, int64_t high) {
    constexpr int N = BYTES / 4;
    typedef Vec<float, N> V;
    typedef Vec<int32_t, N> I;
    const Shape& s = job.s;
    const int64_t at = job.at(tap, start), row = tap / s.kernel, column = tap % s.kernel;
    const float *offset_i = job.offset_i + at, *offset_j = job.offset_j + at;
    const int32_t i = static_cast<int32_t>(row * s.dilation), j = static_cast<int32_t>(column * s.dilation);
    const int32_t pitch = static_cast<int32_t>(s.pitch());
    const I least = static_cast<int32_t>(low - s.base()) - I{}, most = static_cast<int32_t>(high - s.base()) - I{};
    I outside = {};
    for (int p = 0; p < count; p += N) {
        V down, right;
        const V moved_i = load_some<V>(offset_i + p, count - p), moved_j = load_some<V>(offset_j + p, count - p);
        const I y = Op::template split<true>(axes.rows, moved_i, load<I>(places.row + p) + i, down);
        const I x = Op::template split<true>(axes.columns, moved_j, load<I>(places.column + p) + j, right);
        const V w = Op::template weight<V>(job, row, column, start + p, count - p);
        const I index = y * pitch + x;
        store(quads.index + p, index);
        outside |= (index < least) | (index >= most);
        store(parts.weight + p, w);
        store(parts.down + p, down), store(parts.right + p, right);
        if constexpr (FACTORS) {
            V above, below, factor[4];
            divide(w, down, above, below);
            divide(above, right, factor[0], factor[1]), divide(below, right, factor[2], factor[3]);
            store_quads<N>(quads.factor + 4 * p, factor[0], factor[1], factor[2], factor[3],
                           std::make_integer_sequence<int, N>());
        }
    }
    for (int k = 0; k < N; ++k)
        if (outside[k]) return true;
    return false;
}

// Packs channels [first, first + B) of one frame, channels innermost, with its ring. Channels beyond the last are zero.
template <class Op, int B>
void pack(const Shape& s, const float* frame, int64_t first, int64_t threads, float* packed) {
    constexpr float BORDER = Op::BORDER;
    parallel(s.height + 2 * s.ring, threads, [&](int64_t y, int64_t) {
        const int64_t row = y < s.ring ? 0 : (y - s.ring < s.height ? y - s.ring : s.height - 1);
        const float scale = y - s.ring == row ? 1 : BORDER;
        float* to = packed + y * s.pitch() * B;
        const float* from = frame + first * s.plane() + row * s.width;
        const int64_t channels = s.channels - first;
        if (channels >= B)  // in one pass
            for (int64_t x = 0; x < s.width; ++x)
                for (int b = 0; b < B; ++b) to[(x + s.ring) * B + b] = scale * from[b * s.plane() + x];
        for (int b = 0; b < B; ++b, from += s.plane()) {
            if (b >= channels) {
                for (int64_t x = 0; x < s.pitch(); ++x) to[x * B + b] = 0;
                continue;
            }
            if (channels < B)
                for (int64_t x = 0; x < s.width; ++x) to[(x + s.ring) * B + b] = scale * from[x];
            for (int64_t x = 0; x < s.ring; ++x) {
                to[x * B + b] = scale * BORDER * from[0];
                to[(s.pitch() - 1 - x) * B + b] = scale * BORDER * from[s.width - 1];
            }
        }
    });
}

}  // namespace taps
}  // namespace vfikit
