// Tiles of 4 x 4 pixels to their 16 coefficients and back, for conv3x3.cpp. Vectors are over channels.
#pragma once

#include "lanes.h"

namespace vfikit {
namespace conv3x3 {

constexpr int64_t COEFFICIENTS = 16;

// In elements: where a number of (batch, channel, frame, row, column) lies.
struct Layout {
    int64_t batch, channel, frame, row, column;
    bool interleaved() const { return channel == 1; }
};

struct Shape {
    int64_t batch, channels, frames, height, width, outputs, groups, pad_y, pad_x;
    Layout from, to;
    int64_t group_channels() const { return channels / groups; }
    int64_t group_outputs() const { return outputs / groups; }
    int64_t out_height() const { return height + 2 * pad_y - 2; }
    int64_t out_width() const { return width + 2 * pad_x - 2; }
    int64_t down() const { return (out_height() + 1) / 2; }
    int64_t across() const { return (out_width() + 1) / 2; }
    int64_t tiles() const { return batch * frames * down() * across(); }
};

// Tiles beside each other in one row of tiles of one frame.
struct Run {
    int64_t from, to, y, x, count;  // from, to: where the frame begins; y, x: of the first output pixel
};

inline Run run_at(const Shape& s, int64_t tile, int64_t end) {
    const int64_t row = tile / s.across(), column = tile % s.across(), frame = row / s.down();
    const int64_t left = s.across() - column, n = frame / s.frames, t = frame % s.frames;
    return {n * s.from.batch + t * s.from.frame, n * s.to.batch + t * s.to.frame, 2 * (row % s.down()), 2 * column,
            left < end - tile ? left : end - tile};
}

template <class V>
VFIKIT_INLINE void analyse(V a, V b, V c, V d, V* to) {
    to[0] = a - c, to[1] = b + c, to[2] = c - b, to[3] = b - d;
}

// One vector of channels of a tile, whose pixels are at `at`; the coefficients are `step` apart.
template <class V, class Load>
VFIKIT_INLINE void coefficients(const Load& pixel, float* to, int64_t step) {
    V rows[4][4], out[4];
    for (int i = 0; i < 4; ++i) analyse(pixel(4 * i), pixel(4 * i + 1), pixel(4 * i + 2), pixel(4 * i + 3), rows[i]);
    for (int j = 0; j < 4; ++j) {
        analyse(rows[0][j], rows[1][j], rows[2][j], rows[3][j], out);
        for (int i = 0; i < 4; ++i) store(to + (4 * i + j) * step, out[i]);
    }
}

// Of interleaved frames: straight from the frame, `zeros` for pixels outside of it.
template <int L>
VFIKIT_INLINE void read_interleaved(const Shape& s, const Run& run, const float* frame, int64_t count,
                                    const float* zeros, float* to, int64_t tile_step, int64_t step) {
    typedef Vec<float, L> V;
    for (int64_t tile = 0; tile < run.count; ++tile, to += tile_step) {
        const float* at[COEFFICIENTS];
        for (int64_t i = 0; i < 4; ++i)
            for (int64_t j = 0; j < 4; ++j) {
                const int64_t y = run.y - s.pad_y + i, x = run.x + 2 * tile - s.pad_x + j;
                const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
                at[4 * i + j] = inside ? frame + y * s.from.row + x * s.from.column : zeros;
            }
        int64_t c = 0;
        for (; c + L <= count; c += L)
            coefficients<V>([&](int i) { return load<V>(at[i] + c); }, to + c, step);
        if (c < count) coefficients<V>([&](int i) { return load_some<V>(at[i] + c, count - c); }, to + c, step);
    }
}

// Of frames whose channels are planes: a patch of 4 rows is interleaved first.
template <int L>
VFIKIT_INLINE void read_planes(const Shape& s, const Run& run, const float* frame, int64_t count, float* patch,
                               float* to, int64_t tile_step, int64_t step) {
    typedef Vec<float, L> V;
    const int64_t start = run.x - s.pad_x, pixels = 2 * run.count + 2;
    const int64_t first = start < 0 ? -start : 0, last = start + pixels > s.width ? s.width - start : pixels;
    for (int64_t c = 0; c < count; c += L) {
        const int64_t channels = count - c < L ? count - c : L;
        for (int64_t i = 0; i < 4; ++i) {
            float* row = patch + i * pixels * L;
            const int64_t y = run.y - s.pad_y + i;
            const bool inside = y >= 0 && y < s.height;
            memset(row, 0, (inside ? first : pixels) * L * sizeof(float));
            if (!inside) continue;
            for (int64_t begin = first; begin < last; begin += L) {
                const int64_t j = last - begin < L && last - first >= L ? last - L : begin;  // whole vectors
                const int64_t size = last - j < L ? last - j : L;
                V block[L] = {};
                const float* from = frame + c * s.from.channel + y * s.from.row + start + j;
                for (int64_t k = 0; k < channels; ++k) {
                    block[k] = load_some<V>(from + k * s.from.channel, size);
                    if (c + L < count) __builtin_prefetch(from + (k + L) * s.from.channel);  // planes are far apart
                }
                transpose<L>(block);
                for (int64_t k = 0; k < size; ++k) store(row + (j + k) * L, block[k]);
            }
            for (int64_t j = last < first ? first : last; j < pixels; ++j) store(row + j * L, V{});
        }
        for (int64_t tile = 0; tile < run.count; ++tile)
            coefficients<V>([&](int i) { return load<V>(patch + (i / 4 * pixels + 2 * tile + i % 4) * L); },
                            to + tile * tile_step + c, step);
    }
}

// Four pixels of one vector of outputs from 16 sums.
template <class V>
VFIKIT_INLINE void pixels_of(const float* sums, int64_t step, V bias, V* to) {
    V rows[2][4];
    for (int j = 0; j < 4; ++j) {
        V at[4];
        for (int i = 0; i < 4; ++i) at[i] = load<V>(sums + (4 * i + j) * step);
        rows[0][j] = at[0] + at[1] + at[2], rows[1][j] = at[1] - at[2] - at[3];
    }
    for (int i = 0; i < 2; ++i) {
        to[2 * i] = rows[i][0] + rows[i][1] + rows[i][2] + bias;
        to[2 * i + 1] = rows[i][1] - rows[i][2] - rows[i][3] + bias;
    }
}

template <int L>
VFIKIT_INLINE void write_interleaved(const Shape& s, const Run& run, const float* sums, int64_t tile_step,
                                     int64_t step, const float* bias, int64_t count, float* frame) {
    typedef Vec<float, L> V;
    for (int64_t tile = 0; tile < run.count; ++tile) {
        float* at = frame + run.y * s.to.row + (run.x + 2 * tile) * s.to.column;
        const bool below = run.y + 1 < s.out_height(), beside = run.x + 2 * tile + 1 < s.out_width();
        for (int64_t o = 0; o < count; o += L) {
            V out[4];
            pixels_of<V>(sums + tile * tile_step + o, step, load<V>(bias + o), out);
            store_some(at + o, out[0], count - o);
            if (beside) store_some(at + o + s.to.column, out[1], count - o);
            if (below) store_some(at + o + s.to.row, out[2], count - o);
            if (below && beside) store_some(at + o + s.to.row + s.to.column, out[3], count - o);
        }
    }
}

template <int L>
VFIKIT_INLINE void write_planes(const Shape& s, const Run& run, const float* sums, int64_t tile_step, int64_t step,
                                const float* bias, int64_t count, float* patch, float* frame) {
    typedef Vec<float, L> V;
    const int64_t most = s.out_width() - run.x, pixels = 2 * run.count < most ? 2 * run.count : most;
    const int64_t row_step = (2 * run.count + L) * L;  // what is read past the end goes nowhere
    for (int64_t o = 0; o < count; o += L) {
        for (int64_t tile = 0; tile < run.count; ++tile) {
            V out[4];
            pixels_of<V>(sums + tile * tile_step + o, step, load<V>(bias + o), out);
            for (int i = 0; i < 4; ++i) store(patch + i / 2 * row_step + (2 * tile + i % 2) * L, out[i]);
        }
        const int64_t outputs = count - o < L ? count - o : L;
        for (int64_t i = 0; i < 2 && run.y + i < s.out_height(); ++i)
            for (int64_t j = 0; j < pixels; j += L) {
                V block[L];
                for (int64_t k = 0; k < L; ++k) block[k] = load<V>(patch + i * row_step + (j + k) * L);
                transpose<L>(block);
                float* at = frame + o * s.to.channel + (run.y + i) * s.to.row + run.x + j;
                for (int64_t k = 0; k < outputs; ++k) store_some(at + k * s.to.channel, block[k], pixels - j);
            }
    }
}

}  // namespace conv3x3
}  // namespace vfikit
