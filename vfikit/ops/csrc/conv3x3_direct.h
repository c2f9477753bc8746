// 3x3 convolution by its definition, of frames whose channels are planes: vectors are over the pixels of a row, so that
// no number of channels or outputs leaves lanes empty, and a few outputs of a few vectors are in registers together.
#pragma once

#include "conv3x3_tiles.h"

namespace vfikit {
namespace conv3x3 {

constexpr int64_t SIDE = 3;
constexpr int64_t ROWS_AT_ONCE = 8;  // output rows of a band
constexpr int64_t STEP = 64;         // pixels: any instruction set takes so many, or a part, at once

struct Direct {
    Shape s;
    const float *input, *weight, *bias;
    float* output;
    float* kernels;  // (group, block of outputs, bias and then channel and tap, output of the block)
    int64_t bands() const { return (s.out_height() + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE; }
    int64_t items() const { return s.batch * s.frames * s.groups * bands(); }
    // The rows that a band reads, each with its padding, the first pixel at a whole vector.
    int64_t begin() const { return (s.pad_x + 15) / 16 * 16; }
    int64_t pitch() const { return begin() + (s.out_width() / STEP + 2) * STEP; }
    int64_t plane() const { return (ROWS_AT_ONCE + SIDE - 1) * pitch(); }
    int64_t scratch() const { return s.group_channels() * plane(); }
    int64_t numbers() const { return s.group_channels() * SIDE * SIDE; }  // of a kernel
};

template <int BYTES>
constexpr int MOST_OUTPUTS = BYTES == 64 ? 8 : 4;

// Of the outputs that are left, how many make the next block: 25 are cut into 7, 6, 6 and 6.
template <int BYTES>
VFIKIT_INLINE int64_t next_block(int64_t left) {
    const int64_t blocks = (left + MOST_OUTPUTS<BYTES> - 1) / MOST_OUTPUTS<BYTES>;
    return (left + blocks - 1) / blocks;
}

template <int BYTES>
VFIKIT_INLINE void pack_kernels(const Direct& job) {
    const int64_t outputs = job.s.group_outputs(), numbers = job.numbers();
    float* to = job.kernels;
    for (int64_t group = 0; group < job.s.groups; ++group)
        for (int64_t first = 0, size; first < outputs; first += size) {
            size = next_block<BYTES>(outputs - first);
            const float* from = job.weight + (group * outputs + first) * numbers;
            for (int64_t o = 0; o < size; ++o) *to++ = job.bias ? job.bias[group * outputs + first + o] : 0.0f;
            for (int64_t i = 0; i < numbers; ++i)
                for (int64_t o = 0; o < size; ++o) *to++ = from[o * numbers + i];
        }
}

// The rows that a band reads, zeros where there is no frame.
VFIKIT_INLINE void copy_rows(const Direct& job, const float* frame, int64_t y, int64_t rows, float* to) {
    const Shape& s = job.s;
    const int64_t pitch = job.pitch(), begin = job.begin(), end = begin + s.width, size = sizeof(float);
    for (int64_t c = 0; c < s.group_channels(); ++c, to += job.plane())
        for (int64_t i = 0; i < rows + SIDE - 1; ++i) {
            const int64_t row = y + i - s.pad_y;
            const bool inside = row >= 0 && row < s.height;
            memset(to + i * pitch, 0, (inside ? begin : pitch) * size);
            if (!inside) continue;
            memcpy(to + i * pitch + begin, frame + c * s.from.channel + row * s.from.row, s.width * size);
            memset(to + i * pitch + end, 0, (pitch - end) * size);
        }
}

// P vectors of OUTPUTS outputs.
template <int L, int P, int OUTPUTS>
VFIKIT_INLINE void convolve(const Direct& job, const float* rows, const float* kernels, float* to, int64_t left) {
    typedef Vec<float, L> V;
    V sum[OUTPUTS][P] = {};
    for (int o = 0; o < OUTPUTS; ++o)
        for (int p = 0; p < P; ++p) sum[o][p] += kernels[o];
    kernels += OUTPUTS;
    for (int64_t c = 0; c < job.s.group_channels(); ++c, rows += job.plane())
        for (int64_t i = 0; i < SIDE; ++i)
            for (int64_t j = 0; j < SIDE; ++j, kernels += OUTPUTS) {
                V pixels[P];
                for (int p = 0; p < P; ++p) pixels[p] = load<V>(rows + i * job.pitch() + j + p * L);
                for (int o = 0; o < OUTPUTS; ++o)
                    for (int p = 0; p < P; ++p) sum[o][p] += pixels[p] * kernels[o];
            }
    for (int o = 0; o < OUTPUTS; ++o)
        for (int p = 0; p < P && p * L < left; ++p) store_some(to + o * job.s.to.channel + p * L, sum[o][p], left - p * L);
}

// A row of a block of outputs.
template <int BYTES, int OUTPUTS>
VFIKIT_INLINE void convolve_row(const Direct& job, const float* rows, const float* kernels, float* to) {
    constexpr int L = BYTES / sizeof(float), P = OUTPUTS > 3 || BYTES < 64 ? 2 : 4;
    for (int64_t x = 0; x < job.s.out_width(); x += P * L)
        convolve<L, P, OUTPUTS>(job, rows + x, kernels, to + x, job.s.out_width() - x);
}

// The same of as many outputs as `size` says.
template <int BYTES, int OUTPUTS = MOST_OUTPUTS<BYTES>>
VFIKIT_INLINE void convolve_row(const Direct& job, const float* rows, const float* kernels, float* to, int64_t size) {
    if (size == OUTPUTS) return convolve_row<BYTES, OUTPUTS>(job, rows, kernels, to);
    if constexpr (OUTPUTS > 1) convolve_row<BYTES, OUTPUTS - 1>(job, rows, kernels, to, size);
}

template <int BYTES>
VFIKIT_INLINE void direct_body(const Direct& job, int64_t item, float* scratch) {
    const Shape& s = job.s;
    const int64_t y = item % job.bands() * ROWS_AT_ONCE, group = item / job.bands() % s.groups;
    const int64_t frame = item / job.bands() / s.groups, n = frame / s.frames, t = frame % s.frames;
    const int64_t rows = s.out_height() - y < ROWS_AT_ONCE ? s.out_height() - y : ROWS_AT_ONCE;
    const int64_t outputs = s.group_outputs(), begin = group * outputs, numbers = job.numbers() + 1;
    copy_rows(job, job.input + n * s.from.batch + t * s.from.frame + group * s.group_channels() * s.from.channel, y,
              rows, scratch);
    float* to = job.output + n * s.to.batch + t * s.to.frame + begin * s.to.channel + y * s.to.row;
    for (int64_t row = 0; row < rows; ++row, to += s.to.row) {
        const float* from = scratch + row * job.pitch() + job.begin() - s.pad_x;
        const float* kernels = job.kernels + begin * numbers;
        for (int64_t first = 0, size; first < outputs; first += size) {
            size = next_block<BYTES>(outputs - first);
            convolve_row<BYTES>(job, from, kernels, to + first * s.to.channel, size);
            kernels += size * numbers;
        }
    }
}

template <int BYTES>
VFIKIT_INLINE void pack_body(const Direct& job) { pack_kernels<BYTES>(job); }
VFIKIT_DISPATCH(pack_kernel, pack_body, (const Direct& job), (job))
VFIKIT_DISPATCH(direct_kernel, direct_body, (const Direct& job, int64_t item, float* scratch), (job, item, scratch))

inline int forward_direct(Direct job, int64_t threads) {
    const Shape& s = job.s;
    const int64_t number = sizeof(float), workers = threads < 1 ? 1 : threads;
    const Scratch kernels(s.outputs * (job.numbers() + 1) * number), work(workers * job.scratch() * number);
    if (!kernels.as<float>() || !work.as<float>()) return 1;
    job.kernels = kernels.as<float>();
    pack_kernel()(job);
    const auto convolve = direct_kernel();
    parallel(job.items(), threads,
             [&](int64_t item, int64_t thread) { convolve(job, item, work.as<float>() + thread * job.scratch()); });
    return 0;
}

}  // namespace conv3x3
}  // namespace vfikit
