// Sampling at free taps backward, float32. The gradients of the maps need, at each tap, the products of the output's gradient with the
// four neighbours. The input's gradient is scattered by bands of output rows, each into its own window of input rows;
// bands of one parity have disjoint windows, so that the two parities in turn give the same sums whatever the threads.
// Taps that leave their band's window are left for a last pass, where each thread owns rows of the gradient.
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

// The sums over channels of the output's gradient with the neighbours of a row, four channels apart.
template <int B>
VFIKIT_INLINE Vec<float, 8> products(const float* row, const float* grad) {
    typedef Vec<float, 8> V;
    if constexpr (B == 4) {
        return load<V>(row) * load<V>(grad);
    } else {
        typedef Vec<float, B> W;
        const W g = load<W>(grad);
        const Vec<float, 4> a = fold<B>(load<W>(row) * g), b = fold<B>(load<W>(row + B) * g);
        return VFIKIT_SHUFFLE(8, a, b, 0, 1, 2, 3, 4, 5, 6, 7);
    }
}

template <int B>
constexpr int GRAD = B == 4 ? 8 : B;  // floats a pixel: four channels are kept twice, for both neighbours

template <int B>
VFIKIT_INLINE void dot_products(const Job& job, const Quads& quads, const float* grad, int count, int64_t next,
                                float (*dot)[TILE]) {
    typedef Vec<float, 8> V;
    const float* from = job.packed + job.s.base() * B;
    const int64_t row = job.s.pitch() * B;
    for (int p = 0; p < count; p += 4) {
        if (p % 16 == 0) {
            __builtin_prefetch(job.weight + next + p);
            __builtin_prefetch(job.offset_i + next + p);
            __builtin_prefetch(job.offset_j + next + p);
            __builtin_prefetch(job.grad_weight + next + p, 1);
            __builtin_prefetch(job.grad_offset_i + next + p, 1);
            __builtin_prefetch(job.grad_offset_j + next + p, 1);
        }
        V above[4], below[4];
        for (int k = 0; k < 4; ++k) {
            const float* at = from + static_cast<int64_t>(quads.index[p + k]) * B;
            above[k] = products<B>(at, grad + (p + k) * GRAD<B>);
            below[k] = products<B>(at + row, grad + (p + k) * GRAD<B>);
        }
        const V a = sum_quads(above[0], above[1], above[2], above[3]);
        const V b = sum_quads(below[0], below[1], below[2], below[3]);
        store(dot[0] + p, VFIKIT_SHUFFLE(4, a, a, 0, 1, 2, 3));
        store(dot[1] + p, VFIKIT_SHUFFLE(4, a, a, 4, 5, 6, 7));
        store(dot[2] + p, VFIKIT_SHUFFLE(4, b, b, 0, 1, 2, 3));
        store(dot[3] + p, VFIKIT_SHUFFLE(4, b, b, 4, 5, 6, 7));
    }
}

template <class Op, int BYTES>
VFIKIT_INLINE void map_gradients(const Job& job, const Parts& parts, const float (*dot)[TILE], int64_t tap,
                                 int64_t start, int count) {
    constexpr int N = BYTES / 4;
    typedef Vec<float, N> V;
    const int64_t at = tap * job.s.pixels() + start, row = tap / job.s.kernel, column = tap % job.s.kernel;
    float *grad_i = job.grad_offset_i + at, *grad_j = job.grad_offset_j + at;
    for (int p = 0; p < count; p += N) {
        const V d00 = load<V>(dot[0] + p), d01 = load<V>(dot[1] + p), d10 = load<V>(dot[2] + p);
        const V d11 = load<V>(dot[3] + p), w = load<V>(parts.weight + p);
        const V fa = load<V>(parts.down + p), fb = load<V>(parts.right + p);
        const V above = d00 * (1 - fb) + d01 * fb, below = d10 * (1 - fb) + d11 * fb;
        V i = w * ((d10 - d00) * (1 - fb) + (d11 - d01) * fb);
        V j = w * ((d01 - d00) * (1 - fa) + (d11 - d10) * fa);
        if (job.first) {  // not the first block of channels
            i += load_some<V>(grad_i + p, count - p);
            j += load_some<V>(grad_j + p, count - p);
        }
        Op::template add_gradient<V>(job, row, column, start + p, count - p, above * (1 - fa) + below * fa);
        store_some(grad_i + p, i, count - p);
        store_some(grad_j + p, j, count - p);
    }
}

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

