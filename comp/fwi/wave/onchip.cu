// The sponge scheme with a whole shot held on chip: one launch runs all steps of many shots.
//
// Four thread blocks, a cluster, hold the field of one shot in their shared memories, a quadrant
// each, and exchange only the two outermost cells of every side. The padded grid wraps round, so it
// may be cut anywhere: it is cut at the source, whose row is row 0 of the two lower quadrants and
// whose column is column 0 of the two right ones. Rows and columns of every quadrant count away from
// the cut, so that all four run the same code, the neighbour across a cut holds its mirror image,
// and the cells that a wave can have reached are a corner of each quadrant. README.md beside this
// file tells the rest.
//
// Compiled at run time with:
//   Y, X                 the padded grid, both even
//   GROUPS, ROWS         row groups of a quadrant, even, and rows of each, even; a thread owns two
//                        columns of a group
//   BLOCKS               column blocks of a quadrant, 32 columns each
//   REGISTERS            of a thread
//   CENTRE, NEAR, FAR    the Laplacian's weights
//   LEAD                 steps by which cells are awake before a wave can arrive
//   KEEP, ADJOINT        1 for the kernel that keeps what the gradient needs, and for the adjoint

// Rows and columns of the larger quadrants; the others have the rest.
#define DOWN (2 * ((Y + 3) / 4))
#define RIGHT (2 * ((X + 3) / 4))
#define THREADS (BLOCKS * GROUPS * 16)
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

__device__ __forceinline__ float approximate_root(float x)
{
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
}

// Volatile, or the compiler would keep the inverse of every α in a register of its own.
__device__ __forceinline__ float approximate_inverse(float x)
{
    float inverse;
    asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
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

struct alignas(8) Cells { float x, y; };       // two neighbouring columns of a field
struct alignas(8) Kept { unsigned x, y; };     // of two columns: Laplacian and damped change, halves
struct alignas(8) Awake { short down, up, right, left; }; // rows and columns to work on at a step

__device__ __forceinline__ Cells &cells(float *shared, int at)
{
    return *(Cells *)(shared + at);
}

#ifndef EMULATED
__device__ __forceinline__ void add_at(Cells *sum, float x, float y)
{
    asm volatile("red.relaxed.gpu.global.add.v2.f32 [%0], {%1, %2};" :: "l"(sum), "f"(x), "f"(y));
}

__device__ __forceinline__ Cells fresh(const Cells *sum) // not what an earlier read left nearby
{
    Cells found;
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
                 : "=f"(found.x), "=f"(found.y) : "l"(sum));
    return found;
}
#endif

// The number of rows within `reach` cells of a point that is `across` columns away.
__device__ __forceinline__ int rows_within(float reach, float across)
{
    const float left = reach * reach - across * across;
    return left > 0 ? (int)approximate_root(left) + 1 : 0;
}

