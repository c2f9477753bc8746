// Deformable separable convolution on NVIDIA GPUs: see vfikit/ops/dsepconv.py for the definition.
//
// As in adacof.cu, a thread owns an output pixel with a block of B channels and reads the maps once for all of them.
// For the gradients of the maps it owns all taps of its pixel: those of `vertical` and `horizontal` are sums over a row
// and a column of taps, which no two threads may share.
//
// A plane has fewer than 2^29 pixels (dsepconv.py sees to it); all larger products are 64 bits wide.
#include "pixels.h"

// One tap of one pixel: its four neighbours' positions in a plane, and what each axis gives them.
template <class T>
struct Tap {
    int p00, p01, p10, p11;
    T up, down, left, right;
};

// The two neighbours on one axis. Rounds down; beyond the border both are its pixel, each with share one. NaN moves by
// nothing and its shares are NaN; an infinite offset reads the border.
template <class T>
__device__ inline void split(T offset, int place, int size, int kernel, int& first, int& second, T& before, T& after) {
    const T limit = static_cast<T>(size) + kernel + 1;  // takes both neighbours beyond the border, from anywhere
    const T bounded = offset > limit ? limit : (offset < -limit ? -limit : offset);
    const T whole = floor(bounded), fraction = bounded - whole;
    const bool number = fraction == fraction;
    const int at = place + (number ? static_cast<int>(whole) : 0);
    const bool beyond = number && (at < 0 || at >= size - 1);
    first = clamp(at, size), second = clamp(at + 1, size);
    before = beyond ? T(1) : 1 - fraction, after = beyond ? T(1) : fraction;
}

// Tap (i, j) of output pixel (row, column).
template <class T>
__device__ inline Tap<T> locate(const Sizes& s, int row, int column, int i, int j, T offset_x, T offset_y) {
    const int origin = 1 - (s.kernel - 1) / 2;  // as published
    Tap<T> tap;
    int above, below, left, right;
    split(offset_x, row + i + origin, s.height, s.kernel, above, below, tap.up, tap.down);
    split(offset_y, column + j + origin, s.width, s.kernel, left, right, tap.left, tap.right);
    above *= s.width, below *= s.width;
    tap.p00 = above + left, tap.p01 = above + right, tap.p10 = below + left, tap.p11 = below + right;
    return tap;
}

// Of `vertical` or `horizontal` of batch item n, at tap row or column k.
__device__ inline long long few(const Sizes& s, int n, int k, long long pixel) {
    return (static_cast<long long>(n) * s.kernel + k) * s.pixels() + pixel;
}

template <class S, int B>
__global__ void __launch_bounds__(256)
    dsepconv_forward(const S* __restrict__ input, const S* __restrict__ vertical, const S* __restrict__ horizontal,
                     const S* __restrict__ offset_x, const S* __restrict__ offset_y, const S* __restrict__ mask,
                     S* __restrict__ output, int batch, int channels, int height, int width, int kernel,
                     int out_height, int out_width) {
    typedef typename Arithmetic<S>::type T;
    const Sizes s = {batch, channels, height, width, kernel, out_height, out_width};
    const long long plane = s.plane(), pixels = s.pixels();
    each_pixel(s, (channels - 1) / B + 1, [&](int n, int y, int row, int column) {
        const int first = y * B;
        const S* frame = input + (static_cast<long long>(n) * channels + first) * plane;
        const long long pixel = s.pixel(row, column);
        const S *by_row = vertical + few(s, n, 0, pixel), *by_column = horizontal + few(s, n, 0, pixel);
        long long at = s.map(n, 0, pixel);
        T sum[B] = {};
        for (int i = 0; i < kernel; ++i) {
            const T v = widen(by_row[i * pixels]);
#pragma unroll(B > 4 ? 1 : 4)
            for (int j = 0; j < kernel; ++j, at += pixels) {
                const T w = v * widen(by_column[j * pixels]) * widen(stream_in(mask + at));
                const Tap<T> tap = locate<T>(s, row, column, i, j, widen(stream_in(offset_x + at)),
                                             widen(stream_in(offset_y + at)));
                const T above = w * tap.up, below = w * tap.down;
                const T w00 = above * tap.left, w01 = above * tap.right;
                const T w10 = below * tap.left, w11 = below * tap.right;
                each_channel<B>(channels, first, [&](int b) {
                    const S* from = frame + b * plane;
                    sum[b] += w00 * widen(from[tap.p00]) + w01 * widen(from[tap.p01]) + w10 * widen(from[tap.p10]) +
                              w11 * widen(from[tap.p11]);
                });
            }
        }
        S* to = output + (static_cast<long long>(n) * channels + first) * pixels + pixel;
        each_channel<B>(channels, first, [&](int b) { stream_out(to + b * pixels, sum[b]); });
    });
}

