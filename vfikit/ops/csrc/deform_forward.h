// Deformable convolution, forward: see deform_conv.cpp.
#pragma once

#include "deform_taps.h"

namespace vfikit {
namespace deform {

template <class T>
struct Forward {
    Shape s;
    Slices slices;
    const T *offset, *mask, *bias;
    T* output;                  // of one batch item, as the maps
    const T *frames, *weights;  // of the slices first..last: ringed frames, and (depth, padded outputs) matrices
    int64_t first, last, outputs;
    int64_t frame_size() const { return s.ringed() * slices.width; }
    int64_t column_step() const { return slices.depth + SLICE; }
    int64_t scratch() const {  // bytes a tile takes
        const int64_t tile = TILE * (column_step() + s.groups * outputs) * static_cast<int64_t>(sizeof(T));
        return round_up(tile + s.taps() * static_cast<int64_t>(sizeof(Tap<T>)), 64);
    }
};

// Columns (pixel, tap and channel): a vector a tap, whose surplus the next one overwrites.
template <int L, class T>
VFIKIT_INLINE void gather(const Shape& s, const Slice& slice, const Tap<T>* taps, int64_t pixels, const T* frame,
                          T* columns, int64_t step) {
    typedef Vec<T, L> V;
    const int64_t down = s.stride() * slice.count;
    each_tap(s, taps, pixels, slice.count, [&](int64_t t, int64_t p, int64_t position) {
        const Tap<T>& tap = taps[t];
        const T *above = frame + position, *below = above + down;
        const V value = load<V>(above) * tap.share[0][p] + load<V>(above + slice.count) * tap.share[1][p] +
                        (load<V>(below) * tap.share[2][p] + load<V>(below + slice.count) * tap.share[3][p]);
        store(columns + p * step + t * slice.count, value);
    });
}

template <int BYTES, class T>
VFIKIT_INLINE void forward_tile(const Forward<T>& job, int64_t tile, char* scratch) {
    const Shape& s = job.s;
    Tap<T>* taps = reinterpret_cast<Tap<T>*>(scratch);
    T* columns = reinterpret_cast<T*>(taps + s.taps());
    T* sums = columns + TILE * job.column_step();
    const int64_t start = tile * TILE, left = s.pixels() - start, pixels = left < TILE ? left : TILE;
    const int64_t sum_step = s.groups * job.outputs;
    memset(static_cast<void*>(sums), 0, TILE * sum_step * sizeof(T));
    for (int64_t index = job.first; index < job.last; ++index) {
        const Slice slice = job.slices(s, index);
        const T* frame = job.frames + (index - job.first) * job.frame_size();
        if (index == job.first || index % job.slices.of_offsets == 0)
            locate(s, job.offset, job.mask, slice.moved, start, pixels, taps);
        if (slice.count <= 4) gather<4>(s, slice, taps, pixels, frame, columns, job.column_step());
        else if (slice.count <= 8) gather<8>(s, slice, taps, pixels, frame, columns, job.column_step());
        else gather<16>(s, slice, taps, pixels, frame, columns, job.column_step());
        const T* weights = job.weights + index * job.slices.depth * job.outputs;
        const product::Operands<T> operands = {columns,     job.column_step(), 1, weights, job.outputs,
                                               sums + slice.group * job.outputs, sum_step};
        product::add<BYTES>(operands, round_up(pixels, product::ROWS), job.outputs, s.taps() * slice.count);
    }
    for (int64_t o = 0; o < s.out_channels; ++o) {
        const T* from = sums + o / s.group_outputs() * job.outputs + o % s.group_outputs();
        T* to = job.output + o * s.pixels() + start;
        const T begin = job.bias ? job.bias[o] : T(0);
        if (job.first == 0)
            for (int64_t p = 0; p < pixels; ++p) to[p] = begin + from[p * sum_step];
        else
            for (int64_t p = 0; p < pixels; ++p) to[p] += from[p * sum_step];
    }
}

}  // namespace deform
}  // namespace vfikit
