// When a wave can first be in each part of the padded grid, and how long it takes from there to the
// nearest receiver: the eikonal equation |∇time| = slowness, solved for 2×2 cells at once by sweeps
// across the grid in four directions, a whole row or column at a time (Weber, Devir, Bronstein,
// Bronstein and Kimmel, "Parallel algorithms for approximation of distance maps on parametric
// surfaces", 2008). The grid wraps round. One block a solution, held in its shared memory.
//
// Compiled at run time with:
//   Y, X      the padded grid, both even
//   PAD       cells of repeated edges on each side
//   ROUNDS    of four sweeps

#ifndef EMULATED // tests/fwi/emulated.h stands in for these where there is no GPU
#define SHARED(name) extern __shared__ float name[]

__device__ __forceinline__ void block_barrier()
{
    __syncthreads();
}

__device__ __forceinline__ float approximate_root(float x)
{
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
}
#endif

#define ROWS (Y / 2)
#define COLUMNS (X / 2)
#define MAP_COLUMNS ((X - PAD - 1) / 2 - PAD / 2 + 1)

// The time at a place next to one that a straight front passes at `beside`, and aslant of its
// neighbour on the line behind, where the front is at `aslant`; without branches, as this is all that
// the kernel does. At 45 degrees, `earlier` is slowness/√2; beyond, the way is aslant.
__device__ __forceinline__ float passed(float beside, float aslant, float slowness)
{
    const float diagonal = 0.70710678f * slowness, earlier = min(max(beside - aslant, 0.f), diagonal);
    return min(beside, aslant + diagonal) + approximate_root(slowness * slowness - earlier * earlier);
}

extern "C" __global__ void arrivals(
    const float *__restrict__ alpha,       // (n, Y, X)
    const int *__restrict__ source_column, // (shots,)
    float *__restrict__ times,             // (n, shots + 1, ROWS, COLUMNS) steps from each source, and
                                           // to the nearest receiver; row 0 has the sources
    int first_receiver, int last_receiver, // columns
    int row,                               // of sources and receivers
    int shots)
{
    const int map = blockIdx.x / (shots + 1), shot = blockIdx.x % (shots + 1);
    const int first = (shot < shots ? source_column[shot] : first_receiver) / 2;
    const int last = (shot < shots ? source_column[shot] : last_receiver) / 2;
    const int place = threadIdx.x;
    // Slowness is that of the map, outward that of its edges.
    const int first_row = (PAD - row - 1) / 2, last_row = (Y - PAD - 1 - row) / 2; // row ≥ PAD
    const int bottom = (Y - row + 1) / 2; // from there on, places are above the map
    SHARED(time);
    float *const slowness = time + ROWS * COLUMNS; // steps from one place to the next
    const auto slowness_at = [&](int r, int c) -> float & {
        const int across = min(max(c, PAD / 2), (X - PAD - 1) / 2) - PAD / 2;
        const int down = min(max(r < bottom ? r : r - ROWS, first_row), last_row) - first_row;
        return slowness[down * MAP_COLUMNS + across];
    };
    for (int i = place; i < (last_row - first_row + 1) * MAP_COLUMNS; i += blockDim.x) {
        const int y = row + 2 * (i / MAP_COLUMNS + first_row), x = 2 * (i % MAP_COLUMNS + PAD / 2);
        const float *const upper = alpha + ((long long)map * Y + y) * X + x, *const lower = upper + X;
        slowness[i] = 2 / sqrtf(max(max(upper[0], upper[1]), max(lower[0], lower[1])));
    }
    for (int i = place; i < ROWS * COLUMNS; i += blockDim.x)
        time[i] = first <= i && i <= last ? 0 : 1e9f; // on row 0
    block_barrier();

    // From line to line, each thread at its place on them.
    const auto sweep = [&](bool down, int line, int lines, int pitch, int places, int apart, int way) {
        const int before = (place ? place - 1 : places - 1) * apart;
        const int after = (place < places - 1 ? place + 1 : 0) * apart;
        for (int i = 1; i < lines; ++i) {
            const float *const behind = time + line * pitch;
            line += way;
            if (line < 0) line = lines - 1;
            if (line == lines) line = 0;
            if (place < places) {
                const int here = line * pitch + place * apart;
                const float beside = behind[place * apart];
                const float slow = down ? slowness_at(line, place) : slowness_at(place, line);
                const float aslant = min(behind[before], behind[after]);
                time[here] = min(time[here], passed(beside, aslant, slow));
            }
            block_barrier();
        }
    };
    for (int round = 0; round < ROUNDS; ++round) {
        sweep(true, 0, ROWS, COLUMNS, COLUMNS, 1, 1);
        sweep(true, 0, ROWS, COLUMNS, COLUMNS, 1, -1);
        sweep(false, last, COLUMNS, 1, ROWS, COLUMNS, 1);
        sweep(false, first, COLUMNS, 1, ROWS, COLUMNS, -1);
    }

    for (int i = threadIdx.x; i < ROWS * COLUMNS; i += blockDim.x)
        times[(long long)blockIdx.x * ROWS * COLUMNS + i] = time[i];
}
