// The sponge scheme with a whole shot held on chip: one launch runs all steps of many shots.
//
// Four thread blocks, a cluster, hold the field of one shot in their shared memories, a quadrant
// each, and exchange only the two outermost cells of every side. The padded grid wraps round, so it
// may be cut anywhere: it is cut at the source's column, and at or below its row, where that gives
// the upper and the lower quadrants as much to do. Rows and columns of every quadrant count away
// from the cuts, so that all four run the same code, the neighbour across a cut holds its mirror
// image, and the cells that a wave can have reached are a corner of each quadrant. That corner is
// dealt to quarters of warps anew every few steps. README.md beside this file tells the rest.
//
// Compiled at run time with:
//   Y, X                  the padded grid, both even
//   WARPS, REGISTERS      of a block, and of a thread
//   HOLD                  steps until the work is dealt to the warps anew
//   CENTRE, NEAR, FAR     the Laplacian's weights
//   LEAD, LAG             steps by which cells are awake before a wave arrives, and longer than one
//                         from there can be heard
//   KEEP, ADJOINT, FIELDS 1 for the kernel that keeps what the gradient needs, for the adjoint, and for
//                         the one that writes the fields of one map's shots every few steps

// Rows and columns of the larger quadrants; the others have the rest.
#define DOWN (2 * ((Y + 3) / 4))
#define RIGHT (4 * ((X + 7) / 8))
#define THREADS (32 * WARPS)
// Eight threads work on 32 columns, four a thread: their trips to shared memory are 128 bytes in a row.
#define UNITS (THREADS / 8)
#define BLOCKS ((RIGHT + 31) / 32)
// A quadrant in shared memory has two more cells on each side; those on the left of a row lie behind
// those on the right of the row before, so that columns 0, 4, 8 … are at multiples of 16 bytes.
#define PITCH (RIGHT + 4)
#define PLANE ((DOWN + 4) * PITCH + 4)
#define AT(row, column) (((row) + 2) * PITCH + (column) + 4)

#ifndef EMULATED // tests/fwi/emulated.h stands in for these where there is no GPU
#define SHARED(name) extern __shared__ float name[]
#define CLUSTER __cluster_dims__(4, 1, 1)
struct Pair { float x, y; };
typedef unsigned Remote; // an address in another block's shared memory
typedef unsigned long long Gate;

__device__ __forceinline__ int cluster_rank()
{
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ void cluster_barrier()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;"
                 ::: "memory");
}

__device__ __forceinline__ void block_barrier()
{
    __syncthreads();
}

__device__ __forceinline__ bool any_of_warp(bool mine)
{
    return __any_sync(0xffffffff, mine);
}

__device__ __forceinline__ unsigned shared_address(void *shared)
{
    return (unsigned)__cvta_generic_to_shared(shared);
}

__device__ __forceinline__ Remote remote_address(void *shared, int rank)
{
    unsigned its;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(its) : "r"(shared_address(shared)), "r"(rank));
    return its;
}

// A gate opens for a step when all who were announced have arrived and all they sent is there. That
// costs less than a barrier of the cluster, which waits until all that anyone wrote is everywhere.
__device__ __forceinline__ void close_gate(Gate *gate, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n fence.mbarrier_init.release.cluster;"
                 :: "r"(shared_address(gate)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void arrive(Remote gate, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cluster.b64 _, [%0], %1;"
                 :: "r"(gate), "r"(bytes) : "memory");
}

__device__ __forceinline__ void pass(Gate *gate, int parity)
{
    unsigned open;
    do {
        asm volatile("{.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;}"
                     : "=r"(open) : "r"(shared_address(gate)), "r"(parity) : "memory");
    } while (!open);
}

__device__ __forceinline__ void send(Remote to, Remote gate, float x, float y)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%2, %3}, [%1];"
                 :: "r"(to), "r"(gate), "f"(x), "f"(y));
}

