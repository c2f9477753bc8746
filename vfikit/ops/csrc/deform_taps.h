// What both passes of deformable convolution share: slices of channels, frames with a ring of zeros, tiles of output
// pixels and where their taps read. See deform_conv.cpp.
#pragma once

#include "product.h"

namespace vfikit {
namespace deform {

constexpr int64_t TILE = 48;   // output pixels whose columns stay in the caches: whole blocks of product::ROWS
constexpr int64_t SLICE = 16;  // channels at most that are gathered together: one vector

struct Shape {
    int64_t batch, channels, height, width, out_channels, kernel_height, kernel_width, groups, moved;
    int64_t out_height, out_width, stride_y, stride_x, pad_y, pad_x, step_y, step_x;

    int64_t taps() const { return kernel_height * kernel_width; }
    int64_t plane() const { return height * width; }
    int64_t pixels() const { return out_height * out_width; }
    int64_t tiles() const { return (pixels() + TILE - 1) / TILE; }
    int64_t group_channels() const { return channels / groups; }
    int64_t group_outputs() const { return out_channels / groups; }
    // With a ring of zeros, and a row more, where taps that read nothing find four zeros.
    int64_t stride() const { return width + 2; }
    int64_t ringed() const { return (height + 3) * stride(); }
    int64_t nowhere() const { return (height + 1) * stride(); }
};

inline int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Some channels of one offset group and one group of the convolution.
struct Slice {
    int64_t first, count, moved, group;
};

struct Slices {
    explicit Slices(const Shape& s) {
        int64_t a = s.channels / s.moved, b = s.group_channels();
        while (b) {  // the greatest common divisor: such a run of channels lies in one group of either kind
            const int64_t rest = a % b;
            a = b, b = rest;
        }
        run = a, per_run = (run + SLICE - 1) / SLICE, width = (run + per_run - 1) / per_run;
        count = s.channels / run * per_run, of_offsets = s.channels / s.moved / run * per_run;
        depth = s.taps() * width;
    }
    Slice operator()(const Shape& s, int64_t index) const {
        const int64_t start = index % per_run * width, first = index / per_run * run + start;
        const int64_t left = run - start;
        return {first, left < width ? left : width, first * s.moved / s.channels, first / s.group_channels()};
    }
    bool uneven() const { return run % width != 0; }  // then the rings of frames that follow each other differ
    int64_t run, per_run, width, count, of_offsets, depth;
};

// Channels `slice` of a plane-wise image, pixel by pixel within a ring of zeros; `frame` is zero there already.
template <class T>
VFIKIT_INLINE void interleave(const Shape& s, const Slice& slice, const T* image, T* frame) {
    for (int64_t y = 0; y < s.height; ++y) {
        const T* from = image + slice.first * s.plane() + y * s.width;
        T* to = frame + ((y + 1) * s.stride() + 1) * slice.count;
        for (int64_t x = 0; x < s.width; ++x, to += slice.count)
            for (int64_t c = 0; c < slice.count; ++c) to[c] = from[c * s.plane() + x];
    }
}

template <class T>
VFIKIT_INLINE void separate(const Shape& s, const Slice& slice, const T* frame, T* image) {
    for (int64_t c = 0; c < slice.count; ++c)
        for (int64_t y = 0; y < s.height; ++y) {
            const T* from = frame + ((y + 1) * s.stride() + 1) * slice.count + c;
            T* to = image + (slice.first + c) * s.plane() + y * s.width;
            for (int64_t x = 0; x < s.width; ++x) to[x] = from[x * slice.count];
        }
}

// One tap of the pixels of a tile: the position of its upper left pixel in a ringed frame, the four shares times the
// mask, the fractions and the mask itself, all zero where nothing is read.
template <class T>
struct Tap {
    int32_t position[TILE];
    T share[4][TILE], down[TILE], right[TILE], mask[TILE], inside[TILE];
};

// What offset group `moved` does to `count` pixels from `start` on.
template <class T>
VFIKIT_INLINE void locate(const Shape& s, const T* offset, const T* mask, int64_t moved, int64_t start, int64_t count,
                          Tap<T>* taps) {
    int32_t rows[TILE], columns[TILE];
    int64_t row = start / s.out_width, column = start % s.out_width;
    for (int64_t p = 0; p < count; ++p) {
        rows[p] = static_cast<int32_t>(row * s.stride_y - s.pad_y);
        columns[p] = static_cast<int32_t>(column * s.stride_x - s.pad_x);
        if (++column == s.out_width) column = 0, ++row;
    }
    const int32_t height = static_cast<int32_t>(s.height), width = static_cast<int32_t>(s.width);
    const int32_t stride = width + 2, nowhere = static_cast<int32_t>(s.nowhere());
    const T far = static_cast<T>(1 << 30);
    for (int64_t t = 0; t < s.taps(); ++t) {
        Tap<T>& tap = taps[t];
        const int64_t channel = moved * s.taps() + t;
        const T *by_y = offset + 2 * channel * s.pixels() + start, *by_x = by_y + s.pixels();
        const T* weight = mask ? mask + channel * s.pixels() + start : nullptr;
        const int32_t down = static_cast<int32_t>(t / s.kernel_width * s.step_y);
        const int32_t right = static_cast<int32_t>(t % s.kernel_width * s.step_x);
        for (int64_t p = 0; p < count; ++p) tap.mask[p] = weight ? weight[p] : T(1);
        for (int64_t p = 0; p < count; ++p) {
            const T dy = by_y[p], dx = by_x[p];
            const bool near = (dy > -far) & (dy < far) & (dx > -far) & (dx < far);  // not so for NaN
            const T y = near ? dy : T(0), x = near ? dx : T(0);
            int32_t top = static_cast<int32_t>(y), left = static_cast<int32_t>(x);
            top -= static_cast<T>(top) > y, left -= static_cast<T>(left) > x;  // rounds down
            const T fy = y - static_cast<T>(top), fx = x - static_cast<T>(left);
            top += rows[p] + down, left += columns[p] + right;
            const bool reads = near & (top < height) & (left < width) & ((top >= 0) | ((top == -1) & (fy > 0))) &
                               ((left >= 0) | ((left == -1) & (fx > 0)));
            const T one = reads ? T(1) : T(0);
            tap.position[p] = reads ? (top + 1) * stride + left + 1 : nowhere;
            tap.inside[p] = one, tap.down[p] = fy, tap.right[p] = fx;
            const T above = one * (1 - fy) * tap.mask[p], below = one * fy * tap.mask[p];
            tap.share[0][p] = above * (1 - fx), tap.share[1][p] = above * fx;
            tap.share[2][p] = below * (1 - fx), tap.share[3][p] = below * fx;
        }
    }
}

// Calls body(t, p, position) in the order of the columns; `position` counts numbers in the slice's frame.
template <class T, class F>
VFIKIT_INLINE void each_tap(const Shape& s, const Tap<T>* taps, int64_t pixels, int64_t channels, const F& body) {
    for (int64_t p = 0; p < pixels; ++p)
        for (int64_t t = 0; t < s.taps(); ++t) body(t, p, taps[t].position[p] * channels);
}

}  // namespace deform
}  // namespace vfikit
