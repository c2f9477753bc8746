// Maps whose taps lie side by side, as channels-last networks write them: laid out as planes, a few pixels at a time, and
// back.
#pragma once

#include "taps.h"

namespace vfikit {
namespace taps {

// to[c * to_step + r] = from[r * from_step + c]. The last blocks overlap those before.
VFIKIT_INLINE void copy_transposed(const float* from, int64_t rows, int64_t from_step, int64_t columns, float* to,
                                   int64_t to_step) {
    if (rows < 4 || columns < 4) {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < columns; ++c) to[c * to_step + r] = from[r * from_step + c];
        return;
    }
    for (int64_t row = 0; row < rows; row += 4)
        for (int64_t column = 0; column < columns; column += 4) {
            const int64_t r = row + 4 <= rows ? row : rows - 4, c = column + 4 <= columns ? column : columns - 4;
            Vec<float, 4> block[4];
            for (int k = 0; k < 4; ++k) block[k] = load<Vec<float, 4>>(from + (r + k) * from_step + c);
            transpose<4>(block);
            for (int k = 0; k < 4; ++k) store(to + (c + k) * to_step + r, block[k]);
        }
}

constexpr int LAID_OUT = 128;  // pixels at once backward: their maps and the gradients stay in L2

// What a thread needs at Job::planes for `pixels` of `maps`: three, backward their gradients too.
inline int64_t planes_size(const Shape& s, int64_t pixels, int64_t maps) { return maps * s.taps() * pixels; }

// The job of one thread.
inline Job own_planes(Job job, int64_t thread) {
    if (job.planes) job.planes += thread * planes_size(job.s, LAID_OUT, 6);
    return job;
}

// Lays out the maps of `count` pixels from `start` on, `step` to a plane, and makes `chunk` read them.
VFIKIT_INLINE void lay_out(const Job& job, int64_t start, int count, int64_t step, Job& chunk) {
    const int64_t taps = job.s.taps(), size = taps * step;
    chunk.step = step, chunk.from = start;
    chunk.weight = job.planes, chunk.offset_i = job.planes + size, chunk.offset_j = job.planes + 2 * size;
    const float* maps[] = {job.weight, job.offset_i, job.offset_j};
    for (int k = 0; k < 3; ++k) copy_transposed(maps[k] + start * taps, count, taps, taps, job.planes + k * size, step);
}

// The same for the gradients, of which a first block of channels needs no values; and back.
VFIKIT_INLINE void lay_out_gradients(const Job& job, int64_t start, int count, Job& chunk) {
    const int64_t taps = job.s.taps(), size = taps * chunk.step;
    float* planes = job.planes + 3 * size;
    chunk.grad_weight = planes, chunk.grad_offset_i = planes + size, chunk.grad_offset_j = planes + 2 * size;
    const float* maps[] = {job.grad_weight, job.grad_offset_i, job.grad_offset_j};
    if (job.first)
        for (int k = 0; k < 3; ++k) copy_transposed(maps[k] + start * taps, count, taps, taps, planes + k * size, chunk.step);
}
VFIKIT_INLINE void put_back_gradients(const Job& job, int64_t start, int count, const Job& chunk) {
    const int64_t taps = job.s.taps();
    const float* planes[] = {chunk.grad_weight, chunk.grad_offset_i, chunk.grad_offset_j};
    float* maps[] = {job.grad_weight, job.grad_offset_i, job.grad_offset_j};
    for (int k = 0; k < 3; ++k) copy_transposed(planes[k], taps, chunk.step, count, maps[k] + start * taps, taps);
}

}  // namespace taps
}  // namespace vfikit
