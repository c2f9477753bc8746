// Deformable convolution on NVIDIA GPUs: see vfikit/ops/deform_conv.py for the definition.
//
// The columns of a part of the output's pixels are written out, (channel and tap, pixel), for the matrix library to
// take up: _deform_conv_cuda.py keeps that part small. A thread owns a pixel and a tap of one offset group, locates it
// once and goes through the group's channels.
//
// A plane has fewer than 2^29 pixels (deform_conv.py sees to it); all larger products are 64 bits wide.
#include "pixels.h"

struct Convolution {
    int channels, height, width, kernel_height, kernel_width, moved, out_height, out_width;
    int stride_y, stride_x, pad_y, pad_x, step_y, step_x, start, count;
    __device__ int taps() const { return kernel_height * kernel_width; }
    __device__ int run() const { return channels / moved; }
    __device__ long long plane() const { return static_cast<long long>(height) * width; }
    __device__ long long pixels() const { return static_cast<long long>(out_height) * out_width; }
};

// The four neighbours' positions in a plane, -1 where there is nothing to read; the fractions; whether it reads at all.
template <class T>
struct Place {
    int p00, p01, p10, p11;
    T down, right;
    bool reads;
};

// The pixel before the tap on one axis, and how far beyond it the tap is. Outside: -2.
template <class T>
__device__ inline int split(T offset, int place, int size, T& fraction) {
    const T far = static_cast<T>(1 << 30);
    fraction = 0;
    if (!(offset > -far && offset < far)) return -2;  // and NaN
    const T whole = floor(offset);
    const int at = place + static_cast<int>(whole);
    fraction = offset - whole;
    return at >= size || at < -1 || (at == -1 && !(fraction > 0)) ? -2 : at;
}

template <class S, class T>
__device__ inline Place<T> locate(const Convolution& s, const S* offset, long long channel, int tap, int pixel) {
    const S* by_y = offset + 2 * channel * s.pixels() + pixel;
    const int row = pixel / s.out_width * s.stride_y - s.pad_y + tap / s.kernel_width * s.step_y;
    const int column = pixel % s.out_width * s.stride_x - s.pad_x + tap % s.kernel_width * s.step_x;
    Place<T> place;
    const int top = split<T>(widen(*by_y), row, s.height, place.down);
    const int left = split<T>(widen(by_y[s.pixels()]), column, s.width, place.right);
    place.reads = top > -2 && left > -2;
    const bool above = place.reads && top >= 0, below = place.reads && top + 1 < s.height;
    const bool before = left >= 0, after = left + 1 < s.width;
    const int first = top * s.width + left, second = first + s.width;
    place.p00 = above && before ? first : -1, place.p01 = above && after ? first + 1 : -1;
    place.p10 = below && before ? second : -1, place.p11 = below && after ? second + 1 : -1;
    return place;
}

template <class S>
__device__ inline auto at(const S* plane, int position) -> decltype(widen(*plane)) {
    return position < 0 ? 0 : widen(plane[position]);
}

// Calls body(channel of the maps, pixel, its number in the part) for what this thread owns.
template <class F>
__device__ inline void each_tap(const Convolution& s, F body) {
    const int size = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
    for (int channel = blockIdx.y; channel < s.moved * s.taps(); channel += gridDim.y)
        for (long long p = static_cast<long long>(blockIdx.x) * size + thread; p < s.count; p += gridDim.x * size)
            body(channel, s.start + static_cast<int>(p), p);
}

