// Vectors of one instruction set: GCC's and Clang's vector extension, lowered to whatever the caller is compiled for.
#pragma once

#include <type_traits>
#include <utility>

#include "abi.h"

namespace vfikit {

template <class T, int N>
struct Vector {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Vec = typename Vector<T, N>::type;

template <class V, class T>
VFIKIT_INLINE V load(const T* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T>
VFIKIT_INLINE void store(T* to, V v) {
    __builtin_memcpy(to, &v, sizeof v);
}

// Copies the last count % (2 * PART) of `count` elements in moves of constant sizes: a call would take longer.
template <int PART, class T>
VFIKIT_INLINE void copy_some(T* to, const T* from, int64_t count) {
    if (count & PART) {
        __builtin_memcpy(to, from, PART * sizeof(T));
        to += PART, from += PART;
    }
    if constexpr (PART > 1) copy_some<PART / 2>(to, from, count);
}

// Stores past the caches; `to` is aligned to the vector. `arrive` before another thread may read.
template <class V>
VFIKIT_INLINE void stream(float* to, V v) {
#if defined(__x86_64__)
    if constexpr (sizeof(V) == 16) asm volatile("movntps %1, (%0)" : : "r"(to), "x"(v) : "memory");
    else asm volatile("vmovntps %1, (%0)" : : "r"(to), "v"(v) : "memory");
#else
    store(to, v);
#endif
}
inline void arrive() {
#if defined(__x86_64__)
    asm volatile("sfence" ::: "memory");
#endif
}

// Asks for a cache line, into L2 rather than L1.
VFIKIT_INLINE void fetch(const float* from) { __builtin_prefetch(from, 0, 2); }

// The first `count` elements; the rest are zero.
template <class V, class T>
VFIKIT_INLINE V load_some(const T* from, int64_t count) {
    if (count >= static_cast<int64_t>(sizeof(V) / sizeof(T))) return load<V>(from);
    T part[sizeof(V) / sizeof(T)] = {};
    copy_some<sizeof(V) / sizeof(T) / 2>(part, from, count);
    return load<V>(part);
}

template <class V, class T>
VFIKIT_INLINE void store_some(T* to, V v, int64_t count) {
    if (count >= static_cast<int64_t>(sizeof(V) / sizeof(T))) return store(to, v);
    T part[sizeof(V) / sizeof(T)];
    store(part, v);
    copy_some<sizeof(V) / sizeof(T) / 2>(to, part, count);
}

// Rounds down; vectors hold numbers below 2^31.
template <class V>
VFIKIT_INLINE V round_down(V v) {
    if constexpr (std::is_floating_point<V>::value) {
        return __builtin_floor(v);
    } else {
#if defined(__x86_64__)  // no vector extension rounds: the compiler would take seven instructions
        if constexpr (sizeof(V) == 64) {
            asm("vrndscaleps $1, %1, %0" : "=v"(v) : "v"(v));
            return v;
        } else if constexpr (sizeof(V) == 32) {
            asm("vroundps $1, %1, %0" : "=x"(v) : "x"(v));
            return v;
        }
#endif
        const V whole = __builtin_convertvector(__builtin_convertvector(v, Vec<int32_t, sizeof(V) / 4>), V);
        return whole > v ? whole - 1 : (v == v ? whole : v);
    }
}

#if defined(__clang__) || __GNUC__ >= 12
#define VFIKIT_SHUFFLE(N, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else  // only as wide as its arguments
template <int N, class V, class... I>
VFIKIT_INLINE Vec<float, N> shuffle(V a, V b, I... index) {
    constexpr int size = sizeof(V) / sizeof(float);
    return Vec<float, N>{(index < size ? a[index] : b[index - size])...};
}
#define VFIKIT_SHUFFLE(N, a, b, ...) vfikit::shuffle<N>(a, b, __VA_ARGS__)
#endif

// Four vectors a, b, c, d of N floats become N quadruples (a, b, c, d), stored so that the quadruple of element
// 4 g + k is at to + k * N + 4 * g: a transposition within 128 bits, the only kind that is cheap.
template <int N, int... I>
VFIKIT_INLINE void store_quads(float* to, Vec<float, N> a, Vec<float, N> b, Vec<float, N> c, Vec<float, N> d,
                               std::integer_sequence<int, I...>) {
    typedef Vec<float, N> V;
    const V ab = VFIKIT_SHUFFLE(N, a, b, (I / 4 * 4 + I % 4 / 2 + I % 2 * N)...);
    const V ab2 = VFIKIT_SHUFFLE(N, a, b, (I / 4 * 4 + I % 4 / 2 + I % 2 * N + 2)...);
    const V cd = VFIKIT_SHUFFLE(N, c, d, (I / 4 * 4 + I % 4 / 2 + I % 2 * N)...);
    const V cd2 = VFIKIT_SHUFFLE(N, c, d, (I / 4 * 4 + I % 4 / 2 + I % 2 * N + 2)...);
    store(to, VFIKIT_SHUFFLE(N, ab, cd, (I / 4 * 4 + I % 2 + I % 4 / 2 * N)...));
    store(to + N, VFIKIT_SHUFFLE(N, ab, cd, (I / 4 * 4 + I % 2 + I % 4 / 2 * N + 2)...));
    store(to + 2 * N, VFIKIT_SHUFFLE(N, ab2, cd2, (I / 4 * 4 + I % 2 + I % 4 / 2 * N)...));
    store(to + 3 * N, VFIKIT_SHUFFLE(N, ab2, cd2, (I / 4 * 4 + I % 2 + I % 4 / 2 * N + 2)...));
}

// N vectors of N numbers, rows to columns.
template <int N, int... I>
VFIKIT_INLINE void transpose(Vec<float, N>* rows, std::integer_sequence<int, I...>) {
    typedef Vec<float, N> V;
    V next[N];
    for (int step = 1; step < N; step *= 2) {
        for (int i = 0; i < N / 2; ++i) {
            next[2 * i] = VFIKIT_SHUFFLE(N, rows[i], rows[i + N / 2], (I / 2 + I % 2 * N)...);
            next[2 * i + 1] = VFIKIT_SHUFFLE(N, rows[i], rows[i + N / 2], (N / 2 + I / 2 + I % 2 * N)...);
        }
        for (int i = 0; i < N; ++i) rows[i] = next[i];
    }
}
template <int N>
VFIKIT_INLINE void transpose(Vec<float, N>* rows) {
    transpose<N>(rows, std::make_integer_sequence<int, N>());
}

// The sum of a vector's quarters, eighths...: N floats to 4.
template <int N>
VFIKIT_INLINE Vec<float, 4> fold(Vec<float, N> v) {
    if constexpr (N == 4) {
        return v;
    } else if constexpr (N == 8) {
        return VFIKIT_SHUFFLE(4, v, v, 0, 1, 2, 3) + VFIKIT_SHUFFLE(4, v, v, 4, 5, 6, 7);
    } else {
        return fold<8>(VFIKIT_SHUFFLE(8, v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                       VFIKIT_SHUFFLE(8, v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    }
}

// Four vectors of two quadruples each: the sums of the quadruples, the first ones in the lower half.
VFIKIT_INLINE Vec<float, 8> sum_quads(Vec<float, 8> a, Vec<float, 8> b, Vec<float, 8> c, Vec<float, 8> d) {
    typedef Vec<float, 8> V;
    const V ab = VFIKIT_SHUFFLE(8, a, b, 0, 8, 1, 9, 4, 12, 5, 13) + VFIKIT_SHUFFLE(8, a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const V cd = VFIKIT_SHUFFLE(8, c, d, 0, 8, 1, 9, 4, 12, 5, 13) + VFIKIT_SHUFFLE(8, c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    return VFIKIT_SHUFFLE(8, ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + VFIKIT_SHUFFLE(8, ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
}

}  // namespace vfikit
