// Runs `onchip.cu`, or `reach.cu` where ARRIVALS is defined, on a CPU: its threads become contexts
// that take turns, a warp at a time, and give up their turn while they wait. Slow, and one launch at
// a time; test_onchip.py compiles it.
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>
using std::max;
using std::min;

#define EMULATED
#define __global__
#define __device__
#define __forceinline__ inline
#define __maxnreg__(n)
#define CLUSTER
#define SHARED(name) float *const name = blocks[turn_block]

struct Index { int x; };
struct Pair { float x, y; };
struct Gate {
    int due, arrivals, opened;
    long long bytes;
    void look()
    {
        if (arrivals == due && !bytes) arrivals = 0, ++opened;
    }
};
typedef unsigned long long GateBytes;
struct Remote {
    char *base;
    Remote operator+(long long bytes) const { return {base + bytes}; }
};
static Index threadIdx, blockIdx, blockDim;
static std::vector<float *> blocks; // shared memory of the cluster's four blocks
static std::vector<ucontext_t> contexts;
static ucontext_t scheduler;
static int turn_block, threads_of_block;
static int finished;

const long long most_rounds = 300000;
static unsigned drawn()
{
    static unsigned long long state = 1;
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(state >> 33);
}

inline float approximate_inverse(float x) { return 1 / x; }
inline float approximate_root(float x) { return std::sqrt(x); }
inline void fetch_to_cache(const void *) {}
inline bool any_of_warp(bool mine) { return mine; }
inline int cluster_rank() { return turn_block; }
inline void give_up_turn()
{
    const int thread = threadIdx.x, block = turn_block;
    swapcontext(&contexts[block * threads_of_block + thread], &scheduler);
}
struct Barrier {
    int arrived = 0, generation = 0;
    void wait(int due)
    {
        const int mine = generation;
        if (++arrived == due) arrived = 0, ++generation;
        do give_up_turn(); // who came last too, so that a warp goes on as one
        while (generation == mine);
    }
};
static Barrier whole, of_block[4];
inline void cluster_barrier() { whole.wait(4 * threads_of_block); }
inline void block_barrier() { of_block[turn_block].wait(threads_of_block); }
inline Remote remote_address(void *shared, int rank)
{
    return {(char *)blocks[rank] + ((char *)shared - (char *)blocks[turn_block])};
}
// The gates' memory is 8 bytes each: a gate here is an entry of a table, found by its address.
static std::map<void *, Gate> gate_at;
inline void close_gate(GateBytes *gate, int arrivals) { gate_at[gate] = {arrivals, 0, 0, 0}; }
inline void arrive(Remote gate, int bytes)
{
    Gate &its = gate_at.at(gate.base);
    ++its.arrivals, its.bytes += bytes;
    its.look();
}
inline void send(Remote to, Remote gate, float x, float y)
{
    ((float *)to.base)[0] = x, ((float *)to.base)[1] = y;
    Gate &its = gate_at.at(gate.base);
    its.bytes -= 8;
    its.look();
}
inline void send(Remote to, Remote gate, const float *four)
{
    for (int half = 0; half < 2; ++half)
        send(to + 8 * half, gate, four[2 * half], four[2 * half + 1]);
}
inline void pass(GateBytes *gate, int parity)
{
    Gate &its = gate_at.at(gate);
    while (its.opened % 2 == parity) give_up_turn();
}
inline unsigned to_halves(float x, float y)
{
    const _Float16 both[2] = {(_Float16)x, (_Float16)y};
    unsigned bits;
    memcpy(&bits, both, 4);
    return bits;
}
inline Pair from_halves(unsigned bits)
{
    _Float16 both[2];
    memcpy(both, &bits, 4);
    return {(float)both[0], (float)both[1]};
}

static const void *const *given;
static const int *numbers;

#if defined(ARRIVALS)
#include "reach.cu"
const int cluster = 1;

static void call()
{
    arrivals((const float *)given[0], (const int *)given[1], (float *)given[2], numbers[0], numbers[1],
             numbers[2], numbers[3]);
}
#else
#define Gate GateBytes
#include "onchip.cu"
#undef Gate
#ifdef PLAN
const int cluster = 1;

static void call()
{
    plan((const float *)given[0], (const int *)given[1], (const int *)given[2],
         (unsigned char *)given[3], numbers[0], numbers[1], numbers[2]);
}
#else
const int cluster = 4;

static void call()
{
    run((const float *)given[0], (const float *)given[1], (const float *)given[2],
        (const unsigned char *)given[3], (const int *)given[4], (const int *)given[5],
        (const float *)given[6], (float *)given[7], (Kept *)given[8], (const long long *)given[9],
        (const float *)given[10], (Four *)given[11], (float *)given[12], (float *)given[13],
        (float *)given[14], numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5],
        numbers[6], numbers[7]);
}
#endif
#endif

static void one_thread()
{
    call();
    ++finished;
    while (true) give_up_turn();
}

// The kernel's pointers and numbers in its own order; one cluster after another. False if it hangs.
extern "C" bool launch(const void *const *pointers, const int *ints, int all_blocks, int threads, int bytes)
{
    const int stack = 64 * 1024, all = cluster * threads;
    threads_of_block = blockDim.x = threads;
    given = pointers;
    numbers = ints;
    std::vector<char> stacks((size_t)all * stack);
    for (int rank = 0; rank < cluster; ++rank)
        blocks.push_back((float *)aligned_alloc(16, (bytes + 15) & ~15));
    for (int first = 0; first < all_blocks; first += cluster) {
        contexts.assign(all, ucontext_t());
        for (int i = 0; i < all; ++i) {
            getcontext(&contexts[i]);
            contexts[i].uc_stack.ss_sp = &stacks[(size_t)i * stack];
            contexts[i].uc_stack.ss_size = stack;
            contexts[i].uc_link = &scheduler;
            makecontext(&contexts[i], one_thread, 0);
        }
        finished = 0;
        // Some warps at random take turns, beginning anywhere, so that blocks get ahead of each other.
        for (long long round = 0; finished < all; ++round) {
            if (round == most_rounds) return false;
            const unsigned begin = drawn(), taken = drawn();
            for (int w = 0; w < all / 32; ++w) {
                const int warp = (w + begin) % (all / 32);
                if (!(taken >> (warp * 32 / threads) & 1) || drawn() % 4 == 0) continue;
                for (int i = 32 * warp; i < 32 * warp + 32; ++i) {
                    turn_block = i / threads;
                    threadIdx.x = i % threads;
                    blockIdx.x = first + turn_block;
                    swapcontext(&scheduler, &contexts[i]);
                }
            }
        }
    }
    for (float *block : blocks) free(block);
    blocks.clear();
    return true;
}
