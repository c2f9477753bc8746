// C += A B for matrices that stay in the caches: a block of C is held in registers while the depth runs.
#pragma once

#include "lanes.h"

namespace vfikit {
namespace product {

constexpr int64_t ROWS = 6;  // of a block of C; callers pad theirs to whole blocks
constexpr int64_t LINE = 64;  // bytes of a line of the cache

template <class T, int BYTES>
constexpr int lanes() {
    return BYTES / sizeof(T);
}

// A's element (row, depth) is at a[row * row_step + depth * depth_step]; B and C have contiguous rows.
template <class T>
struct Operands {
    const T* a;
    int64_t row_step, depth_step;
    const T* b;
    int64_t b_step;
    T* c;
    int64_t c_step;
    const T* ahead = nullptr;  // what to fetch into the second-level cache meanwhile: the matrix that comes next
    int64_t ahead_count = 0;
};

template <int VECTORS, int BYTES, bool FRESH, class T>
VFIKIT_INLINE void block(const Operands<T>& m, int64_t row, int64_t column, int64_t depth, const T* ahead) {
    constexpr int L = lanes<T, BYTES>();
    typedef Vec<T, L> V;
    V sum[ROWS][VECTORS] = {};
    const T *a = m.a + row * m.row_step, *b = m.b + column;
    for (int64_t k = 0; k < depth; ++k, a += m.depth_step, b += m.b_step, ahead += LINE / sizeof(T)) {
        __builtin_prefetch(ahead, 0, 2);
        V right[VECTORS];
        for (int j = 0; j < VECTORS; ++j) right[j] = load<V>(b + j * L);
        for (int i = 0; i < ROWS; ++i) {
            const V left = a[i * m.row_step] - V{};
            for (int j = 0; j < VECTORS; ++j) sum[i][j] += left * right[j];
        }
    }
    T* c = m.c + row * m.c_step + column;
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < VECTORS; ++j) {
            T* to = c + i * m.c_step + j * L;
            store(to, FRESH ? sum[i][j] : load<V>(to) + sum[i][j]);
        }
}

// `rows` is a multiple of ROWS, `columns` of the lanes. FRESH: C = A B.
template <int BYTES, bool FRESH = false, class T>
VFIKIT_INLINE void add(const Operands<T>& m, int64_t rows, int64_t columns, int64_t depth) {
    constexpr int L = lanes<T, BYTES>(), MOST = BYTES == 64 ? 4 : 2;  // what the registers hold
    const int64_t vectors = columns / L;
    for (int64_t done = 0, width; done < vectors; done += width) {
        const int64_t left = vectors - done, blocks = (left + MOST - 1) / MOST;
        width = (left + blocks - 1) / blocks;  // evenly: 5 vectors are 3 and 2
        const int64_t fetched = depth * LINE / sizeof(T);  // a block of rows fetches a line at each step of its depth
        for (int64_t row = 0; row < rows; row += ROWS) {
            const int64_t begin = row / ROWS * fetched;
            const T* ahead = begin < m.ahead_count ? m.ahead + begin : m.b;  // what is there costs nothing
            if (width == 1) block<1, BYTES, FRESH>(m, row, done * L, depth, ahead);
            if (width == 2) block<2, BYTES, FRESH>(m, row, done * L, depth, ahead);
            if constexpr (MOST == 4) {
                if (width == 3) block<3, BYTES, FRESH>(m, row, done * L, depth, ahead);
                if (width == 4) block<4, BYTES, FRESH>(m, row, done * L, depth, ahead);
            }
        }
    }
}

}  // namespace product
}  // namespace vfikit
