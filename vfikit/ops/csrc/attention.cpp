// Attention without masks on CPUs; vfikit/ops/attention.py has the definition. Logits lie with the queries side by side,
// so that softmax is a matter of whole vectors, and both products take keys and values as they come: a tile of queries
// sees blocks of keys in turn and keeps its greatest logits and its sums (arXiv:2205.14135). The C symbol returns 0, or 1
// without memory for scratch space.
#include "product.h"

namespace vfikit {
namespace attention {

constexpr int64_t KEYS = 96;  // of a block, whose logits stay in the caches: a multiple of product::ROWS
constexpr int64_t TILES = 4;  // of queries that a block of keys and values is laid out for

template <int BYTES>
constexpr int VECTORS = BYTES == 64 ? 4 : 2;  // of queries in a tile, as many as a block of product.h is wide
template <int BYTES>
constexpr int TILE = VECTORS<BYTES> * BYTES / 4;
constexpr int64_t MOST_TILE = TILE<64>;

inline int64_t round_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

struct Steps {
    int64_t batch, head, token;
    int64_t at(int64_t n, int64_t h) const { return n * batch + h * head; }
};

struct Job {
    const float *q, *k, *v;
    float* output;
    int64_t batch, heads, queries, keys, width;
    Steps from_q, from_k, from_v, to;
    float scale;  // of the logits, for powers of two
    int64_t padded() const { return round_up(width, product::ROWS); }
    // Of a tile: its queries, greatest logits and sums.
    int64_t tile_size() const { return MOST_TILE * (width + padded() + 2); }
    // The tiles; a block's logits, keys and values.
    int64_t scratch() const { return TILES * tile_size() + KEYS * (MOST_TILE + width + padded()); }
};

// 2^x for x <= 0, within a rounding error or two.
template <class V>
VFIKIT_INLINE V power_of_two(V x) {
    typedef Vec<int32_t, sizeof(V) / 4> I;
    const V least = -126.0f - V{}, shift = 12582912.0f - V{};  // 1.5 * 2^23: the sum's last bits are the whole number
    x = least > x ? least : x;  // NaN stays
    const V whole = x + shift, f = x - (whole - shift);
    V p = 1.3390863314270973e-3f * f + 9.676031768321991e-3f;
    p = p * f + 5.5503569543361664e-2f;
    p = p * f + 2.402210682630539e-1f;
    p = p * f + 6.931471824645996e-1f;
    p = p * f + 1.0000001192092896f;
    I bits, exponent;
    __builtin_memcpy(&bits, &p, sizeof bits);
    __builtin_memcpy(&exponent, &whole, sizeof bits);
    bits += exponent << 23;
    __builtin_memcpy(&p, &bits, sizeof p);
    return p;
}

// Rows of `width` numbers, `step` apart, to rows of `padded`, and zeros after them.
VFIKIT_INLINE void copy_rows(const float* from, int64_t step, int64_t count, int64_t width, float* to, int64_t padded) {
    for (int64_t row = 0; row < count; ++row, from += step, to += padded) {
        memcpy(to, from, width * sizeof(float));
        for (int64_t d = width; d < padded; ++d) to[d] = 0;
    }
}

// The first `count` of a tile's queries as columns, scaled; no sums yet.
template <int BYTES>
VFIKIT_INLINE void begin_tile(const Job& job, const float* q, int64_t count, float* tile) {
    constexpr int Q = TILE<BYTES>;
    for (int64_t d = 0; d < job.width; ++d)
        for (int64_t i = 0; i < Q; ++i) tile[d * Q + i] = i < count ? job.scale * q[i * job.from_q.token + d] : 0;
    float* greatest = tile + job.width * Q;
    for (int64_t i = 0; i < Q; ++i) greatest[i] = -__builtin_inff();
    memset(greatest + Q, 0, (1 + job.padded()) * Q * sizeof(float));
}

template <int BYTES>
VFIKIT_INLINE void add_block(const Job& job, const float* keys, const float* values, int64_t block, float* tile,
                             float* logits) {
    constexpr int L = BYTES / sizeof(float), Q = TILE<BYTES>;
    typedef Vec<float, L> V;
    float *greatest = tile + job.width * Q, *totals = greatest + Q, *sums = totals + Q;
    product::add<BYTES, true>(product::Operands<float>{keys, job.width, 1, tile, Q, logits, Q},
                              round_up(block, product::ROWS), Q, job.width);
    for (int j = 0; j < Q; j += L) {
        const V before = load<V>(greatest + j);
        V most = before;
        for (int64_t k = 0; k < block; ++k) {
            const V logit = load<V>(logits + k * Q + j);
            most = logit > most ? logit : most;
        }
        const V change = power_of_two(before - most);
        V total = load<V>(totals + j) * change;
        for (int64_t k = 0; k < block; ++k) {
            const V weight = power_of_two(load<V>(logits + k * Q + j) - most);
            store(logits + k * Q + j, weight);
            total += weight;
        }
        for (int64_t d = 0; d < job.width; ++d) store(sums + d * Q + j, load<V>(sums + d * Q + j) * change);
        store(greatest + j, most), store(totals + j, total);
    }
    product::add<BYTES>(product::Operands<float>{values, 1, job.padded(), logits, Q, sums, Q}, job.padded(), Q, block);
}

template <int BYTES>
VFIKIT_INLINE void finish_tile(const Job& job, const float* tile, int64_t count, float* to) {
    constexpr int Q = TILE<BYTES>;
    const float *totals = tile + (job.width + 1) * Q, *sums = totals + Q;
    for (int64_t i = 0; i < count; ++i, to += job.to.token) {
        const float factor = 1 / totals[i];
        for (int64_t d = 0; d < job.width; ++d) to[d] = sums[d * Q + i] * factor;
    }
}

template <int BYTES>
VFIKIT_INLINE void part_body(const Job& job, int64_t part, float* scratch) {
    constexpr int Q = TILE<BYTES>;
    const int64_t parts = (job.queries + TILES * Q - 1) / (TILES * Q), n = part / parts / job.heads;
    const int64_t h = part / parts % job.heads, first = part % parts * TILES * Q, left = job.queries - first;
    const int64_t count = left < TILES * Q ? left : TILES * Q;
    const float *k = job.k + job.from_k.at(n, h), *v = job.v + job.from_v.at(n, h);
    float *logits = scratch + TILES * job.tile_size(), *keys = logits + KEYS * Q, *values = keys + KEYS * job.width;
    const float* q = job.q + job.from_q.at(n, h) + first * job.from_q.token;
    float* to = job.output + job.to.at(n, h) + first * job.to.token;
    for (int64_t i = 0; i < count; i += Q)
        begin_tile<BYTES>(job, q + i * job.from_q.token, count - i, scratch + i / Q * job.tile_size());
    for (int64_t at = 0; at < job.keys; at += KEYS) {
        const int64_t block = job.keys - at < KEYS ? job.keys - at : KEYS;
        copy_rows(k + at * job.from_k.token, job.from_k.token, block, job.width, keys, job.width);
        memset(keys + block * job.width, 0, (KEYS - block) * job.width * sizeof(float));
        copy_rows(v + at * job.from_v.token, job.from_v.token, block, job.width, values, job.padded());
        for (int64_t i = 0; i < count; i += Q)
            add_block<BYTES>(job, keys, values, block, scratch + i / Q * job.tile_size(), logits);
    }
    for (int64_t i = 0; i < count; i += Q)
        finish_tile<BYTES>(job, scratch + i / Q * job.tile_size(), count - i < Q ? count - i : Q, to + i * job.to.token);
}
VFIKIT_DISPATCH(part_kernel, part_body, (const Job& job, int64_t part, float* scratch), (job, part, scratch))

}  // namespace attention
}  // namespace vfikit

