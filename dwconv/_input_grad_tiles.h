/* What the gradient of the input needs beside the forward's tiles: column phases taken together, sums over a multiplier.
 *
 * A template like _tiles.h, included after it.  With stride 2 the even and the odd columns of x_grad see different taps of
 * the same outputs' gradients; a tile here makes 2 * T neighbouring columns of one row, so that each vector of the gradient
 * is loaded once for both and x_grad is written in the order of memory.  Other strides go phase by phase through the
 * forward's tiles.  Chains are those of _tiles.h: gradients in row-major order.
 *
 * Refused here: everything that _tiles.h refuses, and rows: a row comes with the taps that reach it already clipped.
 */

#ifndef DW_INPUT_GRAD_ONCE
#define DW_INPUT_GRAD_ONCE

/* A row of x_grad: where the gradients and weights of its first tap row and the row itself begin; its tap rows. */
typedef struct {
    ptrdiff_t x, w, y, taps;
} dw_grad_row;

/* What a tile of planes needs to know of an axis. */
typedef struct {
    ptrdiff_t size, out, taps, pad;
} dw_grad_axis;

/*   kernel columns, parity of the padding, pairs of columns */
#if DW_REGISTERS == 32
#define DW_GRAD_TILES(TILE) TILE(3, 0, 7) TILE(3, 1, 7) TILE(5, 0, 7) TILE(5, 1, 7)
enum { DW_GRAD_VECTORS = 4 };
#else
#define DW_GRAD_TILES(TILE) TILE(3, 0, 4) TILE(3, 1, 4) TILE(5, 0, 4) TILE(5, 1, 4)
enum { DW_GRAD_VECTORS = 2 };
#endif

/* Keeps gcc from loading a vector anew for each multiply-add that takes it, as it does where it can be a memory operand. */
#if defined(__GNUC__) && !defined(__clang__) && DW_VECTORS && defined(__x86_64__)
#define DW_ONE_LOAD(v) __asm__("" : "+v"(v))
#else
#define DW_ONE_LOAD(v) (void)(v)
#endif

static inline int dw_grad_pairs(ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation) {
    return stride == 2 && dilation == 1 && (taps == 3 || taps == 5);
}

#endif /* DW_INPUT_GRAD_ONCE */

/* Columns 0..2T of one row and one block of channels.  x: the gradient that the first column's last tap meets; if checked, of
 * those from there on only u with bit u of `on` exist.  Only the first `cols` columns are stored. */
DW_INLINE void DW(grad_tile)(
        const REAL *x, const REAL *w, REAL *y, const ptrdiff_t xh, const ptrdiff_t xw, const ptrdiff_t wh, const ptrdiff_t ww,
        const ptrdiff_t yw, ptrdiff_t taps, const unsigned on, const ptrdiff_t cols, const int K, const int P, const int T,
        const int checked) {
    VEC acc[16];
    DW_UNROLL for (int k = 0; k < 2 * T; k++) acc[k] = DW(splat)(0);
    for (; taps > 0; taps--, x += xh, w += wh) {
        VEC wv[8];
        DW_UNROLL for (int k = 0; k < K; k++) wv[k] = DW(load)(w + k * ww);
        DW_UNROLL for (int u = 0; u < T + (K - 1) / 2; u++) {
            if (checked && !(on >> u & 1)) continue;
            VEC v = DW(load)(x + u * xw);
            DW_ONE_LOAD(v);
            DW_UNROLL for (int j = 0; j < 2 * T; j++) {
                const int k = j + P - 2 * (u - (K - 1 - P) / 2);
                if (0 <= k && k < K) acc[j] = acc[j] + v * wv[k];
            }
        }
    }
    if (cols >= 2 * T) DW_UNROLL for (int j = 0; j < 2 * T; j++) DW(store)(y + j * yw, acc[j]);
    else DW_UNROLL for (int j = 0; j < 2 * T - 1; j++) if (j < cols) DW(store)(y + j * yw, acc[j]);
}

