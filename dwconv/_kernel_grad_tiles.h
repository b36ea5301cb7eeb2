/* The kernel gradient's register tile: the sums of P x Q taps stay in registers while a window of gradients slides over x.
 *
 *   w_grad[i, j] = sum over outputs (r, c) of x[r*sh + i, c*sw + j] * grad[r, c]        (distances in taps, see dw_geometry)
 *
 * A template like _tiles.h, included once for float and once for double.  Two families, by what a vector spans:
 *
 *   channel family  LANES channels of one pixel; the window slides along an image row, taps across are kernel rows.  NHWC, and
 *                   planes gathered as channels.
 *   row family      LANES neighbours in a row; the window slides down the rows, taps across are kernel columns.  One NCHW plane,
 *                   or NHWC with few channels, whose rows are flat runs; lanes are added at the end (grad_add_lanes).
 *
 * Both are one tile.  A step loads one vector of gradients, which the window keeps for the P taps along, and Q vectors of x,
 * each multiplied into P sums: (Q + 1) / (P * Q) loads a multiply-add, 0.44 for 3x3, 0.24 for 5x5, 0.20 for 7x7.  A stride along
 * takes the taps by their remainder, each remainder a slide of its own over every stride-th position.
 *
 * A sum of one tap is one chain of multiply-adds over the outputs in row-major order (row family: strips of LANES columns, each
 * downwards), whatever the tile: so blocks of taps and channels can be cut anywhere.  What lies outside the image or past the last
 * output is skipped, never multiplied by zero: a NaN reaches the taps that meet it and no others.
 *
 * Refused here: argument checks, allocation, threads, and the cut into pieces whose sums are added pairwise (_kernel_grad.pxi).
 */

#ifndef DW_KERNEL_GRAD_ONCE
#define DW_KERNEL_GRAD_ONCE

/* Distances are in elements. */
typedef struct {
    ptrdiff_t kh, kw;         /* taps */
    ptrdiff_t sh, sw;         /* stride, in taps (row family: sw in pixels) */
    ptrdiff_t xh, xw;         /* from one tap row/column to the next in x */
    ptrdiff_t gh, gw;         /* from one output row/column to the next in grad */
    ptrdiff_t row_lo, row_hi; /* tap rows from output row 0 on that lie in the image: row_lo <= t < row_hi */
    ptrdiff_t col_lo, col_hi; /* the same for columns (channel family) */
    ptrdiff_t rows, cols;     /* outputs */
    ptrdiff_t repeat, period; /* depth multiplier; row family: output channels of a flat row */
    ptrdiff_t width, pad, dilation, pixel; /* row family: pixels of a row; before it; of the columns; elements from pixel to pixel */
} dw_grad;

/* One slide, or one on each of `lines` lines. */
typedef struct {
    ptrdiff_t lines, count;                  /* outputs of a line */
    ptrdiff_t x_line, x_step, x_tap;         /* in x: to the next line, position along, tap across */
    ptrdiff_t g_line, g_step;                /* in grad: to the next line, output */
    ptrdiff_t lo, hi;                        /* positions along that lie in the image; 0 is tap 0 of output 0 */
    ptrdiff_t across_lo, across_hi, across;  /* taps across that do on line 0; how many fewer on the next line */
    ptrdiff_t acc_p, acc_q;                  /* in the sums: to the next tap along, across */
} dw_slide;

/* How a slide loads: vectors; channels that repeat or are fewer than a vector; lanes that differ by tap (row family). */
enum { DW_WHOLE, DW_INDEXED, DW_MASKED };
/* How a masked slide finds its lanes: neighbours; neighbours repeated; each at its own offset. */
enum { DW_NEIGHBOURS, DW_REPEATS, DW_OFFSETS };

/* The sizes of tile, taps along x taps across: what leaves room in the registers for the window and a vector of x. */
#if DW_REGISTERS == 32
#define DW_SLIDES(TILE)                                     \
    TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 5)             \
    TILE(2, 1) TILE(2, 2) TILE(2, 3) TILE(2, 5)             \
    TILE(3, 1) TILE(3, 2) TILE(3, 3) TILE(3, 5)             \
    TILE(5, 1) TILE(5, 2) TILE(5, 3) TILE(5, 5)             \
    TILE(7, 1) TILE(7, 2) TILE(7, 3)
