// Deformable convolution, backward: see deform_conv.cpp.
#pragma once

#include "deform_taps.h"

namespace vfikit {
namespace deform {

constexpr int64_t BAND = 8 * TILE;  // output pixels between two steps of the threads

template <class T>
struct Backward {
    Shape s;
    Slices slices;
    const T *offset, *mask;                  // of one batch item
    T *to_offset, *to_mask;                  // to_mask may be null
    const T *grads, *frames, *weights;       // (pixel of the band, padded outputs), ringed frames, (output, padded depth)
    T *to_frames, *to_weights, *partial;     // to_frames may be null
    int64_t first, last, outputs, start, pixels;  // the slices at hand, the band

    int64_t frame_size() const { return s.ringed() * slices.width; }
    int64_t column_step() const { return slices.depth + SLICE; }
    int64_t padded_depth() const { return round_up(slices.depth, SLICE); }
    int64_t weight_rows() const { return round_up(slices.depth, product::ROWS); }
    int64_t partial_size() const { return slices.of_offsets > 1 ? 3 * s.taps() * BAND : 0; }
    int64_t scratch() const {  // bytes a thread takes
        const int64_t numbers = TILE * (column_step() + padded_depth() + SLICE + 4 * s.taps());
        return round_up(numbers * static_cast<int64_t>(sizeof(T)) + s.taps() * static_cast<int64_t>(sizeof(Tap<T>)), 64);
    }
};

// The sums of four vectors.
template <int L, class T>
VFIKIT_INLINE void sum(Vec<T, L> a, Vec<T, L> b, Vec<T, L> c, Vec<T, L> d, T* to, int64_t step) {
    if constexpr (L == 16 && sizeof(T) == 4) {
#define VFIKIT_HALVES(v) (VFIKIT_SHUFFLE(8, v, v, 0, 1, 2, 3, 4, 5, 6, 7) + VFIKIT_SHUFFLE(8, v, v, 8, 9, 10, 11, 12, 13, 14, 15))
        sum<8, T>(VFIKIT_HALVES(a), VFIKIT_HALVES(b), VFIKIT_HALVES(c), VFIKIT_HALVES(d), to, step);
#undef VFIKIT_HALVES
    } else if constexpr (L == 8 && sizeof(T) == 4) {
        const Vec<T, 4> total = fold<8>(sum_quads(a, b, c, d));
        for (int i = 0; i < 4; ++i) to[i * step] = total[i];
    } else {
        const Vec<T, L> all[4] = {a, b, c, d};
        for (int i = 0; i < 4; ++i) {
            T total = 0;
            for (int l = 0; l < L; ++l) total += all[i][l];
            to[i * step] = total;
        }
    }
}

// From the columns' gradients: the columns themselves, their products with the four neighbours of each tap, and what
// the neighbours' own gradients gain.
template <int L, class T>
VFIKIT_INLINE void scatter(const Backward<T>& job, const Slice& slice, const Tap<T>* taps, int64_t pixels,
                           const T* frame, T* to_frame, const T* column_grads, T* columns, T* products) {
    typedef Vec<T, L> V;
    V keep;  // a slice may end within a vector
    for (int l = 0; l < L; ++l) keep[l] = l < slice.count ? T(1) : T(0);
    const int64_t down = job.s.stride() * slice.count;
    each_tap(job.s, taps, pixels, slice.count, [&](int64_t t, int64_t p, int64_t position) {
        const Tap<T>& tap = taps[t];
        V grad = load<V>(column_grads + p * job.padded_depth() + t * slice.count);
        if (slice.count < L) grad = keep > 0 ? grad : V{};
        const int64_t places[4] = {position, position + slice.count, position + down, position + down + slice.count};
        V value = {}, product[4];
        for (int i = 0; i < 4; ++i) {
            const V pixel = load<V>(frame + places[i]);
            value += pixel * tap.share[i][p];
            product[i] = pixel * grad;
            if (to_frame) store(to_frame + places[i], load<V>(to_frame + places[i]) + grad * tap.share[i][p]);
        }
        store(columns + p * job.column_step() + t * slice.count, value);
        if (slice.count < L)  // the neighbours' surplus may be no numbers
            for (int i = 0; i < 4; ++i) product[i] = keep > 0 ? product[i] : V{};
        sum<L, T>(product[0], product[1], product[2], product[3], products + 4 * t * TILE + p, TILE);
    });
}

// The gradients of offsets and mask of a tile; `step` lies between two channels of theirs.
template <class T>
VFIKIT_INLINE void finish(const Shape& s, const Tap<T>* taps, const T* products, int64_t pixels, T* to_offset,
                          T* to_mask, int64_t step) {
    for (int64_t t = 0; t < s.taps(); ++t) {
        const Tap<T>& tap = taps[t];
        const T *d00 = products + 4 * t * TILE, *d01 = d00 + TILE, *d10 = d01 + TILE, *d11 = d10 + TILE;
        T *to_y = to_offset + 2 * t * step, *to_x = to_y + step, *to_m = to_mask + t * step;
        T value[TILE];
        for (int64_t p = 0; p < pixels; ++p) {
            const T fy = tap.down[p], fx = tap.right[p], weight = tap.mask[p];
            const T above = d00[p] * (1 - fx) + d01[p] * fx, below = d10[p] * (1 - fx) + d11[p] * fx;
            const T across = (d01[p] - d00[p]) * (1 - fy) + (d11[p] - d10[p]) * fy;
            const bool reads = tap.inside[p] > 0;
            to_y[p] = reads ? weight * (below - above) : T(0);
            to_x[p] = reads ? weight * across : T(0);
            value[p] = reads ? above * (1 - fy) + below * fy : T(0);
        }
        if (to_mask) memcpy(to_m, value, pixels * sizeof(T));
    }
}

template <int BYTES, class T>
VFIKIT_INLINE void backward_tile(const Backward<T>& job, int64_t index, int64_t begin, char* scratch) {
    const Shape& s = job.s;
    const Slice slice = job.slices(s, index);
    const int64_t left = job.pixels - begin, pixels = left < TILE ? left : TILE, at = index - job.first;
    const int64_t sum_step = s.groups * job.outputs, padded = job.padded_depth();
    Tap<T>* taps = reinterpret_cast<Tap<T>*>(scratch);
    T *columns = reinterpret_cast<T*>(taps + s.taps()), *products = columns + TILE * job.column_step();
    T* column_grads = products + TILE * 4 * s.taps();
    locate(s, job.offset, job.mask, slice.moved, job.start + begin, pixels, taps);

    memset(static_cast<void*>(column_grads), 0, (TILE * padded + SLICE) * sizeof(T));
    const T* grads = job.grads + begin * sum_step + slice.group * job.outputs;
    const T* weights = job.weights + index * s.group_outputs() * padded;
    const int64_t rows = round_up(pixels, product::ROWS);
    product::add<BYTES>(product::Operands<T>{grads, sum_step, 1, weights, padded, column_grads, padded}, rows, padded,
                        s.group_outputs());

    const T* frame = job.frames + at * job.frame_size();
    T* to_frame = job.to_frames ? job.to_frames + at * job.frame_size() : nullptr;
    if (slice.count <= 4) scatter<4>(job, slice, taps, pixels, frame, to_frame, column_grads, columns, products);
    else if (slice.count <= 8) scatter<8>(job, slice, taps, pixels, frame, to_frame, column_grads, columns, products);
    else scatter<16>(job, slice, taps, pixels, frame, to_frame, column_grads, columns, products);

    T* to_weights = job.to_weights + index * job.weight_rows() * job.outputs;
    const product::Operands<T> operands = {columns, 1, job.column_step(), grads, sum_step, to_weights, job.outputs};
    product::add<BYTES>(operands, round_up(s.taps() * slice.count, product::ROWS), job.outputs, pixels);

    if (job.slices.of_offsets > 1) {
        T* partial = job.partial + at * job.partial_size() + begin;
        finish(s, taps, products, pixels, partial, partial + 2 * s.taps() * BAND, BAND);
    } else {
        const int64_t start = slice.moved * s.taps() * s.pixels() + job.start + begin;
        T* to_mask = job.to_mask ? job.to_mask + start : nullptr;
        finish(s, taps, products, pixels, job.to_offset + start + slice.moved * s.taps() * s.pixels(), to_mask,
               s.pixels());
    }
}

template <int BYTES, class T>
VFIKIT_INLINE void backward_band(const Backward<T>& job, int64_t index, char* scratch) {
    for (int64_t begin = 0; begin < job.pixels; begin += TILE) backward_tile<BYTES>(job, index, begin, scratch);
}

}  // namespace deform
}  // namespace vfikit
