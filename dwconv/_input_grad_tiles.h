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

/*   kernel columns, parity of the padding, pairs of columns */
#if DW_REGISTERS == 32
#define DW_GRAD_TILES(TILE) TILE(3, 0, 7) TILE(3, 1, 7) TILE(5, 0, 7) TILE(5, 1, 7)
#else
#define DW_GRAD_TILES(TILE) TILE(3, 0, 4) TILE(3, 1, 4) TILE(5, 0, 4) TILE(5, 1, 4)
#endif

static inline int dw_grad_pairs(ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation) {
    return stride == 2 && dilation == 1 && (taps == 3 || taps == 5);
}

#endif /* DW_INPUT_GRAD_ONCE */

/* Columns 0..2T of one row and one block of channels.  x: the gradient that the first column's last tap meets; of those from
 * there on, u0 <= u < u1 exist.  If checked, only the first `cols` columns are stored. */
DW_INLINE void DW(grad_tile)(
        const dw_geometry *g, const REAL *x, const REAL *w, REAL *y, ptrdiff_t taps, ptrdiff_t u0, ptrdiff_t u1, ptrdiff_t cols,
        const int K, const int P, const int T, const int checked) {
    VEC acc[16];
    DW_UNROLL for (int k = 0; k < 2 * T; k++) acc[k] = DW(splat)(0);
    for (ptrdiff_t t = 0; t < taps; t++) {
        VEC wv[8];
        DW_UNROLL for (int k = 0; k < K; k++) wv[k] = DW(load)(w + t * g->wh + k * g->ww);
        DW_UNROLL for (int u = 0; u < T + (K - 1) / 2; u++) {
            if (checked && (u < u0 || u >= u1)) continue;
            const VEC v = DW(load)(x + t * g->xh + u * g->xw);
            DW_UNROLL for (int j = 0; j < 2 * T; j++) {
                const int k = j + P - 2 * (u - (K - 1 - P) / 2);
                if (0 <= k && k < K) acc[j] = acc[j] + v * wv[k];
            }
        }
    }
    DW_UNROLL for (int j = 0; j < 2 * T; j++)
        if (!checked || j < cols) DW(store)(y + j * g->yw, acc[j]);
}

DW_INLINE void DW(grad_strip_of)(
        const dw_geometry *g, const REAL *x, const REAL *w, REAL *y, const dw_grad_row *rows, ptrdiff_t count, ptrdiff_t blocks,
        const int K, const int P, const int T) {
    const ptrdiff_t pairs = (g->cols + 1) / 2;
    for (ptrdiff_t i = 0; i < pairs; i += T) {
        const ptrdiff_t m = i + T <= pairs ? i : dw_max(pairs - T, 0); /* the last tile overlaps its neighbour */
        const ptrdiff_t at = m + (g->pad - P) / 2 - (K - 1 - P) / 2;
        const ptrdiff_t u0 = -at, u1 = g->width - at;
        const int inside = u0 <= 0 && T + (K - 1) / 2 <= u1 && 2 * (m + T) <= g->cols;
        for (ptrdiff_t r = 0; r < count; r++) {
            const REAL *xr = x + rows[r].x + at * g->xw, *wr = w + rows[r].w;
            REAL *yr = y + rows[r].y + 2 * m * g->yw;
#define TILE(checked)                                                                                                         \
            for (ptrdiff_t k = 0; k < blocks * LANES; k += LANES)                                                             \
                DW(grad_tile)(g, xr + k, wr + k, yr + k, rows[r].taps, u0, u1, g->cols - 2 * m, K, P, T, checked);
            if (inside) TILE(0) else TILE(1)
#undef TILE
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
