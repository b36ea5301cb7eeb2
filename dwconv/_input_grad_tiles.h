/* What the gradient of the input needs beside the forward's tiles: column phases taken together, phases of few taps, sums over a
 * multiplier.
 *
 * A template like _tiles.h, included after it.  With stride 2 the even and the odd columns of x_grad see different taps of
 * the same outputs' gradients; a tile here makes 2 * T neighbouring columns of one row or two, so that each vector of the
 * gradient is loaded once for both and x_grad is written in the order of memory.  Other strides go phase by phase, through the
 * forward's tiles or, with at most 2x2 taps, along the columns (grad_sparse).  Chains are those of _tiles.h: gradients in
 * row-major order.
 *
 * Refused here: everything that _tiles.h refuses, and rows: one comes with the taps that reach it already clipped, two with bits
 * of the gradient rows that exist.
 */

#ifndef DW_INPUT_GRAD_ONCE
#define DW_INPUT_GRAD_ONCE

/* A row of x_grad: where the gradients and weights of its first tap row and the row itself begin; its tap rows (of two rows at a
 * time: a bit for each gradient row that exists). */
typedef struct {
    ptrdiff_t x, w, y, taps;
} dw_grad_row;

/* Neighbouring planes, or the same window of each: sizes, distances in elements. */
typedef struct {
    ptrdiff_t rows, cols;             /* of x_grad */
    ptrdiff_t grad_rows, grad_cols;
    ptrdiff_t row_pad, col_pad;
    ptrdiff_t xh, yh;                 /* from one row to the next in the gradient and in x_grad */
    ptrdiff_t xc, yc;                 /* from one plane to the next; weights of planes are neighbours */
    ptrdiff_t wh, ww, taps;
    ptrdiff_t planes;
} dw_grad_planes;

/*   grad_strip: kernel columns, parity of the padding, pairs of columns
 *   ... of two rows (both): kernel, parities of the padding of rows and columns, pairs of columns
 *   grad_plane: kernel, parities of the padding of rows and columns
 *   its tiles: the same, vectors, whether lanes may lie outside (with masks for nothing, all do)
 */
#if DW_REGISTERS == 32
#define DW_GRAD_STRIPS(TILE) \
    TILE(2, 0, 7) TILE(2, 1, 7) TILE(3, 0, 7) TILE(3, 1, 7) TILE(4, 0, 7) TILE(4, 1, 7) TILE(5, 0, 7) TILE(5, 1, 7)
#elif DW_BYTES >= 32
#define DW_GRAD_STRIPS(TILE) \
    TILE(2, 0, 4) TILE(2, 1, 4) TILE(3, 0, 4) TILE(3, 1, 4) TILE(4, 0, 4) TILE(4, 1, 4) TILE(5, 0, 4) TILE(5, 1, 4)
#else /* 4 columns: 0.8 to 1.4 times as fast */
#define DW_GRAD_STRIPS(TILE) TILE(2, 0, 4) TILE(2, 1, 4) TILE(3, 0, 4) TILE(3, 1, 4) TILE(5, 0, 4) TILE(5, 1, 4)
#endif
#define DW_GRAD_BOTH(TILE)                                                  \
    TILE(3, 0, 0, 7) TILE(3, 0, 1, 7) TILE(3, 1, 0, 7) TILE(3, 1, 1, 7)     \
    TILE(3, 0, 0, 2) TILE(3, 0, 1, 2) TILE(3, 1, 0, 2) TILE(3, 1, 1, 2)
#if DW_BYTES >= 32 || DW_REGISTERS == 32
#define DW_GRAD_EVEN(PLANE) PLANE(2, 0, 0) PLANE(4, 0, 0) PLANE(4, 1, 1) /* paddings "valid" and "same" */
#else
#define DW_GRAD_EVEN(PLANE)
#endif
#define DW_GRAD_PLANES(PLANE)                                               \
    DW_GRAD_EVEN(PLANE)                                                     \
    PLANE(3, 0, 0) PLANE(3, 0, 1) PLANE(3, 1, 0) PLANE(3, 1, 1)             \
    PLANE(5, 0, 0) PLANE(5, 0, 1) PLANE(5, 1, 0) PLANE(5, 1, 1)