enum { DW_MOST_ALONG = 7, DW_MOST_ACROSS = 5, DW_MOST_SUMS = 25 };
#else
#define DW_SLIDES(TILE)                          \
    TILE(1, 1) TILE(1, 2) TILE(1, 3)             \
    TILE(2, 1) TILE(2, 2) TILE(2, 3)             \
    TILE(3, 1) TILE(3, 2) TILE(3, 3)             \
    TILE(5, 1)
enum { DW_MOST_ALONG = 5, DW_MOST_ACROSS = 3, DW_MOST_SUMS = 9 };
#endif

/* How many of n taps the next tile takes: a size of DW_SLIDES that leaves no poor rest. */
static inline int dw_next_taps(ptrdiff_t n, ptrdiff_t most) {
    if (n <= 3) return (int)dw_min(n, most);
    if (n == 7 && most >= 7) return 7;
    if (n == 4 || most < 3) return (int)dw_min(2, most);
    return n == 6 || n == 9 || most < 5 ? 3 : 5;
}

/* Bits lo <= k < hi of a word, for any lo and hi. */
static inline unsigned dw_bits(ptrdiff_t lo, ptrdiff_t hi) {
    lo = dw_min(dw_max(lo, 0), 31);
    hi = dw_min(dw_max(hi, 0), 31);
    return ((1u << hi) - 1) & ~((1u << lo) - 1);
}

#endif /* DW_KERNEL_GRAD_ONCE */

/* Which lanes a slide loads and adds. */
typedef struct {
    MASK g;                   /* lanes of grad that exist */
    MASK x;                   /* indexed: lanes of x that they need */
    IVEC index;               /* and which of those each takes */
    MASK out[DW_MOST_ACROSS]; /* masked, per tap across: lanes of grad whose x lies in the image */
    MASK in[DW_MOST_ACROSS];  /* repeated: lanes of x that they need */
    int x_kind, g_kind;       /* masked: DW_NEIGHBOURS ... */
    ptrdiff_t x_offset[LANES], g_offset[LANES];
} DW(dw_slide_lanes);

DW_INLINE VEC DW(load_offsets)(const REAL *p, const ptrdiff_t *offset, MASK m) {
    REAL lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = DW(lane_on)(m, l) ? p[offset[l]] : 0;
    return DW(load)(lane);
}

DW_INLINE VEC DW(slide_x)(const REAL *p, const DW(dw_slide_lanes) *b, const int q, const int mode) {
    if (mode == DW_WHOLE) return DW(load)(p);
    if (mode == DW_INDEXED) return DW(load_indexed)(p, b->x, b->index);
    if (b->x_kind == DW_NEIGHBOURS) return DW(load_lanes)(p, b->out[q]);
    if (b->x_kind == DW_REPEATS) return DW(load_indexed)(p, b->in[q], b->index);
    return DW(load_offsets)(p, b->x_offset, b->out[q]);
}

DW_INLINE VEC DW(slide_g)(const REAL *p, const DW(dw_slide_lanes) *b, const int mode) {
    if (mode == DW_WHOLE) return DW(load)(p);
    if (mode == DW_MASKED && b->g_kind == DW_OFFSETS) return DW(load_offsets)(p, b->g_offset, b->g);
    return DW(load_lanes)(p, b->g);
}

