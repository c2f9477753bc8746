// The input's gradient, float32: scattered by bands of output rows, each into its own window of input rows; bands of one
// parity have disjoint windows, so that the two parities in turn give the same sums whatever the threads. Taps that
// leave their band's window are marked for taps_far.h.
#pragma once

#include "taps.h"

namespace vfikit {
namespace taps {

constexpr int64_t MARGIN = 16;  // rows that a window extends beyond the taps of its band

// A band of output rows and its window: packed rows [low, high].
struct Band {
    int64_t start, end;  // output pixels
    int64_t low, high;
};

inline int64_t band_rows(const Shape& s) { return s.reach() + 2 * MARGIN + 1; }
inline int64_t bands(const Shape& s) { return (s.out_height + band_rows(s) - 1) / band_rows(s); }
inline int64_t band_tiles(const Shape& s) { return (band_rows(s) * s.out_width + TILE - 1) / TILE; }
inline int64_t window_rows(const Shape& s) { return 2 * band_rows(s) + 1; }

inline Band band(const Shape& s, int64_t index) {
    const int64_t first = index * band_rows(s), rows = s.out_height - first;
    const int64_t last = first + (rows < band_rows(s) ? rows : band_rows(s)) - 1;
    const int64_t low = first + s.origin + s.ring - MARGIN, high = last + s.origin + s.ring + s.reach() + MARGIN + 1;
    const int64_t most = s.height + 2 * s.ring - 1;
    return {first * s.out_width, (last + 1) * s.out_width, low > 0 ? low : 0, high < most ? high : most};
}

// One tile's share of the scatter: the window's memory, and for each tap whether it left the window.
struct Window {
    float* rows;  // of packed pixels; null without the input's gradient
    int64_t low, high;
    uint8_t* left;
};

template <int B>
constexpr int GRAD = B == 4 ? 8 : B;  // floats a pixel: four channels are kept twice, for both neighbours

template <int N, int B>
VFIKIT_INLINE void scatter(const Job& job, const Quads& quads, const float* grad, int count, const Window& window,
                           bool check) {
    typedef Vec<float, B> V;
    const int64_t base = job.s.base();
    float* to = window.rows + (base - window.low * job.s.pitch()) * B;
    const int64_t row = job.s.pitch() * B;
    const int64_t least = window.low * job.s.pitch() - base, most = window.high * job.s.pitch() - base;
    for (int p = 0; p < count; p += N)
        for (int q = 0; q < N; ++q) {  // in the quadruples' order: neighbours, which write the same places, are apart
            const int pixel = p + q % (N / 4) * 4 + q / (N / 4);
            const int64_t index = quads.index[pixel];
            if (pixel >= count || (check && (index < least || index >= most))) continue;
            const float* f = quads.factor + 4 * (p + q);
            const V g = load<V>(grad + pixel * GRAD<B>);
            float* at = to + index * B;  // whole pixels only: wider stores would delay the next loads
            store(at, load<V>(at) + g * f[0]);
            store(at + B, load<V>(at + B) + g * f[1]);
            store(at + row, load<V>(at + row) + g * f[2]);
            store(at + row + B, load<V>(at + row + B) + g * f[3]);
        }
}

// A place in the ring or in the input, on one axis: the pixel, and how many times it counts.
template <class Op>
int64_t unring(const Shape& s, int64_t at, int64_t size, float& times) {
    at -= s.ring;
    times = at < 0 || at >= size ? Op::BORDER : 1;
    return at < 0 ? 0 : at < size ? at : size - 1;
}

// Adds a window to the input's gradient; the ring folds onto the border.
template <class Op>
void add_window(const Shape& s, const Window& window, int64_t first, int64_t block, float* grad_input) {
    for (int64_t y = window.low; y <= window.high; ++y) {
        float times;
        const int64_t row = unring<Op>(s, y, s.height, times);
        const float* from = window.rows + (y - window.low) * s.pitch() * block;
        for (int64_t b = 0; b < block && first + b < s.channels; ++b) {
            float* to = grad_input + (first + b) * s.plane() + row * s.width;
            for (int64_t x = 0; x < s.width; ++x) to[x] += times * from[(x + s.ring) * block + b];
            for (int64_t x = 0; x < s.ring; ++x) {
                to[0] += times * Op::BORDER * from[x * block + b];
                to[s.width - 1] += times * Op::BORDER * from[(s.pitch() - 1 - x) * block + b];
            }
        }
    }
}

}  // namespace taps
}  // namespace vfikit