#if DW_BYTES == 64
#define DW_GRAD_PAIRS(TILE, K, PH, PW) TILE(K, PH, PW, 4, 1) TILE(K, PH, PW, 2, 1) TILE(K, PH, PW, 1, 1)
#else
#define DW_GRAD_PAIRS(TILE, K, PH, PW) TILE(K, PH, PW, 2, 0) TILE(K, PH, PW, 1, 1)
#endif

#ifdef __GNUC__
#define DW_NOINLINE __attribute__((noinline))
#else
#define DW_NOINLINE
#endif

/* Keeps gcc from loading a vector anew for each multiply-add that takes it, as it does where it can be a memory operand. */
#if defined(__GNUC__) && !defined(__clang__) && DW_VECTORS && defined(__x86_64__)
#define DW_ONE_LOAD(v) __asm__("" : "+v"(v))
#else
#define DW_ONE_LOAD(v) (void)(v)
#endif

/* Gradients that a pair of columns, or rows, of x_grad meets, the first of them (K - 1 - P) / 2 before its own; P: parity of the padding. */
#define DW_MET(K, P) (1 + (P) + ((K) - 1 - (P)) / 2)

static inline int dw_grad_pairs(ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation) {
    if (stride != 2 || dilation != 1) return 0;
#define TILE(K, P, T) if (taps == K) return 1;
    DW_GRAD_STRIPS(TILE)
#undef TILE
    return 0;
}

/* Whether there are tiles for planes with that kernel and those paddings before rows and columns, at stride 2 (dw_grad_pairs). */
static inline int dw_grad_planes_serve(ptrdiff_t taps, ptrdiff_t row_pad, ptrdiff_t col_pad) {
#define PLANE(K, PH, PW) if (taps == K && (row_pad & 1) == PH && (col_pad & 1) == PW) return 1;
    DW_GRAD_PLANES(PLANE)
#undef PLANE
    return 0;
}

/* ... and of rows: how many pairs of columns of two rows channel tiles make, in pixels of x_grad `pitch` bytes apart; 0 where each
 * row is made on its own.  Few of pixels 1 KB apart, whose lines share few sets of L1 (14x14x1024: 31 us, seven 36, rows on their
 * own 43). */
