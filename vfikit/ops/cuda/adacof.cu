// AdaCoF sampling on NVIDIA GPUs: see vfikit/ops/adacof.py for the definition.
//
// The maps are nearly all of the traffic: 3 F * F numbers a pixel. So a thread owns an output pixel with a block of B
// channels and reads the maps once for all of them; a warp is 32 neighbours of one row, so that it reads whole lines.
// The frame comes from the caches: a thread block is 32 x 8 pixels, whose taps lie close together.
//
// A plane has fewer than 2^29 pixels (adacof.py sees to it); all larger products are 64 bits wide.
#include "pixels.h"

// One tap of one pixel: its four neighbours' positions in a plane, and the fractions of its offsets.
template <class T>
struct Tap {
    int p00, p01, p10, p11;
    T down, right;
};

// Truncates towards zero. NaN moves by nothing and its fraction is NaN; an infinite offset reads the border.
template <class T>
__device__ inline int split(T offset, int size, T& fraction) {
    const T limit = static_cast<T>(size) + 1;  // takes both neighbours beyond the border, from anywhere
    const T bounded = offset > limit ? limit : (offset < -limit ? -limit : offset);
    const T whole = trunc(bounded);
    fraction = bounded - whole;
    return whole == whole ? static_cast<int>(whole) : 0;
}

template <class T>
__device__ inline Tap<T> locate(const Sizes& s, int row, int column, T offset_i, T offset_j) {
    Tap<T> tap;
    const int y = row + split(offset_i, s.height, tap.down), x = column + split(offset_j, s.width, tap.right);
    const int above = clamp(y, s.height) * s.width, below = clamp(y + 1, s.height) * s.width;
    const int left = clamp(x, s.width), right = clamp(x + 1, s.width);
    tap.p00 = above + left, tap.p01 = above + right, tap.p10 = below + left, tap.p11 = below + right;
    return tap;
}

template <class S, int B>
__global__ void __launch_bounds__(256)
    adacof_forward(const S* __restrict__ input, const S* __restrict__ weight, const S* __restrict__ offset_i,
                   const S* __restrict__ offset_j, S* __restrict__ output, int batch, int channels, int height,
                   int width, int kernel, int out_height, int out_width, int dilation) {
    typedef typename Arithmetic<S>::type T;
    const Sizes s = {batch, channels, height, width, kernel, out_height, out_width};
    const long long plane = s.plane(), pixels = s.pixels();
    each_pixel(s, (channels - 1) / B + 1, [&](int n, int y, int row, int column) {
        const int first = y * B;
        const S* frame = input + (static_cast<long long>(n) * channels + first) * plane;
        const long long pixel = s.pixel(row, column);
        long long at = s.map(n, 0, pixel);
        T sum[B] = {};
        for (int k = 0; k < kernel; ++k)
#pragma unroll(B > 4 ? 1 : 4)
            for (int l = 0; l < kernel; ++l, at += pixels) {
                const T w = widen(stream_in(weight + at));
                const Tap<T> tap = locate<T>(s, row + k * dilation, column + l * dilation,
                                                   widen(stream_in(offset_i + at)), widen(stream_in(offset_j + at)));
                const T above = w * (1 - tap.down), below = w * tap.down;
                const T w00 = above * (1 - tap.right), w01 = above * tap.right;
                const T w10 = below * (1 - tap.right), w11 = below * tap.right;
                each_channel<B>(channels, first, [&](int b) {
                    const S* from = frame + b * plane;
                    sum[b] += w00 * widen(from[tap.p00]) + w01 * widen(from[tap.p01]) + w10 * widen(from[tap.p10]) +
                              w11 * widen(from[tap.p11]);
                });
            }
        S* to = output + (static_cast<long long>(n) * channels + first) * pixels + pixel;
        each_channel<B>(channels, first, [&](int b) { stream_out(to + b * pixels, sum[b]); });
    });
}

// What the gradients of one tap are made of: the gradient's products with the upper left neighbour and with the
// differences between neighbours, summed over the channels.
template <class T>
struct Products {
    T value, right_above, right_below, down;
};

template <class S, int B, class T>
__device__ inline void add_products(Products<T>& sum, const Tap<T>& tap, const S* frame, long long plane,
                                    int channels, int first, const T* grad) {
    each_channel<B>(channels, first, [&](int b) {
        const S* from = frame + (first + b) * plane;
        const T v00 = widen(from[tap.p00]), v01 = widen(from[tap.p01]);
        const T v10 = widen(from[tap.p10]), v11 = widen(from[tap.p11]);
        sum.value += grad[b] * v00;
        sum.right_above += grad[b] * (v01 - v00);
        sum.right_below += grad[b] * (v11 - v10);
        sum.down += grad[b] * (v10 - v00);
    });
}