// mask may be null.
template <class S>
__global__ void __launch_bounds__(256)
    deform_conv2d_columns(const S* __restrict__ input, const S* __restrict__ offset, const S* __restrict__ mask,
                          S* __restrict__ columns, int channels, int height, int width, int kernel_height,
                          int kernel_width, int moved, int out_height, int out_width, int stride_y, int stride_x,
                          int pad_y, int pad_x, int step_y, int step_x, int start, int count) {
    typedef typename Arithmetic<S>::type T;
    const Convolution s = {channels,  height,   width,    kernel_height, kernel_width, moved,  out_height, out_width,
                           stride_y, stride_x, pad_y,    pad_x,         step_y,       step_x, start,      count};
    each_tap(s, [&](int channel, int pixel, long long p) {
        const int tap = channel % s.taps(), first = channel / s.taps() * s.run();
        const Place<T> place = locate<S, T>(s, offset, channel, tap, pixel);
        const T weight = mask ? widen(mask[channel * s.pixels() + pixel]) : T(1);
        const T above = weight * (1 - place.down), below = weight * place.down;
        const T w00 = above * (1 - place.right), w01 = above * place.right;
        const T w10 = below * (1 - place.right), w11 = below * place.right;
        for (int c = first; c < first + s.run(); ++c) {
            const S* plane = input + c * s.plane();
            const T value = w00 * at(plane, place.p00) + w01 * at(plane, place.p01) + w10 * at(plane, place.p10) +
                            w11 * at(plane, place.p11);
            stream_out(columns + (static_cast<long long>(c) * s.taps() + tap) * s.count + p, value);
        }
    });
}

// `columns` holds the columns' gradients, and in their place comes what deform_conv2d_columns computes. grad_input is
// added to, in no fixed order; it may be null, as mask and grad_mask.
template <class S>
__global__ void __launch_bounds__(256)
    deform_conv2d_gradients(S* __restrict__ columns, const S* __restrict__ input, const S* __restrict__ offset,
                            const S* __restrict__ mask, typename Arithmetic<S>::type* __restrict__ grad_input,
                            S* __restrict__ grad_offset, S* __restrict__ grad_mask, int channels, int height,
                            int width, int kernel_height, int kernel_width, int moved, int out_height, int out_width,
                            int stride_y, int stride_x, int pad_y, int pad_x, int step_y, int step_x, int start,
                            int count) {
    typedef typename Arithmetic<S>::type T;
    const Convolution s = {channels,  height,   width,    kernel_height, kernel_width, moved,  out_height, out_width,
                           stride_y, stride_x, pad_y,    pad_x,         step_y,       step_x, start,      count};
    each_tap(s, [&](int channel, int pixel, long long p) {
        const int tap = channel % s.taps(), first = channel / s.taps() * s.run();
        const Place<T> place = locate<S, T>(s, offset, channel, tap, pixel);
        const T weight = mask ? widen(mask[channel * s.pixels() + pixel]) : T(1);
        const T up = 1 - place.down, left = 1 - place.right;
        T d00 = 0, d01 = 0, d10 = 0, d11 = 0;
        for (int c = first; c < first + s.run(); ++c) {
            S* column = columns + (static_cast<long long>(c) * s.taps() + tap) * s.count + p;
            const S* plane = input + c * s.plane();
            const T grad = widen(*column), v00 = at(plane, place.p00), v01 = at(plane, place.p01);
            const T v10 = at(plane, place.p10), v11 = at(plane, place.p11);
            d00 += grad * v00, d01 += grad * v01, d10 += grad * v10, d11 += grad * v11;
            const T above = v00 * left + v01 * place.right, below = v10 * left + v11 * place.right;
            stream_out(column, weight * (above * up + below * place.down));
            if (grad_input && place.reads) {
                T* to = grad_input + c * s.plane();
                const T moved_by = grad * weight;
                if (place.p00 >= 0) atomicAdd(to + place.p00, moved_by * up * left);
                if (place.p01 >= 0) atomicAdd(to + place.p01, moved_by * up * place.right);
                if (place.p10 >= 0) atomicAdd(to + place.p10, moved_by * place.down * left);
                if (place.p11 >= 0) atomicAdd(to + place.p11, moved_by * place.down * place.right);
            }
        }
        const T above = d00 * left + d01 * place.right, below = d10 * left + d11 * place.right;
        S* to_y = grad_offset + 2 * channel * s.pixels() + pixel;
        stream_out(to_y, weight * (below - above));
        stream_out(to_y + s.pixels(), weight * ((d01 - d00) * up + (d11 - d10) * place.down));
        if (grad_mask) stream_out(grad_mask + channel * s.pixels() + pixel, above * up + below * place.down);
    });
}