static inline int dw_grad_both(ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t pitch) {
    return DW_BYTES < 32 || taps != 3 || !dw_grad_pairs(taps, stride, dilation) ? 0 : pitch % 1024 ? 7 : 2;
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
        DW_UNROLL for (int u = 0; u < T - 1 + DW_MET(K, P); u++) {
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

/* Two rows and 2T columns of one block of channels, with a kernel of 3x3.  x: the first gradient that the kernel reaches from
 * there; if checked, that of row t and of column u from there exists only if bit t * (T + 1) + u of `on` is set, and only the first
 * `rows` and `cols` are stored.  The gradients of a pair of columns stay in registers for the next pair, and its stores lie between
 * multiply-adds: many at once take the time of one and a half multiply-adds each (Zen 4). */
DW_INLINE void DW(grad_pair_tile)(
        const REAL *x, const REAL *w, REAL *y, const ptrdiff_t xh, const ptrdiff_t xw, const ptrdiff_t wh, const ptrdiff_t ww,
        const ptrdiff_t yh, const ptrdiff_t yw, const unsigned on, const ptrdiff_t rows, const ptrdiff_t cols, const int PH,
        const int PW, const int T, const int checked) {
    VEC wv[9], v[4];
    DW_UNROLL for (int k = 0; k < 9; k++) wv[k] = DW(load)(w + k / 3 * wh + k % 3 * ww);
    DW_UNROLL for (int t = 0; t < 2; t++) if (!checked || on >> t * (T + 1) & 1) v[2 * t + 1] = DW(load)(x + t * xh);
    DW_UNROLL for (int i = 0; i < T; i++, y += 2 * yw) {
        VEC acc[4];
        x += xw;
        DW_HIDE(x);
        DW_HIDE(y);
        DW_UNROLL for (int b = 0; b < 4; b++) acc[b] = DW(splat)(0);
        DW_UNROLL for (int k = 0; k < 4; k++) { /* gradients in row-major order */
            const int t = k / 2, u = k % 2;
            if (!u) v[k] = v[k + 1];
            if (checked && !(on >> (t * (T + 1) + i + u) & 1)) continue;
            if (u) v[k] = DW(load)(x + t * xh);
            DW_ONE_LOAD(v[k]);
            DW_UNROLL for (int b = 0; b < 4; b++) {
                const int f = b / 2 + PH - 2 * (t - (2 - PH) / 2), j = b % 2 + PW - 2 * (u - (2 - PW) / 2);
                if (0 <= f && f < 3 && 0 <= j && j < 3) acc[b] = acc[b] + v[k] * wv[3 * f + j];
            }
        }
        DW_UNROLL for (int b = 0; b < 4; b++)
            if (!checked || (b / 2 < rows && 2 * i + b % 2 < cols)) DW(store)(y + b / 2 * yh + b % 2 * yw, acc[b]);
    }
}

/* R rows at a time, each as it comes, or the pair that begins with rows[0], whose taps are then bits of the gradient rows that exist. */
DW_INLINE void DW(grad_strip_of)(
        const dw_geometry *g, const REAL *x, const REAL *w, REAL *y, const dw_grad_row *rows, ptrdiff_t count, ptrdiff_t first,
        ptrdiff_t blocks, ptrdiff_t channels, const int K, const int R, const int PH, const int P, const int T) {
    const int down = DW(from_last)(g, x, y), span = T - 1 + DW_MET(K, P);
    const ptrdiff_t start = down ? first + (blocks - 1) * LANES : first, step = down ? -LANES : LANES;
    const ptrdiff_t pairs = (g->cols + 1) / 2, xh = g->xh, xw = g->xw, wh = g->wh, ww = g->ww, yh = g->yh, yw = g->yw;
    const unsigned all = (1u << span) - 1;
    for (ptrdiff_t i = 0; i < pairs; i += T) {
        const ptrdiff_t m = i + T <= pairs ? i : dw_max(pairs - T, 0); /* the last tile overlaps its neighbour */
        const ptrdiff_t at = m + (g->pad - P) / 2 - (K - 1 - P) / 2, cols = g->cols - 2 * m;
        const ptrdiff_t u0 = dw_min(dw_max(-at, 0), 31), u1 = dw_min(dw_max(g->width - at, 0), 31);
        const unsigned on = all & ((1u << u1) - 1) & ~((1u << u0) - 1);
        for (ptrdiff_t r = 0; r < count; r += R) {
            const REAL *xr = x + rows[r].x + at * xw, *wr = w + rows[r].w;
            REAL *yr = y + rows[r].y + 2 * m * yw;
            const ptrdiff_t taps = rows[r].taps, newest = (R == 2 ? 1 : taps - 1) * xh;
            const unsigned both = (taps & 1 ? on : 0) | (taps & 2 ? on << span : 0);
            const int inside = on == all && (R == 1 || (taps == 3 && count == 2 && cols >= 2 * T));
            for (ptrdiff_t k = start, left = blocks; left > 0; k += step, left--) {
                const ptrdiff_t c = dw_min(dw_max(k, 0), channels - LANES);
                const REAL *xc = xr + c, *wc = wr + c;
                REAL *yc = yr + c;
                if (g->far > 1) { /* what the next tile needs, as stores wait for missing lines (8 x 112x112x96: half the time) */
                    DW_UNROLL for (int j = 0; j < 2 * T * R; j++) DW_PREFETCH(yc + j / (2 * T) * yh + (j % (2 * T) + 2 * T) * yw, 1);
                    if (r + R >= count) DW_UNROLL for (int u = DW_MET(K, P) - 1; u < span; u++) /* the newest gradients */
                        DW_PREFETCH(xc + newest + (u + T) * xw, 0);
                }
                if (R == 2 && inside) DW(grad_pair_tile)(xc, wc, yc, xh, xw, wh, ww, yh, yw, both, count, cols, PH, P, T, 0);
                else if (R == 2) DW(grad_pair_tile)(xc, wc, yc, xh, xw, wh, ww, yh, yw, both, count, cols, PH, P, T, 1);
                else if (inside) DW(grad_tile)(xc, wc, yc, xh, xw, wh, ww, yw, taps, on, cols, K, P, T, 0);
                else DW(grad_tile)(xc, wc, yc, xh, xw, wh, ww, yw, taps, on, cols, K, P, T, 1);
            }
        }
    }
}

/* `count` rows of x_grad, one or two, `blocks` blocks of LANES channels from `first` on, the first and last of which may be shifted
 * to lie inside `channels`, at column stride 2 and a kernel of `taps` columns (dw_grad_pairs).  pairs: see dw_grad_both; parity: of
 * the rows' padding.
 * g: x0 (0), xh, xw, wh, ww, yh, yw; cols of x_grad, width of the gradient, pad, far. */
static void DW(grad_strip)(const dw_geometry *g, ptrdiff_t taps, int pairs, int parity, const REAL *x, const REAL *w, REAL *y,
                           const dw_grad_row *rows, ptrdiff_t count, ptrdiff_t first, ptrdiff_t blocks, ptrdiff_t channels) {
#define TILE(K, P, T)                                                                                              \
    if (pairs == 0 && taps == K && (g->pad & 1) == P) {                                                            \
        DW(grad_strip_of)(g, x, w, y, rows, count, first, blocks, channels, K, 1, 0, P, T);                        \
        return;                                                                                                    \
    }
    DW_GRAD_STRIPS(TILE)
#undef TILE
#if DW_BYTES >= 32
#define TILE(K, PH, P, T)                                                                                          \
    if (pairs == T && parity == PH && taps == K && (g->pad & 1) == P) {                                            \
        DW(grad_strip_of)(g, x, w, y, rows, count, first, blocks, channels, K, 2, PH, P, T);                       \
        return;                                                                                                    \
    }
    DW_GRAD_BOTH(TILE)
#undef TILE
#endif
}

/* ---- phases of few taps: strides of 3 and more, where tiles would be mostly borders; small kernels with a multiplier ---- */

/* Neighbouring columns of a row of a phase, of one block of channels, with KH x KW taps: weights stay in registers, and of two
 * columns of taps the gradients of the second are the next column's first. */
DW_INLINE void DW(grad_run)(const dw_geometry *g, const REAL *x, const REAL *w, REAL *y, ptrdiff_t cols, const int KH, const int KW) {
    const ptrdiff_t xh = g->xh, xw = g->xw, yw = g->yw;
    VEC wv[4], v[2];
    DW_UNROLL for (int k = 0; k < KH * KW; k++) wv[k] = DW(load)(w + k / KW * g->wh + k % KW * g->ww);
    DW_UNROLL for (int t = 0; t < KH; t++) v[t] = DW(load)(x + t * xh);
    for (; cols > 0; cols--, y += yw) {
        VEC acc = DW(splat)(0);
        x += xw;
        DW_UNROLL for (int t = 0; t < KH; t++) {
            acc = acc + v[t] * wv[t * KW];
            if (KW == 2 || cols > 1) v[t] = DW(load)(x + t * xh);
            if (KW == 2) acc = acc + v[t] * wv[t * KW + 1];
        }
        DW(store)(y, acc);
    }
}

/* `height` rows of a phase of at most 2x2 taps, `blocks` blocks of LANES channels from `first` on. */
static void DW(grad_sparse)(const dw_geometry *g, const REAL *x, const REAL *w, REAL *y, ptrdiff_t height, ptrdiff_t first,
                            ptrdiff_t blocks, ptrdiff_t channels) {
    x += g->x0;
    for (ptrdiff_t r = 0; r < height; r++, x += g->xh, y += g->yh) {
        const ptrdiff_t t0 = dw_max(g->row_lo - r, 0), high = dw_min(g->row_hi - r, g->kh) - t0;
        for (ptrdiff_t k = 0; k < blocks; k++) {
            const ptrdiff_t at = DW(block_at)(first, k, channels);
            for (ptrdiff_t c = 0, run; c < g->cols; c += run) {
                const ptrdiff_t u0 = dw_max(g->col_lo - c, 0), wide = dw_min(g->col_hi - c, g->kw) - u0;
                const REAL *xc = x + t0 * g->xh + (c + u0) * g->xw + at, *wc = w + t0 * g->wh + u0 * g->ww + at;
                REAL *yc = y + c * g->yw + at;
                run = 1;
                if (high <= 0 || g->kw == 0) run = g->cols - c;
                else if (wide == g->kw) run = dw_min(g->col_hi - g->kw + 1, g->cols) - c;
                if (high <= 0 || wide <= 0) for (ptrdiff_t i = 0; i < run; i++) DW(store)(yc + i * g->yw, DW(splat)(0));
#define TILE(KH, KW) else if (high == KH && wide == KW) DW(grad_run)(g, xc, wc, yc, run, KH, KW);
                TILE(1, 1) TILE(1, 2) TILE(2, 1) TILE(2, 2)
#undef TILE
            }
        }
    }
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

/* The lanes that are on, which are the first n. */
DW_INLINE void DW(store_on)(REAL *p, VEC v, MASK on, ptrdiff_t n) {
#if DW_BYTES == 64 && REAL_SIZE == 4
    (void)n, _mm512_mask_storeu_ps(p, (__mmask16)on, (__m512)v);
#elif DW_BYTES == 64
    (void)n, _mm512_mask_storeu_pd(p, (__mmask8)on, (__m512d)v);
#else
    (void)on;
    if (n >= LANES) DW(store)(p, v);
    else if (n > 0) DW(store_first)(p, v, n);
#endif
}

/* The vector at p; or, folded, one half of it from there and one from the next row.  within: all of it may be read. */
DW_INLINE VEC DW(load_pairs)(const REAL *p, const ptrdiff_t xh, MASK on, MASK next, const int fold, const int checked, const int within) {
#if DW_VECTORS
    if (fold) return (VEC)((IVEC)DW(load_within)(p, on, within) | (IVEC)DW(load_within)(p + (xh - LANES / 2), next, within));
#endif
    return checked ? DW(load_within)(p, on, within) : DW(load)(p);
}

/* Two rows of each plane of x_grad, T vectors of pairs of columns from pair `pair` on, then the next two; or, folded, four rows,
 * two of them in each half of one vector, where a row has few pairs.  The first of the gradient rows that the kernel reaches
 * from a pair of rows is row -(K - 1 - P) / 2 from the pair's own, and so for columns. */
DW_INLINE void DW(grad_pair_rows)(const dw_grad_planes *g, const REAL *x, const REAL *w, REAL *y, const ptrdiff_t pair,
                                  const int K, const int PH, const int PW, const int T, const int fold, const int checked) {
    enum { HALF = LANES / 2 };
    const ptrdiff_t column = pair + (g->col_pad - PW) / 2 - (K - 1 - PW) / 2, first = (g->row_pad - PH) / 2 - (K - 1 - PH) / 2;
    const ptrdiff_t size = g->rows, out = g->grad_rows, wide = g->cols - 2 * pair, xh = g->xh, yh = g->yh;
    const ptrdiff_t down = (out - 1) * xh, over = (g->planes - 1) * g->xc, reach = (DW_MET(K, PH) - 1 + fold) * xh; /* any sign */
    const REAL *const lo = x + dw_min(down, 0) + dw_min(over, 0), *const hi = lo + dw_max(down, -down) + dw_max(over, -over) + g->grad_cols;
    const int edges = checked && T == 1 && DW_VECTORS && DW_BYTES < 64; /* weights are -0 where an input is missing, see else_minus_zero */
    const MASK none = DW(lanes)(0, 0);
    MASK on[3 * 4], next[3 * 4], both[3 * 4], stored[2 * 4];
    DW_UNROLL for (int k = 0; k < DW_MET(K, PW) * T; k++) {
        const ptrdiff_t at = column + k / T + k % T * LANES, end = dw_min(g->grad_cols - at, (wide + 1) / 2 - k % T * LANES);
        on[k] = DW(lanes)(-at, end);
        next[k] = fold ? DW(lanes)(HALF + dw_max(-at, 0), HALF + end) : none;
        both[k] = on[k] | next[k];
    }
    DW_UNROLL for (int k = 0; k < 2 * T; k++) stored[k] = DW(lanes)(0, wide - k * LANES);
    x += first * xh + column;
    y += 2 * pair;
    for (ptrdiff_t plane = 0; plane < g->planes; plane++, x += g->xc, y += g->yc, w++) {
        VEC wv[25], edge[25];
        const REAL *p = x;
        REAL *q = y;
        ptrdiff_t row = first; /* of the gradient */
        DW_UNROLL for (int k = 0; k < K * K; k++) wv[k] = DW(splat)(w[k / K * g->wh + k % K * g->ww]);
#if DW_VECTORS && DW_BYTES < 64
        if (edges) DW_UNROLL for (int k = 0; k < K * K; k++) /* of tap column j, those of the gradient that it meets */
            edge[k] = DW(else_minus_zero)(wv[k], both[(K - 1 - PW) / 2 - (k % K - PW - ((k % K + PW) & 1)) / 2]);
#endif
        for (ptrdiff_t i = 0; i < size; i += fold ? 4 : 2) {
            VEC acc[4 * 4];
            DW_UNROLL for (int k = 0; k < 4 * T; k++) acc[k] = DW(splat)(0);
            const int within = p + dw_min(reach, 0) - fold * HALF >= lo && p + dw_max(reach, 0) + DW_MET(K, PW) - 1 + LANES <= hi;
#define TAPS(ON, NEXT, BOTH, inner)                                                                                                  \
            DW_UNROLL for (int u = 0; u < DW_MET(K, PW); u++) {                                                               \
                DW_UNROLL for (int k = 0; k < T; k++) {                                                                       \
                    VEC v = DW(load_pairs)(p + (t * xh + u + k * LANES), xh, ON, NEXT, fold, checked, inner);                   \
                    DW_ONE_LOAD(v);                                                                                           \
                    DW_UNROLL for (int b = 0; b < 4; b++) {                                                                   \
                        const int f = b / 2 + PH - 2 * (t - (K - 1 - PH) / 2), j = b % 2 + PW - 2 * (u - (K - 1 - PW) / 2);   \
                        if (0 <= f && f < K && 0 <= j && j < K) {                                                             \
                            if (inner) acc[b]            = acc[b] + v * edge[f * K + j];                                      \
                            else if (checked) acc[b * T + k] = DW(add_product)(acc[b * T + k], v, wv[f * K + j], BOTH);       \
                            else acc[b * T + k] = acc[b * T + k] + v * wv[f * K + j];                                         \
                        }                                                                                                     \
                    }                                                                                                         \
                }                                                                                                             \
            }
            if (row >= 0 && row + DW_MET(K, PH) + fold <= out && (!edges || within)) {
                DW_UNROLL for (int t = 0; t < DW_MET(K, PH); t++) TAPS(on[u * T + k], next[u * T + k], both[u * T + k], edges)
            } else {
                DW_UNROLL for (int t = 0; t < DW_MET(K, PH); t++) {
                    const int here = 0 <= row + t && row + t < out, there = fold && 0 <= row + t + 1 && row + t + 1 < out;
                    if (!here && !there) continue;
                    TAPS(here ? on[u * T + k] : none, there ? next[u * T + k] : none,
                         (here ? on[u * T + k] : none) | (there ? next[u * T + k] : none), 0)
                }
            }
#undef TAPS
            DW_UNROLL for (int b = 0; b < 2; b++) {
                if (i + b >= size) break;
                DW_UNROLL for (int k = 0; k < T; k++) {
                    VEC low = acc[2 * b * T + k], high = acc[(2 * b + 1) * T + k];
                    REAL *r = q + b * yh + 2 * k * LANES;
                    DW(zip)(&low, &high);
                    DW(store_on)(r, low, stored[2 * k], wide - 2 * k * LANES);
                    if (!fold) DW(store_on)(r + LANES, high, stored[2 * k + 1], wide - (2 * k + 1) * LANES);
                    else if (i + b + 2 < size) DW(store_on)(r + 2 * yh, high, stored[0], wide);
                }
            }
            row += fold ? 2 : 1;
            p += fold ? 2 * xh : xh;
            q += fold ? 4 * yh : 2 * yh;
        }
    }
}

/* Each tile is a function of its own: of all of them together gcc holds too little in registers. */
#define TILE(K, PH, PW, T, CHECKED)                                                                                           \
    static DW_NOINLINE void DW(grad_pairs_##K##PH##PW##T)(const dw_grad_planes *g, const REAL *x, const REAL *w, REAL *y,     \
                                                          ptrdiff_t pair) {                                                   \
        DW(grad_pair_rows)(g, x, w, y, pair, K, PH, PW, T, 0, CHECKED);                                                       \
    }
#define CALL(K, PH, PW, T, CHECKED)                                                                                           \
    if (CHECKED ? many >= T                                                                                                   \
                : i + shift >= 0 && i + shift + DW_MET(K, PW) - 1 + T * LANES <= g->grad_cols && 2 * (i + T * LANES) <= g->cols) {  \
        DW(grad_pairs_##K##PH##PW##T)(&one, x, w, y, i);                                                                      \
        i += T * LANES;                                                                                                       \
        continue;                                                                                                             \
    }
#define PLANE(K, PH, PW)                                                                                                      \
    DW_GRAD_PAIRS(TILE, K, PH, PW)                                                                                            \
    static DW_NOINLINE void DW(grad_fold_##K##PH##PW)(const dw_grad_planes *g, const REAL *x, const REAL *w, REAL *y) {       \
        DW(grad_pair_rows)(g, x, w, y, 0, K, PH, PW, 1, 1, 1);                                                                \
    }                                                                                                                         \
    static void DW(grad_planes_##K##PH##PW)(const dw_grad_planes *g, const REAL *x, const REAL *w, REAL *y) {                 \
        const ptrdiff_t pairs = (g->cols + 1) / 2, shift = (g->col_pad - PW) / 2 - (K - 1 - PW) / 2;                          \
        const ptrdiff_t at_once = pairs > 2 * LANES ? 1 : g->planes; /* wide planes one by one, all their columns */          \
        dw_grad_planes one = *g;                                                                                              \
        one.planes = at_once;                                                                                                 \
        if (LANES > 1 && pairs <= LANES / 2) {                                                                                \
            DW(grad_fold_##K##PH##PW)(g, x, w, y);                                                                            \
            return;                                                                                                           \
        }                                                                                                                     \
        for (ptrdiff_t plane = 0; plane < g->planes; plane += at_once, x += g->xc, y += g->yc, w++) {                         \
            for (ptrdiff_t i = 0; i < pairs;) {                                                                               \
                const ptrdiff_t many = dw_ceil_div(pairs - i, LANES);                                                         \
                DW_GRAD_PAIRS(CALL, K, PH, PW)                                                                                \
            }                                                                                                                 \
        }                                                                                                                     \
    }
DW_GRAD_PLANES(PLANE)
#undef PLANE
#undef TILE
#undef CALL

/* Planes at stride 2, see dw_grad_planes_serve. */
static void DW(grad_planes)(const dw_grad_planes *g, const REAL *x, const REAL *w, REAL *y) {
#define PLANE(K, PH, PW) \
    if (g->taps == K && (g->row_pad & 1) == PH && (g->col_pad & 1) == PW) DW(grad_planes_##K##PH##PW)(g, x, w, y);
    DW_GRAD_PLANES(PLANE)
#undef PLANE
}

/* ---- depth multiplier: the gradients of a channel's outputs are neighbours ---- */

/* Adds to lane l of each pixel of `sum` the lanes of `block` from at + l * many on, `many` of them, as far as they are lanes from
 * `skip` on; in this order. */
static void DW(add_groups)(const REAL *block, ptrdiff_t pixels, REAL *sum, ptrdiff_t many, ptrdiff_t at, ptrdiff_t skip) {
    for (ptrdiff_t k = 0; k < dw_min(many, LANES); k++) {
        IVEC index;
        MASK on = DW(lanes)(0, 0);
        for (ptrdiff_t l = 0; l < LANES; l++) {
            const ptrdiff_t from = dw_max(at + l * many, skip) + k;
            const int takes = from < dw_min(at + (l + 1) * many, LANES);
            ((REAL_INT *)&index)[l] = (REAL_INT)(takes ? from : 0);
            if (takes) on = on | DW(lanes)(l, l + 1);
        }
        for (ptrdiff_t i = 0; i < pixels * LANES; i += LANES)
            DW(store)(sum + i, DW(add_product)(DW(load)(sum + i), DW(load_picked)(block + i, index), DW(splat)(1), on));
    }
}

/* Pixels of M vectors, where the lanes of a channel are M neighbours: their sums, in order, to an image.  Even and odd lanes are parted until
 * the M lanes of a channel lie in M vectors, whose order within is put right in the sum; as many as lanes are transposed. */
DW_INLINE void DW(store_sums_of)(const REAL *block, ptrdiff_t rows, ptrdiff_t cols, REAL *y, ptrdiff_t yh, ptrdiff_t yw, const int M) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t c = 0; c < cols; c++, block += M * LANES) {
            VEC v[LANES > 4 ? LANES : 4], part[4], sum = DW(splat)(0);
            DW_UNROLL for (int k = 0; k < M; k++) v[k] = DW(load)(block + k * LANES);
            if (M == LANES) {
                DW(transpose)(v);
                DW_UNROLL for (int k = 0; k < M; k++) sum = sum + v[k];
                DW(store)(y + r * yh + c * yw, sum);
                continue;
            }
            DW_UNROLL for (int k = 0; k < M / 2; k++) {
                part[k] = DW(turned)(v[2 * k], v[2 * k + 1], 0);
                part[M / 2 + k] = DW(turned)(v[2 * k], v[2 * k + 1], 1);
                if (M == 4) part[k] = DW(turn)(part[k]), part[2 + k] = DW(turn)(part[2 + k]);
            }
            if (M == 2) sum = (sum + part[0]) + part[1];
            else {
                sum = (sum + DW(turned)(part[0], part[1], 0)) + DW(turned)(part[2], part[3], 0);
                sum = (sum + DW(turned)(part[0], part[1], 1)) + DW(turned)(part[2], part[3], 1);
            }
            DW(store)(y + r * yh + c * yw, DW(turn)(sum));
        }
    }
}

static void DW(store_sums)(const REAL *block, ptrdiff_t rows, ptrdiff_t cols, REAL *y, ptrdiff_t yh, ptrdiff_t yw, ptrdiff_t many) {
    if (many == LANES) DW(store_sums_of)(block, rows, cols, y, yh, yw, LANES);
    else if (many == 2) DW(store_sums_of)(block, rows, cols, y, yh, yw, 2);
    else DW(store_sums_of)(block, rows, cols, y, yh, yw, 4);
}

/* y[0..n] = from[0..n], or y + from. */
static void DW(add_row)(const REAL *from, REAL *y, ptrdiff_t n, int first) {
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const ptrdiff_t many = dw_min(n - i, LANES);
        const MASK m = DW(lanes)(0, many);
        const VEC sum = (first ? DW(splat)(0) : DW(load_lanes)(y + i, m)) + DW(load_lanes)(from + i, m);
        DW(store_on)(y + i, sum, m, many);
    }
}

static void DW(clear_block)(REAL *block, ptrdiff_t pixels) {
    for (ptrdiff_t i = 0; i < pixels; i++) DW(store)(block + i * LANES, DW(splat)(0));
}

/* The first `count` lanes of a block of rows * cols pixels to those of an image. */
static void DW(store_block)(const REAL *block, ptrdiff_t rows, ptrdiff_t cols, REAL *y, ptrdiff_t yh, ptrdiff_t yw,
                            ptrdiff_t count) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < cols; c++, block += LANES) DW(store_first)(y + r * yh + c * yw, DW(load)(block), count);
}