/* Adds to the sums of P taps along x Q taps across.  x: tap (0, 0) of output 0 of line 0. */
DW_INLINE void DW(slide)(const dw_slide *s, const REAL *x, const REAL *g, REAL *acc, const DW(dw_slide_lanes) *b, const int P,
                         const int Q, const int mode) {
    VEC sum[DW_MOST_SUMS], window[DW_MOST_ALONG]; /* window[p]: the gradient whose tap p lies at the position */
    const ptrdiff_t first = dw_max(s->lo, 0), end = dw_min(s->hi, s->count + P - 1), count = s->count;
    const ptrdiff_t x_step = s->x_step, x_tap = s->x_tap, g_step = s->g_step;
    DW_UNROLL for (int k = 0; k < P * Q; k++) sum[k] = DW(load)(acc + k / Q * s->acc_p + k % Q * s->acc_q);
    for (ptrdiff_t line = 0; line < s->lines; line++, x += s->x_line, g += s->g_line) {
        const unsigned across = dw_bits(s->across_lo - line * s->across, s->across_hi - line * s->across) & ((1u << Q) - 1);
        if (!across) continue;
        DW_UNROLL for (int k = 0; k < P; k++) {
            const ptrdiff_t at = first - 1 - k;
            window[k] = 0 <= at && at < count ? DW(slide_g)(g + at * g_step, b, mode) : DW(splat)(0);
        }
        ptrdiff_t u = first;
        unsigned along = 0;
#define STEP(checked)                                                                                                 \
        DW_UNROLL for (int p = P - 1; p > 0; p--) window[p] = window[p - 1];                                          \
        if (!checked || u < count) window[0] = DW(slide_g)(g + u * g_step, b, mode);                                  \
        DW_UNROLL for (int q = 0; q < Q; q++) {                                                                       \
            if (checked && !(across >> q & 1)) continue;                                                              \
            const VEC v = DW(slide_x)(x + (u * x_step + q * x_tap), b, q, mode);                                      \
            DW_UNROLL for (int p = 0; p < P; p++) {                                                                   \
                if (checked && !(along >> p & 1)) continue;                                                           \
                if (mode == DW_MASKED) sum[p * Q + q] = DW(add_product)(sum[p * Q + q], v, window[p], b->out[q]);     \
                else sum[p * Q + q] = sum[p * Q + q] + v * window[p];                                                 \
            }                                                                                                         \
        }
        while (u < end) {
            if (u >= P - 1 && across == (1u << Q) - 1)
                for (; u < dw_min(end, count); u++) {
                    STEP(0)
                }
            if (u < end) {
                along = dw_bits(u - count + 1, u + 1);
                STEP(1)
                u++;
            }
        }
#undef STEP
    }
    DW_UNROLL for (int k = 0; k < P * Q; k++) DW(store)(acc + k / Q * s->acc_p + k % Q * s->acc_q, sum[k]);
}

