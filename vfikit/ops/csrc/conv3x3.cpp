// 3x3 convolution of stride 1 by Winograd's F(2 x 2, 3 x 3): 16 products where the definition has 36; that is in
// conv3x3_direct.h. See vfikit/ops/conv3x3.py. The C symbol returns 0, or 1 without memory for scratch space.
//
// Tiles of 4 x 4 pixels, two apart, become 16 coefficients each, and so do the kernels. A block of tiles stays in the
// second-level cache: its coefficients for a slice of the channels, and the sums of all outputs at hand, 16 matrices
// of each. The kernels' coefficients, packed in panels that fit the registers, pass by once a block.
#include "conv3x3_direct.h"
#include "product.h"

namespace vfikit {
namespace conv3x3 {

constexpr int64_t LANES = 16;           // floats of the widest vector: sizes are whole vectors of any instruction set
constexpr int64_t PANEL = 4 * LANES;    // at most
constexpr int64_t DEPTH = 128;          // most channels of a slice
constexpr int64_t OUTPUTS = 256;        // most outputs at hand
constexpr int64_t CACHE = 768 << 10;    // bytes of a block; as much is left for the kernels
constexpr int64_t TAPS = 9;

inline int64_t parts(int64_t n, int64_t most) { return (n + most - 1) / most; }
inline int64_t round_up(int64_t n, int64_t to) { return parts(n, to) * to; }
inline int64_t evenly(int64_t n, int64_t most) { return round_up(parts(n, parts(n, most)), LANES); }

struct Job {
    Shape s;
    const float *input, *weight, *bias;
    float* output;
    bool channels_last;  // of the weights
    float* kernels;      // their coefficients: (slice, coefficient, panel, channel, output)
    int64_t tiles;       // of a block
    int64_t group, first, outputs;  // at hand: these, counted in the group
    int64_t slices() const { return parts(s.group_channels(), DEPTH); }
    int64_t depth() const { return evenly(s.group_channels(), DEPTH); }
    int64_t most_outputs() const { return evenly(s.group_outputs(), OUTPUTS); }
    int64_t padded() const { return round_up(outputs, LANES); }
    int64_t panel() const { return evenly(padded(), PANEL); }
    // From row to row and matrix to matrix; odd numbers of vectors, lest all begin in one set of the cache.
    int64_t tile_step() const { return depth() + LANES; }
    int64_t sum_step() const { return most_outputs() + LANES; }
    int64_t kernels_step() const { return depth() * round_up(padded(), panel()) + LANES; }
    // Numbers of scratch space; the kernels' taps come before there are tiles.
    int64_t patch() const { return 4 * (2 * tiles + LANES) * LANES; }
    int64_t scratch() const {
        const int64_t block = COEFFICIENTS * tiles * (tile_step() + sum_step()) + patch() + OUTPUTS + DEPTH;
        const int64_t taps = TAPS * (depth() + LANES) * LANES;
        return round_up(block > taps ? block : taps, LANES);
    }
};

// Taps of L kernels, vectors over the kernels: (channel, tap).
template <int L>
VFIKIT_INLINE void gather_taps(const Job& job, const float* from, int64_t kernels, int64_t depth, float* taps) {
    typedef Vec<float, L> V;
    const int64_t row = TAPS * job.s.group_channels(), runs = job.channels_last ? TAPS : 1;
    const int64_t length = job.channels_last ? depth : TAPS * depth, step = job.channels_last ? TAPS : 1;
    for (int64_t run = 0; run < runs; ++run)
        for (int64_t i = 0; i < length; i += L) {
            V block[L] = {};
            const float* at = from + run * job.s.group_channels() + i;
            for (int64_t k = 0; k < L && k < kernels; ++k) block[k] = load_some<V>(at + k * row, length - i);
            transpose<L>(block);
            for (int64_t k = 0; k < L; ++k) store(taps + ((i + k) * step + run) * L, block[k]);
        }
}

template <class V>
VFIKIT_INLINE void analyse_taps(V a, V b, V c, V* to) {
    to[0] = a, to[1] = (a + c + b) * 0.5f, to[2] = (a + c - b) * 0.5f, to[3] = c;
}

// Coefficients of the kernels of L outputs, for one slice of the channels.
template <int L>
VFIKIT_INLINE void transform_kernels(const Job& job, int64_t slice, int64_t o, float* taps) {
    typedef Vec<float, L> V;
    const int64_t all = job.s.group_channels(), begin = slice * job.depth(), panel = job.panel();
    const int64_t depth = all - begin < job.depth() ? all - begin : job.depth();
    const int64_t row = job.group * job.s.group_outputs() + job.first + o;
    gather_taps<L>(job, job.weight + row * all * TAPS + begin * (job.channels_last ? 1 : TAPS), job.outputs - o, depth,
                   taps);
    const int64_t step = job.kernels_step();
    float* to = job.kernels + slice * COEFFICIENTS * step + o / panel * panel * job.depth() + o % panel;
    for (int64_t c = 0; c < depth; ++c, taps += TAPS * L, to += panel) {
        V columns[3][4], out[4];
        for (int j = 0; j < 3; ++j)
            analyse_taps(load<V>(taps + j * L), load<V>(taps + (3 + j) * L), load<V>(taps + (6 + j) * L), columns[j]);
        for (int i = 0; i < 4; ++i) {
            analyse_taps(columns[0][i], columns[1][i], columns[2][i], out);
            for (int j = 0; j < 4; ++j) store(to + (4 * i + j) * step, out[j]);
        }
    }
}

template <int BYTES>
VFIKIT_INLINE void kernels_body(const Job& job, int64_t item, float* scratch) {
    constexpr int L = BYTES / sizeof(float);
    const int64_t slice = item % job.slices(), from = item / job.slices() * LANES;
    for (int64_t o = from; o < from + LANES; o += L) transform_kernels<L>(job, slice, o, scratch);
}

// One thread's part of the scratch space.
struct Block {
    int64_t begin, end, rows;
    float *tiles, *sums, *patch, *bias, *zeros;
    Block(const Job& job, int64_t block, float* scratch) {
        rows = job.tiles, begin = block * rows, end = begin + rows < job.s.tiles() ? begin + rows : job.s.tiles();
        tiles = scratch, sums = tiles + COEFFICIENTS * rows * job.tile_step();
        patch = sums + COEFFICIENTS * rows * job.sum_step(), bias = patch + job.patch(), zeros = bias + OUTPUTS;
    }
};

template <int L>
VFIKIT_INLINE void read_tiles(const Job& job, const Block& b, int64_t channel, int64_t depth) {
    const Shape& s = job.s;
    Run run;
    for (int64_t tile = b.begin; tile < b.end; tile += run.count) {
        run = run_at(s, tile, b.end);
        const float* frame = job.input + run.from + channel * s.from.channel;
        float* to = b.tiles + (tile - b.begin) * job.tile_step();
        const int64_t step = b.rows * job.tile_step();
        if (s.from.interleaved()) read_interleaved<L>(s, run, frame, depth, b.zeros, to, job.tile_step(), step);
        else read_planes<L>(s, run, frame, depth, b.patch, to, job.tile_step(), step);
    }
}

// Adds the products of a slice to the sums; the first slice's begin them.
template <int BYTES, bool FRESH>
VFIKIT_INLINE void multiply(const Job& job, const Block& b, int64_t slice, int64_t depth) {
    const int64_t rows = round_up(b.end - b.begin, product::ROWS), padded = job.padded(), panel = job.panel();
    const float* kernels = job.kernels + slice * COEFFICIENTS * job.kernels_step();
    for (int64_t k = 0; k < COEFFICIENTS; ++k, kernels += job.kernels_step())
        for (int64_t o = 0; o < padded; o += panel) {
            const float *here = kernels + o * job.depth(), *next = here + panel * job.depth();
            product::Operands<float> m = {b.tiles + k * b.rows * job.tile_step(), job.tile_step(), 1, here, panel,
                                          b.sums + k * b.rows * job.sum_step() + o, job.sum_step()};
            m.ahead = next, m.ahead_count = panel * depth;
            product::add<BYTES, FRESH>(m, rows, padded - o < panel ? padded - o : panel, depth);
        }
}

template <int L>
VFIKIT_INLINE void write_tiles(const Job& job, const Block& b) {
    const Shape& s = job.s;
    const int64_t first = job.group * s.group_outputs() + job.first;
    for (int64_t o = 0; o < job.padded(); ++o) b.bias[o] = job.bias && o < job.outputs ? job.bias[first + o] : 0.0f;
    Run run;
    for (int64_t tile = b.begin; tile < b.end; tile += run.count) {
        run = run_at(s, tile, b.end);
        float* frame = job.output + run.to + first * s.to.channel;
        const float* sums = b.sums + (tile - b.begin) * job.sum_step();
        const int64_t step = b.rows * job.sum_step();
        if (s.to.interleaved()) write_interleaved<L>(s, run, sums, job.sum_step(), step, b.bias, job.outputs, frame);
        else write_planes<L>(s, run, sums, job.sum_step(), step, b.bias, job.outputs, b.patch, frame);
    }
}

template <int BYTES>
VFIKIT_INLINE void block_body(const Job& job, int64_t block, float* scratch) {
    constexpr int L = BYTES / sizeof(float);
    const Block b(job, block, scratch);
    memset(b.zeros, 0, DEPTH * sizeof(float));
    for (int64_t slice = 0; slice < job.slices(); ++slice) {
        const int64_t begin = slice * job.depth(), left = job.s.group_channels() - begin;
        const int64_t depth = left < job.depth() ? left : job.depth();
        read_tiles<L>(job, b, job.group * job.s.group_channels() + begin, depth);
        if (slice == 0) multiply<BYTES, true>(job, b, slice, depth);
        else multiply<BYTES, false>(job, b, slice, depth);
    }
    write_tiles<L>(job, b);
}

VFIKIT_DISPATCH(kernels_kernel, kernels_body, (const Job& job, int64_t item, float* scratch), (job, item, scratch))
VFIKIT_DISPATCH(block_kernel, block_body, (const Job& job, int64_t block, float* scratch), (job, block, scratch))

inline int forward(Job job, int64_t threads) {
    const Shape& s = job.s;
    const int64_t number = sizeof(float), workers = threads < 1 ? 1 : threads;
    const int64_t most = CACHE / (COEFFICIENTS * (job.tile_step() + job.sum_step()) * number);
    const int64_t blocks = round_up(parts(s.tiles(), most), workers);  // as many for each thread
    job.tiles = round_up(parts(s.tiles(), blocks), product::ROWS);
    job.outputs = job.most_outputs();
    const int64_t scratch = job.scratch();
    const Scratch kernels(job.slices() * COEFFICIENTS * job.kernels_step() * number), work(workers * scratch * number);
    if (!kernels.as<float>() || !work.as<float>()) return 1;
    job.kernels = kernels.as<float>();
    const auto transform = kernels_kernel(), convolve = block_kernel();
    for (job.group = 0; job.group < s.groups; ++job.group)
        for (job.first = 0; job.first < s.group_outputs(); job.first += job.most_outputs()) {
            const int64_t left = s.group_outputs() - job.first;
            job.outputs = left < job.most_outputs() ? left : job.most_outputs();
            parallel(job.slices() * parts(job.outputs, LANES), threads,
                     [&](int64_t i, int thread) { transform(job, i, work.as<float>() + thread * scratch); });
            parallel(parts(s.tiles(), job.tiles), threads,
                     [&](int64_t i, int thread) { convolve(job, i, work.as<float>() + thread * scratch); });
        }
    return 0;
}

}  // namespace conv3x3
}  // namespace vfikit

