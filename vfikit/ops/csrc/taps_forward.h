// Sampling at free taps forward, float32. Memory bounds it, so the order of things is that of the caches: a chunk of
// pixels takes all its taps while the part of the frame that they read stays in L1, and meanwhile the maps of a chunk
// soon to come are fetched into L2, evenly: F * F * 3 map streams defeat the processor's own prefetcher, and fetches in a
// row get lost.
#pragma once

#include <unistd.h>

#include "taps_layout.h"

namespace vfikit {
namespace taps {

constexpr int CHUNK = 128;  // output pixels, flat, at most: half as many where L1 is small
constexpr int AHEAD = 128;  // how far maps are fetched, in pixels
constexpr int GROUP = 5;    // taps
constexpr double CACHE = 32 << 20;  // bytes; maps of more sweep the caches

// Running sums of a pixel: for few channels both neighbours of a row side by side, one load each.
template <int B>
constexpr int WIDTH = B == 1 ? 4 : (B <= 4 ? 8 : B);

// In vectors no wider than a register, except where the two halves share a factor's vector.
template <int BYTES, int B>
constexpr int LANES = B >= 8 && BYTES / 4 < B ? BYTES / 4 : WIDTH<B>;
template <int BYTES, int B>
struct Sum {
    Vec<float, LANES<BYTES, B>> part[WIDTH<B> / LANES<BYTES, B>];
};

// Pixels whose running sums are in registers together.
template <int BYTES, int B>
constexpr int PIXELS = BYTES == 64 ? 8 : (B >= 16 ? 2 : (BYTES == 32 && B < 8 ? 8 : 4));

// Where one tap reads for a chunk of SIZE pixels: the packed upper left neighbour (its first float), the four factors.
template <int SIZE>
struct alignas(64) Reads {
    float above_left[SIZE], above_right[SIZE], below_left[SIZE], below_right[SIZE];
    int32_t index[SIZE];
};

// The two axes and the places of a chunk's pixels.
template <int BYTES, int SIZE>
struct Grid : Axes<BYTES> {
    alignas(64) int32_t row[SIZE], column[SIZE];
    explicit Grid(const Shape& s) : Axes<BYTES>(s) {}
};

// `ahead` is where the tap's maps to be fetched meanwhile begin. Here offset_j and, on the taps' diagonal, the maps of F
// rows are; `gather` fetches the other two.
template <class Op, int BYTES, int B, bool WHOLE, int SIZE>
VFIKIT_INLINE void prepare_chunk(const Job& job, const Grid<BYTES, SIZE>& grid, int64_t tap, int64_t start, int count,
                                 int64_t ahead, Reads<SIZE>& reads) {
    constexpr int N = BYTES / 4;
    typedef Vec<float, N> V;
    typedef Vec<int32_t, N> I;
    const Shape& s = job.s;
    const int64_t row = tap / s.kernel, column = tap % s.kernel;
    const float *offset_i = job.offset_i + job.at(tap, start), *offset_j = job.offset_j + job.at(tap, start);
    const int32_t i = static_cast<int32_t>(row * s.dilation), j = static_cast<int32_t>(column * s.dilation);
    const int32_t pitch = static_cast<int32_t>(s.pitch() * B);
    for (int p = 0; p < count; p += N) {
        const int left = WHOLE ? N : count - p;
        const bool line = N == 16 || p % 16 == 0;  // a new one
        if (line) fetch(job.offset_j + ahead + p);
        if (line && Op::SEPARABLE && row == column) {
            const int64_t few = row * s.pixels() + start + AHEAD + p;
            fetch(job.vertical + few), fetch(job.horizontal + few);
        }
        V down, right;
        const V moved_i = load_some<V>(offset_i + p, left), moved_j = load_some<V>(offset_j + p, left);
        const I y = Op::template split<false>(grid.rows, moved_i, load<I>(grid.row + p) + i, down);
        const I x = Op::template split<false>(grid.columns, moved_j, load<I>(grid.column + p) + j, right);
        store(reads.index + p, y * pitch + x * B);
        V above, below, first, second;
        divide(Op::template weight<V>(job, row, column, start + p, left), down, above, below);
        divide(above, right, first, second);
        store(reads.above_left + p, first), store(reads.above_right + p, second);
        divide(below, right, first, second);
        store(reads.below_left + p, first), store(reads.below_right + p, second);
    }
}

// Pixel K of those from `reads` on.
template <int K, int BYTES, int B, int SIZE>
VFIKIT_INLINE void read(const float* above, const float* below, const Reads<SIZE>& r, int p, Sum<BYTES, B>& sum) {
    constexpr int L = LANES<BYTES, B>;
    typedef Vec<float, L> V;
    int64_t both;  // two indices a load
    __builtin_memcpy(&both, r.index + p + K / 2 * 2, 8);
    const int64_t index = K % 2 ? both >> 32 : static_cast<int64_t>(static_cast<int32_t>(both));
    above += index, below += index;
    if constexpr (B == 1) {
        const V factors = {r.above_left[p + K], r.above_right[p + K], r.below_left[p + K], r.below_right[p + K]};
        sum.part[0] += V{above[0], above[1], below[0], below[1]} * factors;
    } else if constexpr (B <= 4) {
        constexpr int N = PIXELS<BYTES, B>, x = K, z = N + K, y = B == 3 ? z : x;
        typedef Vec<float, N> P;
        const P above_left = load<P>(r.above_left + p), above_right = load<P>(r.above_right + p);
        const P below_left = load<P>(r.below_left + p), below_right = load<P>(r.below_right + p);
        sum.part[0] += load<V>(above) * VFIKIT_SHUFFLE(8, above_left, above_right, x, x, x, y, z, z, z, z);
        sum.part[0] += load<V>(below) * VFIKIT_SHUFFLE(8, below_left, below_right, x, x, x, y, z, z, z, z);
    } else {
        for (int i = 0; i < B / L; ++i) {
            V& part = sum.part[i];
            part += load<V>(above + i * L) * r.above_left[p + K] + load<V>(above + i * L + B) * r.above_right[p + K];
            part += load<V>(below + i * L) * r.below_left[p + K] + load<V>(below + i * L + B) * r.below_right[p + K];
        }
    }
}

template <int BYTES, int B, int SIZE, int... K>
VFIKIT_INLINE void read_all(const float* above, const float* below, const Reads<SIZE>& reads, int p,
                            Sum<BYTES, B>* sum, std::integer_sequence<int, K...>) {
    (read<K, BYTES, B>(above, below, reads, p, sum[K]), ...);
}

// G taps of a chunk.
template <class Op, int BYTES, int B, int G, bool WHOLE, int SIZE>
VFIKIT_INLINE void gather(const Job& job, const Grid<BYTES, SIZE>& grid, int64_t tap, int64_t start, int count,
                          int64_t ahead, float* sums) {
    constexpr int N = PIXELS<BYTES, B>;
    typedef Sum<BYTES, B> V;
    const int64_t step = job.step, row = job.s.pitch() * B;
    const float *above = job.packed + job.s.base() * B, *below = above + row;  // pixels (0, 0) and (1, 0)
    Reads<SIZE> reads[G];
    for (int g = 0; g < G; ++g)
        prepare_chunk<Op, BYTES, B, WHOLE>(job, grid, tap + g, start, count, ahead + g * step, reads[g]);
    for (int p = 0; p < count; p += N) {
        V sum[N];
        for (int k = 0; k < N; ++k) sum[k] = tap == 0 ? V{} : load<V>(sums + (p + k) * WIDTH<B>);
#pragma GCC unroll 1
        for (int g = 0; g < G; ++g) {
            if (p % 16 == 0) fetch(job.weight + ahead + g * step + p);
            if (p % 16 == 16 - N) fetch(job.offset_i + ahead + g * step + p);
            read_all<BYTES, B>(above, below, reads[g], p, sum, std::make_integer_sequence<int, N>());
        }
        for (int k = 0; k < N; ++k) store(sums + (p + k) * WIDTH<B>, sum[k]);
    }
}

// `past`: the output goes past the caches, which the maps sweep before it is read.
template <int BYTES, int B, int SIZE>
VFIKIT_INLINE void finish(const Job& job, int64_t start, int count, bool past, const float* sums) {
    for (int b = 0; b < B && job.first + b < job.s.channels; ++b) {
        float* to = job.output + (job.first + b) * job.s.pixels() + start;
        const float* from = sums + b;
        alignas(64) float line[SIZE];
        for (int p = 0; p < count; ++p)
            if constexpr (B == 1) line[p] = (from[4 * p] + from[4 * p + 1]) + (from[4 * p + 2] + from[4 * p + 3]);
            else if constexpr (B <= 4) line[p] = from[8 * p] + from[8 * p + B];
            else line[p] = from[B * p];
        if (past && count == SIZE && reinterpret_cast<uintptr_t>(to) % 64 == 0)
            for (int p = 0; p < SIZE; p += BYTES / 4) stream(to + p, load<Vec<float, BYTES / 4>>(line + p));
        else
            for (int p = 0; p < count; ++p) to[p] = line[p];
    }
}

// Output pixels [start, end), `start` a multiple of CHUNK, SIZE at once.
template <class Op, int BYTES, int B, int SIZE>
VFIKIT_INLINE void forward_part(const Job& job, int64_t start, int64_t end) {
    const Shape& s = job.s;
    Job chunk = job;
    alignas(64) float sums[SIZE * WIDTH<B>];
    Grid<BYTES, SIZE> grid(s);
    const bool past = 12.0 * s.batch * s.taps() * s.pixels() >= CACHE;
    for (int64_t at = start; at < end; at += SIZE) {
        const int count = static_cast<int>(end - at < SIZE ? end - at : SIZE);
        locate<SIZE>(s, at, count, grid.row, grid.column);
        if (job.planes) lay_out(job, at, count, SIZE, chunk);
        int64_t t = 0;
        for (; t + GROUP <= s.taps(); t += GROUP) {
            const int64_t ahead = job.planes ? 0 : t * s.pixels() + at + AHEAD;
            if (count == SIZE) gather<Op, BYTES, B, GROUP, true>(chunk, grid, t, at, SIZE, ahead, sums);
            else gather<Op, BYTES, B, GROUP, false>(chunk, grid, t, at, count, ahead, sums);
        }
        for (; t < s.taps(); ++t) {
            const int64_t ahead = job.planes ? 0 : t * s.pixels() + at + AHEAD;
            gather<Op, BYTES, B, 1, false>(chunk, grid, t, at, count, ahead, sums);
        }
        finish<BYTES, B, SIZE>(job, at, count, past, sums);
    }
    if (past) arrive();
}

// Whether chunks take half as many pixels: what they read and prepare is to stay in L1, which has 32 KiB or 48.
// VFIKIT_CHUNK says it instead, so that tests reach both.
inline bool half_chunks() {
    const char* pixels = getenv("VFIKIT_CHUNK");
    if (pixels && *pixels) return atoi(pixels) < CHUNK;
#ifdef _SC_LEVEL1_DCACHE_SIZE
    static const bool small = sysconf(_SC_LEVEL1_DCACHE_SIZE) < 48 << 10;
    return small;
#else
    return true;
#endif
}

// forward_part of an op for each block of channels, and `forward_kernel(block)`, which picks one.
#define VFIKIT_FORWARD_OF(Op, B)                                                                                  \
    template <int BYTES>                                                                                          \
    VFIKIT_INLINE void forward_##B(const Job& job, int64_t start, int64_t end) {                                  \
        if (half_chunks()) forward_part<Op, BYTES, B, CHUNK / 2>(job, start, end);                                \
        else forward_part<Op, BYTES, B, CHUNK>(job, start, end);                                                  \
    }                                                                                                             \
    VFIKIT_DISPATCH(forward_block_##B, forward_##B, (const Job& job, int64_t start, int64_t end), (job, start, end))
#define VFIKIT_FORWARD(Op)                                                                                        \
    VFIKIT_FORWARD_OF(Op, 1)                                                                                      \
    VFIKIT_FORWARD_OF(Op, 3)                                                                                      \
    VFIKIT_FORWARD_OF(Op, 4)                                                                                      \
    VFIKIT_FORWARD_OF(Op, 8)                                                                                      \
    VFIKIT_FORWARD_OF(Op, 16)                                                                                     \
    inline ForwardKernel forward_kernel(int64_t block) {                                                          \
        return block == 1   ? forward_block_1()                                                                   \
               : block == 3 ? forward_block_3()                                                                   \
               : block == 4 ? forward_block_4()                                                                   \
               : block == 8 ? forward_block_8()                                                                   \
                            : forward_block_16();                                                                 \
    }
typedef void (*ForwardKernel)(const Job& job, int64_t start, int64_t end);

// How many channels to pack at once: all that is left, within 4.5 % of what the call reads and writes, and at least
// four (which stays under 5 % from F = 5 on, three channels taking three).
inline int64_t channels_at_once(const Shape& s, int64_t left, int64_t passes) {
    if (s.packed() > (int64_t{1} << 27)) return left < 4 ? (left == 2 ? 3 : left) : 4;  // int32_t counts floats
    const double room = 0.045 * s.batch * passes * (3.0 * s.taps() + 2.0 * s.channels) * s.pixels() / s.packed();
    for (int64_t block : {1, 3, 4, 8, 16})
        if (left <= block && (block <= 4 || block <= room)) return block;
    return room >= 16 ? 16 : room >= 8 ? 8 : 4;
}

// How many pixels a thread takes at once, in whole chunks: many, as nothing has fetched the first ones' maps, but enough
// parts for all threads.
inline int64_t part_size(const Shape& s, int64_t threads) {
    const int64_t chunks = s.pixels() / (8 * threads * CHUNK);
    return CHUNK * (chunks < 4 ? 4 : chunks < 256 ? chunks : 256);
}

// `last`: the taps of a pixel lie side by side in the maps.
template <class Op>
int forward(const Job& whole, const float* input, ForwardKernel (*choose)(int64_t block), int64_t threads,
            bool last = false) {
    const Shape& s = whole.s;
    const int64_t most = channels_at_once(s, s.channels, 1), part = part_size(s, threads);
    Scratch scratch(s.packed() * most * sizeof(float) + 64);
    Scratch planes(last ? threads * planes_size(s, CHUNK, 3) * sizeof(float) : 0);
    float* packed = scratch.as<float>();
    if (!packed || !planes.as<float>()) return 1;
    advise(whole.output, s.batch * s.channels * s.pixels() * sizeof(float));
    for (int64_t n = 0; n < s.batch; ++n) {
        Job job = whole.item<Op>(n);
        job.packed = packed;
        const float* frame = input + n * s.channels * s.plane();
        for (int64_t block; job.first < s.channels; job.first += block) {
            block = channels_at_once(s, s.channels - job.first, 1);
            if (block == 1) pack<Op, 1>(s, frame, job.first, threads, packed);
            if (block == 3) pack<Op, 3>(s, frame, job.first, threads, packed);
            if (block == 4) pack<Op, 4>(s, frame, job.first, threads, packed);
            if (block == 8) pack<Op, 8>(s, frame, job.first, threads, packed);
            if (block == 16) pack<Op, 16>(s, frame, job.first, threads, packed);
            const ForwardKernel kernel = choose(block);
            parallel((s.pixels() + part - 1) / part, threads, [&](int64_t item, int64_t thread) {
                const FlushSubnormals flush;
                Job own = job;
                if (last) own.planes = planes.as<float>() + thread * planes_size(s, CHUNK, 3);
                kernel(own, item * part, (item + 1) * part < s.pixels() ? (item + 1) * part : s.pixels());
            });
        }
    }
    return 0;
}

}  // namespace taps
}  // namespace vfikit
