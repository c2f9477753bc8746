// Lets the CUDA texts of this folder compile as host C++, so that their arithmetic is tested where no GPU is: blocks
// and threads become loops, one after the other. Texts that share memory between threads cannot be run this way.
#pragma once
#include <cmath>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __launch_bounds__(threads)

struct dim3 {
    unsigned x, y, z;
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

using std::floor;
using std::trunc;

template <class T>
inline T __ldcs(const T* from) {
    return *from;
}
template <class T>
inline void __stcs(T* to, T value) {
    *to = value;
}
template <class T>
inline T atomicAdd(T* to, T value) {
    const T before = *to;
    *to += value;
    return before;
}

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float f16_to_float(unsigned short bits) {
    const unsigned size = bits & 0x7fff;
    const float value =
        size < 0x7c00 ? __uint_as_float(size << 13) * 0x1p112f : __uint_as_float(size << 13 | 0x7f800000);
    return bits & 0x8000 ? -value : value;
}

inline unsigned short float_to_f16(float value) {  // rounds to nearest, ties to even
    const float size = std::fabs(value);
    unsigned bits = __float_as_uint(size);
    if (size != size) bits = 0x7e00;
    else if (size >= 65520.0f) bits = 0x7c00;
    else if (size < 0x1p-14f) bits = static_cast<unsigned>(std::nearbyint(size * 0x1p24f));
    else bits = (bits + 0xfff + ((bits >> 13) & 1) - (112u << 23)) >> 13;
    return static_cast<unsigned short>(bits | (std::signbit(value) ? 0x8000 : 0));
}

// As cuLaunchKernel: arguments[i] points to the value of the kernel's i-th parameter.
template <class... P, std::size_t... i>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments, std::index_sequence<i...>) {
    gridDim = grid, blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block.z; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x)
                            kernel(*static_cast<P*>(arguments[i])...);
}

template <class... P>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments) {
    launch(kernel, grid, block, arguments, std::index_sequence_for<P...>{});
}
