// One step of OBProxSG, in place; vfikit/compress/obproxsg.py has the definition. The C symbols return 0.
#include "lanes.h"

// As torch rounds: a product by itself, not fused into the sum that it goes to.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace vfikit {
namespace obproxsg {

template <class T>
struct Numbers {
    T lr, lambda, eps, threshold;
    Numbers(double rate, double sparsity, double least)
        : lr(static_cast<T>(rate)), lambda(static_cast<T>(sparsity)), eps(static_cast<T>(least)),
          threshold(static_cast<T>(rate * sparsity)) {}
};

struct Prox {
    template <class V, class T>
    static VFIKIT_INLINE V update(V x, V grad, const Numbers<T>& by) {
        const V moved = x - grad * by.lr, high = by.threshold - V{}, low = -high;
        const V below = moved > high ? high : moved;
        const V target = moved - (below < low ? low : below);
        return x + (target - x);
    }
};

struct Orthant {
    template <class V, class T>
    static VFIKIT_INLINE V update(V x, V grad, const Numbers<T>& by) {
        const V zero = {}, one = zero + 1;
        const V sign = x > zero ? one : (x < zero ? -one : zero);
        const V moved = x - (grad + sign * by.lambda) * by.lr;
        return moved * sign <= by.eps ? zero : moved;
    }
};

template <class Phase, class T, int BYTES>
VFIKIT_INLINE void step(T* x, const T* grad, int64_t count, const Numbers<T>& by) {
    constexpr int N = BYTES / sizeof(T);
    typedef Vec<T, N> V;
    int64_t k = 0;
    for (; k + N <= count; k += N) store(x + k, Phase::update(load<V>(x + k), load<V>(grad + k), by));
    if (k < count) {
        const V last = Phase::update(load_some<V>(x + k, count - k), load_some<V>(grad + k, count - k), by);
        store_some(x + k, last, count - k);
    }
}

template <class T>
int run(void (*part)(T*, const T*, int64_t, const Numbers<T>&), T* x, const T* grad, const Numbers<T>& by,
        int64_t count, int64_t threads) {
    constexpr int64_t most = 1 << 15;
    parallel((count + most - 1) / most, threads, [&](int64_t item, int64_t) {
        const int64_t start = item * most, rest = count - start;
        part(x + start, grad + start, rest < most ? rest : most, by);
    });
    return 0;
}

// The symbol of one phase and type.
#define VFIKIT_STEP(Phase, name, T)                                                                               \
    template <int BYTES>                                                                                          \
    VFIKIT_INLINE void name##_body(T* x, const T* grad, int64_t count, const Numbers<T>& by) {                    \
        step<Phase, T, BYTES>(x, grad, count, by);                                                                \
    }                                                                                                             \
    VFIKIT_DISPATCH(name, name##_body, (T * x, const T* grad, int64_t count, const Numbers<T>& by),               \
                    (x, grad, count, by))                                                                         \
    VFIKIT_API int vfikit_obproxsg_##name(T* x, const T* grad, double lr, double lambda, double eps,              \
                                          int64_t count, int64_t threads) {                                       \
        return run(name(), x, grad, Numbers<T>(lr, lambda, eps), count, threads);                                 \
    }
VFIKIT_STEP(Prox, prox_f32, float)
VFIKIT_STEP(Prox, prox_f64, double)
VFIKIT_STEP(Orthant, orthant_f32, float)
VFIKIT_STEP(Orthant, orthant_f64, double)

}  // namespace obproxsg
}  // namespace vfikit