template <class Op, int BYTES, int B>
VFIKIT_INLINE void backward_tile(const Job& job, int64_t start, int64_t end, const Window& window) {
    const Shape& s = job.s;
    const int count = static_cast<int>(end - start < TILE ? end - start : TILE);
    Places places;
    Quads quads;
    Parts parts;
    const Axes<BYTES> axes(s);
    alignas(64) float grad[(TILE + 16) * GRAD<B>], dot[4][TILE];
    locate<TILE>(s, start, count, places.row, places.column);
    memset(grad, 0, sizeof grad);
    for (int b = 0; b < B && job.first + b < s.channels; ++b) {
        const float* from = job.grad + (job.first + b) * s.pixels() + start;
        for (int p = 0; p < count; ++p) grad[p * GRAD<B> + b] = from[p];
        if (B == 4)
            for (int p = 0; p < count; ++p) grad[p * GRAD<B> + 4 + b] = from[p];
    }
    for (int64_t t = 0; t < s.taps(); ++t) {
        const int64_t low = window.low * s.pitch(), high = window.high * s.pitch();
        const bool left =
            window.rows ? prepare<Op, BYTES, true>(job, axes, places, t, start, count, quads, parts, low, high)
                        : prepare<Op, BYTES, false>(job, axes, places, t, start, count, quads, parts, 0, 0);
        const int64_t next = t + 1 < s.taps() ? (t + 1) * s.pixels() + start : start + TILE;
        dot_products<B>(job, quads, grad, count, next, dot);
        map_gradients<Op, BYTES>(job, parts, dot, t, start, count);
        if (window.rows) {
            if (left) window.left[t] = 1;
            if (left) scatter<BYTES / 4, B>(job, quads, grad, count, window, true);
            else scatter<BYTES / 4, B>(job, quads, grad, count, window, false);
        }
    }
}

// backward_tile of an op for each block of channels, and `backward_kernel(block)`, which picks one.
#define VFIKIT_BACKWARD_OF(Op, B)                                                                                 \
    template <int BYTES>                                                                                          \
    VFIKIT_INLINE void backward_##B(const Job& job, int64_t start, int64_t end, const Window& window) {           \
        backward_tile<Op, BYTES, B>(job, start, end, window);                                                     \
    }                                                                                                             \
    VFIKIT_DISPATCH(backward_block_##B, backward_##B,                                                             \
                    (const Job& job, int64_t start, int64_t end, const Window& window), (job, start, end, window))
#define VFIKIT_BACKWARD(Op)                                                                                       \
    VFIKIT_BACKWARD_OF(Op, 4)                                                                                     \
    VFIKIT_BACKWARD_OF(Op, 16)                                                                                    \
    inline BackwardKernel backward_kernel(int64_t block) {                                                        \
        return block == 4 ? backward_block_4() : backward_block_16();                                             \
    }
typedef void (*BackwardKernel)(const Job& job, int64_t start, int64_t end, const Window& window);

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

// The taps that left their band's window, into input rows [top, bottom) of the gradient of four channels. Far taps
// pile up on the border, thousands to a pixel: `sum` is double.
template <class Op>
void add_far(const Job& job, const uint8_t* left, int64_t top, int64_t bottom, double* sum) {
    const Shape& s = job.s;
    const int64_t channels = s.channels - job.first < 4 ? s.channels - job.first : 4;
    Places places;
    Quads quads;
    Parts parts;
    const Axes<16> axes(s);
    for (int64_t b = 0; b < bands(s); ++b, left += band_tiles(s) * s.taps()) {
        const Band area = band(s, b);
        for (int64_t start = area.start; start < area.end; start += TILE) {
            const int count = static_cast<int>(area.end - start < TILE ? area.end - start : TILE);
            const uint8_t* some = left + (start - area.start) / TILE * s.taps();
            locate<TILE>(s, start, count, places.row, places.column);
            for (int64_t t = 0; t < s.taps(); ++t) {
                if (!some[t]) continue;
                prepare<Op, 16, false>(job, axes, places, t, start, count, quads, parts, 0, 0);
                for (int p = 0; p < count; ++p) {
                    const int64_t index = quads.index[p] + s.base(), y = index / s.pitch(), x = index % s.pitch();
                    if (y >= area.low && y < area.high) continue;
                    float times, left_times, right_times;
                    const int64_t x0 = unring<Op>(s, x, s.width, left_times);
                    const int64_t x1 = unring<Op>(s, x + 1, s.width, right_times);
                    for (int d = 0; d < 2; ++d) {
                        const int64_t row = unring<Op>(s, y + d, s.height, times);
                        if (row < top || row >= bottom) continue;
                        const float w = times * parts.weight[p] * (d ? parts.down[p] : 1 - parts.down[p]);
                        double* to = sum + (row - top) * s.width * 4;
                        for (int64_t c = 0; c < channels; ++c) {
                            const float g = job.grad[(job.first + c) * s.pixels() + start + p] * w;
                            to[x0 * 4 + c] += g * left_times * (1 - parts.right[p]);
                            to[x1 * 4 + c] += g * right_times * parts.right[p];
                        }
                    }
                }
            }
        }
    }
}