// The gradient's products with the four neighbours of a tap, summed over the channels.
template <class T>
struct Products {
    T d00, d01, d10, d11;
    __device__ T value(const Tap<T>& tap) const {
        return (d00 * tap.left + d01 * tap.right) * tap.up + (d10 * tap.left + d11 * tap.right) * tap.down;
    }
};

// `held` is the gradient's first block of channels at this pixel; `grad` points to its first channel.
template <class S, int B, class T>
__device__ inline Products<T> products(const Sizes& s, const Tap<T>& tap, const S* frame, const S* grad,
                                       const T* held) {
    const long long plane = s.plane(), pixels = s.pixels();
    Products<T> sum = {};
    const auto add = [&](const S* from, T g) {
        sum.d00 += g * widen(from[tap.p00]), sum.d01 += g * widen(from[tap.p01]);
        sum.d10 += g * widen(from[tap.p10]), sum.d11 += g * widen(from[tap.p11]);
    };
    each_channel<B>(s.channels, 0, [&](int b) { add(frame + b * plane, held[b]); });
    for (int c = B; B > 4 && c < s.channels; ++c) add(frame + c * plane, widen(grad[c * pixels]));
    return sum;
}

constexpr int COLUMNS = 8;  // whose sums are held in registers

// The gradients of all maps. A thread owns a pixel: no atomics, the same numbers each time.
template <class S, int B>
__global__ void __launch_bounds__(256)
    dsepconv_backward_maps(const S* __restrict__ grad, const S* __restrict__ input, const S* __restrict__ vertical,
                           const S* __restrict__ horizontal, const S* __restrict__ offset_x,
                           const S* __restrict__ offset_y, const S* __restrict__ mask, S* __restrict__ grad_vertical,
                           S* __restrict__ grad_horizontal, S* __restrict__ grad_offset_x,
                           S* __restrict__ grad_offset_y, S* __restrict__ grad_mask, int batch, int channels,
                           int height, int width, int kernel, int out_height, int out_width) {
    typedef typename Arithmetic<S>::type T;
    const Sizes s = {batch, channels, height, width, kernel, out_height, out_width};
    const long long pixels = s.pixels();
    each_pixel(s, 1, [&](int n, int, int row, int column) {
        const S* frame = input + static_cast<long long>(n) * channels * s.plane();
        const long long pixel = s.pixel(row, column), start = s.map(n, 0, pixel);
        const S* from = grad + static_cast<long long>(n) * channels * pixels + pixel;
        const S *by_row = vertical + few(s, n, 0, pixel), *by_column = horizontal + few(s, n, 0, pixel);
        T held[B];
        each_channel<B>(channels, 0, [&](int b) { held[b] = widen(from[b * pixels]); });
        const auto at_tap = [&](int i, int j, Tap<T>& tap) {
            const long long at = start + (static_cast<long long>(i) * kernel + j) * pixels;
            tap = locate<T>(s, row, column, i, j, widen(offset_x[at]), widen(offset_y[at]));
            return products<S, B, T>(s, tap, frame, from, held);
        };
        T columns[COLUMNS] = {};
        for (int i = 0; i < kernel; ++i) {
            const T v = widen(by_row[i * pixels]);
            T sum = 0;
#pragma unroll 1
            for (int j = 0; j < kernel; ++j) {
                const long long at = start + (static_cast<long long>(i) * kernel + j) * pixels;
                const T h = widen(by_column[j * pixels]), m = widen(mask[at]), w = v * h * m;
                Tap<T> tap;
                const Products<T> p = at_tap(i, j, tap);
                const T value = p.value(tap);
                sum += value * (h * m);
#pragma unroll
                for (int k = 0; k < COLUMNS; ++k) columns[k] += k == j ? value * (v * m) : 0;  // stays in registers
                stream_out(grad_mask + at, value * (v * h));
                stream_out(grad_offset_x + at, w * ((p.d10 - p.d00) * tap.left + (p.d11 - p.d01) * tap.right));
                stream_out(grad_offset_y + at, w * ((p.d01 - p.d00) * tap.up + (p.d11 - p.d10) * tap.down));
            }
            stream_out(grad_vertical + few(s, n, i, pixel), sum);
        }
        if (kernel <= COLUMNS) {
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j)
                if (j < kernel) stream_out(grad_horizontal + few(s, n, j, pixel), columns[j]);
            return;
        }
        for (int j = 0; j < kernel; ++j) {  // too many columns for registers: once more, column by column
            T sum = 0;
#pragma unroll 1
            for (int i = 0; i < kernel; ++i) {
                const long long at = start + (static_cast<long long>(i) * kernel + j) * pixels;
                Tap<T> tap;
                const Products<T> p = at_tap(i, j, tap);
                sum += p.value(tap) * (widen(by_row[i * pixels]) * widen(mask[at]));
            }
            stream_out(grad_horizontal + few(s, n, j, pixel), sum);
        }
    });
}