#define DW_SLIDE_ARGUMENTS const dw_slide *s, const REAL *x, const REAL *g, REAL *acc, const DW(dw_slide_lanes) *b
#define TILE(P, Q)                                                                                                         \
    static void DW(slide_whole_##P##_##Q)(DW_SLIDE_ARGUMENTS) { DW(slide)(s, x, g, acc, b, P, Q, DW_WHOLE); }              \
    static void DW(slide_indexed_##P##_##Q)(DW_SLIDE_ARGUMENTS) { DW(slide)(s, x, g, acc, b, P, Q, DW_INDEXED); }          \
    static void DW(slide_masked_##P##_##Q)(DW_SLIDE_ARGUMENTS) { DW(slide)(s, x, g, acc, b, P, Q, DW_MASKED); }
DW_SLIDES(TILE)
#undef TILE

typedef void (*DW(dw_slide_tile))(DW_SLIDE_ARGUMENTS);
static const DW(dw_slide_tile) DW(slide_tiles)[3][DW_MOST_ALONG + 1][DW_MOST_ACROSS + 1] = {
#define TILE(P, Q) [P][Q] = DW(slide_whole_##P##_##Q),
    [DW_WHOLE] = {DW_SLIDES(TILE)},
#undef TILE
#define TILE(P, Q) [P][Q] = DW(slide_indexed_##P##_##Q),
    [DW_INDEXED] = {DW_SLIDES(TILE)},
#undef TILE
#define TILE(P, Q) [P][Q] = DW(slide_masked_##P##_##Q),
    [DW_MASKED] = {DW_SLIDES(TILE)},
#undef TILE
};

/* `taps` taps along of each remainder by `stride`, for the Q taps across that s begins with. */
static void DW(slide_along)(const dw_slide *s, const REAL *x, const REAL *g, REAL *acc, const DW(dw_slide_lanes) *b,
                            ptrdiff_t taps, ptrdiff_t stride, int Q, int mode) {
    for (ptrdiff_t rest = 0; rest < dw_min(stride, taps); rest++) {
        const ptrdiff_t n = dw_ceil_div(taps - rest, stride);
        int P;
        for (ptrdiff_t p = 0; p < n; p += P) {
            P = dw_next_taps(n - p, Q > 3 ? dw_min(DW_MOST_ALONG, 5) : Q > 1 && DW_MOST_SUMS < 25 ? 3 : DW_MOST_ALONG);
            dw_slide t = *s;
            t.lo = dw_ceil_div(s->lo - rest, stride) - p;
            t.hi = dw_ceil_div(s->hi - rest, stride) - p;
            t.x_step = s->x_step * stride;
            t.acc_p = s->acc_p * stride;
            if (t.hi > 0 && t.lo < t.count + P - 1)
                DW(slide_tiles)[mode][P][Q](&t, x + (rest + p * stride) * s->x_step, g, acc + (rest + p * stride) * s->acc_p, b);
        }
    }
}

/* The widest tile across for a kernel of `taps` along: three for seven along, else five. */
static inline int DW(slide_across)(ptrdiff_t rest, ptrdiff_t taps, ptrdiff_t stride) {
    return dw_next_taps(rest, dw_ceil_div(taps, stride) == 7 ? dw_min(DW_MOST_ACROSS, 3) : DW_MOST_ACROSS);
}

/* Adds outputs g->rows x g->cols to the sums acc (kh, kw, LANES) of a block of output channels from `first` on.
 * x: tap (0, 0) of output (0, 0), channel 0; grad: output (0, 0), channel 0. */
static void DW(grad_channels)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, ptrdiff_t first, ptrdiff_t channels) {
    DW(dw_slide_lanes) b;
    dw_slide s;
    const ptrdiff_t in = first / g->repeat, lanes = dw_min(channels - first, LANES);
    const int mode = g->repeat == 1 && lanes == LANES ? DW_WHOLE : DW_INDEXED;
    if (mode == DW_INDEXED) {
        b.g = DW(lanes)(0, lanes);
        b.x = DW(lanes)(0, (first + lanes - 1) / g->repeat - in + 1);
        for (int l = 0; l < LANES; l++) ((REAL_INT *)&b.index)[l] = (REAL_INT)(l < lanes ? (first + l) / g->repeat - in : 0);
    }
    s.lines = g->rows;
    s.count = g->cols;
    s.x_line = g->sh * g->xh;
    s.x_step = g->xw;
    s.x_tap = g->xh;
    s.g_line = g->gh;
    s.g_step = g->gw;
    s.lo = g->col_lo;
    s.hi = g->col_hi;
    s.across = g->sh;
    s.acc_p = LANES;
    s.acc_q = g->kw * LANES;
    int Q;
    for (ptrdiff_t q = 0; q < g->kh; q += Q) {
        Q = DW(slide_across)(g->kh - q, g->kw, g->sw);
        s.across_lo = g->row_lo - q;
        s.across_hi = g->row_hi - q;
        DW(slide_along)(&s, x + (in + q * g->xh), grad + first, acc + q * s.acc_q, &b, g->kw, g->sw, Q, mode);
    }
}

/* Adds output rows 0..g->rows of output elements e0 <= e < e1 (e0 a multiple of the strip) to the sums acc (kh, kw, LANES), each lane
 * on its own.  x: tap row 0 of output row 0, its pixel 0; grad: output (0, 0). */
static void DW(grad_rows)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, ptrdiff_t e0, ptrdiff_t e1) {
    const ptrdiff_t strip = LANES / g->period * g->period, unit = g->period / g->repeat;
    const int dense = g->sw == 1 && (g->pixel == unit || g->width == 1);
    DW(dw_slide_lanes) b;
    dw_slide s;
    s.lines = 1;
    s.count = g->rows;
    s.x_line = s.g_line = s.across = 0;
    s.x_step = g->xh;
    s.x_tap = g->dilation * g->pixel;
    s.g_step = g->gh;
    s.lo = g->row_lo;
    s.hi = g->row_hi;
    s.across_lo = 0;
    s.across_hi = g->kw;
    s.acc_p = g->kw * LANES;
    s.acc_q = LANES;
    b.x_kind = !dense ? DW_OFFSETS : g->repeat > 1 ? DW_REPEATS : DW_NEIGHBOURS;
    b.g_kind = g->gw == g->period || g->cols == 1 ? DW_NEIGHBOURS : DW_OFFSETS;
    b.x = DW(lanes)(0, (LANES - 1) / g->repeat + 1);
    for (ptrdiff_t l = 0; l < LANES; l++) {
        ((REAL_INT *)&b.index)[l] = (REAL_INT)(l / g->repeat);
        b.x_offset[l] = l / g->period * g->sw * g->pixel + l % g->period / g->repeat;
        b.g_offset[l] = l / g->period * g->gw + l % g->period;
    }
    for (ptrdiff_t e = e0; e < e1; e += strip) {
        const ptrdiff_t end = dw_min(strip, e1 - e), col = e / g->period;
        b.g = DW(lanes)(0, end);
        int Q;
        for (ptrdiff_t q = 0; q < g->kw; q += Q) {
            Q = DW(slide_across)(g->kw - q, g->kh, g->sh);
            int inside = dense && b.g_kind == DW_NEIGHBOURS && e + LANES <= g->cols * g->period;
            for (int k = 0; k < Q; k++) {
                const ptrdiff_t at = g->pad - (q + k) * g->dilation; /* columns lo.. of the outputs meet the image */
                const ptrdiff_t lo = dw_max(dw_ceil_div(at, g->sw) * g->period - e, 0);
                const ptrdiff_t hi = dw_ceil_div(g->width + at, g->sw) * g->period - e;
                inside &= lo == 0 && hi >= LANES;
                b.out[k] = DW(lanes)(lo, dw_min(hi, end));
                b.in[k] = DW(lanes)(lo / g->repeat, dw_max(dw_min(hi, end), 0) / g->repeat);
            }
            const int mode = !inside ? DW_MASKED : g->repeat > 1 ? DW_INDEXED : DW_WHOLE;
            DW(slide_along)(&s, x + (col * g->sw + q * g->dilation - g->pad) * g->pixel, grad + col * g->gw, acc + q * LANES, &b,
                            g->kh, g->sh, Q, mode);
        }
    }
}

/* The row family's end: adds the lanes of `taps` sums that belong to the same output channel; w (taps, period), rows pitch apart. */
static void DW(grad_add_lanes)(const REAL *acc, ptrdiff_t taps, ptrdiff_t period, REAL *w, ptrdiff_t pitch) {
    for (ptrdiff_t tap = 0; tap < taps; tap += LANES) {
        VEC v[LANES];
        REAL lane[LANES];
        DW_UNROLL for (int k = 0; k < LANES; k++) v[k] = tap + k < taps ? DW(load)(acc + (tap + k) * LANES) : DW(splat)(0);
        DW(transpose)(v);
        for (ptrdiff_t c = 0; c < period; c++) {
            VEC total = v[c];
            for (ptrdiff_t l = c + period; l < LANES / period * period; l += period) total = total + v[l];
            DW(store)(lane, total);
            for (int k = 0; k < LANES && tap + k < taps; k++) w[(tap + k) * pitch + c] = lane[k];
        }
    }
}

/* The channel family's end: n channels of every tap. */
static void DW(grad_store)(const REAL *acc, ptrdiff_t taps, ptrdiff_t n, REAL *w, ptrdiff_t pitch) {
    for (ptrdiff_t tap = 0; tap < taps; tap++) {
        if (n == LANES) DW(store)(w + tap * pitch, DW(load)(acc + tap * LANES));
        else DW(store_first)(w + tap * pitch, DW(load)(acc + tap * LANES), n);
    }
}

/* a + b in place; whole vectors. */
static void DW(grad_add)(REAL *a, const REAL *b, ptrdiff_t size) {
    for (ptrdiff_t k = 0; k < size; k += LANES) DW(store)(a + k, DW(load)(a + k) + DW(load)(b + k));
}
