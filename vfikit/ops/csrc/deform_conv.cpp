// Deformable convolution on CPUs; vfikit/ops/deform_conv.py has the definition. The C symbols return 0, or 1 without
// memory for scratch space.
//
// The channels are cut into slices that read in the same places. A slice's frame is interleaved, so that one vector is
// one pixel; a tile of output pixels gathers its columns (pixel, tap, channel) into the first-level cache, where a
// matrix product takes them up. So the column buffer of the whole frame is never there. Backward, a thread owns a slice
// (its frame's and its weights' gradient) and goes through the tiles in order: no two threads add to one number.
#include "deform_backward.h"
#include "deform_forward.h"

namespace vfikit {
namespace deform {

using Forward32 = Forward<float>;
using Backward32 = Backward<float>;

template <int BYTES>
VFIKIT_INLINE void forward_body(const Forward32& job, int64_t tile, char* scratch) {
    forward_tile<BYTES>(job, tile, scratch);
}

template <int BYTES>
VFIKIT_INLINE void backward_body(const Backward32& job, int64_t slice, char* scratch) {
    backward_band<BYTES>(job, slice, scratch);
}

VFIKIT_DISPATCH(forward_kernel, forward_body, (const Forward32& job, int64_t tile, char* scratch),
                (job, tile, scratch))
VFIKIT_DISPATCH(backward_kernel, backward_body, (const Backward32& job, int64_t slice, char* scratch),
                (job, slice, scratch))
inline void forward_exact(const Forward<double>& job, int64_t tile, char* scratch) {
    forward_tile<16>(job, tile, scratch);
}
inline void backward_exact(const Backward<double>& job, int64_t slice, char* scratch) {
    backward_band<16>(job, slice, scratch);
}

// The weights of all slices: `by_depth` as (tap and channel, padded outputs), else as (output, padded depth).
template <class T>
void pack(const Shape& s, const Slices& slices, const T* weight, bool by_depth, int64_t padded, T* packed,
          int64_t threads) {
    const int64_t size = by_depth ? slices.depth * padded : s.group_outputs() * padded;
    parallel(slices.count, threads, [&](int64_t index, int) {
        const Slice slice = slices(s, index);
        T* to = packed + index * size;
        memset(static_cast<void*>(to), 0, size * sizeof(T));
        for (int64_t o = 0; o < s.group_outputs(); ++o)
            for (int64_t c = 0; c < slice.count; ++c) {
                const int64_t channel = slice.first + c - slice.group * s.group_channels();
                const T* from = weight + ((slice.group * s.group_outputs() + o) * s.group_channels() + channel) * s.taps();
                for (int64_t t = 0; t < s.taps(); ++t) {
                    const int64_t k = t * slice.count + c;
                    to[by_depth ? k * padded + o : o * padded + k] = from[t];
                }
            }
    });
}

template <class T>
void unpack_gradient(const Backward<T>& job, T* to_weight) {
    const Shape& s = job.s;
    for (int64_t index = 0; index < job.slices.count; ++index) {
        const Slice slice = job.slices(s, index);
        const T* from = job.to_weights + index * job.weight_rows() * job.outputs;
        for (int64_t o = 0; o < s.group_outputs(); ++o)
            for (int64_t c = 0; c < slice.count; ++c) {
                const int64_t channel = slice.first + c - slice.group * s.group_channels();
                T* to = to_weight + ((slice.group * s.group_outputs() + o) * s.group_channels() + channel) * s.taps();
                for (int64_t t = 0; t < s.taps(); ++t) to[t] = from[(t * slice.count + c) * job.outputs + o];
            }
    }
}

// How many slices to hold as frames at once: the part 1 / `share` of what all columns would take, a thread each at least.
inline int64_t at_once(const Shape& s, const Slices& slices, int64_t share, int64_t threads) {
    const int64_t within = s.taps() * s.pixels() * s.channels / share / (s.ringed() * slices.width);
    const int64_t least = threads < 1 ? 1 : threads, most = within < least ? least : within;
    return most < slices.count ? most : slices.count;
}

template <class T, class Kernel>
int forward(Forward<T> job, const T* input, const T* weight, Kernel kernel, int64_t threads) {
    const Shape& s = job.s;
    const Slices& slices = job.slices;
    job.outputs = round_up(s.group_outputs(), SLICE);
    const int64_t held = at_once(s, slices, 14, 1), number = sizeof(T), workers = threads < 1 ? 1 : threads;
    const Scratch packed(slices.count * slices.depth * job.outputs * number), work(workers * job.scratch());
    const Scratch frames((held * job.frame_size() + SLICE) * number);
    if (!packed.as<T>() || !work.as<char>() || !frames.as<T>()) return 1;
    pack(s, slices, weight, true, job.outputs, packed.as<T>(), threads);
    memset(frames.as<char>(), 0, (held * job.frame_size() + SLICE) * number);
    memset(work.as<char>(), 0, workers * job.scratch());
    job.weights = packed.as<T>(), job.frames = frames.as<T>();
    for (int64_t n = 0; n < s.batch; ++n) {
        for (job.first = 0; job.first < slices.count; job.first = job.last) {
            job.last = job.first + held < slices.count ? job.first + held : slices.count;
            parallel(job.last - job.first, threads, [&](int64_t i, int) {
                const Slice slice = slices(s, job.first + i);
                T* frame = frames.as<T>() + i * job.frame_size();
                if (slices.uneven()) memset(static_cast<void*>(frame), 0, job.frame_size() * number);
                interleave(s, slice, input + n * s.channels * s.plane(), frame);
            });
            parallel(s.tiles(), threads,
                     [&](int64_t tile, int thread) { kernel(job, tile, work.as<char>() + thread * job.scratch()); });
        }
        job.offset += 2 * s.moved * s.taps() * s.pixels(), job.output += s.out_channels * s.pixels();
        if (job.mask) job.mask += s.moved * s.taps() * s.pixels();
    }
    return 0;
}

// The output's gradient in the pixels of a band: (pixel, padded outputs).
template <class T>
void interleave_gradient(const Backward<T>& job, const T* grad, int64_t begin, T* to) {
    const Shape& s = job.s;
    const int64_t end = begin + TILE < job.pixels ? begin + TILE : job.pixels, step = s.groups * job.outputs;
    for (int64_t o = 0; o < s.out_channels; ++o) {
        const T* from = grad + o * s.pixels() + job.start;
        const int64_t column = o / s.group_outputs() * job.outputs + o % s.group_outputs();
        for (int64_t p = begin; p < end; ++p) to[p * step + column] = from[p];
    }
}

// Adds what the slices at hand found for the offsets and masks of the band, in the order of the slices.
template <class T>
void reduce(const Backward<T>& job, int64_t channel) {
    const Shape& s = job.s;
    const int64_t map = channel % (3 * s.taps()), moved = channel / (3 * s.taps());
    const bool of_offset = map < 2 * s.taps();
    if (!of_offset && !job.to_mask) return;
    T* to = of_offset ? job.to_offset + (2 * moved * s.taps() + map) * s.pixels()
                      : job.to_mask + (moved * s.taps() + map - 2 * s.taps()) * s.pixels();
    for (int64_t index = job.first; index < job.last; ++index) {
        if (index / job.slices.of_offsets != moved) continue;
        const T* from = job.partial + (index - job.first) * job.partial_size() + map * BAND;
        const bool begun = index % job.slices.of_offsets != 0;
        for (int64_t p = 0; p < job.pixels; ++p) to[job.start + p] = begun ? to[job.start + p] + from[p] : from[p];
    }
}

template <class T, class Kernel>
int backward(Backward<T> job, const T* grad, const T* input, const T* weight, T* to_input, T* to_weight, Kernel kernel,
             int64_t threads) {
    const Shape& s = job.s;
    const Slices& slices = job.slices;
    job.outputs = round_up(s.group_outputs(), SLICE);
    const int64_t held = at_once(s, slices, 56, threads), number = sizeof(T), workers = threads < 1 ? 1 : threads;
    const int64_t frames_size = held * job.frame_size() + SLICE, step = s.groups * job.outputs;
    const int64_t gradient_size = slices.count * job.weight_rows() * job.outputs;
    const Scratch packed(slices.count * s.group_outputs() * job.padded_depth() * number), work(workers * job.scratch());
    const Scratch frames(frames_size * number), to_frames((to_input ? frames_size : 1) * number);
    const Scratch grads(BAND * step * number), gradient(gradient_size * number);
    const Scratch partial(held * job.partial_size() * number);
    for (const Scratch* each : {&packed, &work, &frames, &to_frames, &grads, &gradient, &partial})
        if (!each->template as<char>()) return 1;
    pack(s, slices, weight, false, job.padded_depth(), packed.as<T>(), threads);
    memset(frames.as<char>(), 0, frames_size * number), memset(grads.as<char>(), 0, BAND * step * number);
    memset(gradient.as<char>(), 0, gradient_size * number), memset(work.as<char>(), 0, workers * job.scratch());
    job.weights = packed.as<T>(), job.frames = frames.as<T>(), job.grads = grads.as<T>(), job.partial = partial.as<T>();
    job.to_weights = gradient.as<T>(), job.to_frames = to_input ? to_frames.as<T>() : nullptr;
    for (int64_t n = 0; n < s.batch; ++n) {
        for (job.first = 0; job.first < slices.count; job.first = job.last) {
            job.last = job.first + held < slices.count ? job.first + held : slices.count;
            const int64_t at_hand = job.last - job.first;
            if (to_input) memset(to_frames.as<char>(), 0, frames_size * number);
            parallel(at_hand, threads, [&](int64_t i, int) {
                const Slice slice = slices(s, job.first + i);
                T* frame = frames.as<T>() + i * job.frame_size();
                if (slices.uneven()) memset(static_cast<void*>(frame), 0, job.frame_size() * number);
                interleave(s, slice, input + n * s.channels * s.plane(), frame);
            });
            for (job.start = 0; job.start < s.pixels(); job.start += BAND) {
                job.pixels = job.start + BAND < s.pixels() ? BAND : s.pixels() - job.start;
                parallel((job.pixels + TILE - 1) / TILE, threads, [&](int64_t tile, int) {
                    interleave_gradient(job, grad + n * s.out_channels * s.pixels(), tile * TILE, grads.as<T>());
                });
                parallel(at_hand, threads, [&](int64_t i, int thread) {
                    kernel(job, job.first + i, work.as<char>() + thread * job.scratch());
                });
                if (slices.of_offsets > 1)
                    parallel(3 * s.taps() * s.moved, threads, [&](int64_t channel, int) { reduce(job, channel); });
            }
            if (to_input)
                parallel(at_hand, threads, [&](int64_t i, int) {
                    separate(s, slices(s, job.first + i), to_frames.as<T>() + i * job.frame_size(),
                             to_input + n * s.channels * s.plane());
                });
        }
        const int64_t maps = s.moved * s.taps() * s.pixels();
        job.offset += 2 * maps, job.to_offset += 2 * maps;
        if (job.mask) job.mask += maps, job.to_mask += maps;
    }
    unpack_gradient(job, to_weight);
    return 0;
}

}  // namespace deform
}  // namespace vfikit