DW_INLINE void DW(grad_strip_of)(
        const dw_geometry *g, const REAL *x, const REAL *w, REAL *y, const dw_grad_row *rows, ptrdiff_t count, ptrdiff_t blocks,
        const int K, const int P, const int T) {
    const ptrdiff_t pairs = (g->cols + 1) / 2, xh = g->xh, xw = g->xw, wh = g->wh, ww = g->ww, yw = g->yw;
    const unsigned all = (2u << (T + (K - 1) / 2 - 1)) - 1;
    for (ptrdiff_t i = 0; i < pairs; i += T) {
        const ptrdiff_t m = i + T <= pairs ? i : dw_max(pairs - T, 0); /* the last tile overlaps its neighbour */
        const ptrdiff_t at = m + (g->pad - P) / 2 - (K - 1 - P) / 2, cols = g->cols - 2 * m;
        const ptrdiff_t u0 = dw_min(dw_max(-at, 0), 31), u1 = dw_min(dw_max(g->width - at, 0), 31);
        const unsigned on = all & ((1u << u1) - 1) & ~((1u << u0) - 1);
        for (ptrdiff_t r = 0; r < count; r++) {
            const REAL *xr = x + rows[r].x + at * xw, *wr = w + rows[r].w;
            REAL *yr = y + rows[r].y + 2 * m * yw;
            const ptrdiff_t taps = rows[r].taps;
            if (on == all)
                for (ptrdiff_t k = 0; k < blocks; k++, xr += LANES, wr += LANES, yr += LANES)
                    DW(grad_tile)(xr, wr, yr, xh, xw, wh, ww, yw, taps, on, cols, K, P, T, 0);
            else
                for (ptrdiff_t k = 0; k < blocks; k++, xr += LANES, wr += LANES, yr += LANES)
                    DW(grad_tile)(xr, wr, yr, xh, xw, wh, ww, yw, taps, on, cols, K, P, T, 1);
        }
    }
}

/* `count` rows of x_grad, `blocks` blocks of LANES channels, at column stride 2 and a kernel of `taps` columns (dw_grad_pairs).
 * g: xh, xw, wh, ww, yw; cols of x_grad, width of the gradient, pad. */
static void DW(grad_strip)(const dw_geometry *g, ptrdiff_t taps, const REAL *x, const REAL *w, REAL *y, const dw_grad_row *rows,
                           ptrdiff_t count, ptrdiff_t blocks) {
#define TILE(K, P, T) if (taps == K && (g->pad & 1) == P) DW(grad_strip_of)(g, x, w, y, rows, count, blocks, K, P, T);
    DW_GRAD_TILES(TILE)
#undef TILE
}

/* ---- planes at stride 2: pairs of rows and columns ---- */

/* Lanes 0 of a and b, 1 of a and b, ...: two vectors. */
DW_INLINE void DW(zip)(VEC *a, VEC *b) {
#if DW_VECTORS && defined(DW_SHUFFLEVECTOR)
    const VEC low = __builtin_shufflevector(*a, *b, DW_JOIN(DW_ZIP_LOW_, LANES));
    *b = __builtin_shufflevector(*a, *b, DW_JOIN(DW_ZIP_HIGH_, LANES));
    *a = low;
#elif DW_VECTORS
    REAL both[2 * LANES];
    for (int l = 0; l < LANES; l++) both[2 * l] = (*a)[l], both[2 * l + 1] = (*b)[l];
    *a = DW(load)(both);
    *b = DW(load)(both + LANES);
#else
    (void)a, (void)b;
#endif
}

/* Rows 2m and 2m + 1, T vectors of pairs of columns.  x: gradient row m + pad / 2 at the first pair's own column; of the gradient
 * rows from the first that the kernel reaches on, t0 <= t < t1 exist.  on: of each distance between gradient and pair and each
 * vector, the lanes whose gradient exists.  cols: columns from there on; last: whether row 2m + 1 is none. */