extern "C" __global__ void CLUSTER __maxnreg__(REGISTERS) run(
    const float *__restrict__ alpha,       // (n, Y, X)
    const float *__restrict__ keep_column, // (n, X) 1 − κ of the side columns, 0 of the inner ones
    const float *__restrict__ keep_row,    // (n, Y) 1 − κ of the inner columns
    const float *__restrict__ fastest,     // (n,) the largest Courant number
    const Awake *__restrict__ awake,       // (n · shots, nt)
    const int *__restrict__ source_column, // (shots,)
    const float *__restrict__ inject,      // (n · shots, nt, X) what is added to the cut's row
    float *__restrict__ record,            // (n · shots, nt, X) the field on that row
    Kept *history,                         // (launched shots, nt, 4, ROWS, THREADS)
    const float *__restrict__ scale,       // (n,) of the history
    Cells *work,                           // (launched shots, 4, ROWS, THREADS)
    float *__restrict__ by_alpha,          // (n · shots, Y, X) α·∂/∂α × scale
    float *__restrict__ by_kappa,          // (n · shots, 4) Σ κ·∂/∂κ × scale
    int first_receiver, int last_receiver, // columns
    int row, int shots, int nt, int first_field)
{
    SHARED(shared); // two planes, the gates, 1 − κ of the inner columns
    Gate *const gates = (Gate *)(shared + 2 * PLANE);
    float *const keep_inner = shared + 2 * PLANE + 4;

    const int rank = cluster_rank(), left = rank & 1, up = rank >> 1;
    const int ny = up ? Y - DOWN : DOWN, nx = left ? X - RIGHT : RIGHT;
    const int slot = blockIdx.x / 4, field = first_field + slot, map = field / shots;
    const long long trace = (long long)field * nt;

    // A warp is 32 columns wide and owns the same rows of two successive groups: a trip of half a
    // warp to shared memory is 128 bytes in a row, whatever the pitch.
    const int warp = threadIdx.x / 32, block = warp % BLOCKS;
    const int group = warp / BLOCKS * 2 + threadIdx.x / 16 % 2;
    const int column = 32 * block + 2 * (threadIdx.x % 16), first = group * ROWS;
    const bool inside = column < nx;
    const int rows = inside ? max(0, min(ROWS, ny - first)) : 0;

    // Where column 0 and the one after this thread's first lie on the padded grid.
    const int cut = source_column[field % shots];
    int x0 = left ? cut - 1 - column : cut + column, x1 = left ? x0 - 1 : x0 + 1;
    x0 = (x0 + X) % X, x1 = (x1 + X) % X;

    for (int i = threadIdx.x; i < 2 * PLANE; i += THREADS) shared[i] = 0;
    for (int r = threadIdx.x; r < ny; r += THREADS)
        keep_inner[r] = keep_row[map * Y + (up ? row - 1 - r + Y : row + r) % Y];
    const float side0 = keep_column[map * X + x0], side1 = keep_column[map * X + x1];
    const float inner0 = side0 == 0, inner1 = side1 == 0;

    Cells a[ROWS]; // α, times the weight of the far neighbours
    #pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const int y = (up ? row - 1 - first - i + Y : row + first + i) % Y;
        const float *line = alpha + ((long long)map * Y + y) * X;
        a[i] = i < rows ? Cells{(float)FAR * line[x0], (float)FAR * line[x1]} : Cells{0, 0};
    }

    // Neighbours hold mirror images: their cells −1, −2 are ours 0, 1, and what is beyond their far
    // side is at our far side. Only those who send to a neighbour read what it sends, so a gate for
    // even and one for odd steps are enough: nobody can be two steps ahead.
    const int nx_beside = X - nx, ny_across = Y - ny, last_group = (ny - 1) / ROWS;
    const bool at_side = inside && rows > 0 && (column == 0 || column == nx - 2);
    const bool at_cut = inside && group == 0, at_end = inside && group == last_group;
    const Remote beside = remote_address(shared, rank ^ 1) +
                          4 * ((first + 2) * PITCH + (column == 0 ? 0 : nx_beside + 2));
    const Remote across = remote_address(shared, rank ^ 2) + 4 * (column + 2);
    const Remote gate_beside = remote_address(gates, rank ^ 1);
    const Remote gate_across = remote_address(gates, rank ^ 2);
    if (threadIdx.x < 2) close_gate(gates + threadIdx.x, 2 * (last_group + 1) + nx);
    const bool on_row = !up && at_cut;

    // What the wave can reach and what can still be heard, see `rows_within`. Receivers lie between
    // the columns −span and 0 or 0 and span, and once round the grid again.
    const float courant = fastest[map];
    const int span = left ? cut - 1 - first_receiver : last_receiver - cut;
    const int round = left ? cut - 1 - last_receiver + X : first_receiver - cut + X;
    const int block_end = min(32 * block + 32, nx);
    const float to_block = 32 * block;
    const float from_block = max(0, min(32 * block - span, round - block_end + 1));
    const float scaled = KEEP || ADJOINT ? scale[map] : 1;

    Awake now_awake = awake[trace + (ADJOINT ? nt - 1 : 0)];
    Cells add = {0, 0};
    if (on_row) {
        const float *line = inject + (trace + (ADJOINT ? nt - 1 : 0)) * X;
        add = Cells{line[x0], line[x1]};
    }
    // Σ μ·Laplacian of each cell goes through the cache, for want of registers. Only its own thread
    // adds to it, so the order is always the same.
    Cells *const sums = work + ((long long)slot * 4 + rank) * ROWS * THREADS + threadIdx.x;
    if (ADJOINT)
        for (int i = 0; i < ROWS; ++i) sums[i * THREADS] = Cells{0, 0};
    float kappa_sum = 0;
    cluster_barrier();

    for (int step = 0; step < nt; ++step) {
        const int k = ADJOINT ? nt - 1 - step : step;
        const int then = ADJOINT ? max(k - 1, 0) : min(k + 1, nt - 1);
        const int parity = step & 1;
        const int now = parity * PLANE + (first + 2) * PITCH + column + 2;
        const int next = now + (1 - 2 * parity) * PLANE;
        const int sent = 4 * (1 - parity) * PLANE; // where `next` begins

        const int widest = min(rows_within(courant * (k + LEAD), to_block),
                               rows_within(courant * (nt - k + LEAD), from_block));
        const int high = up ? now_awake.up : now_awake.down;
        int count = min(min(high, widest) - first, rows);
        if (32 * block >= (left ? now_awake.left : now_awake.right)) count = 0;
        count = max(0, (count + 1) & ~1); // rows are worked on by twos, `rows` is even

        const Cells added = add;
        now_awake = awake[trace + then];
        if (on_row) {
            const float *line = inject + (trace + then) * X;
            add = Cells{line[x0], line[x1]};
        }
        if (count > 0) {
            Kept *kept = history;
            if (KEEP || ADJOINT)
                kept += (((long long)slot * nt + k) * 4 + rank) * ROWS * THREADS + threadIdx.x;
            Cells up2 = cells(shared, now - 2 * PITCH), up1 = cells(shared, now - PITCH);
            Cells here = cells(shared, now), down1 = cells(shared, now + PITCH);
            #pragma unroll
            for (int pair = 0; pair < ROWS; pair += 2) {
                if (pair >= count) break;
                // Two rows at a time: all that they need is on its way before the first is used.
                Cells down2[2], west[2], east[2], old[2], value[2];
                Kept was[2];
                const Cells inner = cells(keep_inner, first + pair);
                #pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const int at = (pair + j) * PITCH;
                    down2[j] = cells(shared, now + at + 2 * PITCH);
                    west[j] = cells(shared, now + at - 2);
                    east[j] = cells(shared, now + at + 2);
                    old[j] = cells(shared, next + at);
                    if (ADJOINT) {
                        was[j] = kept[(pair + j) * THREADS];
                        if (k) fetch_to_cache(kept + (pair + j) * THREADS - 4 * ROWS * THREADS);
                    }
                }
                #pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const int i = pair + j;
                    const float row_keep = j ? inner.y : inner.x;
                    const float keep0 = fmaf(inner0, row_keep, side0);
                    const float keep1 = fmaf(inner1, row_keep, side1);

                    // dx² times the Laplacian, over the weight of the far neighbours.
                    float lap0 = (west[j].x + east[j].x) + (up2.x + down2[j].x);
                    float lap1 = (west[j].y + east[j].y) + (up2.y + down2[j].y);
                    const float near0 = (west[j].y + here.y) + (up1.x + down1.x);
                    const float near1 = (here.x + east[j].x) + (up1.y + down1.y);
                    lap0 = fmaf((float)(NEAR / FAR), near0, lap0);
                    lap1 = fmaf((float)(NEAR / FAR), near1, lap1);
                    lap0 = fmaf((float)(CENTRE / FAR), here.x, lap0);
                    lap1 = fmaf((float)(CENTRE / FAR), here.y, lap1);

                    Cells change = {here.x - old[j].x, here.y - old[j].y};
                    if (KEEP)
                        kept[i * THREADS] = Kept{
                            to_halves((float)FAR * scaled * lap0, scaled * (1 - keep0) * change.x),
                            to_halves((float)FAR * scaled * lap1, scaled * (1 - keep1) * change.y)};
                    value[j].x = here.x + fmaf(a[i].x, lap0, keep0 * change.x);
                    value[j].y = here.y + fmaf(a[i].y, lap1, keep1 * change.y);
                    if (i == 0 && on_row) value[j].x += added.x, value[j].y += added.y;
                    cells(shared, next + i * PITCH) = value[j];
                    if (ADJOINT) {
                        const Pair was0 = from_halves(was[j].x), was1 = from_halves(was[j].y);
                        add_at(sums + i * THREADS, value[j].x * was0.x, value[j].y * was1.x);
                        kappa_sum -= value[j].x * approximate_inverse(a[i].x) * was0.y +
                                     value[j].y * approximate_inverse(a[i].y) * was1.y;
                    }
                    up2 = up1, up1 = here, here = down1, down1 = down2[j];
                }
                if (at_side)
                    for (int j = 0; j < 2; ++j)
                        send(beside + sent + 4 * (pair + j) * PITCH, gate_beside + 8 * parity,
                             value[j].y, value[j].x);
                if (pair == 0 && at_cut)
                    for (int j = 0; j < 2; ++j)
                        send(across + sent + 4 * (1 - j) * PITCH, gate_across + 8 * parity,
                             value[j].x, value[j].y);
                if (!KEEP && pair == 0 && on_row) {
                    record[(trace + k) * X + x0] = value[0].x;
                    record[(trace + k) * X + x1] = value[0].y;
                }
            }
        }
        const bool whole = at_end && first + count == ny;
        if (whole)
            for (int r = 0; r < 2; ++r) {
                const Cells value = cells(shared, next + (ny - 1 - first - r) * PITCH);
                send(across + sent + 4 * (ny_across + r + 2) * PITCH, gate_across + 8 * parity,
                     value.x, value.y);
            }
        if (at_side) arrive(gate_beside + 8 * parity, 8 * count);
        if (at_cut) arrive(gate_across + 8 * parity, count ? 16 : 0);
        if (at_end) arrive(gate_across + 8 * parity, whole ? 16 : 0);
        block_barrier();
        if (at_side || at_cut || at_end) pass(gates + parity, step >> 1 & 1);
    }
    cluster_barrier(); // a block's memory must last as long as others may write to it

    if (ADJOINT) {
        #pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const int y = (up ? row - 1 - first - i + Y : row + first + i) % Y;
            if (i >= rows) break;
            const Cells sum = fresh(sums + i * THREADS);
            by_alpha[((long long)field * Y + y) * X + x0] = sum.x;
            by_alpha[((long long)field * Y + y) * X + x1] = sum.y;
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
