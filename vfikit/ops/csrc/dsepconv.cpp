// Deformable separable convolution on CPUs; vfikit/ops/dsepconv.py has the definition. The C symbols return 0, or 1
// without memory for scratch space.
#include "taps_backward.h"
#include "taps_exact.h"
#include "taps_forward.h"

namespace vfikit {
namespace dsepconv {

using namespace taps;

struct DSepConv {
    static constexpr bool SEPARABLE = true;
    static constexpr int RING = 2, BORDER = 2;

    // Rounds down. Where both neighbours are the border's pixel, both are in the ring, and the fraction does not matter:
    // before the first pixel, but from the last one on.
    template <bool MENDED, class V, class I>
    static VFIKIT_INLINE I split(const Axis<V, I>& axis, V offset, I place, V& fraction) {
        const V bounded = axis.bound(offset), whole = round_down(bounded);
        fraction = bounded - whole;
        const I at = axis.template truncate<MENDED>(whole) + place, ring = -2 - I{};
        const I within = at < I{} ? ring : at;
        return within >= axis.last ? axis.last + 1 : within;
    }

    template <class V, class T>
    static VFIKIT_INLINE V weight(const JobOf<T>& job, int64_t row, int64_t column, int64_t pixel, int64_t left) {
        const int64_t step = job.s.pixels();
        return load_some<V>(job.vertical + row * step + pixel, left) *
               load_some<V>(job.horizontal + column * step + pixel, left) *
               load_some<V>(job.weight + (row * job.s.kernel + column) * step + pixel, left);
    }

    template <class V, class T>
    static VFIKIT_INLINE void add_gradient(const JobOf<T>& job, int64_t row, int64_t column, int64_t pixel,
                                           int64_t left, V gradient) {
        const int64_t step = job.s.pixels(), at = (row * job.s.kernel + column) * step + pixel;
        const V vertical = load_some<V>(job.vertical + row * step + pixel, left);
        const V horizontal = load_some<V>(job.horizontal + column * step + pixel, left);
        const V mask = load_some<V>(job.weight + at, left);
        add(job.grad_weight + at, gradient * (vertical * horizontal), left, job.first);
        add(job.grad_vertical + row * step + pixel, gradient * (horizontal * mask), left, job.first || column);
        add(job.grad_horizontal + column * step + pixel, gradient * (vertical * mask), left, job.first || row);
    }

    template <class V, class T>
    static VFIKIT_INLINE void add(T* to, V gradient, int64_t left, bool begun) {
        if (begun) gradient += load_some<V>(to, left);
        store_some(to, gradient, left);
    }
};

VFIKIT_FORWARD(DSepConv)
VFIKIT_BACKWARD(DSepConv)

inline Shape shape_of(int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t kernel,
                      int64_t out_height, int64_t out_width) {
    const int64_t origin = 1 - (kernel - 1) / 2;  // as published
    return {batch, channels, height, width, kernel, out_height, out_width, 1, origin, DSepConv::RING};
}

// offset_x moves along the rows' axis, offset_y along the columns'.
template <class T>
JobOf<T> job_of(const Shape& s, const T* vertical, const T* horizontal, const T* offset_x, const T* offset_y,
                const T* mask) {
    JobOf<T> job = {};
    job.s = s, job.step = s.pixels(), job.vertical = vertical, job.horizontal = horizontal;
    job.offset_i = offset_x, job.offset_j = offset_y, job.weight = mask;
    return job;
}

template <class T>
void differentiate(JobOf<T>& job, const T* grad, T* grad_vertical, T* grad_horizontal, T* grad_offset_x,
                   T* grad_offset_y, T* grad_mask) {
    job.grad = grad, job.grad_vertical = grad_vertical, job.grad_horizontal = grad_horizontal;
    job.grad_offset_i = grad_offset_x, job.grad_offset_j = grad_offset_y, job.grad_weight = grad_mask;
}

}  // namespace dsepconv
}  // namespace vfikit

using namespace vfikit::dsepconv;

VFIKIT_API int vfikit_dsepconv_forward_f32(const float* input, const float* vertical, const float* horizontal,
                                           const float* offset_x, const float* offset_y, const float* mask,
                                           float* output, int64_t batch, int64_t channels, int64_t height,
                                           int64_t width, int64_t kernel, int64_t out_height, int64_t out_width,
                                           int64_t threads) {
    const Shape s = shape_of(batch, channels, height, width, kernel, out_height, out_width);
    Job job = job_of(s, vertical, horizontal, offset_x, offset_y, mask);
    job.output = output;
    return vfikit::taps::forward<DSepConv>(job, input, forward_kernel, threads);
}

VFIKIT_API int vfikit_dsepconv_forward_f64(const double* input, const double* vertical, const double* horizontal,
                                           const double* offset_x, const double* offset_y, const double* mask,
                                           double* output, int64_t batch, int64_t channels, int64_t height,
                                           int64_t width, int64_t kernel, int64_t out_height, int64_t out_width,
                                           int64_t threads) {
    const Shape s = shape_of(batch, channels, height, width, kernel, out_height, out_width);
    JobOf<double> job = job_of(s, vertical, horizontal, offset_x, offset_y, mask);
    job.output = output;
    return vfikit::taps::forward_exact<DSepConv>(job, input, threads);
}

// grad_input may be null: it costs as much as the rest.
VFIKIT_API int vfikit_dsepconv_backward_f32(const float* grad, const float* input, const float* vertical,
                                            const float* horizontal, const float* offset_x, const float* offset_y,
                                            const float* mask, float* grad_input, float* grad_vertical,
                                            float* grad_horizontal, float* grad_offset_x, float* grad_offset_y,
                                            float* grad_mask, int64_t batch, int64_t channels, int64_t height,
                                            int64_t width, int64_t kernel, int64_t out_height, int64_t out_width,
                                            int64_t threads) {
    const Shape s = shape_of(batch, channels, height, width, kernel, out_height, out_width);
    Job job = job_of(s, vertical, horizontal, offset_x, offset_y, mask);
    differentiate(job, grad, grad_vertical, grad_horizontal, grad_offset_x, grad_offset_y, grad_mask);
    return vfikit::taps::backward<DSepConv>(job, input, grad_input, backward_kernel, threads);
}

VFIKIT_API int vfikit_dsepconv_backward_f64(const double* grad, const double* input, const double* vertical,
                                            const double* horizontal, const double* offset_x, const double* offset_y,
                                            const double* mask, double* grad_input, double* grad_vertical,
                                            double* grad_horizontal, double* grad_offset_x, double* grad_offset_y,
                                            double* grad_mask, int64_t batch, int64_t channels, int64_t height,
                                            int64_t width, int64_t kernel, int64_t out_height, int64_t out_width,
                                            int64_t threads) {
    const Shape s = shape_of(batch, channels, height, width, kernel, out_height, out_width);
    JobOf<double> job = job_of(s, vertical, horizontal, offset_x, offset_y, mask);
    differentiate(job, grad, grad_vertical, grad_horizontal, grad_offset_x, grad_offset_y, grad_mask);
    return vfikit::taps::backward_exact<DSepConv>(job, input, grad_input, threads);
}
