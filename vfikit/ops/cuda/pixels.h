// What the sampling kernels of this folder share, put in front of each text by _cuda.py: types in memory and in
// arithmetic, and which thread owns what.
//
// S is the type in memory, T that of the arithmetic: double for double, else float. B is a block of channels; up to 4 it
// is the number of channels itself.
// Any grid works: each kernel strides over tiles (x), channel blocks or tap rows (y) and the batch (z).
#ifndef VFIKIT_PIXELS_H
#define VFIKIT_PIXELS_H
#ifndef __CUDACC__
#include "host.h"
#endif

struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

template <class S>
struct Arithmetic {
    typedef float type;
};
template <>
struct Arithmetic<double> {
    typedef double type;
};

#ifdef __CUDACC__
__device__ inline float f16_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ inline unsigned short float_to_f16(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline float widen(f16 value) { return f16_to_float(value.bits); }
__device__ inline float widen(bf16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

// Maps and their gradients pass through once: they need not stay in the caches.
template <class S>
__device__ inline S stream_in(const S* from) {
    return __ldcs(from);
}
__device__ inline f16 stream_in(const f16* from) { return f16{__ldcs(&from->bits)}; }
__device__ inline bf16 stream_in(const bf16* from) { return bf16{__ldcs(&from->bits)}; }

__device__ inline void stream_out(float* to, float value) { __stcs(to, value); }
__device__ inline void stream_out(double* to, double value) { __stcs(to, value); }
__device__ inline void stream_out(f16* to, float value) { __stcs(&to->bits, float_to_f16(value)); }
__device__ inline void stream_out(bf16* to, float value) {  // rounds to nearest, ties to even
    const unsigned bits = __float_as_uint(value);
    const unsigned rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    __stcs(&to->bits, static_cast<unsigned short>(value == value ? rounded : 0x7fff));
}

struct Sizes {
    int batch, channels, height, width, kernel, out_height, out_width;
    __device__ long long plane() const { return static_cast<long long>(height) * width; }
    __device__ long long pixels() const { return static_cast<long long>(out_height) * out_width; }
    __device__ long long pixel(int row, int column) const { return static_cast<long long>(row) * out_width + column; }
    // Of the maps of batch item n, at tap and pixel.
    __device__ long long map(int n, int tap, long long pixel) const {
        return (static_cast<long long>(n) * kernel * kernel + tap) * pixels() + pixel;
    }
};

// Calls body(n, y, row, column) for what this thread owns: y is one of `count` channel blocks or tap rows.
template <class F>
__device__ inline void each_pixel(const Sizes& s, int count, F body) {
    const unsigned across = (s.out_width - 1) / blockDim.x + 1;
    const unsigned tiles = across * ((s.out_height - 1) / blockDim.y + 1);
    for (int n = blockIdx.z; n < s.batch; n += gridDim.z)
        for (int y = blockIdx.y; y < count; y += gridDim.y)
            for (unsigned tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
                const int row = tile / across * blockDim.y + threadIdx.y;
                const int column = tile % across * blockDim.x + threadIdx.x;
                if (row < s.out_height && column < s.out_width) body(n, y, row, column);
            }
}

__device__ inline int clamp(int value, int size) { return value < 0 ? 0 : (value < size ? value : size - 1); }

// Calls body(b) for the channels first + b of a block.
template <int B, class F>
__device__ inline void each_channel(int channels, int first, F body) {
#pragma unroll
    for (int b = 0; b < B; ++b)
        if (B <= 4 || first + b < channels) body(b);
}

#endif
