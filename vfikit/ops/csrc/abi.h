// What every kernel file shares: exported symbols, threads, vectors and the choice of instruction set at run time.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#define VFIKIT_API extern "C" __attribute__((visibility("default")))
#define VFIKIT_INLINE inline __attribute__((always_inline))

namespace vfikit {

// Runs work(item, thread) for item 0..count-1. One thread never enters OpenMP: a forked process that inherited a pool
// would wait for threads that do not exist.
template <class Work>
void parallel(int64_t count, int64_t threads, const Work& work) {
    if (threads <= 1 || count <= 1) {
        for (int64_t item = 0; item < count; ++item) work(item, 0);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(dynamic, 1)
    for (int64_t item = 0; item < count; ++item) work(item, omp_get_thread_num());
#else
    for (int64_t item = 0; item < count; ++item) work(item, 0);
#endif
}

// While it stands, subnormal numbers count as zero in this thread: arithmetic on them is slow, and the softmax of a
// trained network makes many (adacof on those of a small net: 45 ms, without them 18).
class FlushSubnormals {
  public:
#if defined(__x86_64__)
    FlushSubnormals() : state_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(state_ | 0x8040u); }
    ~FlushSubnormals() { __builtin_ia32_ldmxcsr(state_); }
    FlushSubnormals(const FlushSubnormals&) = delete;
    FlushSubnormals& operator=(const FlushSubnormals&) = delete;

  private:
    unsigned state_;
#else
    FlushSubnormals() {}
#endif
};

// Asks for huge pages in memory that is about to be written or read at random: a fresh 100 MB output otherwise costs
// more in page faults than in arithmetic. A hint: nothing happens where the system does not offer it.
inline void advise(void* data, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    constexpr uintptr_t page = uintptr_t{2} << 20;
    const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / page * page;
    if (data && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

struct Block {
    void* data;
    int64_t bytes;
};

// Memory that a call is done with, for later calls: fresh pages, which the system clears one by one, take a fifth of
// some calls. At most SLOTS blocks, none larger than MOST; a thread that would have to wait for another does without.
class Kept {
  public:
    // The smallest block that holds `bytes`, or none.
    static Block take(int64_t bytes) {
        Block* best = nullptr;
        const Turn turn;
        for (Block& block : blocks_)
            if (turn.ours && block.data && block.bytes >= bytes && (!best || block.bytes < best->bytes)) best = &block;
        return best ? std::exchange(*best, {}) : Block{};
    }

    // First in line: those before the first gap move on by one, and the last of too many goes.
    static void put(Block block) {
        const Turn turn;
        if (turn.ours && block.bytes <= MOST)
            for (Block* held = blocks_; block.data && held < blocks_ + SLOTS; ++held) std::swap(*held, block);
        free(block.data);
    }

  private:
    static constexpr int SLOTS = 4;
    static constexpr int64_t MOST = int64_t{32} << 20;
    static inline Block blocks_[SLOTS] = {};
    static inline std::atomic<bool> taken_{false};
    struct Turn {
        const bool ours = !taken_.exchange(true, std::memory_order_acquire);
        ~Turn() {
            if (ours) taken_.store(false, std::memory_order_release);
        }
    };
};

// Scratch memory; null where there is none.
class Scratch {
  public:
    explicit Scratch(int64_t bytes) : block_(Kept::take(bytes)) {
        if (block_.data) return;
        block_.bytes = bytes > 0 ? bytes : 64;
        if (posix_memalign(&block_.data, bytes >= (int64_t{4} << 20) ? size_t{2} << 20 : 64, block_.bytes))
            block_.data = nullptr;
        advise(block_.data, block_.bytes);
    }
    ~Scratch() { Kept::put(block_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    template <class T>
    T* as() const { return static_cast<T*>(block_.data); }

  private:
    Block block_;
};

// Three compilations of one body, chosen once by what the processor has. `body` is a template <int BYTES>, BYTES the
// width of a vector register, and always inlined; `name()` returns the pointer. Flags rather than arch=, which would
// forbid the inlining.
#if defined(__x86_64__)
#define VFIKIT_DISPATCH(name, body, parameters, arguments)                                                      \
    inline void name##_base parameters { body<16> arguments; }                                                  \
    __attribute__((target("avx2,fma"))) inline void name##_avx2 parameters { body<32> arguments; }              \
    __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq"))) inline void name##_avx512 parameters { \
        body<64> arguments;                                                                                     \
    }                                                                                                           \
    inline auto name() {                                                                                        \
        const int level = vfikit::instruction_set();                                                            \
        return level == 2 ? &name##_avx512 : level == 1 ? &name##_avx2 : &name##_base;                          \
    }
#else
#define VFIKIT_DISPATCH(name, body, parameters, arguments)                                                      \
    inline void name##_base parameters { body<16> arguments; }                                                  \
    inline auto name() { return &name##_base; }
#endif

// 2: AVX-512, 1: AVX2, 0: the baseline. VFIKIT_INSTRUCTION_SET lowers it, so that tests reach every compilation.
inline int instruction_set() {
    int level = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) level = 1;
    if (level && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        level = 2;
#endif
    const char* most = getenv("VFIKIT_INSTRUCTION_SET");
    if (most && *most >= '0' && *most - '0' < level) level = *most - '0';
    return level;
}

}  // namespace vfikit
