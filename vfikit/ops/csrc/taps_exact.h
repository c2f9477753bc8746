// Sampling at free taps in any type, one pixel at a time: what float64 runs.
#pragma once

#include "taps.h"

namespace vfikit {
namespace taps {

// One tap of one pixel: the four places in a plane, and what each axis gives them.
template <class T>
struct Read {
    int64_t at[4];  // above left, above right, below left, below right
    T up, down, left, right;
};

// Both neighbours on one axis, from the first one's place in the ring or in the input.
template <class Op, class T>
void share(int64_t at, int64_t size, T fraction, int64_t* pixels, T& before, T& after) {
    const auto times = [&](int64_t place) { return T(place < 0 || place >= size ? Op::BORDER : 1); };
    const auto clamp = [&](int64_t place) { return place < 0 ? 0 : place < size ? place : size - 1; };
    pixels[0] = clamp(at), pixels[1] = clamp(at + 1);
    before = times(at) * (1 - fraction), after = times(at + 1) * fraction;
}

// Tap (i, j) of output pixel `pixel`.
template <class Op, class T>
Read<T> locate_read(const JobOf<T>& job, int64_t i, int64_t j, int64_t pixel) {
    const Shape& s = job.s;
    const int64_t at = (i * s.kernel + j) * s.pixels() + pixel;
    const Axis<T, int64_t> rows(s, s.height, s.out_height), columns(s, s.width, s.out_width);
    const int64_t row = pixel / s.out_width + i * s.dilation + s.origin;
    const int64_t column = pixel % s.out_width + j * s.dilation + s.origin;
    Read<T> read;
    T down, right;
    int64_t y[2], x[2];
    const int64_t above = Op::template split<true>(rows, job.offset_i[at], row, down);
    const int64_t before = Op::template split<true>(columns, job.offset_j[at], column, right);
    share<Op>(above, s.height, down, y, read.up, read.down);
    share<Op>(before, s.width, right, x, read.left, read.right);
    for (int k = 0; k < 4; ++k) read.at[k] = y[k / 2] * s.width + x[k % 2];
    return read;
}

template <class Op, class T>
int forward_exact(const JobOf<T>& whole, const T* input, int64_t threads) {
    const Shape& s = whole.s;
    parallel(s.batch * s.out_height, threads, [&](int64_t item, int64_t) {
        const int64_t n = item / s.out_height, start = item % s.out_height * s.out_width;
        const JobOf<T> job = whole.template item<Op>(n);
        for (int64_t c = 0; c < s.channels; ++c)
            memset(job.output + c * s.pixels() + start, 0, s.out_width * sizeof(T));
        for (int64_t t = 0; t < s.taps(); ++t)
            for (int64_t pixel = start; pixel < start + s.out_width; ++pixel) {
                const Read<T> r = locate_read<Op>(job, t / s.kernel, t % s.kernel, pixel);
                const T weight = Op::template weight<T>(job, t / s.kernel, t % s.kernel, pixel, 1);
                for (int64_t c = 0; c < s.channels; ++c) {
                    const T* plane = input + (n * s.channels + c) * s.plane();
                    const T above = plane[r.at[0]] * r.left + plane[r.at[1]] * r.right;
                    const T below = plane[r.at[2]] * r.left + plane[r.at[3]] * r.right;
                    job.output[c * s.pixels() + pixel] += weight * (above * r.up + below * r.down);
                }
            }
    });
    return 0;
}

// A batch item at a time on one thread: no two threads write the same gradient. grad_input may be null.
template <class Op, class T>
int backward_exact(const JobOf<T>& whole, const T* input, T* grad_input, int64_t threads) {
    const Shape& s = whole.s;
    parallel(s.batch, threads, [&](int64_t n, int64_t) {
        const JobOf<T> job = whole.template item<Op>(n);
        if (grad_input) memset(grad_input + n * s.channels * s.plane(), 0, s.channels * s.plane() * sizeof(T));
        for (int64_t t = 0; t < s.taps(); ++t)
            for (int64_t pixel = 0; pixel < s.pixels(); ++pixel) {
                const int64_t i = t / s.kernel, j = t % s.kernel, at = t * s.pixels() + pixel;
                const Read<T> r = locate_read<Op>(job, i, j, pixel);
                const T weight = Op::template weight<T>(job, i, j, pixel, 1);
                const T factor[4] = {r.up * r.left, r.up * r.right, r.down * r.left, r.down * r.right};
                T dot[4] = {};
                for (int64_t c = 0; c < s.channels; ++c) {
                    const int64_t plane = (n * s.channels + c) * s.plane();
                    const T g = job.grad[c * s.pixels() + pixel];
                    for (int k = 0; k < 4; ++k) dot[k] += g * input[plane + r.at[k]];
                    if (grad_input)
                        for (int k = 0; k < 4; ++k) grad_input[plane + r.at[k]] += g * weight * factor[k];
                }
                Op::template add_gradient<T>(
                    job, i, j, pixel, 1,
                    dot[0] * factor[0] + dot[1] * factor[1] + dot[2] * factor[2] + dot[3] * factor[3]);
                job.grad_offset_i[at] = weight * ((dot[2] - dot[0]) * r.left + (dot[3] - dot[1]) * r.right);
                job.grad_offset_j[at] = weight * ((dot[1] - dot[0]) * r.up + (dot[3] - dot[2]) * r.down);
            }
    });
    return 0;
}

}  // namespace taps
}  // namespace vfikit
