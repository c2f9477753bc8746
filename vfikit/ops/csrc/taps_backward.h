// Sampling at free taps backward, float32. The gradients of the maps need, at each tap, the products of the output's gradient with the
// four neighbours; the input's gradient is in taps_window.h and taps_far.h.
#pragma once

#include "taps_far.h"

namespace vfikit {
namespace taps {

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
    const int64_t at = job.at(tap, start), row = tap / job.s.kernel, column = tap % job.s.kernel;
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
        const int64_t next = t + 1 < s.taps() ? job.at(t + 1, start) : job.at(0, start + TILE);
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

// A tile whose maps may lie in either layout.
inline void backward_either(const Job& job, BackwardKernel kernel, int64_t start, int64_t end, const Window& window) {
    if (!job.planes) return kernel(job, start, end, window);
    Job chunk = job;
    if (end > start + TILE) end = start + TILE;
    for (; start < end; start += LAID_OUT) {
        const int count = static_cast<int>(end - start < LAID_OUT ? end - start : LAID_OUT);
        lay_out(job, start, count, LAID_OUT, chunk);
        lay_out_gradients(job, start, count, chunk);
        kernel(chunk, start, start + count, window);
        put_back_gradients(job, start, count, chunk);
    }
}

inline void backward_maps(const Job& job, BackwardKernel kernel, int64_t threads) {
    const int64_t pixels = job.s.pixels(), tiles = (pixels + TILE - 1) / TILE, run = 4;
    parallel((tiles + run - 1) / run, threads, [&](int64_t item, int64_t thread) {
        const FlushSubnormals flush;
        const Job own = own_planes(job, thread);
        for (int64_t tile = item * run; tile < tiles && tile < (item + 1) * run; ++tile)
            backward_either(own, kernel, tile * TILE, pixels, Window{nullptr, 0, 0, nullptr});
    });
}

template <class Op>
void backward_bands(const Job& job, int64_t block, BackwardKernel kernel, int64_t threads, float* windows,
                           uint8_t* left, float* grad_input) {
    const Shape& s = job.s;
    const int64_t size = window_rows(s) * s.pitch() * block;
    for (int64_t parity = 0; parity < 2; ++parity)
        parallel((bands(s) + 1 - parity) / 2, threads, [&](int64_t item, int64_t thread) {
            const FlushSubnormals flush;
            const Job own = own_planes(job, thread);
            const int64_t index = 2 * item + parity;
            const Band area = band(s, index);
            Window window{windows + thread * size, area.low, area.high, left + index * band_tiles(s) * s.taps()};
            memset(window.rows, 0, (area.high - area.low + 1) * s.pitch() * block * sizeof(float));
            for (int64_t start = area.start; start < area.end; start += TILE, window.left += s.taps())
                backward_either(own, kernel, start, area.end, window);
            add_window<Op>(s, window, job.first, block, grad_input);
        });
}

// grad_input may be null: it costs as much as the rest. `last`: the taps of a pixel lie side by side in the maps and
// their gradients.
template <class Op>
int backward(const Job& whole, const float* input, float* grad_input, BackwardKernel (*choose)(int64_t block),
             int64_t threads, bool last = false) {
    const Shape& s = whole.s;
    const double room = 0.045 * s.batch * (6.0 * s.taps() + 4.0 * s.channels) * s.pixels() / s.packed();
    const int64_t block = s.channels > 4 && room >= 16 ? 16 : 4, maps = s.taps() * s.pixels();
    const int64_t teams = threads < bands(s) ? (threads > 1 ? threads : 1) : bands(s);
    Scratch scratch(s.packed() * block * sizeof(float) + 64);
    Scratch windows(grad_input ? teams * window_rows(s) * s.pitch() * block * sizeof(float) + 64 : 0);
    Scratch left(grad_input ? bands(s) * band_tiles(s) * s.taps() : 0);
    Scratch planes(last ? (threads > 1 ? threads : 1) * planes_size(s, LAID_OUT, 6) * sizeof(float) : 0);
    if (!scratch.as<float>() || !windows.as<float>() || !left.as<float>() || !planes.as<float>()) return 1;
    for (float* map : {whole.grad_weight, whole.grad_offset_i, whole.grad_offset_j})
        advise(map, s.batch * maps * sizeof(float));
    const BackwardKernel kernel = choose(block);
    for (int64_t n = 0; n < s.batch; ++n) {
        Job job = whole.item<Op>(n);
        job.packed = scratch.as<float>();
        if (last) job.planes = planes.as<float>();
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
