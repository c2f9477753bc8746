// What the kernels that sample at free taps (AdaCoF, DSepConv) share: sizes, the packed input, where a tap reads.
//
// An op is a class `Op` with: SEPARABLE, whether two more maps of F rows make the weight; `Share<V>`, how the two
// neighbours on one axis divide a weight; `split`, which finds the first neighbour and the share; `weight` and
// `add_gradient`, what stands for a tap's weight in the maps.
#pragma once

#include <type_traits>

#include "lanes.h"

namespace vfikit {
namespace taps {

struct Shape {
    int64_t batch, channels, height, width, kernel, out_height, out_width, dilation;
    int64_t origin;  // of the first tap, on both axes, relative to its output pixel
    int64_t taps() const { return kernel * kernel; }
    int64_t plane() const { return height * width; }
    int64_t pixels() const { return out_height * out_width; }
    int64_t reach() const { return (kernel - 1) * dilation; }
    int64_t pitch() const { return width + 2; }  // packed pixels a row
    int64_t packed() const { return (height + 2) * pitch(); }
    int64_t base() const { return pitch() + 1; }  // packed: pixel (-1, -1) of the input is 0
};

// One batch item, one block of channels; where there is no `output`, a gradient.
template <class T>
struct JobOf {
    Shape s;
    int64_t first;    // channel
    const T* packed;  // pixel (-1, -1)
    const T *weight, *offset_i, *offset_j;  // F * F maps each; the offsets along the rows' and along the columns' axis
    const T *vertical, *horizontal;         // F maps each, of a separable op
    T* output;
    const T* grad;
    T *grad_weight, *grad_offset_i, *grad_offset_j, *grad_vertical, *grad_horizontal;

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

// One coordinate, in vectors or numbers: the bounds of offsets, beyond which all is far beyond the border, and those of
// what is read, [-1, size - 1].
template <class V, class I>
struct Axis {
    V high, low;
    I first, last;
    Axis(const Shape& s, int64_t size, int64_t outputs)
        : high(static_cast<float>(size + outputs + s.kernel) - V{}), low(-high), first(-1 - I{}),
          last(static_cast<int32_t>(size - 1) - I{}) {}

    VFIKIT_INLINE V bound(V offset) const {
        const V bounded = offset > high ? high : offset;
        return bounded < low ? low : bounded;
    }
    // Towards zero. A NaN moves by nothing where MENDED, else anywhere: `clamp` brings it back.
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
    VFIKIT_INLINE I clamp(I at) const {
        at = at < first ? first : at;
        return at > last ? last : at;
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

// The same apart: the weight, and each axis' share as the op saves it.
struct alignas(64) Parts {
    float weight[TILE], down[2][TILE], right[2][TILE];
};

// Fills `parts` and `quads` (its factors where FACTORS). Returns whether an index is outside [low, high), packed pixels.
template <class Op, int BYTES, bool FACTORS>
VFIKIT_INLINE bool prepare(const Job& job, const Axes<BYTES>& axes, const Places& places, int64_t tap, int64_t start,
                           int count, Quads& quads, Parts& parts, int64_t low, int64_t high) {
    constexpr int N = BYTES / 4;
    typedef Vec<float, N> V;
    typedef Vec<int32_t, N> I;
    const Shape& s = job.s;
    const int64_t at = tap * s.pixels() + start, row = tap / s.kernel, column = tap % s.kernel;
    const float *offset_i = job.offset_i + at, *offset_j = job.offset_j + at;
    const int32_t i = static_cast<int32_t>(row * s.dilation), j = static_cast<int32_t>(column * s.dilation);
    const int32_t pitch = static_cast<int32_t>(s.pitch());
    const I least = static_cast<int32_t>(low - s.base()) - I{}, most = static_cast<int32_t>(high - s.base()) - I{};
    I outside = {};
    for (int p = 0; p < count; p += N) {
        typename Op::template Share<V> down, right;
        const V moved_i = load_some<V>(offset_i + p, count - p), moved_j = load_some<V>(offset_j + p, count - p);
        const I y = Op::template split<true>(axes.rows, moved_i, load<I>(places.row + p) + i, down);
        const I x = Op::template split<true>(axes.columns, moved_j, load<I>(places.column + p) + j, right);
        const V w = Op::template weight<V>(job, row, column, start + p, count - p);
        const I index = y * pitch + x;
        store(quads.index + p, index);
        outside |= (index < least) | (index >= most);
        store(parts.weight + p, w);
        down.save(parts.down, p), right.save(parts.right, p);
        if constexpr (FACTORS) {
            V above, below, factor[4];
            down.divide(w, above, below);
            right.divide(above, factor[0], factor[1]), right.divide(below, factor[2], factor[3]);
            store_quads<N>(quads.factor + 4 * p, factor[0], factor[1], factor[2], factor[3],
                           std::make_integer_sequence<int, N>());
        }
    }
    for (int k = 0; k < N; ++k)
        if (outside[k]) return true;
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

}  // namespace taps
}  // namespace vfikit