__device__ __forceinline__ void send(Remote to, Remote gate, const float *four)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5}, [%1];"
                 :: "r"(to), "r"(gate), "f"(four[0]), "f"(four[1]), "f"(four[2]), "f"(four[3]));
}

__device__ __forceinline__ float approximate_inverse(float x)
{
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
}

__device__ __forceinline__ void fetch_to_cache(const void *global)
{
    asm volatile("prefetch.global.L2 [%0];" :: "l"(global));
}

__device__ __forceinline__ unsigned to_halves(float x, float y)
{
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(both) : "f"(x), "f"(y));
    return both;
}

__device__ __forceinline__ Pair from_halves(unsigned both)
{
    Pair pair;
    asm("{.reg .f16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
        : "=f"(pair.x), "=f"(pair.y) : "r"(both));
    return pair;
}
#endif

struct alignas(8) Two { float at[2]; };        // neighbouring columns of a field
struct alignas(16) Four { float at[4]; };
struct alignas(16) Kept { unsigned at[4]; };   // of four columns: Laplacian and damped change, as halves
struct alignas(8) Line { float keep; int alpha; }; // of a row: 1 − κ of inner columns, bytes to α
// What two rows of four columns need but the rows that have been read before.
struct Around { Four down2[2], old[2]; Two west[2], east[2], a[2][2]; Line line[2]; };
// Of HOLD steps: how many rows of each block of columns are worked on, the unit of eight threads that
// begins each, the rows of a unit, and how many rows the history holds of the steps before.
struct Plan { int before; unsigned char rows[BLOCKS], begin[BLOCKS], share; };

// A quadrant, and where its rows and columns lie on the padded grid.
struct Quadrant {
    int left, up, column_cut, row_cut, ny, nx;

    __device__ __forceinline__ Quadrant(int rank, int column_cut, int row_cut)
        : left(rank & 1), up(rank >> 1), column_cut(column_cut), row_cut(row_cut),
          ny(up ? Y - DOWN : DOWN), nx(left ? X - RIGHT : RIGHT) {}
    __device__ __forceinline__ int y(int r) const { return (up ? row_cut - 1 - r + Y : row_cut + r) % Y; }
    __device__ __forceinline__ int x(int c) const { return (left ? column_cut - 1 - c + X : column_cut + c) % X; }
};

__device__ __forceinline__ Two &two(float *shared, int at)
{
    return *(Two *)(shared + at);
}

__device__ __forceinline__ Four &four(float *shared, int at)
{
    return *(Four *)(shared + at);
}

// How many rows of each block of 32 columns are worked on in each HOLD steps: all up to the last that a
// wave can have reached and from which it can still be heard. One block of threads a quadrant.
extern "C" __global__ void plan(
    const float *__restrict__ times,       // (n, shots + 1, Y / 2, X / 2), see reach.cu
    const int *__restrict__ source_column, // (shots,)
    const int *__restrict__ cut_row,       // (n · shots,)
    unsigned char *__restrict__ rows_of,   // (n · shots, 4, ⌈nt / HOLD⌉, BLOCKS)
    int row,                               // of sources and receivers
    int shots, int nt)
{
    const int field = blockIdx.x / 4, map = field / shots, shot = field % shots;
    const Quadrant here(blockIdx.x % 4, source_column[shot], cut_row[field]);
    const int twos = here.ny / 2, count_plans = (nt + HOLD - 1) / HOLD;
    SHARED(from);
    float *const until = from + BLOCKS * twos;
    const float *const since = times + (map * (shots + 1) + shot) * (long long)(Y / 2 * (X / 2));
    const float *const still = times + (map * (shots + 1) + shots) * (long long)(Y / 2 * (X / 2));
    for (int i = threadIdx.x; i < BLOCKS * twos; i += blockDim.x) {
        const int begin = 32 * (i / twos), end = min(begin + 32, here.nx);
        const int line = (here.y(2 * (i % twos)) - row + Y) % Y / 2 * (X / 2);
        float soonest = 1e9f, nearest = 1e9f;
        // By twos, and the last: the pairs of `times` may lie across.
        for (int c = begin; c <= end && begin < end; c += 2) {
            const int there = line + here.x(min(c, end - 1)) / 2;
            soonest = min(soonest, since[there]), nearest = min(nearest, still[there]);
        }
        from[i] = soonest - LEAD, until[i] = nt + LAG - nearest;
    }
    block_barrier();
    for (int i = threadIdx.x; i < count_plans * BLOCKS; i += blockDim.x) {
        const int b = i % BLOCKS, begin = i / BLOCKS * HOLD;
        int two = twos - 1;
        while (two >= 0 && (from[b * twos + two] >= begin + HOLD || until[b * twos + two] <= begin)) --two;
        rows_of[(long long)blockIdx.x * count_plans * BLOCKS + i] = 2 * (two + 1);
    }
}

