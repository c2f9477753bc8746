// The input's gradient, float32: the taps that left their band's window, in a last pass where each thread owns rows of
// the gradient.
#pragma once

#include "taps_layout.h"
#include "taps_window.h"

namespace vfikit {
namespace taps {

// The taps that left their band's window, into input rows [top, bottom) of the gradient of four channels. Far taps
// pile up on the border, thousands to a pixel: `sum` is double.
template <class Op>
void add_far(const Job& job, const uint8_t* left, int64_t top, int64_t bottom, double* sum) {
    const Shape& s = job.s;
    const int64_t channels = s.channels - job.first < 4 ? s.channels - job.first : 4;
    const int64_t piece = job.planes ? LAID_OUT : TILE;
    Job chunk = job;
    Places places;
    Quads quads;
    Parts parts;
    const Axes<16> axes(s);
    for (int64_t b = 0; b < bands(s); ++b, left += band_tiles(s) * s.taps()) {
        const Band area = band(s, b);
        for (int64_t start = area.start; start < area.end; start += piece) {
            const int count = static_cast<int>(area.end - start < piece ? area.end - start : piece);
            const uint8_t* some = left + (start - area.start) / TILE * s.taps();
            if (!memchr(some, 1, s.taps())) continue;
            if (job.planes) lay_out(job, start, count, LAID_OUT, chunk);
            locate<TILE>(s, start, count, places.row, places.column);
            for (int64_t t = 0; t < s.taps(); ++t) {
                if (!some[t]) continue;
                prepare<Op, 16, false>(chunk, axes, places, t, start, count, quads, parts, 0, 0);
                for (int p = 0; p < count; ++p) {
                    const int64_t index = quads.index[p] + s.base(), y = index / s.pitch(), x = index % s.pitch();
                    if (y >= area.low && y < area.high) continue;
                    float times, left_times, right_times;
                    const int64_t x0 = unring<Op>(s, x, s.width, left_times);
                    const int64_t x1 = unring<Op>(s, x + 1, s.width, right_times);
                    for (int d = 0; d < 2; ++d) {
                        const int64_t row = unring<Op>(s, y + d, s.height, times);
                        if (row < top || row >= bottom) continue;
                        const float w = times * parts.weight[p] * (d ? parts.down[p] : 1 - parts.down[p]);
                        double* to = sum + (row - top) * s.width * 4;
                        for (int64_t c = 0; c < channels; ++c) {
                            const float g = job.grad[(job.first + c) * s.pixels() + start + p] * w;
                            to[x0 * 4 + c] += g * left_times * (1 - parts.right[p]);
                            to[x1 * 4 + c] += g * right_times * parts.right[p];
                        }
                    }
                }
            }
        }
    }
}

// Each thread owns strips of rows.
template <class Op>
bool backward_far(Job job, const uint8_t* left, int64_t threads, float* grad_input) {
    const Shape& s = job.s;
    const int64_t strip = (s.height + 8 * threads - 1) / (8 * threads), size = strip * s.width * 4;
    Scratch sums(threads * size * sizeof(double));
    if (!sums.as<double>()) return false;
    for (job.first = 0; job.first < s.channels; job.first += 4)
        parallel((s.height + strip - 1) / strip, threads, [&](int64_t item, int64_t thread) {
            const int64_t top = item * strip, bottom = top + strip < s.height ? top + strip : s.height;
            double* sum = sums.as<double>() + thread * size;
            memset(sum, 0, size * sizeof(double));
            add_far<Op>(own_planes(job, thread), left, top, bottom, sum);
            for (int64_t c = 0; c < 4 && job.first + c < s.channels; ++c) {
                float* to = grad_input + (job.first + c) * s.plane() + top * s.width;
                for (int64_t x = 0; x < (bottom - top) * s.width; ++x) to[x] += static_cast<float>(sum[x * 4 + c]);
            }
        });
    return true;
}

}  // namespace taps
}  // namespace vfikit
