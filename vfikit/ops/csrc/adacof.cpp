// AdaCoF on CPUs; vfikit/ops/adacof.py has the definition. The C symbols return 0, or 1 without memory for scratch space.
#include "taps_backward.h"
#include "taps_exact.h"
#include "taps_forward.h"

namespace vfikit {
namespace adacof {

using namespace taps;

struct AdaCoF {
    static constexpr bool SEPARABLE = false;
    static constexpr int RING = 1, BORDER = 1;

    // The fraction is negative where the offset is, and NaN where that is.
    template <bool MENDED, class V, class I>
    static VFIKIT_INLINE I split(const Axis<V, I>& axis, V offset, I place, V& fraction) {
        const V bounded = axis.bound(offset);
        const I whole = axis.template truncate<MENDED>(bounded), first = -1 - I{};
        fraction = bounded - axis.widen(whole);
        I at = whole + place;
        at = at < first ? first : at;
        return at > axis.last ? axis.last : at;
    }

    template <class V, class T>
    static VFIKIT_INLINE V weight(const JobOf<T>& job, int64_t row, int64_t column, int64_t pixel, int64_t left) {
        return load_some<V>(job.weight + job.at(row * job.s.kernel + column, pixel), left);
    }

    template <class V, class T>
    static VFIKIT_INLINE void add_gradient(const JobOf<T>& job, int64_t row, int64_t column, int64_t pixel,
                                           int64_t left, V gradient) {
        T* to = job.grad_weight + job.at(row * job.s.kernel + column, pixel);
        if (job.first) gradient += load_some<V>(to, left);
        store_some(to, gradient, left);
    }
};

VFIKIT_FORWARD(AdaCoF)
VFIKIT_BACKWARD(AdaCoF)

template <class T>
JobOf<T> job_of(const Shape& s, const T* weight, const T* offset_i, const T* offset_j) {
    JobOf<T> job = {};
    job.s = s, job.step = s.pixels(), job.weight = weight, job.offset_i = offset_i, job.offset_j = offset_j;
    return job;
}

template <class T>
JobOf<T> job_of(const Shape& s, const T* weight, const T* offset_i, const T* offset_j, const T* grad, T* grad_weight,
                T* grad_offset_i, T* grad_offset_j) {
    JobOf<T> job = job_of(s, weight, offset_i, offset_j);
    job.grad = grad, job.grad_weight = grad_weight;
    job.grad_offset_i = grad_offset_i, job.grad_offset_j = grad_offset_j;
    return job;
}

}  // namespace adacof
}  // namespace vfikit

using namespace vfikit::adacof;

// maps_last: the taps of a pixel lie side by side in the maps, as channels-last networks write them.
VFIKIT_API int vfikit_adacof_forward_f32(const float* input, const float* weight, const float* offset_i,
                                         const float* offset_j, float* output, int64_t batch, int64_t channels,
                                         int64_t height, int64_t width, int64_t kernel, int64_t out_height,
                                         int64_t out_width, int64_t dilation, int64_t maps_last, int64_t threads) {
    const Shape s{batch, channels, height, width, kernel, out_height, out_width, dilation, 0, AdaCoF::RING};
    Job job = job_of(s, weight, offset_i, offset_j);
    job.output = output;
    return vfikit::taps::forward<AdaCoF>(job, input, forward_kernel, threads, maps_last != 0);
}

VFIKIT_API int vfikit_adacof_forward_f64(const double* input, const double* weight, const double* offset_i,
                                         const double* offset_j, double* output, int64_t batch, int64_t channels,
                                         int64_t height, int64_t width, int64_t kernel, int64_t out_height,
                                         int64_t out_width, int64_t dilation, int64_t threads) {
    const Shape s{batch, channels, height, width, kernel, out_height, out_width, dilation, 0, AdaCoF::RING};
    JobOf<double> job = job_of(s, weight, offset_i, offset_j);
    job.output = output;
    return vfikit::taps::forward_exact<AdaCoF>(job, input, threads);
}

// grad_input may be null: it costs as much as the rest. maps_last: of the maps' gradients too.
VFIKIT_API int vfikit_adacof_backward_f32(const float* grad, const float* input, const float* weight,
                                          const float* offset_i, const float* offset_j, float* grad_input,
                                          float* grad_weight, float* grad_offset_i, float* grad_offset_j,
                                          int64_t batch, int64_t channels, int64_t height, int64_t width,
                                          int64_t kernel, int64_t out_height, int64_t out_width, int64_t dilation,
                                          int64_t maps_last, int64_t threads) {
    const Shape s{batch, channels, height, width, kernel, out_height, out_width, dilation, 0, AdaCoF::RING};
    const Job job = job_of(s, weight, offset_i, offset_j, grad, grad_weight, grad_offset_i, grad_offset_j);
    return vfikit::taps::backward<AdaCoF>(job, input, grad_input, backward_kernel, threads, maps_last != 0);
}

VFIKIT_API int vfikit_adacof_backward_f64(const double* grad, const double* input, const double* weight,
                                          const double* offset_i, const double* offset_j, double* grad_input,
                                          double* grad_weight, double* grad_offset_i, double* grad_offset_j,
                                          int64_t batch, int64_t channels, int64_t height, int64_t width,
                                          int64_t kernel, int64_t out_height, int64_t out_width, int64_t dilation,
                                          int64_t threads) {
    const Shape s{batch, channels, height, width, kernel, out_height, out_width, dilation, 0, AdaCoF::RING};
    const JobOf<double> job = job_of(s, weight, offset_i, offset_j, grad, grad_weight, grad_offset_i, grad_offset_j);
    return vfikit::taps::backward_exact<AdaCoF>(job, input, grad_input, threads);
}
