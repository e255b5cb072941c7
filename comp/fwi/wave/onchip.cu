// The sponge scheme with a whole shot held on chip: one launch runs all steps of many shots.
//
// Four thread blocks, a cluster, hold the field of one shot in their shared memories, a quadrant
// each, and exchange only the two outermost cells of every side. The padded grid wraps round, so it
// may be cut anywhere: it is cut at the source, whose row is row 0 of the two lower quadrants and
// whose column is column 0 of the two right ones. Rows and columns of every quadrant count away from
// the cut, so that all four run the same code, the neighbour across a cut holds its mirror image,
// and the cells that a wave can have reached are a corner of each quadrant. That corner is dealt to
// half warps anew every few steps. README.md beside this file tells the rest.
//
// Compiled at run time with:
//   Y, X                  the padded grid, both even
//   WARPS, REGISTERS      of a block, and of a thread
//   HOLD                  steps until the work is dealt to the warps anew
//   CENTRE, NEAR, FAR     the Laplacian's weights
//   LEAD                  steps by which cells are awake before a wave can arrive
//   KEEP, ADJOINT         1 for the kernel that keeps what the gradient needs, and for the adjoint

// Rows and columns of the larger quadrants; the others have the rest.
#define DOWN (2 * ((Y + 3) / 4))
#define RIGHT (2 * ((X + 3) / 4))
#define THREADS (32 * WARPS)
// Half a warp works on 32 columns, two a thread: its trips to shared memory are 128 bytes in a row.
#define BLOCKS ((RIGHT + 31) / 32)
// A quadrant in shared memory has two more cells on each side.
#define PITCH (RIGHT + 4)
#define PLANE ((DOWN + 4) * PITCH)

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

struct alignas(8) Cells { float x, y; };   // two neighbouring columns of a field
struct alignas(8) Kept { unsigned x, y; }; // of two columns: Laplacian and damped change, as halves
struct alignas(8) Line { float keep; int alpha; }; // of a row: 1 − κ of inner columns, place of α
// Of HOLD steps: how many rows of each block of columns are worked on, the half warp that begins
// each, and the rows of a half warp.
struct Plan { unsigned char rows[BLOCKS], begin[BLOCKS], share; };
struct Awake { short down, up, right, left; }; // rows and columns to work on at a step

__device__ __forceinline__ Cells &cells(float *shared, int at)
{
    return *(Cells *)(shared + at);
}

// The number of rows within `reach` cells of a point that is `across` columns away.
__device__ __forceinline__ int rows_within(float reach, float across)
{
    const float left = reach * reach - across * across;
    return left > 0 ? (int)sqrtf(left) + 1 : 0;
}