// The gradients of weight and offsets. A thread owns a pixel and a row of taps: no atomics, the same numbers each time.
template <class S, int B>
__global__ void __launch_bounds__(256)
    adacof_backward_maps(const S* __restrict__ grad, const S* __restrict__ input, const S* __restrict__ weight,
                         const S* __restrict__ offset_i, const S* __restrict__ offset_j, S* __restrict__ grad_weight,
                         S* __restrict__ grad_offset_i, S* __restrict__ grad_offset_j, int batch, int channels,
                         int height, int width, int kernel, int out_height, int out_width, int dilation) {
    typedef typename Arithmetic<S>::type T;
    const Sizes s = {batch, channels, height, width, kernel, out_height, out_width};
    const long long plane = s.plane(), pixels = s.pixels();
    each_pixel(s, kernel, [&](int n, int k, int row, int column) {
        const S* frame = input + static_cast<long long>(n) * channels * plane;
        const long long pixel = s.pixel(row, column);
        const S* from = grad + static_cast<long long>(n) * channels * pixels + pixel;
        long long at = s.map(n, k * kernel, pixel);
        T held[B];
        each_channel<B>(channels, 0, [&](int b) { held[b] = widen(from[b * pixels]); });
        for (int l = 0; l < kernel; ++l, at += pixels) {
            const T w = widen(stream_in(weight + at));
            const Tap<T> tap = locate<T>(s, row + k * dilation, column + l * dilation,
                                               widen(stream_in(offset_i + at)), widen(stream_in(offset_j + at)));
            Products<T> sum = {};
            add_products<S, B, T>(sum, tap, frame, plane, channels, 0, held);
            for (int first = B; B > 4 && first < channels; first += B) {
                T more[B];
                each_channel<B>(channels, first, [&](int b) { more[b] = widen(from[(first + b) * pixels]); });
                add_products<S, B, T>(sum, tap, frame, plane, channels, first, more);
            }
            const T fa = tap.down, fb = tap.right;
            stream_out(grad_weight + at,
                       sum.value + sum.right_above * fb * (1 - fa) + (sum.down + sum.right_below * fb) * fa);
            stream_out(grad_offset_i + at, w * (sum.down + (sum.right_below - sum.right_above) * fb));
            stream_out(grad_offset_j + at, w * (sum.right_above * (1 - fa) + sum.right_below * fa));
        }
    });
}

// The gradient of the input, added to what is there. Additions come in no fixed order: the last bits vary.
template <class S, int B>
__global__ void __launch_bounds__(256)
    adacof_backward_input(const S* __restrict__ grad, const S* __restrict__ weight, const S* __restrict__ offset_i,
                          const S* __restrict__ offset_j, typename Arithmetic<S>::type* __restrict__ grad_input,
                          int batch, int channels, int height, int width, int kernel, int out_height, int out_width,
                          int dilation) {
    typedef typename Arithmetic<S>::type T;
    const Sizes s = {batch, channels, height, width, kernel, out_height, out_width};
    const long long plane = s.plane(), pixels = s.pixels();
    each_pixel(s, (channels - 1) / B + 1, [&](int n, int y, int row, int column) {
        const int first = y * B;
        const long long pixel = s.pixel(row, column);
        const S* from = grad + (static_cast<long long>(n) * channels + first) * pixels + pixel;
        T* frame = grad_input + (static_cast<long long>(n) * channels + first) * plane;
        long long at = s.map(n, 0, pixel);
        T held[B];
        each_channel<B>(channels, first, [&](int b) { held[b] = widen(from[b * pixels]); });
        for (int k = 0; k < kernel; ++k)
            for (int l = 0; l < kernel; ++l, at += pixels) {
                const T w = widen(stream_in(weight + at));
                const Tap<T> tap = locate<T>(s, row + k * dilation, column + l * dilation,
                                                   widen(stream_in(offset_i + at)), widen(stream_in(offset_j + at)));
                const T above = w * (1 - tap.down), below = w * tap.down;
                each_channel<B>(channels, first, [&](int b) {
                    T* to = frame + b * plane;
                    atomicAdd(to + tap.p00, held[b] * above * (1 - tap.right));
                    atomicAdd(to + tap.p01, held[b] * above * tap.right);
                    atomicAdd(to + tap.p10, held[b] * below * (1 - tap.right));
                    atomicAdd(to + tap.p11, held[b] * below * tap.right);
                });
            }
    });
}