using namespace vfikit::deform;

#define SIZES                                                                                                        \
    int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t out_channels, int64_t kernel_height,      \
        int64_t kernel_width, int64_t groups, int64_t moved, int64_t out_height, int64_t out_width, int64_t stride_y, \
        int64_t stride_x, int64_t pad_y, int64_t pad_x, int64_t step_y, int64_t step_x, int64_t threads
#define SHAPE                                                                                                      \
    {batch,  channels,  height,   width,    out_channels, kernel_height, kernel_width, groups, moved, out_height, \
     out_width, stride_y, stride_x, pad_y, pad_x, step_y, step_x}

// bias and mask may be null.
#define FORWARD(T, suffix, kernel)                                                                                    \
    VFIKIT_API int vfikit_deform_conv2d_forward_##suffix(const T* input, const T* offset, const T* weight,            \
                                                         const T* bias, const T* mask, T* output, SIZES) {            \
        const Shape s = SHAPE;                                                                                        \
        return forward(Forward<T>{s, Slices(s), offset, mask, bias, output, nullptr, nullptr, 0, 0, 0}, input, weight, \
                       kernel, threads);                                                                              \
    }

// mask and to_mask may be null, and to_input, which costs as much as the rest.
#define BACKWARD(T, suffix, kernel)                                                                                  \
    VFIKIT_API int vfikit_deform_conv2d_backward_##suffix(const T* grad, const T* input, const T* offset,            \
                                                          const T* weight, const T* mask, T* to_input, T* to_offset, \
                                                          T* to_weight, T* to_mask, SIZES) {                         \
        const Shape s = SHAPE;                                                                                       \
        Backward<T> job = {s,       Slices(s), offset,  mask,    to_offset, to_mask, nullptr, nullptr, nullptr,      \
                           nullptr, nullptr,   nullptr, 0,       0,         0,       0,       0};                    \
        return backward(job, grad, input, weight, to_input, to_weight, kernel, threads);                             \
    }

FORWARD(float, f32, forward_kernel())
FORWARD(double, f64, &forward_exact)
BACKWARD(float, f32, backward_kernel())
BACKWARD(double, f64, &backward_exact)
