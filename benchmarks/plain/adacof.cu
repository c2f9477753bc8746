// AdaCoF's forward the plain way, as published on CUDA: a thread for each number of the output, which reads all taps'
// weights and offsets for its channel alone.
#include "pixels.h"

template <class T>
__global__ void a_thread_a_number(const T* input, const T* weight, const T* offset_i, const T* offset_j, T* output,
                                  int batch, int channels, int height, int width, int kernel, int out_height,
                                  int out_width, int dilation) {
    const long long pixels = static_cast<long long>(out_height) * out_width;
    const long long index =
        (static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    if (index >= batch * channels * pixels) return;
    const int row = static_cast<int>(index % pixels / out_width), column = static_cast<int>(index % out_width);
    const T* plane = input + index / pixels * height * width;
    T sum = 0;
    for (int k = 0; k < kernel; ++k)
        for (int l = 0; l < kernel; ++l) {
            const long long tap = (index / pixels / channels * kernel + k) * kernel + l;
            const long long at = tap * pixels + index % pixels;
            const int down = static_cast<int>(offset_i[at]), right = static_cast<int>(offset_j[at]);
            const T y = offset_i[at] - down, x = offset_j[at] - right;
            const int above = clamp(row + k * dilation + down, height) * width;
            const int below = clamp(row + k * dilation + down + 1, height) * width;
            const int before = clamp(column + l * dilation + right, width);
            const int after = clamp(column + l * dilation + right + 1, width);
            sum += weight[at] * (plane[above + before] * (1 - y) * (1 - x) + plane[below + before] * y * (1 - x) +
                                 plane[above + after] * (1 - y) * x + plane[below + after] * y * x);
        }
    output[index] = sum;
}