// Each thread owns strips of rows.
template <class Op>
bool backward_far(Job job, const uint8_t* left, int64_t threads, float* grad_input) {
    const Shape& s = job.s;
    const int64_t strip = (s.height + 8 * threads - 1) / (8 * threads), size = strip * s.width * 4;
    Scratch sums(threads * size * sizeof(double));
    if (!sums.as<double>()) return false;
    for (job.first = 0; job.first < s.channels; job.first += 4)
        parallel((s.height + strip - 1) / strip, threads, [&](int64_t item, int64_t thread) {
            const int64_t top = item * strip, bottom = top + strip < s.height ? top + strip : s.height;
            double* sum = sums.as<double>() + thread * size;
            memset(sum, 0, size * sizeof(double));
            add_far<Op>(job, left, top, bottom, sum);
            for (int64_t c = 0; c < 4 && job.first + c < s.channels; ++c) {
                float* to = grad_input + (job.first + c) * s.plane() + top * s.width;
                for (int64_t x = 0; x < (bottom - top) * s.width; ++x) to[x] += static_cast<float>(sum[x * 4 + c]);
            }
        });
    return true;
}

inline void backward_maps(const Job& job, BackwardKernel kernel, int64_t threads) {
    const int64_t pixels = job.s.pixels(), tiles = (pixels + TILE - 1) / TILE, run = 4;
    parallel((tiles + run - 1) / run, threads, [&](int64_t item, int64_t) {
        for (int64_t tile = item * run; tile < tiles && tile < (item + 1) * run; ++tile)
            kernel(job, tile * TILE, pixels, Window{nullptr, 0, 0, nullptr});
    });
}

template <class Op>
void backward_bands(const Job& job, int64_t block, BackwardKernel kernel, int64_t threads, float* windows,
                           uint8_t* left, float* grad_input) {
    const Shape& s = job.s;
    const int64_t size = window_rows(s) * s.pitch() * block;
    for (int64_t parity = 0; parity < 2; ++parity)
        parallel((bands(s) + 1 - parity) / 2, threads, [&](int64_t item, int64_t thread) {
            const int64_t index = 2 * item + parity;
            const Band area = band(s, index);
            Window window{windows + thread * size, area.low, area.high, left + index * band_tiles(s) * s.taps()};
            memset(window.rows, 0, (area.high - area.low + 1) * s.pitch() * block * sizeof(float));
            for (int64_t start = area.start; start < area.end; start += TILE, window.left += s.taps())
                kernel(job, start, area.end, window);
            add_window<Op>(s, window, job.first, block, grad_input);
        });
}

// grad_input may be null: it costs as much as the rest.
template <class Op>
int backward(const Job& whole, const float* input, float* grad_input, BackwardKernel (*choose)(int64_t block),
             int64_t threads) {
    const Shape& s = whole.s;
    const double room = 0.045 * s.batch * (6.0 * s.taps() + 4.0 * s.channels) * s.pixels() / s.packed();
    const int64_t block = s.channels > 4 && room >= 16 ? 16 : 4, maps = s.taps() * s.pixels();
    const int64_t teams = threads < bands(s) ? (threads > 1 ? threads : 1) : bands(s);
    Scratch scratch(s.packed() * block * sizeof(float) + 64);
    Scratch windows(grad_input ? teams * window_rows(s) * s.pitch() * block * sizeof(float) + 64 : 0);
    Scratch left(grad_input ? bands(s) * band_tiles(s) * s.taps() : 0);
    if (!scratch.as<float>() || !windows.as<float>() || !left.as<float>()) return 1;
    for (float* map : {whole.grad_weight, whole.grad_offset_i, whole.grad_offset_j})
        advise(map, s.batch * maps * sizeof(float));
    const BackwardKernel kernel = choose(block);
    for (int64_t n = 0; n < s.batch; ++n) {
        Job job = whole.item<Op>(n);
        job.packed = scratch.as<float>();
        const float* frame = input + n * s.channels * s.plane();
        float* to = grad_input ? grad_input + n * s.channels * s.plane() : nullptr;
        if (to) memset(to, 0, s.channels * s.plane() * sizeof(float));
        if (to) memset(left.as<uint8_t>(), 0, bands(s) * band_tiles(s) * s.taps());
        for (; job.first < s.channels; job.first += block) {
            if (block == 4) pack<Op, 4>(s, frame, job.first, threads, scratch.as<float>());
            else pack<Op, 16>(s, frame, job.first, threads, scratch.as<float>());
            if (to) backward_bands<Op>(job, block, kernel, teams, windows.as<float>(), left.as<uint8_t>(), to);
            else backward_maps(job, kernel, threads);
        }
        if (to && memchr(left.as<uint8_t>(), 1, bands(s) * band_tiles(s) * s.taps()) &&
            !backward_far<Op>(job, left.as<uint8_t>(), teams, to))
            return 1;
    }
    return 0;
}

}  // namespace taps
}  // namespace vfikit