DW_INLINE void DW(grad_pair_tile)(
        const REAL *x, const ptrdiff_t xh, const VEC *wv, REAL *y, const ptrdiff_t yh, const ptrdiff_t t0, const ptrdiff_t t1,
        const MASK *on, const ptrdiff_t cols, const int last, const int K, const int PH, const int PW, const int T,
        const int checked) {
    VEC acc[4 * 4];
    DW_UNROLL for (int k = 0; k < 4 * T; k++) acc[k] = DW(splat)(0);
    DW_UNROLL for (int t = 0; t < (K + 1) / 2; t++) {
        if (t < t0 || t >= t1) continue;
        DW_UNROLL for (int u = 0; u < (K + 1) / 2; u++) {
            DW_UNROLL for (int k = 0; k < T; k++) {
                const REAL *p = x + (t - (K - 1 - PH) / 2) * xh + (u - (K - 1 - PW) / 2 + k * LANES);
                VEC v = checked ? DW(load_lanes)(p, on[u * T + k]) : DW(load)(p);
                DW_ONE_LOAD(v);
                DW_UNROLL for (int b = 0; b < 4; b++) {
                    const int i = b / 2 + PH - 2 * (t - (K - 1 - PH) / 2), j = b % 2 + PW - 2 * (u - (K - 1 - PW) / 2);
                    if (0 <= i && i < K && 0 <= j && j < K) {
                        if (checked) acc[b * T + k] = DW(add_product)(acc[b * T + k], v, wv[i * K + j], on[u * T + k]);
                        else acc[b * T + k] = acc[b * T + k] + v * wv[i * K + j];
                    }
                }
            }
        }
    }
    DW_UNROLL for (int b = 0; b < 2; b++) {
        if (b && last) break;
        DW_UNROLL for (int k = 0; k < T; k++) {
            VEC low = acc[2 * b * T + k], high = acc[(2 * b + 1) * T + k];
            REAL *p = y + b * yh + 2 * k * LANES;
            const ptrdiff_t rest = cols - 2 * k * LANES;
            if (LANES == 1) {
                DW(store)(p, low);
                if (rest > 1) DW(store)(p + 1, high);
                continue;
            }
            DW(zip)(&low, &high);
            if (!checked || rest >= 2 * LANES) {
                DW(store)(p, low);
                DW(store)(p + LANES, high);
            } else {
                DW(store_first)(p, low, rest);
                if (rest > LANES) DW(store_first)(p + LANES, high, rest - LANES);
            }
        }
    }
}

/* All rows of T vectors of pairs of columns, from pair `pair` on. */
DW_INLINE void DW(grad_pair_rows)(
        const dw_grad_axis *rows, const dw_grad_axis *cols, const REAL *x, const ptrdiff_t xh, const REAL *weights, REAL *y,
        const ptrdiff_t yh, const ptrdiff_t pair, const int K, const int PH, const int PW, const int T, const int checked) {
    VEC wv[25];
    MASK on[3 * 4];
    const ptrdiff_t column = pair + (cols->pad - PW) / 2;
    DW_UNROLL for (int k = 0; k < K * K; k++) wv[k] = DW(splat)(weights[k]);
    if (checked) {
        DW_UNROLL for (int k = 0; k < (K + 1) / 2 * T; k++) {
            const ptrdiff_t at = column + k / T - (K - 1 - PW) / 2 + k % T * LANES;
            on[k] = DW(lanes)(-at, dw_min(cols->out - at, (cols->size + 1) / 2 - pair - k % T * LANES));
        }
    }
    for (ptrdiff_t i = 0; i < rows->size; i += 2) {
        const ptrdiff_t row = (i + rows->pad - PH) / 2, first = row - (K - 1 - PH) / 2;
        DW(grad_pair_tile)(x + row * xh + column, xh, wv, y + i * yh + 2 * pair, yh, -first, rows->out - first, on,
                           cols->size - 2 * pair, i + 1 == rows->size, K, PH, PW, T, checked);
    }
}