// The gradient of the input, added to what is there. Additions come in no fixed order: the last bits vary.
template <class S, int B>
__global__ void __launch_bounds__(256)
    dsepconv_backward_input(const S* __restrict__ grad, const S* __restrict__ vertical,
                            const S* __restrict__ horizontal, const S* __restrict__ offset_x,
                            const S* __restrict__ offset_y, const S* __restrict__ mask,
                            typename Arithmetic<S>::type* __restrict__ grad_input, int batch, int channels, int height,
                            int width, int kernel, int out_height, int out_width) {
    typedef typename Arithmetic<S>::type T;
    const Sizes s = {batch, channels, height, width, kernel, out_height, out_width};
    const long long plane = s.plane(), pixels = s.pixels();
    each_pixel(s, (channels - 1) / B + 1, [&](int n, int y, int row, int column) {
        const int first = y * B;
        const long long pixel = s.pixel(row, column);
        const S* from = grad + (static_cast<long long>(n) * channels + first) * pixels + pixel;
        const S *by_row = vertical + few(s, n, 0, pixel), *by_column = horizontal + few(s, n, 0, pixel);
        T* frame = grad_input + (static_cast<long long>(n) * channels + first) * plane;
        long long at = s.map(n, 0, pixel);
        T held[B];
        each_channel<B>(channels, first, [&](int b) { held[b] = widen(from[b * pixels]); });
        for (int i = 0; i < kernel; ++i)
            for (int j = 0; j < kernel; ++j, at += pixels) {
                const T w = widen(by_row[i * pixels]) * widen(by_column[j * pixels]) * widen(stream_in(mask + at));
                const Tap<T> tap = locate<T>(s, row, column, i, j, widen(stream_in(offset_x + at)),
                                             widen(stream_in(offset_y + at)));
                const T above = w * tap.up, below = w * tap.down;
                each_channel<B>(channels, first, [&](int b) {
                    T* to = frame + b * plane;
                    atomicAdd(to + tap.p00, held[b] * above * tap.left);
                    atomicAdd(to + tap.p01, held[b] * above * tap.right);
                    atomicAdd(to + tap.p10, held[b] * below * tap.left);
                    atomicAdd(to + tap.p11, held[b] * below * tap.right);
                });
            }
    });
}