using namespace vfikit::attention;

// (N, heads, tokens, width) each; steps are in elements, the width is contiguous.
VFIKIT_API int vfikit_attention_forward_f32(const float* q, const float* k, const float* v, float* output, double scale,
                                            int64_t batch, int64_t heads, int64_t queries, int64_t keys, int64_t width,
                                            int64_t q_batch, int64_t q_head, int64_t q_token, int64_t k_batch,
                                            int64_t k_head, int64_t k_token, int64_t v_batch, int64_t v_head,
                                            int64_t v_token, int64_t to_batch, int64_t to_head, int64_t to_token,
                                            int64_t threads) {
    const float base = static_cast<float>(1.4426950408889634 * scale);
    const Job job{q, k, v, output, batch, heads, queries, keys, width, {q_batch, q_head, q_token},
                  {k_batch, k_head, k_token}, {v_batch, v_head, v_token}, {to_batch, to_head, to_token}, base};
    const int level = vfikit::instruction_set();
    const int64_t size = TILES * (level == 2 ? TILE<64> : level == 1 ? TILE<32> : TILE<16>);
    const vfikit::Scratch scratch(threads * job.scratch() * sizeof(float));
    if (!scratch.as<float>()) return 1;
    const auto kernel = part_kernel();
    vfikit::parallel(batch * heads * ((queries + size - 1) / size), threads, [&](int64_t part, int64_t thread) {
        kernel(job, part, scratch.as<float>() + thread * job.scratch());
    });
    return 0;
}