DW_INLINE void DW(grad_pair_plane)(
        const dw_grad_axis *rows, const dw_grad_axis *cols, const REAL *x, ptrdiff_t xh, const REAL *w, ptrdiff_t wh, ptrdiff_t ww,
        REAL *y, ptrdiff_t yh, const int K, const int PH, const int PW) {
    REAL weights[25];
    const ptrdiff_t pairs = (cols->size + 1) / 2;
    for (int k = 0; k < K * K; k++) weights[k] = w[k / K * wh + k % K * ww];
    for (ptrdiff_t i = 0; i < pairs;) {
        const ptrdiff_t many = dw_ceil_div(pairs - i, LANES), at = i + (cols->pad - PW) / 2 - (K - 1 - PW) / 2;
        const ptrdiff_t T = many >= DW_GRAD_VECTORS ? DW_GRAD_VECTORS : many >= 2 ? 2 : 1;
        const int inside = at >= 0 && at + (K - 1) / 2 + T * LANES <= cols->out && 2 * (i + T * LANES) <= cols->size;
#define ROWS(T, checked) DW(grad_pair_rows)(rows, cols, x, xh, weights, y, yh, i, K, PH, PW, T, checked)
        if (T == 1) ROWS(1, 1);
        else if (T == 2 && inside) ROWS(2, 0);
        else if (T == 2) ROWS(2, 1);
        else if (inside) ROWS(DW_GRAD_VECTORS, 0);
        else ROWS(DW_GRAD_VECTORS, 1);
#undef ROWS
        i += T * LANES;
    }
}

/* A plane (or a window of one) at stride 2 and a kernel of 3x3 or 5x5 (dw_grad_pairs). */
static void DW(grad_plane)(const dw_grad_axis *rows, const dw_grad_axis *cols, const REAL *x, ptrdiff_t xh, const REAL *w,
                           ptrdiff_t wh, ptrdiff_t ww, REAL *y, ptrdiff_t yh) {
#define PLANE(K, PH, PW)                                                                    \
    if (rows->taps == K && (rows->pad & 1) == PH && (cols->pad & 1) == PW)                  \
        DW(grad_pair_plane)(rows, cols, x, xh, w, wh, ww, y, yh, K, PH, PW);
    PLANE(3, 0, 0) PLANE(3, 0, 1) PLANE(3, 1, 0) PLANE(3, 1, 1)
    PLANE(5, 0, 0) PLANE(5, 0, 1) PLANE(5, 1, 0) PLANE(5, 1, 1)
#undef PLANE
}

/* ---- depth multiplier: the gradients of a channel's outputs are neighbours ---- */

/* Adds to lane l of each pixel of `sum` the lanes of `block` from at + l * many on, `many` of them, as far as they are lanes from
 * `skip` on; in this order. */
static void DW(add_groups)(const REAL *block, ptrdiff_t pixels, REAL *sum, ptrdiff_t many, ptrdiff_t at, ptrdiff_t skip) {
    IVEC index[LANES];
    MASK on[LANES];
    const ptrdiff_t steps = dw_min(many, LANES);
    for (ptrdiff_t k = 0; k < steps; k++) {
        on[k] = DW(lanes)(0, 0);
        for (ptrdiff_t l = 0; l < LANES; l++) {
            const ptrdiff_t from = dw_max(at + l * many, skip) + k;
            const int takes = from < dw_min(at + (l + 1) * many, LANES);
            ((REAL_INT *)&index[k])[l] = (REAL_INT)(takes ? from : 0);
            if (takes) on[k] = on[k] | DW(lanes)(l, l + 1);
        }
    }
    for (ptrdiff_t i = 0; i < pixels * LANES; i += LANES) {
        VEC v = DW(load)(sum + i);
        for (ptrdiff_t k = 0; k < steps; k++)
            v = DW(add_product)(v, DW(load_indexed)(block + i, DW(lanes)(0, LANES), index[k]), DW(splat)(1), on[k]);
        DW(store)(sum + i, v);
    }
}

static void DW(clear_block)(REAL *block, ptrdiff_t pixels) {
    for (ptrdiff_t i = 0; i < pixels; i++) DW(store)(block + i * LANES, DW(splat)(0));
}

/* The first `count` lanes of a block of rows * cols pixels to those of an image. */
static void DW(store_block)(const REAL *block, ptrdiff_t rows, ptrdiff_t cols, REAL *y, ptrdiff_t yh, ptrdiff_t yw,
                            ptrdiff_t count) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < cols; c++) DW(store_first)(y + r * yh + c * yw, DW(load)(block + (r * cols + c) * LANES), count);
}