extern "C" __global__ void CLUSTER __maxnreg__(REGISTERS) run(
    const float *__restrict__ alpha,       // (n, Y, X)
    const float *__restrict__ keep_column, // (n, X) 1 − κ of the side columns, 0 of the inner ones
    const float *__restrict__ keep_row,    // (n, Y) 1 − κ of the inner columns
    const float *__restrict__ fastest,     // (n,) the largest Courant number
    const Awake *__restrict__ awake,       // (n · shots, nt)
    const int *__restrict__ source_column, // (shots,)
    const float *__restrict__ inject,      // (n · shots, nt, X) what is added to the cut's row
    float *__restrict__ record,            // (n · shots, nt, X) the field on that row, or null
    Kept *history,                         // (launched shots, nt, 4, DOWN, RIGHT / 2)
    const float *__restrict__ scale,       // (n,) of the history
    Cells *work,                           // (launched shots, 4, DOWN, RIGHT / 2)
    float *__restrict__ by_alpha,          // (n · shots, Y, X) α·∂/∂α × scale
    float *__restrict__ by_kappa,          // (n · shots, 4) Σ κ·∂/∂κ × scale
    int first_receiver, int last_receiver, // columns
    int row,                               // of sources and receivers
    int pad,                               // cells of repeated edges on each side
    int shots, int nt, int first_field)
{
    const int rank = cluster_rank(), left = rank & 1, up = rank >> 1;
    const int ny = up ? Y - DOWN : DOWN, nx = left ? X - RIGHT : RIGHT;
    const int slot = blockIdx.x / 4, field = first_field + slot, map = field / shots;
    const long long trace = (long long)field * nt;
    const int cut = source_column[field % shots];
    // Where a quadrant's row and column lie on the padded grid.
    const auto y_of = [&](int r) { return (up ? row - 1 - r + Y : row + r) % Y; };
    const auto x_of = [&](int c) { return (left ? cut - 1 - c + X : cut + c) % X; };
    const int warp = threadIdx.x / 32, half = threadIdx.x / 16 % 2, pair = threadIdx.x % 16;

    // α is needed for the map's part of the quadrant only: outward it is that of the edge, and where
    // the grid has gone round, that of the other edge. Columns come in pairs: the map's, one outside,
    // one half way round, one beyond. Rows: the map's and one beyond.
    const int map_rows = up ? max(1, row - pad) : max(1, Y - pad - row);
    const int map_columns = left ? max(1, cut - pad) : max(1, X - pad - cut);
    const int map_pairs = (map_columns + 1) / 2, alpha_pitch = 2 * (map_pairs + 3);
    const int round_row = up ? row : Y - row, round_column = left ? cut : X - cut;

    SHARED(shared);
    Gate *const gates = (Gate *)(shared + 2 * PLANE);
    Line *const lines = (Line *)(gates + 2);
    float *const keep_side = (float *)(lines + DOWN); // 1 − κ of the side columns, 0 of the inner
    float *const add = keep_side + RIGHT;             // what the cut's row receives, of two steps
    float *const near = add + 2 * RIGHT;              // α, times the weight FAR
    const int alpha_rows = map_rows + (round_row < ny);
    Plan *const plans = (Plan *)(near + alpha_rows * alpha_pitch);

    for (int i = threadIdx.x; i < 2 * PLANE; i += THREADS) shared[i] = 0;
    for (int r = threadIdx.x; r < ny; r += THREADS) {
        lines[r].keep = keep_row[map * Y + y_of(r)];
        lines[r].alpha = (r < round_row ? min(r, map_rows - 1) : map_rows) * alpha_pitch;
    }
    for (int c = threadIdx.x; c < nx; c += THREADS)
        keep_side[c] = keep_column[map * X + x_of(c)];
    for (int i = threadIdx.x; i < alpha_rows * alpha_pitch; i += THREADS) {
        const int line = i / alpha_pitch, place = i % alpha_pitch, kind = place / 2 - map_pairs;
        const int r = line < map_rows ? line : round_row;
        const int c = kind < 0    ? min(place, map_columns - 1)
                      : kind == 0 ? map_columns
                      : kind == 1 ? round_column - 1 + place % 2
                                  : round_column;
        const int y = y_of(r);
        const int x = x_of(c);
        near[i] = (float)FAR * alpha[((long long)map * Y + y) * X + x];
    }

    // How many rows of each block of columns are worked on at each step: those that a wave can have
    // reached and from which it can still be heard. Receivers lie between the columns −span and
    // 0, or 0 and span, and once round the grid again.
    const float courant = fastest[map];
    const int span = left ? cut - 1 - first_receiver : last_receiver - cut;
    const int round = left ? cut - 1 - last_receiver + X : first_receiver - cut + X;
    const int count_plans = (nt + HOLD - 1) / HOLD;
    for (int i = threadIdx.x; i < count_plans; i += THREADS) {
        int total = 0;
        for (int b = 0; b < BLOCKS; ++b) {
            const int begin = 32 * b, end = min(begin + 32, nx);
            const int heard = max(0, min(begin - span, round - end + 1));
            int most = 0;
            for (int k = HOLD * i; k < min(HOLD * i + HOLD, nt); ++k) {
                const Awake then = awake[trace + k];
                const int rows = min(min(rows_within(courant * (k + LEAD), begin),
                                         rows_within(courant * (nt - k + LEAD), heard)),
                                     min(ny, (int)(up ? then.up : then.down)));
                if (begin < (left ? then.left : then.right)) most = max(most, rows);
            }
            most = (most + 1) & ~1; // rows are worked on by twos
            plans[i].rows[b] = most;
            total += most;
        }
        // The smallest share with which there are enough half warps.
        int share = max(2, (total + 4 * WARPS - 1) / (4 * WARPS) * 2), halves;
        do {
            halves = 0;
            for (int b = 0; b < BLOCKS; ++b) {
                plans[i].begin[b] = halves;
                halves += (plans[i].rows[b] + share - 1) / share;
            }
            share += 2;
        } while (halves > 2 * WARPS);
        plans[i].share = share - 2;
    }

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
    const long long quadrant = (long long)slot * nt * 4 + rank; // of the history, at step 0
    Cells *const sums = work + ((long long)slot * 4 + rank) * DOWN * (RIGHT / 2);
    if (ADJOINT)
        for (int i = threadIdx.x; i < DOWN * RIGHT / 2; i += THREADS) sums[i] = Cells{0, 0};
    // The last warps fetch the next step's additions, a column or two each.
    const int adds = THREADS - 1 - threadIdx.x;
    const bool adding = !up && adds < nx;
    const float *const added = inject + trace * X + x_of(adds);
    if (adding) add[adds] = added[(ADJOINT ? nt - 1 : 0) * X];
    float kappa_sum = 0;
    cluster_barrier();

    int step = 0;
    for (int i = 0; i < count_plans; ++i) {
        const int held = ADJOINT ? count_plans - 1 - i : i;
        const Plan plan = plans[held];
        const int me = 2 * warp + half;
        int block = 0, begin = 0, rows = plan.rows[0];
        #pragma unroll
        for (int b = 1; b < BLOCKS; ++b)
            if (me >= plan.begin[b]) block = b, begin = plan.begin[b], rows = plan.rows[b];
        const int offered = (me - begin) * plan.share;
        int count = max(0, min((int)plan.share, rows - offered));
        const int column = 32 * block + 2 * pair;
        if (column >= nx) count = 0;
        const int first = count ? offered : 0; // so that no address lies outside, used or not

        const int at = (first + 2) * PITCH + column + 2;
        const int cell = first * (RIGHT / 2) + column / 2;
        const int outside = column + 1 < round_column ? 0 : column < round_column ? 1 : 2;
        const float *const alphas = near + min(column, 2 * (map_pairs + outside));
        const int x0 = x_of(column), x1 = x_of(column + 1);
        const Cells side = count ? cells(keep_side, column) : Cells{0, 0};
        const float inner0 = side.x == 0, inner1 = side.y == 0;
        const bool at_side = column == 0 || column == nx - 2;
        const Remote beside_here =
            beside + 4 * ((first + 2) * PITCH + (column == 0 ? 0 : nx_beside + 2));

        for (int j = 0; j < HOLD; ++j) {
            const int k = HOLD * held + (ADJOINT ? HOLD - 1 - j : j);
            if (k >= nt) continue;
            const int then = ADJOINT ? max(k - 1, 0) : min(k + 1, nt - 1);
            const int parity = step & 1, now = parity * PLANE, next = PLANE - now;
            const float coming = adding ? added[(long long)then * X] : 0;
            Kept *kept = history + (quadrant + 4 * (long long)k) * DOWN * (RIGHT / 2) + cell;
            Cells *sum = sums + cell;

            if (threadIdx.x == THREADS - 1) {
                int bytes_beside = 8 * plan.rows[0], bytes_across = 0;
                #pragma unroll
                for (int b = 0; b < BLOCKS; ++b) {
                    const int pairs = min(16, nx / 2 - 16 * b);
                    if (plan.rows[b]) bytes_across += (plan.rows[b] == ny ? 32 : 16) * pairs;
                    if (b == (nx - 2) / 32) bytes_beside += 8 * plan.rows[b];
                }
                arrive(gate_beside + 8 * parity, bytes_beside);
                arrive(gate_across + 8 * parity, bytes_across);
            }
            // The rows around the next two, and what the gradient needs of those two.
            Cells window[4] = {cells(shared, now + at - 2 * PITCH), cells(shared, now + at - PITCH),
                               cells(shared, now + at), cells(shared, now + at + PITCH)};
            Kept was[2][2];
            Cells so_far[2][2];
            #pragma unroll
            for (int q = 0; q < 2; ++q)
                if (ADJOINT && count)
                    was[0][q] = kept[q * (RIGHT / 2)], so_far[0][q] = sum[q * (RIGHT / 2)];

            for (int r = 0; r < count; r += 4) {
                #pragma unroll
                for (int g = 0; g < 2; ++g) {
                    if (g && r + 2 >= count) break;
                    Cells down2[2], west[2], east[2], old[2], value[2], a[2];
                    Line line[2];
                    #pragma unroll
                    for (int q = 0; q < 2; ++q) {
                        const int there = at + (r + 2 * g + q) * PITCH;
                        line[q] = lines[first + r + 2 * g + q];
                        down2[q] = cells(shared, now + there + 2 * PITCH);
                        west[q] = cells(shared, now + there - 2);
                        east[q] = cells(shared, now + there + 2);
                        old[q] = cells(shared, next + there);
                        a[q] = *(const Cells *)(alphas + line[q].alpha);
                        const int coming = 2 * g + 2 + q;
                        if (ADJOINT && r + 2 * g + 2 < count) {
                            was[1 - g][q] = kept[coming * (RIGHT / 2)];
                            so_far[1 - g][q] = sum[coming * (RIGHT / 2)];
                        }
                        if (ADJOINT && k) fetch_to_cache(kept + (2 * g + q - 4 * DOWN) * (RIGHT / 2));
                    }
                    #pragma unroll
                    for (int q = 0; q < 2; ++q) {
                        const int there = at + (r + 2 * g + q) * PITCH, place = (2 * g + q) * (RIGHT / 2);
                        const Cells up2 = window[2 * g + q], up1 = window[(2 * g + q + 1) % 4];
                        const Cells here = window[(2 * g + q + 2) % 4];
                        const Cells down1 = window[(2 * g + q + 3) % 4];

                        // dx² times the Laplacian, over the weight of the far neighbours.
                        float lap0 = (west[q].x + east[q].x) + (up2.x + down2[q].x);
                        float lap1 = (west[q].y + east[q].y) + (up2.y + down2[q].y);
                        const float near0 = (west[q].y + here.y) + (up1.x + down1.x);
                        const float near1 = (here.x + east[q].x) + (up1.y + down1.y);
                        lap0 = fmaf((float)(NEAR / FAR), near0, lap0);
                        lap1 = fmaf((float)(NEAR / FAR), near1, lap1);
                        lap0 = fmaf((float)(CENTRE / FAR), here.x, lap0);
                        lap1 = fmaf((float)(CENTRE / FAR), here.y, lap1);

                        const Cells change = {here.x - old[q].x, here.y - old[q].y};
                        const float keep0 = fmaf(inner0, line[q].keep, side.x);
                        const float keep1 = fmaf(inner1, line[q].keep, side.y);
                        value[q] = Cells{fmaf(a[q].x, lap0, fmaf(keep0, change.x, here.x)),
                                         fmaf(a[q].y, lap1, fmaf(keep1, change.y, here.y))};
                        if (2 * g + q == 0 && first + r == 0 && !up) {
                            const Cells more = cells(add, parity * RIGHT + column);
                            value[q].x += more.x, value[q].y += more.y;
                            if (record) {
                                float *const heard = record + (trace + k) * X;
                                heard[x0] = value[q].x, heard[x1] = value[q].y;
                            }
                        }
                        cells(shared, next + there) = value[q];

                        if (KEEP)
                            kept[place] = Kept{to_halves((float)FAR * scaled * lap0,
                                                         scaled * (1 - keep0) * change.x),
                                               to_halves((float)FAR * scaled * lap1,
                                                         scaled * (1 - keep1) * change.y)};
                        if (ADJOINT) {
                            const Pair was0 = from_halves(was[g][q].x);
                            const Pair was1 = from_halves(was[g][q].y);
                            sum[place] = Cells{fmaf(value[q].x, was0.x, so_far[g][q].x),
                                               fmaf(value[q].y, was1.x, so_far[g][q].y)};
                            kappa_sum -= value[q].x * approximate_inverse(a[q].x) * was0.y +
                                         value[q].y * approximate_inverse(a[q].y) * was1.y;
                        }
                        window[2 * g + q] = down2[q];
                    }
                    // What the neighbours need leaves as soon as it is known.
                    if (at_side)
                        for (int q = 0; q < 2; ++q)
                            send(beside_here + 4 * (next + (r + 2 * g + q) * PITCH),
                                 gate_beside + 8 * parity, value[q].y, value[q].x);
                    if (g == 0 && first + r == 0)
                        for (int q = 0; q < 2; ++q)
                            send(across + 4 * (next + (1 - q) * PITCH + column + 2),
                                 gate_across + 8 * parity, value[q].x, value[q].y);
                }
                kept += 4 * (RIGHT / 2), sum += 4 * (RIGHT / 2);
            }

            if (count && first + count == ny)
                for (int r = 0; r < 2; ++r) {
                    const Cells value = cells(shared, next + at + (count - 1 - r) * PITCH);
                    send(across + 4 * (next + (ny_across + r + 2) * PITCH + column + 2),
                         gate_across + 8 * parity, value.x, value.y);
                }
            if (adding) add[(1 - parity) * RIGHT + adds] = coming;
            if (warp == WARPS - 1) pass(gates + parity, step >> 1 & 1);
            block_barrier();
            ++step;
        }
    }
    cluster_barrier(); // a block's memory must last as long as others may write to it

    if (ADJOINT) {
        for (int i = threadIdx.x; i < ny * nx; i += THREADS) {
            const int r = i / nx, c = i % nx;
            const Cells &sum = sums[r * (RIGHT / 2) + c / 2];
            const int y = y_of(r);
            const int x = x_of(c);
            by_alpha[((long long)field * Y + y) * X + x] = c % 2 ? sum.y : sum.x;
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
