// The sponge scheme on a GPU: a kernel for one time step, and one for the gradient's sums.
//
// Compiled at run time with the field's type as `real`, the Laplacian's weights as CENTRE, NEAR and
// FAR, and ROWS, the rows that a thread walks down: the five values of its column stay in registers,
// so that each cell is fetched for its own column once, not five times. A field is a (Y, X) plane in
// row order without padding, whose edges wrap; `n · shots` of them stand one after another, the shots
// of a map together, so that its coefficients are fetched from memory once and then from the cache.

// The field after `now` and `before`, that of step k; `after` may be `before`. In `width` columns from
// `leftmost` on, inject[field, k, column] is added to the row `inject_row`, and the result is kept in
// record[field, k, column] on `record_row`; a negative row switches either off. `laplacian`, where
// given, keeps dx² times the Laplacian of `now`.
extern "C" __global__ void step(
    const real *__restrict__ now, const real *before, real *after, real *laplacian,
    const real *__restrict__ alpha, const real *__restrict__ kappa,
    const real *__restrict__ inject, real *record, int Y, int X, int shots, int nt,
    int inject_row, int record_row, int leftmost, int width, int k)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x >= X) return;
    const int first = blockIdx.y * ROWS, field = blockIdx.z;
    const int left1 = x >= 1 ? x - 1 : x - 1 + X, left2 = x >= 2 ? x - 2 : x - 2 + X;
    const int right1 = x < X - 1 ? x + 1 : x + 1 - X, right2 = x < X - 2 ? x + 2 : x + 2 - X;

    const long long cells = (long long)Y * X;
    now += field * cells;
    before += field * cells;
    after += field * cells;
    if (laplacian) laplacian += field * cells;
    alpha += field / shots * cells;
    kappa += field / shots * cells;
    const int column = x - leftmost;
    const bool within = column >= 0 && column < width;
    const long long trace = ((long long)field * nt + k) * width + column;

    // Fetched together before the first store: `after` may be the same memory, and the compiler
    // would otherwise wait for each store before the next fetch.
    real old[ROWS];
    #pragma unroll
    for (int r = 0; r < ROWS; ++r)
        if (first + r < Y) old[r] = before[(first + r) * X + x];

    real up2 = now[(first >= 2 ? first - 2 : first - 2 + Y) * X + x];
    real up1 = now[(first >= 1 ? first - 1 : first - 1 + Y) * X + x];
    real here = now[first * X + x];
    real down1 = now[(first < Y - 1 ? first + 1 : first + 1 - Y) * X + x];
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int y = first + r;
        if (y >= Y) break;
        const real *row = now + y * X;
        const real down2 = now[(y < Y - 2 ? y + 2 : y + 2 - Y) * X + x];
        const real ring1 = (row[left1] + row[right1]) + (up1 + down1);
        const real ring2 = (row[left2] + row[right2]) + (up2 + down2);
        const real lap = (real)CENTRE * here + (real)NEAR * ring1 + (real)FAR * ring2;
        real change = here - old[r];
        change -= kappa[y * X + x] * change;
        real value = here + change + alpha[y * X + x] * lap;
        if (y == inject_row && within) value += inject[trace];
        after[y * X + x] = value;
        if (laplacian) laplacian[y * X + x] = lap;
        if (y == record_row && within) record[trace] = value;
        up2 = up1, up1 = here, here = down1, down1 = down2;
    }
}

// Adds α times the gradients in α and in κ, summed over shots and over the steps first … end − 1.
// `mu` is a ring of `slots` adjoint fields, that of step k in slot k mod `slots`; `laplacian` holds
// what `step` kept of these steps, and `state` the two fields before them. The change u[k] − u[k−1],
// which the gradient in κ needs, is followed from there by the scheme itself, so that it need not be
// stored and fetched. (The source is left out: there κ is zero for good.)
extern "C" __global__ void correlate(
    const real *__restrict__ mu, const real *__restrict__ laplacian,
    const real *__restrict__ state, const real *__restrict__ alpha,
    const real *__restrict__ kappa, real *grad_alpha, real *grad_kappa, int cells, int n,
    int shots, int slots, int first, int end)
{
    const int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= cells) return;
    const long long plane = (long long)n * shots * cells, at_map = (long long)blockIdx.y * cells;
    const real a = alpha[at_map + cell], keep = 1 - kappa[at_map + cell];
    real sum_alpha = grad_alpha[at_map + cell], sum_kappa = grad_kappa[at_map + cell];
    for (int shot = 0; shot < shots; ++shot) {
        const long long at = at_map * shots + (long long)shot * cells + cell;
        real change = state[plane + at] - state[at];
        #pragma unroll 8
        for (int k = first; k < end; ++k) {
            const real m = mu[k % slots * plane + at];
            const real lap = laplacian[(k - first) * plane + at];
            sum_alpha += m * lap;
            sum_kappa -= m * change;
            change = keep * change + a * lap;
        }
    }
    grad_alpha[at_map + cell] = sum_alpha;
    grad_kappa[at_map + cell] = sum_kappa;
}