using namespace vfikit::conv3x3;

// bias may be null. Steps are in elements; either the channels or the columns of a tensor are contiguous. The weights
// (outputs, channels, 3, 3) are contiguous, or with their channels last. `direct`: by the definition, where both tensors
// are planes and the weights contiguous.
VFIKIT_API int vfikit_conv3x3_forward_f32(const float* input, const float* weight, const float* bias, float* output,
                                          int64_t batch, int64_t channels, int64_t frames, int64_t height,
                                          int64_t width, int64_t outputs, int64_t groups, int64_t pad_y, int64_t pad_x,
                                          int64_t from_batch, int64_t from_channel, int64_t from_frame,
                                          int64_t from_row, int64_t from_column, int64_t to_batch, int64_t to_channel,
                                          int64_t to_frame, int64_t to_row, int64_t to_column, int64_t channels_last,
                                          int64_t direct, int64_t threads) {
    const Shape s = {batch, channels, frames, height, width, outputs, groups, pad_y, pad_x,
                     {from_batch, from_channel, from_frame, from_row, from_column},
                     {to_batch, to_channel, to_frame, to_row, to_column}};
    if (direct) return forward_direct({s, input, weight, bias, output, nullptr}, threads);
    return forward(Job{s, input, weight, bias, output, channels_last != 0, nullptr, 0, 0, 0, 0}, threads);
}