extern "C" __global__ void CLUSTER __maxnreg__(REGISTERS) run(
    const float *__restrict__ alpha,       // (n, Y, X)
    const float *__restrict__ keep_column, // (n, X) 1 − κ of the side columns, 0 of the inner ones
    const float *__restrict__ keep_row,    // (n, Y) 1 − κ of the inner columns
    const unsigned char *__restrict__ rows_of, // (n · shots, 4, ⌈nt / HOLD⌉, BLOCKS) of `plan`
    const int *__restrict__ source_column, // (shots,)
    const int *__restrict__ cut_row,       // (n · shots,) an even number of rows below the source's
    const float *__restrict__ inject,      // (n · shots, nt, width) what is added to the source's row
    float *__restrict__ record,            // (n · shots, nt, width) the field on that row, or null
    Kept *history,                         // (rows, 8) what was worked on, in the order of `rows_of`
    const long long *__restrict__ history_at, // (n · shots, 4) its first row, of the history of all
    const float *__restrict__ scale,       // (n,) of the history
    Four *work,                            // (launched shots, 4, DOWN, RIGHT / 4)
    float *__restrict__ by_alpha,          // (n · shots, Y, X) α·∂/∂α × scale
    float *__restrict__ by_kappa,          // (n · shots, 4) Σ κ·∂/∂κ × scale
    float *__restrict__ fields,            // (⌊nt / every⌋, shots, Y, X) after each `every` steps, of one map
    int row,                               // of sources and receivers
    int leftmost, int width,               // columns of `inject` and `record`
    int pad,                               // cells of repeated edges on each side
    int shots, int nt, int first_field, int every)
{
    const int rank = cluster_rank();
    const int slot = blockIdx.x / 4, field = first_field + slot, map = field / shots;
    const long long trace = (long long)field * nt;
    const Quadrant mine(rank, source_column[field % shots], cut_row[field]);
    const int left = mine.left, up = mine.up, ny = mine.ny, nx = mine.nx;
    const int cut = mine.column_cut, row_cut = mine.row_cut;
    const int warp = threadIdx.x / 32, unit = threadIdx.x / 8;
    const int fired = up ? row_cut - 1 - row : (row - row_cut + Y) % Y; // the sources' row, if it is here
    const bool fires = fired >= 0 && fired < ny;

    // α is needed for the map's part of the quadrant only: outward it is that of the edge, and where
    // the grid has gone round, that of the other edge. Columns come in pairs: the map's, one outside,
    // one half way round, one beyond. Rows: the map's and one beyond.
    const int map_rows = up ? max(1, row_cut - pad) : max(1, Y - pad - row_cut);
    const int map_columns = left ? max(1, cut - pad) : max(1, X - pad - cut);
    const int map_pairs = (map_columns + 1) / 2, alpha_pitch = 2 * (map_pairs + 3);
    const int round_row = up ? row_cut : Y - row_cut, round_column = left ? cut : X - cut;

    SHARED(shared);
    Gate *const gates = (Gate *)(shared + 2 * PLANE);
    Line *const lines = (Line *)(gates + 2);
    float *const keep_side = (float *)(lines + DOWN); // 1 − κ of the side columns, 0 of the inner
    float *const add = keep_side + RIGHT;             // what the sources' row receives, of two steps
    float *const near = add + 2 * RIGHT;              // α, times the weight FAR
    const int alpha_rows = map_rows + (round_row < ny);
    Plan *const plans = (Plan *)(near + alpha_rows * alpha_pitch);

    for (int r = threadIdx.x; r < ny; r += THREADS) {
        lines[r].keep = keep_row[map * Y + mine.y(r)];
        lines[r].alpha = (r < round_row ? min(r, map_rows - 1) : map_rows) * alpha_pitch * 4;
    }
    for (int c = threadIdx.x; c < RIGHT; c += THREADS)
        keep_side[c] = c < nx ? keep_column[map * X + mine.x(c)] : 0;
    for (int i = threadIdx.x; i < alpha_rows * alpha_pitch; i += THREADS) {
        const int line = i / alpha_pitch, place = i % alpha_pitch, kind = place / 2 - map_pairs;
        const int r = line < map_rows ? line : round_row;
        const int c = kind < 0    ? min(place, map_columns - 1)
                      : kind == 0 ? map_columns
                      : kind == 1 ? round_column - 1 + place % 2
                                  : round_column;
        const int y = mine.y(r);
        const int x = mine.x(c);
        near[i] = (float)FAR * alpha[((long long)map * Y + y) * X + x];
    }

    const int count_plans = (nt + HOLD - 1) / HOLD;
    for (int i = threadIdx.x; i < count_plans; i += THREADS) {
        int total = 0;
        for (int b = 0; b < BLOCKS; ++b) {
            plans[i].rows[b] = rows_of[((long long)(field * 4 + rank) * count_plans + i) * BLOCKS + b];
            total += plans[i].rows[b];
        }
        // The smallest share with which there are enough units.
        int share = max(2, (total + 2 * UNITS - 1) / (2 * UNITS) * 2), units;
        do {
            units = 0;
            for (int b = 0; b < BLOCKS; ++b) {
                plans[i].begin[b] = units;
                units += (plans[i].rows[b] + share - 1) / share;
            }
            share += 2;
        } while (units > UNITS);
        plans[i].share = share - 2;
        plans[i].before = total * HOLD;
    }
    block_barrier();
    if ((KEEP || ADJOINT) && threadIdx.x == 0)
        for (int i = 0, before = 0; i < count_plans; ++i) {
            const int here = plans[i].before;
            plans[i].before = before, before += here;
        }

    for (int i = threadIdx.x; i < 2 * PLANE; i += THREADS) shared[i] = 0;

    // Neighbours hold mirror images: their cells −1, −2 are ours 0, 1, and what is beyond their far
    // side is at our far side. What is sent to a cell's halo is sent by who has read that cell's own,
    // so nothing is overwritten that is still needed; a gate for even and one for odd steps are
    // enough, as nobody can be two steps ahead.
    const int nx_beside = X - nx, ny_across = Y - ny;
    const Remote beside = remote_address(shared, rank ^ 1);
    const Remote across = remote_address(shared, rank ^ 2);
    const Remote gate_beside = remote_address(gates, rank ^ 1);
    const Remote gate_across = remote_address(gates, rank ^ 2);
    if (threadIdx.x < 2) close_gate(gates + threadIdx.x, 2);

    const float scaled = KEEP || ADJOINT ? scale[map] : 1;
    Kept *const keeping = history + (KEEP || ADJOINT ? 8 * (history_at[field * 4 + rank] - history_at[first_field * 4]) : 0);
    Four *const sums = work + ((long long)slot * 4 + rank) * DOWN * (RIGHT / 4);
    if (ADJOINT)
        for (int i = threadIdx.x; i < DOWN * RIGHT / 4; i += THREADS) sums[i] = Four{};
    static_assert(THREADS >= RIGHT, "each column needs a thread for what it is given and gives");
    // The last threads fetch the next step's additions and keep the last step's record, a column each.
    const int adds = THREADS - 1 - threadIdx.x;
    const int adds_to = mine.x(adds) - leftmost;
    const bool adding = fires && adds < nx && adds_to >= 0 && adds_to < width;
    const float *const added = inject + trace * width + adds_to;
    if (adds < RIGHT) add[adds] = adding ? added[(ADJOINT ? nt - 1 : 0) * width] : 0, add[RIGHT + adds] = 0;
    float *const heard = record + trace * width + adds_to;
    float kappa_sum = 0;
    cluster_barrier();

    int step = 0;
    for (int i = 0; i < count_plans; ++i) {
        const int held = ADJOINT ? count_plans - 1 - i : i;
        const Plan plan = plans[held];
        int block = 0, begin = 0, rows = plan.rows[0];
        #pragma unroll
        for (int b = 1; b < BLOCKS; ++b)
            if (unit >= plan.begin[b]) block = b, begin = plan.begin[b], rows = plan.rows[b];
        const int offered = (unit - begin) * plan.share;
        int count = max(0, min((int)plan.share, rows - offered));
        const int column = 32 * block + 4 * (threadIdx.x % 8);
        if (column >= nx) count = 0;
        const int first = count ? offered : 0; // so that no address lies outside, used or not
        const bool wide = column + 2 < nx;     // all four columns are the quadrant's

        const int at = AT(first, column), cell = first * (RIGHT / 4) + column / 4;
        const char *alphas[2]; // of two columns each
        #pragma unroll
        for (int p = 0; p < 2; ++p) {
            const int c = column + 2 * p;
            const int outside = c + 1 < round_column ? 0 : c < round_column ? 1 : 2;
            alphas[p] = (const char *)(near + min(c, 2 * (map_pairs + outside)));
        }
        const Four side = count ? four(keep_side, column) : Four{};
        const bool at_side = column == 0 || column + 4 >= nx;
        const bool outermost = column && wide; // its last two columns are those at the side
        const int fired_here = count && fires ? fired / 2 * 2 - first : -1; // among the unit's rows
        float inner[4];
        #pragma unroll
        for (int c = 0; c < 4; ++c) inner[c] = side.at[c] == 0;
        const Remote beside_here = beside + 4 * AT(first, column == 0 ? -2 : nx_beside);
        // A warp waits together, or it would stay split for the rest of the step.
        const bool waits = any_of_warp(warp == WARPS - 1 || count && (at_side || first == 0 || first + count == ny));
        int bytes_beside = 8 * plan.rows[0], bytes_across = 0; // what this block sends in a step
        #pragma unroll
        for (int b = 0; b < BLOCKS; ++b) {
            const int threads = (min(32, nx - 32 * b) + 3) / 4;
            if (plan.rows[b]) bytes_across += (plan.rows[b] == ny ? 64 : 32) * threads;
            if (b == (nx - 1) / 32) bytes_beside += 8 * plan.rows[b];
        }

        int all_rows = 0, rows_before = plan.before + first; // of the history
        #pragma unroll
        for (int b = 0; b < BLOCKS; ++b) all_rows += plan.rows[b], rows_before += b < block ? plan.rows[b] : 0;

        for (int j = 0; j < HOLD; ++j) {
            const int k = HOLD * held + (ADJOINT ? HOLD - 1 - j : j);
            if (k >= nt) continue;
            const int then = ADJOINT ? max(k - 1, 0) : min(k + 1, nt - 1), before = ADJOINT ? k + 1 : k - 1;
            const int parity = step & 1, now = parity * PLANE, next = PLANE - now;
            if (adding && record && step) heard[before * width] = shared[now + AT(fired, adds)];
            const float coming = adding ? added[then * width] : 0;
            Kept *kept = keeping + 8 * (rows_before + (k - HOLD * held) * all_rows) + threadIdx.x % 8;
            Four *sum = sums + cell;

            // Who needs cells of the neighbours' last step waits for them here, a warp as one: a
            // straggler that sends nothing could find the gate opened twice, which looks like closed.
            // Nobody may announce this step before it knows that the last is complete.
            if (step && waits) pass(gates + (1 - parity), (step - 1) >> 1 & 1);
            if (threadIdx.x == THREADS - 1) {
                arrive(gate_beside + 8 * parity, bytes_beside);
                arrive(gate_across + 8 * parity, bytes_across);
            }
            // The rows around the next two, and what the gradient needs of those two.
            Four window[4], so_far[2][2];
            Kept was[2][2];
            #pragma unroll
            for (int q = 0; q < 4; ++q) window[q] = four(shared, now + at + (q - 2) * PITCH);
            #pragma unroll
            for (int q = 0; q < 2; ++q)
                if (ADJOINT && count)
                    was[0][q] = kept[q * 8], so_far[0][q] = sum[q * (RIGHT / 4)];

            const auto look = [&](int r) {
                Around found;
                #pragma unroll
                for (int q = 0; q < 2; ++q) {
                    const int there = at + (r + q) * PITCH;
                    const Line line = found.line[q] = lines[first + r + q];
                    found.down2[q] = four(shared, now + there + 2 * PITCH);
                    found.west[q] = two(shared, now + there - 2);
                    found.east[q] = two(shared, now + there + 4);
                    found.old[q] = four(shared, next + there);
                    found.a[q][0] = *(const Two *)(alphas[0] + line.alpha);
                    found.a[q][1] = *(const Two *)(alphas[1] + line.alpha);
                }
                return found;
            };

            for (int r = 0; r < count; r += 4) {
                #pragma unroll
                for (int g = 0; g < 2; ++g) {
                    const int ahead = r + 2 * g + 2;
                    if (g && r + 2 >= count) break;
                    #pragma unroll
                    for (int q = 0; q < 2; ++q) {
                        if (ADJOINT && ahead < count) {
                            was[1 - g][q] = kept[(2 * g + 2 + q) * 8];
                            so_far[1 - g][q] = sum[(2 * g + 2 + q) * (RIGHT / 4)];
                        }
                        if (ADJOINT && k > HOLD * held) fetch_to_cache(kept + (2 * g + q - all_rows) * 8);
                    }
                    const Around seen = look(r + 2 * g);
                    Four value[2];
                    float lap[2][4], damped[2][4];
                    #pragma unroll
                    for (int q = 0; q < 2; ++q) {
                        const Four up2 = window[2 * g + q], up1 = window[(2 * g + q + 1) % 4];
                        const Four here = window[(2 * g + q + 2) % 4];
                        const Four down1 = q ? seen.down2[0] : window[(2 * g + 3) % 4];
                        const float along[8] = {
                            seen.west[q].at[0], seen.west[q].at[1], here.at[0],         here.at[1],
                            here.at[2],         here.at[3],         seen.east[q].at[0], seen.east[q].at[1]};
                        #pragma unroll
                        for (int c = 0; c < 4; ++c) {
                            // dx² times the Laplacian, over the weight of the far neighbours.
                            const float far_off =
                                (along[c] + along[c + 4]) + (up2.at[c] + seen.down2[q].at[c]);
                            const float near_by =
                                (along[c + 1] + along[c + 3]) + (up1.at[c] + down1.at[c]);
                            lap[q][c] = fmaf((float)(CENTRE / FAR), here.at[c],
                                             fmaf((float)(NEAR / FAR), near_by, far_off));
                            const float change = here.at[c] - seen.old[q].at[c];
                            const float keep = fmaf(inner[c], seen.line[q].keep, side.at[c]);
                            value[q].at[c] = fmaf(seen.a[q][c / 2].at[c % 2], lap[q][c],
                                                  fmaf(keep, change, here.at[c]));
                            damped[q][c] = (1 - keep) * change;
                        }
                    }
                    if (r + 2 * g == fired_here) {
                        const bool second = fired % 2;
                        const Four more = four(add, parity * RIGHT + column);
                        #pragma unroll
                        for (int c = 0; c < 4; ++c) {
                            value[0].at[c] += second ? 0 : more.at[c];
                            value[1].at[c] += second ? more.at[c] : 0;
                        }
                    }
                    #pragma unroll
                    for (int q = 0; q < 2; ++q) {
                        window[2 * g + q] = seen.down2[q];
                        const int there = at + (r + 2 * g + q) * PITCH;
                        if (wide) four(shared, next + there) = value[q];
                        else two(shared, next + there) = Two{value[q].at[0], value[q].at[1]};
                        if (KEEP) {
                            Kept both_kept;
                            for (int c = 0; c < 4; ++c)
                                both_kept.at[c] =
                                    to_halves((float)FAR * scaled * lap[q][c], scaled * damped[q][c]);
                            kept[(2 * g + q) * 8] = both_kept;
                        }
                        if (ADJOINT) {
                            Four more = so_far[g][q];
                            for (int c = 0; c < 4; ++c) {
                                const Pair past = from_halves(was[g][q].at[c]);
                                more.at[c] = fmaf(value[q].at[c], past.x, more.at[c]);
                                const float by_a = approximate_inverse(seen.a[q][c / 2].at[c % 2]);
                                if (wide || c < 2) kappa_sum -= value[q].at[c] * by_a * past.y;
                            }
                            sum[(2 * g + q) * (RIGHT / 4)] = more;
                        }
                    }
                    // What the neighbours need leaves as soon as it is known.
                    if (at_side)
                        for (int q = 0; q < 2; ++q)
                            send(beside_here + 4 * (next + (r + 2 * g + q) * PITCH),
                                 gate_beside + 8 * parity, outermost ? value[q].at[3] : value[q].at[1],
                                 outermost ? value[q].at[2] : value[q].at[0]);
                    if (g == 0 && first + r == 0)
                        for (int q = 0; q < 2; ++q)
                            send(across + 4 * (next + AT(-1 - q, column)), gate_across + 8 * parity,
                                 value[q].at);
                }
                kept += 4 * 8, sum += 4 * (RIGHT / 4);
            }

            if (count && first + count == ny)
                for (int r = 0; r < 2; ++r)
                    send(across + 4 * (next + AT(ny_across + r, column)), gate_across + 8 * parity,
                         four(shared, next + at + (count - 1 - r) * PITCH).at);
            if (adding) add[(1 - parity) * RIGHT + adds] = coming;
            block_barrier();
            ++step;
            if (FIELDS && (k + 1) % every == 0)
                // Nobody writes to this plane's own cells before all have passed the next barrier.
                for (int r = warp; r < ny; r += WARPS) {
                    const long long line = ((long long)(k / every) * shots + field) * Y + mine.y(r);
                    for (int c = threadIdx.x % 32; c < nx; c += 32)
                        fields[line * X + mine.x(c)] = shared[next + AT(r, c)];
                }
        }
    }
    if (adding && record) heard[(ADJOINT ? 0 : nt - 1) * width] = shared[(step & 1) * PLANE + AT(fired, adds)];
    pass(gates + ((step - 1) & 1), (step - 1) >> 1 & 1);
    cluster_barrier(); // a block's memory must last as long as others may write to it

    if (ADJOINT) {
        for (int i = threadIdx.x; i < ny * nx; i += THREADS) {
            const int r = i / nx, c = i % nx;
            const Four &sum = sums[r * (RIGHT / 4) + c / 4];
            const int y = mine.y(r);
            const int x = mine.x(c);
            by_alpha[((long long)field * Y + y) * X + x] = sum.at[c % 4];
        }
        shared[threadIdx.x] = kappa_sum;
        block_barrier();
        if (threadIdx.x == 0) { // in one order, so that the sum has the same bits every time
            float sum = 0;
            for (int i = 0; i < THREADS; ++i) sum += shared[i];
            by_kappa[field * 4 + rank] = sum * (float)FAR;
        }
    }
}
