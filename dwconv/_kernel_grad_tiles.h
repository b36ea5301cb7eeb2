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
 * takes the taps by their remainder, each remainder a slide of its own over every stride-th position; a stride of 2 both at once.
 * Planes of the commonest kernels have a tile that shifts (see there): 3x3 in rows of 56 takes 0.8 times as long; of rows of half a
 * vector it takes two planes.  Dilated 3x3 loads each tap column, 4 loads for 9 multiply-adds.  With AVX2 it loads, row by row, since
 * nothing but the sums stays: 6 loads for 9 multiply-adds, at stride 2 10, in the order of memory.
 *
 * A sum of one tap is one chain of multiply-adds over the outputs in row-major order (kernels one tap wide: column by column; 3x3
 * over rows of 14 to 28, with 32 registers: strips of seven columns, each downwards; row family: strips of LANES columns, each
 * downwards; shifted tiles: blocks of strips, row by row, dilated ones by the rows' remainder), whatever the tile: so blocks of taps
 * and channels can be cut anywhere.  What lies outside the image or past the last output is skipped, or both of its factors
 * are zero: a NaN reaches the taps that meet it and no others.
 *
 * Refused here: argument checks, allocation, threads, and the cut into pieces whose sums are added pairwise (_kernel_grad.pxi).
 */

#ifndef DW_KERNEL_GRAD_ONCE
#define DW_KERNEL_GRAD_ONCE

#include <string.h>

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
    ptrdiff_t width, pad;     /* row family: pixels of a row, of padding before it */
    ptrdiff_t dilation, pixel; /* row family: of the columns, in pixels; elements from pixel to pixel of x */
    ptrdiff_t ahead;          /* of x and grad in memory: to the next block of channels, to the next strip; else 0 */
    ptrdiff_t next_x, next_g; /* ... of pixels: to the next unit, of whose rows each block fetches a share; dilated: plane; else 0 */
    ptrdiff_t share, shares;  /* ... which, of how many: its place among the blocks that take a unit in turn */
    ptrdiff_t from;           /* ... first channel of those */
    const void *x_from, *x_to, *g_to; /* row family: x and the end of grad, past which nothing may be read */
    int shifted;              /* row family: by shifted tiles; 2: of two planes; 3: dilated, rows by `down` */
    ptrdiff_t down;
} dw_grad;

/* One slide, or one on each of `lines` lines. */
typedef struct {
    ptrdiff_t lines, count;                  /* outputs of a line */
    ptrdiff_t x_line, x_step, x_tap;         /* in x: to the next line, position along, tap across */
    ptrdiff_t g_line, g_step;                /* in grad: to the next line, output */
    ptrdiff_t lo, hi;                        /* positions along that lie in the image; 0 is tap 0 of output 0 */
    ptrdiff_t across_lo, across_hi, across;  /* taps across that do on line 0; how many fewer on the next line */
    ptrdiff_t acc_p, acc_q;                  /* in the sums: to the next tap along, across */
    ptrdiff_t ahead;                         /* how far on to fetch what another slide needs, or 0 */
    ptrdiff_t next_x, next_g;                /* how far on to fetch pixels, or 0 */
    ptrdiff_t pixels, numbers, x_pixel, g_pixel; /* ... for each line: how many, numbers of each, from one to the next */
} dw_slide;

/* How a slide loads: vectors; vectors of which some lanes count, by tap (row family); the last channels of a pixel and then its first;
 * channels that repeat or are fewer than a vector; every second of two vectors (planes with stride 2); lanes that lie anywhere. */
enum { DW_WHOLE, DW_MASKED, DW_SPLIT, DW_INDEXED, DW_HALVES, DW_SCATTERED };

/* The sizes of tile, taps along x taps across: what leaves room in the registers for the window and a vector of x; of 16 registers
 * 3x4 fills all, and loads the window's oldest gradient again for each product (6.3 cycles a position; 13 where gcc must spill).
 * Fewer than 8 sums wait for each other (Zen 3: 2x2 4.1 cycles, 2x4 4.4, 3x3 4.9), so a kernel is cut to leave few such rests.
 * Then those whose lanes are masked, that take a stride of two along at once, and those of the rare ways to load. */
#if DW_REGISTERS == 32
#define DW_SLIDES(TILE)                                     \
    TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 5)             \
    TILE(2, 1) TILE(2, 2) TILE(2, 3) TILE(2, 5)             \
    TILE(3, 1) TILE(3, 2) TILE(3, 3) TILE(3, 5)             \
    TILE(5, 1) TILE(5, 2) TILE(5, 3) TILE(5, 5)             \
    TILE(7, 1) TILE(7, 2) TILE(7, 3)
#define DW_SLIDES_MASKED DW_SLIDES
#define DW_SLIDES_BY_2(TILE) TILE(3, 1) TILE(3, 2) TILE(3, 3) TILE(5, 1) TILE(5, 2) TILE(5, 3) TILE(5, 5)
enum { DW_MOST_ALONG = 7, DW_MOST_ACROSS = 5, DW_MOST_SUMS = 25 };
#else
#define DW_SLIDES_MASKED(TILE)                   \
    TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4)  \
    TILE(2, 1) TILE(2, 2) TILE(2, 3) TILE(2, 4)  \
    TILE(3, 1) TILE(3, 2) TILE(3, 3)             \
    TILE(5, 1)
#define DW_SLIDES(TILE) DW_SLIDES_MASKED(TILE) TILE(3, 4)
#define DW_SLIDES_BY_2(TILE) TILE(3, 1) TILE(3, 2) TILE(3, 3) TILE(5, 1)
enum { DW_MOST_ALONG = 5, DW_MOST_ACROSS = 4, DW_MOST_SUMS = 12 };
#endif
enum { DW_STRIPED = 28 }; /* columns of 3x3 at stride 1 that are taken in strips, at most: longer rows are in units of too few rows */
enum { DW_MOST_LINES = 8 }; /* strips that a slide of the row family takes, each with masks of its own */
/* Shifted tiles: kernel, stride, vectors of columns at most. */
#if DW_SHIFTS
#define DW_GRAD_SHIFTED_TILES(TILE) TILE(3, 1, 4) TILE(5, 1, 4) TILE(3, 2, 4) TILE(5, 2, 4)
#elif DW_BYTES == 32 /* whole rows, since nothing but the sums stays in registers */
#define DW_GRAD_SHIFTED_TILES(TILE) TILE(3, 1, 0) TILE(3, 2, 0)
#else
#define DW_GRAD_SHIFTED_TILES(TILE)
#endif
/* Kernel and stride of the slides that can split a block: those that loads across two lines slow down. */
#if DW_WRAPS
#define DW_SPLIT_SLIDES(TILE) TILE(3, 1) TILE(3, 2) TILE(5, 2)
#else
#define DW_SPLIT_SLIDES(TILE)
#endif
#define DW_SLIDES_HALVES(TILE) TILE(3, 1) TILE(3, 2) TILE(3, 3) TILE(5, 1) TILE(5, 2) TILE(5, 3)
#define DW_SLIDES_RARE(TILE) TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(2, 1) TILE(2, 2) TILE(2, 3) TILE(3, 1) TILE(3, 2) TILE(3, 3)

/* How many of n taps the next tile takes: a size of DW_SLIDES that leaves no poor rest. */
static inline int dw_next_taps(ptrdiff_t n, ptrdiff_t most) {
    if (n <= 3) return (int)dw_min(n, most);
    if (n == 7 && most >= 7) return 7;
    if (most == 4) return n % 3 ? 4 : 3;
    if (n == 4 || most < 3) return (int)dw_min(2, most);
    return n == 6 || n == 9 || most < 5 ? 3 : 5;
}

/* Whether the channels' first block may be split: kernel, stride of the columns in taps. */
static inline int dw_grad_splits(ptrdiff_t kh, ptrdiff_t kw, ptrdiff_t sw) {
#define TILE(K, S) if (kh == K && kw == K && sw == S) return 1;
    DW_SPLIT_SLIDES(TILE)
#undef TILE
    (void)kh, (void)kw, (void)sw;
    return 0;
}

/* How many steps of s make a or more: without the division, where most calls need none. */
static inline ptrdiff_t dw_steps(ptrdiff_t a, ptrdiff_t s) { return s == 1 ? a : dw_ceil_div(a, s); }

/* Bits lo <= k < hi of a word, for any lo and hi. */
static inline unsigned dw_bits(ptrdiff_t lo, ptrdiff_t hi) {
    lo = dw_min(dw_max(lo, 0), 31);
    hi = dw_min(dw_max(hi, 0), 31);
    return ((1u << hi) - 1) & ~((1u << lo) - 1);
}

/* Keeps a loaded vector, and a mask, in its register: gcc would read it from memory again for every product, up to four times. */
#if DW_VECTORS && (defined(__x86_64__) || defined(__i386__))
#define DW_KEEP(v) __asm__ volatile("" : "+v"(v))
#elif DW_VECTORS && defined(__aarch64__)
#define DW_KEEP(v) __asm__ volatile("" : "+w"(v))
#else
#define DW_KEEP(v) (void)(v)
#endif

#if DW_BYTES == 64
#define DW_KEEP_MASK(m) __asm__ volatile("" : "+k"(m))
#else
#define DW_KEEP_MASK(m) (void)(m)
#endif

#endif /* DW_KERNEL_GRAD_ONCE */

/* Which lanes a slide loads and adds. */
typedef struct {
    MASK g;                   /* lanes of grad that exist; split: that are a pixel's first channels */
    MASK out[DW_MOST_ACROSS]; /* masked, halves, scattered: per tap across, lanes of grad whose x lies in the image */
    MASK in[6];               /* halves: lanes of the vectors of x that lie in the row */
    ptrdiff_t next;           /* halves, Q of 3: the number after two vectors, or the next one that lies in the row */
} DW(dw_slide_masks);

typedef struct {
    DW(dw_slide_masks) line[DW_MOST_LINES]; /* split, indexed: the first serves all */
    ptrdiff_t split;          /* split: the channels of a pixel, by which the lanes that are not in g lie further on */
    MASK x;                   /* indexed: lanes of x that they need */
    IVEC index;               /* and which of those each takes */
    ptrdiff_t x_offset[LANES], g_offset[LANES]; /* scattered */
} DW(dw_slide_lanes);

/* Lane l reads p[offset[l]] where it is on. */
DW_INLINE VEC DW(load_offsets)(const REAL *p, const ptrdiff_t *offset, MASK m) {
    REAL lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = DW(lane_on)(m, l) ? p[offset[l]] : 0;
    return DW(load)(lane);
}

DW_INLINE VEC DW(slide_x)(const REAL *p, const DW(dw_slide_lanes) *b, MASK out, const int mode) {
    if (mode == DW_WHOLE) return DW(load)(p);
    if (mode == DW_MASKED) return DW(load_lanes)(p, out);
#if DW_WRAPS
    if (mode == DW_SPLIT) return DW(load_two)(p, p + b->split, out);
#endif
    if (mode == DW_INDEXED) return DW(load_indexed)(p, b->x, b->index);
    return DW(load_offsets)(p, b->x_offset, out);
}

/* Every second number from p, from p + 1 and from p + 2 on: up to Q vectors. */
DW_INLINE void DW(slide_halves)(const REAL *p, const DW(dw_slide_masks) *m, VEC *v, const int Q) {
#if DW_SHIFTS
    const VEC a = DW(load_lanes)(p, m->in[0]), b = DW(load_lanes)(p + LANES, m->in[1]);
    v[0] = DW(even)(a, b);
    if (Q > 1) v[1] = DW(odd)(a, b);
    if (Q > 2) v[2] = DW(shift)(v[0], DW(splat)(p[m->next]), 1); /* a vector of which one number is needed is up to two lines */
#else
    DW_UNROLL for (int q = 0; q < Q; q++)
        v[q] = DW(even)(DW(load_lanes)(p + q, m->in[2 * q]), DW(load_lanes)(p + q + LANES, m->in[2 * q + 1]));
#endif
}

DW_INLINE VEC DW(slide_g)(const REAL *p, const DW(dw_slide_lanes) *b, MASK m, const int mode) {
    if (mode == DW_WHOLE) return DW(load)(p);
    if (mode == DW_SCATTERED) return DW(load_offsets)(p, b->g_offset, m);
#if DW_WRAPS
    if (mode == DW_SPLIT) return DW(load_two)(p, p + b->split, m);
#endif
    return DW(load_lanes)(p, m);
}

/* What a block fetches, while it takes `cols` columns from c0 on, of the next unit: of each row a share of the pixels, all channels of all
 * blocks, since what lies a pixel apart comes one line at a time (3x3, 8 x 112x112x32 1.8 times as fast, 16 x 56x56x64 1.9, 5x5 1.7). */
DW_INLINE void DW(next_pixels)(const dw_grad *g, dw_slide *s, ptrdiff_t c0, ptrdiff_t cols, ptrdiff_t first) {
    s->next_x = g->next_x;
    if (!g->next_x) return;
    const ptrdiff_t at = (g->share * g->cols + c0) / g->shares;
    s->pixels = (g->share * g->cols + c0 + cols) / g->shares - at, s->numbers = g->shares * LANES;
    s->x_pixel = g->xw, s->g_pixel = g->gw;
    s->next_x = g->next_x + (g->kh - 1) * g->xh + (at - c0) * g->xw + g->from - first;
    s->next_g = g->next_g + (at - c0) * g->gw + g->from - first;
}

DW_INLINE void DW(fetch_pixels)(const dw_slide *s, const REAL *x, const REAL *grad) {
    for (ptrdiff_t k = 0; k < s->pixels; k++) {
        for (ptrdiff_t i = 0; i < s->numbers; i += 64 / REAL_SIZE) DW_PREFETCH(x + s->next_x + k * s->x_pixel + i, 0);
        for (ptrdiff_t i = 0; i < s->numbers; i += 64 / REAL_SIZE) DW_PREFETCH(grad + s->next_g + k * s->g_pixel + i, 0);
    }
}

/* Adds to the sums of P taps along x Q taps across; taps p, p + S, ... see the positions whose remainder by S is p.
 * x: tap (0, 0) of output 0 of line 0. */
DW_INLINE void DW(slide)(const dw_slide *s, const REAL *x, const REAL *g, REAL *acc, const DW(dw_slide_lanes) *b, const int P,
                         const int Q, const int S, const int mode) {
    const int K = (P + S - 1) / S;
    VEC sum[DW_MOST_SUMS], window[DW_MOST_ALONG]; /* window[k]: the gradient whose taps k * S and on lie at the positions */
    MASK out[DW_MOST_ACROSS], g_lanes = {0};
    const ptrdiff_t count = s->count, x_step = s->x_step, x_tap = s->x_tap, g_step = s->g_step;
    const ptrdiff_t first = dw_max(dw_ceil_div(s->lo - S + 1, S), 0), end = dw_min(dw_ceil_div(s->hi, S), count + K - 1);
    const ptrdiff_t whole = dw_max(dw_ceil_div(s->lo, S), K - 1), whole_end = dw_min(s->hi / S, count);
    const ptrdiff_t last = dw_min(s->hi, (count - 1) * S + P); /* what no tap needs from there on a copy may not hold */
    const int masked = mode == DW_MASKED || mode >= DW_HALVES;
    const int reload = DW_REGISTERS < 32 && mode == DW_WHOLE && K * Q > 9; /* the window's oldest: no register is left */
    /* lanes that lie anywhere are loaded one by one: code of its own would gain nothing */
    const int plain = mode != DW_SCATTERED && whole_end >= K - 1 && first <= whole_end;
    DW_UNROLL for (int k = 0; k < P * Q; k++) sum[k] = DW(load)(acc + k / Q * s->acc_p + k % Q * s->acc_q);
    for (ptrdiff_t line = 0; line < s->lines; line++, x += s->x_line, g += s->g_line) {
        const unsigned across = dw_bits(s->across_lo - line * s->across, s->across_hi - line * s->across) & ((1u << Q) - 1);
        const DW(dw_slide_masks) *m = masked ? b->line + line : mode != DW_WHOLE ? b->line : NULL;
        unsigned along = 0;
        ptrdiff_t u = first;
        if (mode <= DW_SPLIT && s->ahead)
            for (ptrdiff_t k = 0; k < count; k++) {
                DW_PREFETCH(x + k * S * x_step + (Q - 1) * x_tap + s->ahead, 0); /* the row that the next line adds */
                DW_PREFETCH(g + k * g_step + s->ahead, 0);
            }
        if ((mode == DW_WHOLE || mode == DW_SPLIT) && s->next_x) DW(fetch_pixels)(s, x, g);
        if (!across) continue;
        if (mode != DW_WHOLE) {
            g_lanes = m->g;
            DW_KEEP_MASK(g_lanes);
        }
        DW_UNROLL for (int q = 0; q < Q; q++) {
            out[q] = masked ? m->out[q] : g_lanes;
            if (masked) DW_KEEP_MASK(out[q]);
        }
        DW_UNROLL for (int k = 0; k < K; k++) {
            const ptrdiff_t at = first - 1 - k;
            window[k] = 0 <= at && at < count ? DW(slide_g)(g + at * g_step, b, g_lanes, mode) : DW(splat)(0);
        }
/* The S positions of u with taps p0 <= p < p1 along; checked: of those only the taps `along`, `across`; ends: the positions that lie
 * in the image. */
#define STEP(p0, p1, check_p, check_q, ends)                                                                            \
        DW_UNROLL for (int k = K - 1; k > 0; k--) window[k] = window[k - 1];                                            \
        if ((!check_p && p0 == 0) || u < count) window[0] = DW(slide_g)(g + u * g_step, b, g_lanes, mode);              \
        DW_UNROLL for (int rest = 0; rest < S; rest++) {                                                                \
            if (ends && (u * S + rest < s->lo || u * S + rest >= last)) continue;                                       \
            VEC halves[DW_MOST_ACROSS];                                                                                 \
            if (mode == DW_HALVES) DW(slide_halves)(x + (u * S + rest) * x_step, m, halves, Q);                         \
            DW_UNROLL for (int q = 0; q < Q; q++) {                                                                     \
                if (check_q && !(across >> q & 1)) continue;                                                            \
                VEC v = mode == DW_HALVES ? halves[q] : DW(slide_x)(x + ((u * S + rest) * x_step + q * x_tap), b, out[q], mode); \
                if (K > 1) DW_KEEP(v);                                                                                  \
                DW_UNROLL for (int k = 0; k < K; k++) {                                                                 \
                    const int p = k * S + rest;                                                                         \
                    if (p < p0 || p >= p1 || (check_p && !(along >> p & 1))) continue;                                  \
                    const VEC w = reload && k == K - 1 ? DW(load)(g + (u - k) * g_step) : window[k];                    \
                    if (masked) sum[p * Q + q] = DW(add_product)(sum[p * Q + q], v, w, out[q]);                         \
                    else sum[p * Q + q] = sum[p * Q + q] + v * w;                                                       \
                }                                                                                                       \
            }                                                                                                           \
        }
/* A line: taps along come one by one, then all are there, and they go one by one.  A stride of 2 takes pairs of positions, of which
 * the first may have only its second in the image and the last only its first. */
#define LINE(check_q)                                                                                                   \
        DW_UNROLL for (int e = 0; e < K - 1; e++) {                                                                     \
            if (u <= e) {                                                                                               \
                STEP(0, (e + 1) * S, 0, check_q, S > 1)                                                                 \
                u++;                                                                                                    \
            }                                                                                                           \
        }                                                                                                               \
        if (S > 1 && u < dw_min(whole, whole_end)) {                                                                    \
            STEP(0, P, 0, check_q, 1)                                                                                   \
            u++;                                                                                                        \
        }                                                                                                               \
        for (; u < whole_end; u++) {                                                                                    \
            STEP(0, P, 0, check_q, 0)                                                                                   \
        }                                                                                                               \
        if (S > 1 && u < dw_min(count, end)) {                                                                          \
            STEP(0, P, 0, check_q, 1)                                                                                   \
            u++;                                                                                                        \
        }                                                                                                               \
        DW_UNROLL for (int e = 1; e < K; e++) {                                                                         \
            if (u < end) {                                                                                              \
                STEP(e * S, P, 0, check_q, S > 1)                                                                       \
                u++;                                                                                                    \
            }                                                                                                           \
        }
        if (plain && (masked || across == (1u << Q) - 1)) { /* masked: of the row family, where all taps across are always meant */
            LINE(0)
        } else if (plain) {
            LINE(1)
        } else {
            for (; u < end; u++) {
                along = dw_bits((u - count + 1) * S, (u + 1) * S);
                STEP(0, P, 1, !masked, S > 1)
            }
        }
#undef LINE
#undef STEP
    }
    DW_UNROLL for (int k = 0; k < P * Q; k++) DW(store)(acc + k / Q * s->acc_p + k % Q * s->acc_q, sum[k]);
}

#define DW_SLIDE_ARGUMENTS const dw_slide *s, const REAL *x, const REAL *g, REAL *acc, const DW(dw_slide_lanes) *b
typedef void (*DW(dw_slide_tile))(DW_SLIDE_ARGUMENTS);
#define DW_SLIDE_TILE(NAME, P, Q, S, MODE) \
    static void DW(slide_##NAME##_##P##_##Q)(DW_SLIDE_ARGUMENTS) { DW(slide)(s, x, g, acc, b, P, Q, S, MODE); }
#define DW_SLIDE_TABLE(NAME, SLIDES) \
    SLIDES(DEFINE)                   \
    static const DW(dw_slide_tile) DW(slides_##NAME)[DW_MOST_ALONG + 1][DW_MOST_ACROSS + 1] = {SLIDES(ENTRY)};

#define DEFINE(P, Q) DW_SLIDE_TILE(whole, P, Q, 1, DW_WHOLE)
#define ENTRY(P, Q) [P][Q] = DW(slide_whole_##P##_##Q),
DW_SLIDE_TABLE(whole, DW_SLIDES)
#undef DEFINE
#undef ENTRY
#define DEFINE(P, Q) DW_SLIDE_TILE(by_2, P, Q, 2, DW_WHOLE)
#define ENTRY(P, Q) [P][Q] = DW(slide_by_2_##P##_##Q),
DW_SLIDE_TABLE(by_2, DW_SLIDES_BY_2)
#undef DEFINE
#undef ENTRY
#define DEFINE(P, Q) DW_SLIDE_TILE(masked, P, Q, 1, DW_MASKED)
#define ENTRY(P, Q) [P][Q] = DW(slide_masked_##P##_##Q),
DW_SLIDE_TABLE(masked, DW_SLIDES_MASKED)
#undef DEFINE
#undef ENTRY
#define DEFINE(P, Q) DW_SLIDE_TILE(indexed, P, Q, 1, DW_INDEXED)
#define ENTRY(P, Q) [P][Q] = DW(slide_indexed_##P##_##Q),
DW_SLIDE_TABLE(indexed, DW_SLIDES_RARE)
#undef DEFINE
#undef ENTRY
#define DEFINE(P, Q) DW_SLIDE_TILE(halves, P, Q, 1, DW_HALVES)
#define ENTRY(P, Q) [P][Q] = DW(slide_halves_##P##_##Q),
DW_SLIDE_TABLE(halves, DW_SLIDES_RARE)
#undef DEFINE
#undef ENTRY
#if DW_SHIFTS
#define DEFINE(P, Q) DW_SLIDE_TILE(halves_by_2, P, Q, 2, DW_HALVES)
#define ENTRY(P, Q) [P][Q] = DW(slide_halves_by_2_##P##_##Q),
DW_SLIDE_TABLE(halves_by_2, DW_SLIDES_HALVES)
#undef DEFINE
#undef ENTRY
#endif
#define DEFINE(P, Q) DW_SLIDE_TILE(scattered, P, Q, 1, DW_SCATTERED)
#define ENTRY(P, Q) [P][Q] = DW(slide_scattered_##P##_##Q),
DW_SLIDE_TABLE(scattered, DW_SLIDES_RARE)
#undef DEFINE
#undef ENTRY
#undef DW_SLIDE_TILE
#undef DW_SLIDE_TABLE
#define TILE(K, S) \
    static void DW(slide_split_##K##_##S)(DW_SLIDE_ARGUMENTS) { DW(slide)(s, x, g, acc, b, K, K, S, DW_SPLIT); }
DW_SPLIT_SLIDES(TILE)
#undef TILE

/* How many taps across the next tile takes: as many as one has; three of more than that where seven along go at once, and of five that
 * a tile of 3 x 1 would have to finish. */
static inline int DW(slide_across)(ptrdiff_t rest, ptrdiff_t taps, ptrdiff_t stride, int rare) {
    const int three = (DW_MOST_ALONG == 7 && dw_steps(taps, stride) == 7) || (DW_MOST_ACROSS == 4 && rest == 5 && taps <= 3);
    return dw_next_taps(rest, rare || three ? 3 : DW_MOST_ACROSS);
}

/* All `taps` taps along, of outputs `stride` taps apart, for the Q taps across that s begins with. */
static void DW(slide_along)(const dw_slide *s, const REAL *x, const REAL *g, REAL *acc, const DW(dw_slide_lanes) *b,
                            ptrdiff_t taps, ptrdiff_t stride, int Q, int mode) {
    if (mode == DW_WHOLE && stride == 2 && taps <= DW_MOST_ALONG && DW(slides_by_2)[taps][Q]) {
        DW(slides_by_2)[taps][Q](s, x, g, acc, b);
        return;
    }
#if DW_SHIFTS
    if (mode == DW_HALVES && stride == 2 && taps <= DW_MOST_ALONG && DW(slides_halves_by_2)[taps][Q]) {
        DW(slides_halves_by_2)[taps][Q](s, x, g, acc, b);
        return;
    }
#endif
    const ptrdiff_t few = mode == DW_MASKED && Q > 3 ? 2 : 3; /* of 16 registers masks leave less */
    const ptrdiff_t most = DW_REGISTERS < 32 && Q > 1 ? few : mode >= DW_INDEXED ? 3 : Q > 3 ? 5 : DW_MOST_ALONG;
    for (ptrdiff_t rest = 0; rest < dw_min(stride, taps); rest++) {
        const ptrdiff_t n = dw_steps(taps - rest, stride);
        int P;
        for (ptrdiff_t p = 0; p < n; p += P) {
            P = dw_next_taps(n - p, most);
            dw_slide t = *s;
            if (rest || p) t.next_x = 0; /* once is enough */
            t.lo = dw_steps(s->lo - rest, stride) - p;
            t.hi = dw_steps(s->hi - rest, stride) - p;
            t.x_step = s->x_step * stride;
            t.acc_p = s->acc_p * stride;
            if (t.hi <= 0 || t.lo >= t.count + P - 1) continue;
            const DW(dw_slide_tile) tile = mode == DW_WHOLE   ? DW(slides_whole)[P][Q]
                                           : mode == DW_MASKED  ? DW(slides_masked)[P][Q]
                                           : mode == DW_INDEXED ? DW(slides_indexed)[P][Q]
                                           : mode == DW_HALVES  ? DW(slides_halves)[P][Q]
                                                                : DW(slides_scattered)[P][Q];
            tile(&t, x + (rest + p * stride) * s->x_step, g, acc + (rest + p * stride) * s->acc_p, b);
        }
    }
}

#if DW_REGISTERS == 32
/* 3x3 at stride 1, seven columns: three rows of gradients stay in registers beside the sums, so that they and x are each loaded once, 16
 * loads for 63 multiply-adds, and no row starts a slide anew.  x, grad: the block's first channel; next: see next_pixels.
 * lacks: of the nine columns of x the first (1), the last (2). */
static void DW(grad_seven)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, const dw_slide *next, const int lacks) {
    VEC sum[9], rows[3][7]; /* of gradients: those whose first, second, third row of taps lies at row t of x */
    const ptrdiff_t first = dw_max(g->row_lo, 0), end = dw_min(g->row_hi, g->rows + 2), xw = g->xw, gw = g->gw;
    DW_UNROLL for (int k = 0; k < 9; k++) sum[k] = DW(load)(acc + k * LANES);
    DW_UNROLL for (int i = 0; i < 2; i++) {
        const ptrdiff_t r = first - 1 - i;
        DW_UNROLL for (int c = 0; c < 7; c++) rows[i][c] = 0 <= r && r < g->rows ? DW(load)(grad + r * g->gh + c * gw) : DW(splat)(0);
    }
    x += first * g->xh;
    grad += first * g->gh;
    for (ptrdiff_t t = first; t < end; t++, x += g->xh, grad += g->gh) {
        if (g->ahead)
            for (ptrdiff_t c = 0; c < 7; c++) {
                DW_PREFETCH(x + (c + 1) * xw + g->ahead, 0);
                DW_PREFETCH(grad + c * gw + g->ahead, 0);
            }
        if (next->next_x && t < g->rows) DW(fetch_pixels)(next, x, grad);
        DW_UNROLL for (int i = 2; i > 0; i--) DW_UNROLL for (int c = 0; c < 7; c++) rows[i][c] = rows[i - 1][c];
        if (t < g->rows) DW_UNROLL for (int c = 0; c < 7; c++) rows[0][c] = DW(load)(grad + c * gw);
#define TAPS(from, to)                                                                                       \
        DW_UNROLL for (int u = 0; u < 9; u++) {                                                              \
            if ((u == 0 && lacks & 1) || (u == 8 && lacks & 2)) continue;                                    \
            const REAL *p = x + u * xw;                                                                      \
            DW_HIDE(p); /* or gcc would load all of them first, for which there are no registers */          \
            const VEC v = DW(load)(p);                                                                       \
            DW_UNROLL for (int k = 3 * (from); k < 3 * (to); k++) {                                          \
                const int c = u - k % 3;                                                                     \
                if (0 <= c && c < 7) sum[k] = sum[k] + v * rows[k / 3][c];                                   \
            }                                                                                                \
        }
        if (2 <= t && t < g->rows) TAPS(0, 3)
        else {
            if (t < g->rows) TAPS(0, 1)
            if (1 <= t && t <= g->rows) TAPS(1, 2)
            if (2 <= t) TAPS(2, 3)
        }
#undef TAPS
    }
    DW_UNROLL for (int k = 0; k < 9; k++) DW(store)(acc + k * LANES, sum[k]);
}
#endif

/* As grad_channels, of `cols` columns from c0 on (0, if the stride is not 1). */
static void DW(grad_columns)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, const DW(dw_slide_lanes) *b, ptrdiff_t c0,
                             ptrdiff_t cols, ptrdiff_t first, const int mode) {
    dw_slide s;
    int Q;
    x += c0 * g->xw + first / g->repeat;
    grad += c0 * g->gw + first;
    s.lines = g->rows;
    s.count = cols;
    s.x_line = g->sh * g->xh;
    s.x_step = g->xw;
    s.x_tap = g->xh;
    s.g_line = g->gh;
    s.g_step = g->gw;
    s.lo = g->col_lo - c0;
    s.hi = g->col_hi - c0;
    s.across = g->sh;
    s.acc_p = LANES;
    s.acc_q = g->kw * LANES;
    DW(next_pixels)(g, &s, c0, cols, first);
    if (mode == DW_SPLIT) {
        s.across_lo = g->row_lo, s.across_hi = g->row_hi, s.ahead = g->ahead;
#define TILE(K, S) if (g->kw == K && g->sw == S) DW(slide_split_##K##_##S)(&s, x, grad, acc, b);
        DW_SPLIT_SLIDES(TILE)
#undef TILE
        return;
    }
    for (ptrdiff_t q = 0; q < g->kh; q += Q) {
        Q = DW(slide_across)(g->kh - q, g->kw, g->sw, mode == DW_INDEXED);
        s.across_lo = g->row_lo - q;
        s.across_hi = g->row_hi - q;
        s.ahead = q ? 0 : g->ahead;
        if (q) s.next_x = 0;
        DW(slide_along)(&s, x + q * g->xh, grad, acc + q * s.acc_q, b, g->kw, g->sw, Q, mode);
    }
}

/* Adds outputs g->rows x g->cols to the sums acc (kh, kw, LANES) of a block of output channels from `first` on, which is split if that
 * is negative (dw_grad_splits).
 * x: tap (0, 0) of output (0, 0), channel 0; grad: output (0, 0), channel 0. */
static void DW(grad_channels)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, ptrdiff_t first, ptrdiff_t channels) {
    DW(dw_slide_lanes) b;
    dw_grad turned;
    ptrdiff_t c = 0;
    if (g->kw == 1 && g->kh > 1) { /* one column of taps: the window slides down the columns */
        turned = *g;
        turned.kh = 1, turned.kw = g->kh, turned.sh = g->sw, turned.sw = g->sh, turned.rows = g->cols, turned.cols = g->rows;
        turned.xh = g->xw, turned.xw = g->xh, turned.gh = g->gw, turned.gw = g->gh;
        turned.row_lo = g->col_lo, turned.row_hi = g->col_hi, turned.col_lo = g->row_lo, turned.col_hi = g->row_hi;
        g = &turned;
    }
    const ptrdiff_t lanes = dw_min(channels - first, LANES);
    const int mode = first < 0 ? DW_SPLIT : g->repeat == 1 && lanes == LANES ? DW_WHOLE : DW_INDEXED;
    if (mode == DW_SPLIT) {
        b.line[0].g = DW(lanes)(-first, LANES);
        b.split = channels;
    } else if (mode == DW_INDEXED) {
        const ptrdiff_t in = first / g->repeat;
        b.line[0].g = DW(lanes)(0, lanes);
        b.x = DW(lanes)(0, (first + lanes - 1) / g->repeat - in + 1);
        for (int l = 0; l < LANES; l++) ((REAL_INT *)&b.index)[l] = (REAL_INT)(l < lanes ? (first + l) / g->repeat - in : 0);
    }
#if DW_REGISTERS == 32
    /* strips of seven, of all blocks alike, so that the sums do not depend on where the arrays lie (112x112x32 0.91; of 8 to 13 columns
     * the rest would be much) */
    if (g->kh == 3 && g->kw == 3 && g->sh == 1 && g->sw == 1 && g->repeat == 1
        && (g->cols == 7 || (14 <= g->cols && g->cols <= DW_STRIPED)))
        for (; c + 7 <= g->cols; c += 7) {
            const ptrdiff_t lo = g->col_lo - c, hi = g->col_hi - c;
            if (mode == DW_WHOLE && lo <= 1 && hi >= 8) {
                dw_slide next;
                DW(next_pixels)(g, &next, c, 7, first);
                DW(grad_seven)(g, x + first + c * g->xw, grad + first + c * g->gw, acc, &next, (lo == 1) | (hi == 8) << 1);
            } else DW(grad_columns)(g, x, grad, acc, &b, c, 7, first, mode);
        }
#endif
    if (c < g->cols) DW(grad_columns)(g, x, grad, acc, &b, c, g->cols - c, first, mode);
}

#if DW_SHIFTS
/* ---- shifted: planes of which each input is loaded once and shifted from its neighbours for the taps across; pairs: paired_inputs ---- */

/* Output rows 0..g->rows of T vectors of columns, to the sums acc (kh, kw, LANES).  x: tap row 0 of output row 0, the first column.
 * Of 3x3 the gradients of the rows above stay in registers; those of other kernels are loaded once per input row, as sums fill them. */
DW_INLINE void DW(grad_shifted_rows)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, const DW(dw_shifted_lanes) *lanes,
                                     const int K, const int S, const int T) {
    const int A = (K + S - 1) / S; /* output rows that an input row reaches */
    const DW(dw_shifted_lanes) m = *lanes;
    VEC sum[25], above[3 * DW_SHIFTED_VECTORS];
    const ptrdiff_t xh = g->xh, gh = g->gh, rows = g->rows, t0 = g->row_lo, t1 = g->row_hi;
    DW_UNROLL for (int k = 0; k < K * K; k++) sum[k] = DW(load)(acc + k * LANES);
    DW_UNROLL for (int k = 0; k < 3 * T; k++) above[k] = DW(splat)(0);
#define GRAD(a, k) (k == T - 1 ? DW(load_lanes)(grad + k * LANES - a * gh, m.out) : DW(load)(grad + k * LANES - a * gh))
/* Input rows r * S and on with output rows r, r - 1, ...; where checked, of both those that exist. */
#define ROW(checked)                                                                                                          \
    if (K == 3) {                                                                                                             \
        DW_UNROLL for (int k = A * T - 1; k >= T; k--) above[k] = above[k - T];                                               \
        if (!checked || r < rows) DW_UNROLL for (int k = 0; k < T; k++) above[k] = GRAD(0, k);                                \
    }                                                                                                                         \
    DW_UNROLL for (int s = 0; s < S; s++, x += xh) {                                                                          \
        if (checked && (r * S + s < t0 || r * S + s >= t1)) continue;                                                         \
        VEC part[2], next[2], in[2];                                                                                          \
        DW_UNROLL for (int k = 0; k <= T; k++) {                                                                              \
            DW_UNROLL for (int i = 0; i < S; i++) {                                                                           \
                const int at = k * S + i;                                                                                     \
                if (at > S * T) continue;                                                                                     \
                in[i] = 0 < at && at < S * (T - 1) ? DW(load)(x + at * LANES) : DW(load_lanes)(x + at * LANES, m.in[at]);     \
            }                                                                                                                 \
            next[0] = S == 1 ? in[0] : DW(evens)(in, k < T, K);                                                               \
            if (S == 2) next[1] = DW(odds)(in, k < T);                                                                        \
            if (k > 0) { /* columns of vector k - 1 */                                                                        \
                VEC v[5];                                                                                                     \
                DW_UNROLL for (int j = 0; j < K; j++) v[j] = j < S ? part[j] : DW(shift)(part[j % S], next[j % S], j / S);    \
                DW_UNROLL for (int a = 0; a < A; a++) {                                                                       \
                    if (s + a * S >= K || (checked && (r < a || r - a >= rows))) continue;                                    \
                    VEC b = K == 3 ? above[a * T + k - 1] : GRAD(a, (k - 1));                                                 \
                    if (K > 3) DW_KEEP(b);                                                                                    \
                    DW_UNROLL for (int j = 0; j < K; j++) {                                                                   \
                        const int tap = (s + a * S) * K + j;                                                                  \
                        if (k == T) sum[tap] = DW(add_product)(sum[tap], v[j], b, m.last[j]);                                 \
                        else if (k == 1 && j < K / 2) sum[tap] = DW(add_product)(sum[tap], v[j], b, m.first[j]);              \
                        else sum[tap] = sum[tap] + v[j] * b;                                                                  \
                    }                                                                                                         \
                }                                                                                                             \
            }                                                                                                                 \
            DW_UNROLL for (int i = 0; i < S; i++) part[i] = next[i];                                                          \
        }                                                                                                                     \
    }
    for (ptrdiff_t r = 0; r < rows + A - 1; r++, grad += gh) {
        if (r >= A - 1 && r < rows && t0 <= r * S && (r + 1) * S <= t1) {
            ROW(0)
        } else {
            ROW(1)
        }
    }
#undef ROW
#undef GRAD
    DW_UNROLL for (int k = 0; k < K * K; k++) DW(store)(acc + k * LANES, sum[k]);
}

/* ... of 3x3 taps and two planes, each in half of a vector, as are their sums. */
DW_INLINE void DW(grad_paired_rows)(const dw_grad *g, const REAL *x, ptrdiff_t xc, const REAL *grad, const REAL *grad_other, REAL *acc,
                                    const DW(dw_shifted_lanes) *lanes, const int S) {
    enum { K = 3 };
    const int A = (K + S - 1) / S;
    const DW(dw_shifted_lanes) m = *lanes;
    const ptrdiff_t xh = g->xh, gh = g->gh, rows = g->rows, t0 = g->row_lo, t1 = g->row_hi;
    VEC sum[K * K], above[3];
    DW_UNROLL for (int k = 0; k < K * K; k++) sum[k] = DW(load)(acc + k * LANES);
    DW_UNROLL for (int a = 0; a < A; a++) above[a] = DW(splat)(0);
#define ROW(checked)                                                                                                          \
    DW_UNROLL for (int a = A - 1; a > 0; a--) above[a] = above[a - 1];                                                        \
    if (!checked || r < rows) above[0] = DW(load_halves)(grad, grad_other, m.out);                                            \
    DW_UNROLL for (int s = 0; s < S; s++) {                                                                                   \
        if (checked && (r * S + s < t0 || r * S + s >= t1)) continue;                                                         \
        VEC v[K];                                                                                                             \
        DW(paired_inputs)(x + s * xh, v, &m, xc, 1, S);                                                                       \
        DW_UNROLL for (int a = 0; a < A; a++) {                                                                               \
            const int i = s + a * S;                                                                                          \
            if (i >= K || (checked && (r < a || r - a >= rows))) continue;                                                    \
            DW_UNROLL for (int j = 0; j < K; j++) sum[i * K + j] = DW(add_product)(sum[i * K + j], v[j], above[a], m.first[j]); \
        }                                                                                                                     \
    }
    for (ptrdiff_t r = 0; r < rows + A - 1; r++, x += S * xh, grad += gh, grad_other += gh) {
        if (r >= A - 1 && r < rows && t0 <= r * S && (r + 1) * S <= t1) {
            ROW(0)
        } else {
            ROW(1)
        }
    }
#undef ROW
    DW_UNROLL for (int k = 0; k < K * K; k++) DW(store)(acc + k * LANES, sum[k]);
}

/* ... of 3x3 taps, dilated: each tap column is loaded, in the lanes `on` that it reaches, whatever the dilation and padding; the rows
 * by their remainder. */
DW_INLINE void DW(grad_dilated_rows)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, const MASK *on, const MASK out,
                                     const int T) {
    enum { K = 3 };
    VEC sum[K * K], above[K * DW_SHIFTED_VECTORS];
    const ptrdiff_t xh = g->xh, xw = g->dilation, gh = g->gh, rows = g->rows, down = g->down, t0 = g->row_lo, t1 = g->row_hi;
    DW_UNROLL for (int k = 0; k < K * K; k++) sum[k] = DW(load)(acc + k * LANES);
    DW_UNROLL for (int k = 0; k < K * T; k++) above[k] = DW(splat)(0);
#define ROW(checked)                                                                                                          \
    DW_UNROLL for (int j = 0; j < K; j++) {                                                                                   \
        const REAL *p = x + r * xh + j * xw;                                                                                  \
        DW_HIDE(p);                                                                                                           \
        DW_UNROLL for (int k = 0; k < T; k++) {                                                                               \
            const VEC v = DW(load_lanes)(p + k * LANES, on[j * T + k]);                                                       \
            DW_UNROLL for (int a = 0; a < K; a++)                                                                             \
                if (!checked || (a * down <= r && r < rows + a * down))                                                       \
                    sum[a * K + j] = DW(add_product)(sum[a * K + j], v, above[a * T + k], on[j * T + k]);                     \
        }                                                                                                                     \
    }
    for (ptrdiff_t phase = 0; phase < dw_min(down, rows); phase++) {
        for (ptrdiff_t r = phase; r < dw_min(rows + (K - 1) * down, t1); r += down) { /* above[a * T]: output row r - a * down */
            DW_UNROLL for (int k = K * T - 1; k >= T; k--) above[k] = above[k - T];
            if (r < rows) DW_UNROLL for (int k = 0; k < T; k++) {
                const REAL *q = grad + r * gh + k * LANES;
                above[k] = k == T - 1 ? DW(load_lanes)(q, out) : DW(load)(q);
                if (g->next_x) {
                    DW_PREFETCH(q + g->next_g, 0);
                    DW_PREFETCH(x + r * xh + k * LANES + g->next_x, 0);
                }
            }
            if (r < t0) continue;
            if ((K - 1) * down <= r && r < rows) {
                ROW(0)
            } else {
                ROW(1)
            }
        }
    }
#undef ROW
    DW_UNROLL for (int k = 0; k < K * K; k++) DW(store)(acc + k * LANES, sum[k]);
}

/* grad_rows of dilated planes, in blocks of `most` vectors of columns at most. */
DW_INLINE void DW(grad_dilated_planes)(const dw_grad *g, const REAL *const *x, const REAL *const *grad, ptrdiff_t planes, REAL *acc,
                                       ptrdiff_t e0, ptrdiff_t e1, const int most) {
    enum { K = 3 };
    MASK on[DW_MOST_LINES * K];
    const ptrdiff_t vectors = dw_ceil_div(e1 - e0, LANES), blocks = dw_ceil_div(vectors, most);
    for (ptrdiff_t b = 0, v = 0, end; b < blocks; b++, v = end) {
        end = vectors * (b + 1) / blocks;
        for (ptrdiff_t j = 0; j < K; j++)
            for (ptrdiff_t k = v; k < end; k++) {
                const ptrdiff_t before = g->pad - j * g->dilation, at = e0 + k * LANES;
                on[K * v + j * (end - v) + k - v] = DW(lanes)(before - at, dw_min(before + g->width, e1) - at);
            }
    }
    for (; planes > 0; planes--, x++, grad++, acc += K * K * LANES) {
        for (ptrdiff_t b = 0, v = 0, end; b < blocks; b++, v = end) {
            end = vectors * (b + 1) / blocks;
            const ptrdiff_t at = e0 + v * LANES;
            const MASK out = DW(lanes)(0, e1 - e0 - (end - 1) * LANES);
#define RUN(T) if (end - v == T) DW(grad_dilated_rows)(g, *x + at - g->pad, *grad + at, acc, on + K * v, out, T)
            RUN(1);
            RUN(2);
            RUN(3);
            RUN(4);
#undef RUN
        }
    }
}

/* ... and of all others. */
DW_INLINE void DW(grad_shifted_planes)(const dw_grad *g, const REAL *const *x, const REAL *const *grad, ptrdiff_t planes, REAL *acc,
                                       ptrdiff_t e0, ptrdiff_t e1, const int K, const int S, const int most) {
    if (K == 3 && S == 1 && g->shifted == 3) {
        DW(grad_dilated_planes)(g, x, grad, planes, acc, e0, e1, most);
        return;
    }
    DW(dw_shifted_lanes) m[DW_MOST_LINES];
    const ptrdiff_t vectors = dw_ceil_div(e1 - e0, LANES), blocks = dw_ceil_div(vectors, most);
    dw_geometry of;
    of.kw = K, of.xw = 1, of.sw = S, of.pad = g->pad, of.width = g->width, of.cols = e1;
    for (ptrdiff_t b = 0, v = 0, end; b < blocks; b++, v = end) {
        end = vectors * (b + 1) / blocks;
        DW(shifted_lanes)(&of, m + b, e0 + v * LANES, end - v, 0);
        DW_UNROLL for (int j = 0; j < K; j++) m[b].last[j] &= m[b].out; /* x goes on where grad ends */
    }
    if (K == 3 && g->shifted == 2) {
        DW(pair_lanes)(&of, m);
        for (ptrdiff_t k = 0; k < planes; k += 2) {
            const ptrdiff_t other = k + (k + 1 < planes); /* the last of an odd number is taken twice */
            DW(grad_paired_rows)(g, x[k] - g->pad, x[other] - x[k], grad[k], grad[other], acc + k * (K * K * LANES), m, S);
        }
        return;
    }
    for (ptrdiff_t k = 0; k < planes; k++, acc += K * K * LANES) {
        for (ptrdiff_t b = 0, v = 0, end; b < blocks; b++, v = end) {
            end = vectors * (b + 1) / blocks;
            const ptrdiff_t at = e0 + v * LANES;
#define RUN(T) if (T <= most && end - v == T) DW(grad_shifted_rows)(g, x[k] + at * S - g->pad, grad[k] + at, acc, m + b, K, S, T)
            RUN(1);
            RUN(2);
            RUN(3);
            RUN(4);
#undef RUN
        }
    }
}

#elif DW_BYTES == 32
/* ---- the same along the rows, with loads for the taps across: a shift takes as long, a masked load as several ---- */

/* Input rows r * S and on, and the output rows r, r - 1, ... that they meet; which of them there are. */
typedef struct {
    const REAL *x[2], *grad[3];
    int x_on[2], grad_on[3];
} DW(dw_grad_row);

/* One vector of outputs, `at` numbers along the row.  border: NULL, or the lanes that each tap column has: others are 0 in x and grad. */
DW_INLINE void DW(grad_shifted_step)(const DW(dw_grad_row) *row, VEC *sum, ptrdiff_t at, const MASK *border, const int S,
                                     const int checked) {
    enum { K = 3 };
    const int A = (K + S - 1) / S;
    VEC b[3];
    DW_UNROLL for (int a = 0; a < A; a++) {
        if (checked && !row->grad_on[a]) continue;
        b[a] = DW(load)(row->grad[a] + at);
        if (S == 2) b[a] = DW(turn)(b[a]);
    }
    DW_UNROLL for (int s = 0; s < S; s++) {
        if (checked && !row->x_on[s]) continue;
        DW_UNROLL for (int j = 0; j < K; j += S) { /* with stride 2 two tap columns, whose vectors are the same */
            const REAL *p = row->x[s] + at * S + j;
            VEC v[2];
            DW(load_turned)(p, v, S);
            DW_UNROLL for (int i = 0; i < S && j + i < K; i++) {
                if (border) v[i] = (VEC)((IVEC)v[i] & border[j + i]);
                DW_KEEP(v[i]);
                DW_UNROLL for (int a = 0; a < A; a++) {
                    const int tap = (s + a * S) * K + j + i;
                    if (s + a * S >= K || (checked && !row->grad_on[a])) continue;
                    sum[tap] = sum[tap] + v[i] * (border ? (VEC)((IVEC)b[a] & border[j + i]) : b[a]);
                }
            }
        }
    }
}

/* The vector at `at` of rows past which nothing may be read, from copies. */
static void DW(grad_shifted_copied)(const DW(dw_grad_row) *row, REAL *acc, ptrdiff_t at, const MASK *border, int S,
                                    const REAL *const *ends) {
    DW(dw_grad_row) near = *row;
    REAL x[2][2 * LANES + 2], grad[3][LANES];
    for (int s = 0; s < S; s++) {
        for (ptrdiff_t k = 0; row->x_on[s] && k < S * LANES + 2; k++) {
            const REAL *p = row->x[s] + at * S + k;
            x[s][k] = ends[0] <= p && p < ends[1] ? *p : 0;
        }
        near.x[s] = x[s];
    }
    for (int a = 0; a < (S == 1 ? 3 : 2); a++) {
        for (ptrdiff_t k = 0; row->grad_on[a] && k < LANES; k++) grad[a][k] = row->grad[a] + at + k < ends[2] ? row->grad[a][at + k] : 0;
        near.grad[a] = grad[a];
    }
    if (S == 1) DW(grad_shifted_step)(&near, (VEC *)acc, 0, border, 1, 1);
    else DW(grad_shifted_step)(&near, (VEC *)acc, 0, border, 2, 1);
}

/* One row, its sums in registers meanwhile; a function of its own, since gcc spills sums that are kept from row to row. */
#define ROW(NAME, S, CHECKED)                                                                                                    \
    static __attribute__((noinline)) void DW(grad_shifted_##NAME)(const DW(dw_grad_row) *row, REAL *acc, ptrdiff_t last, const MASK (*border)[3]) { \
        VEC sum[9];                                                                                                              \
        DW_UNROLL for (int k = 0; k < 9; k++) sum[k] = DW(load)(acc + k * LANES);                                                \
        DW(grad_shifted_step)(row, sum, 0, border[0], S, CHECKED);                                                               \
        for (ptrdiff_t at = LANES; at < last; at += LANES) DW(grad_shifted_step)(row, sum, at, NULL, S, CHECKED);                \
        if (last) DW(grad_shifted_step)(row, sum, last, border[1], S, CHECKED);                                                  \
        DW_UNROLL for (int k = 0; k < 9; k++) DW(store)(acc + k * LANES, sum[k]);                                                \
    }
ROW(whole_1, 1, 0)
ROW(whole_2, 2, 0)
ROW(some_1, 1, 1)
ROW(some_2, 2, 1)
#undef ROW

/* Output rows 0..g->rows of `vectors` vectors of columns, to the sums acc (3, 3, LANES).  x: tap (0, 0) of output (0, 0); ends: of what
 * may be read of x and of grad. */
DW_INLINE void DW(grad_shifted_rows)(const dw_grad *g, const REAL *x, const REAL *grad, REAL *acc, ptrdiff_t vectors,
                                     const MASK (*border)[3], const REAL *const *ends, const int S) {
    enum { K = 3 };
    const int A = (K + S - 1) / S;
    const ptrdiff_t rows = g->rows, last = (vectors - 1) * LANES;
    const MASK all[3] = {DW(lanes)(0, LANES), DW(lanes)(0, LANES), DW(lanes)(0, LANES)};
    for (ptrdiff_t r = 0; r < rows + A - 1; r++) {
        DW(dw_grad_row) row;
        int whole = 1, past = 1; /* whether there are all these rows; whether what lies beside them may be read */
        DW_UNROLL for (int s = 0; s < S; s++) {
            row.x[s] = x + (r * S + s) * g->xh;
            row.x_on[s] = g->row_lo <= r * S + s && r * S + s < g->row_hi;
            whole &= row.x_on[s];
            past &= !row.x_on[s] || (row.x[s] >= ends[0] && row.x[s] + S * (last + LANES) + 2 <= ends[1]);
        }
        DW_UNROLL for (int a = 0; a < A; a++) {
            row.grad[a] = grad + (r - a) * g->gh;
            row.grad_on[a] = r >= a && r - a < rows;
            whole &= row.grad_on[a];
            past &= !row.grad_on[a] || row.grad[a] + last + LANES <= ends[2];
        }
        if (past) (S == 1 ? whole ? DW(grad_shifted_whole_1) : DW(grad_shifted_some_1)
                          : whole ? DW(grad_shifted_whole_2) : DW(grad_shifted_some_2))(&row, acc, last, border);
        else for (ptrdiff_t at = 0; at <= last; at += LANES)
            DW(grad_shifted_copied)(&row, acc, at, at == 0 ? border[0] : at == last ? border[1] : all, S, ends);
    }
}

/* grad_rows. */
DW_INLINE void DW(grad_shifted_planes)(const dw_grad *g, const REAL *const *x, const REAL *const *grad, ptrdiff_t planes, REAL *acc,
                                       ptrdiff_t e0, ptrdiff_t e1, const int K, const int S, const int most) {
    const ptrdiff_t vectors = dw_ceil_div(e1 - e0, LANES);
    MASK border[2][3]; /* of the first vector, of the last */
    const REAL *ends[3] = {g->x_from, g->x_to, g->g_to};
    (void)most;
    for (ptrdiff_t b = 0; b < 2; b++) {
        const ptrdiff_t c = e0 + b * (vectors - 1) * LANES;
        for (ptrdiff_t j = 0; j < K; j++) {
            const ptrdiff_t before = g->pad - j - c * S;
            border[b][j] = DW(lanes)(dw_ceil_div(before, S), dw_min(dw_ceil_div(before + g->width, S), e1 - c));
            if (S == 2) border[b][j] = (MASK)DW(turn)((VEC)border[b][j]);
        }
    }
    for (ptrdiff_t k = 0; k < planes; k++, acc += K * K * LANES)
        DW(grad_shifted_rows)(g, x[k] + e0 * S - g->pad, grad[k] + e0, acc, vectors, (const MASK(*)[3])border, ends, S);
}
#endif

#if DW_BYTES >= 32
#define TILE(K, S, MOST)                                                                                                    \
    static void DW(grad_shifted_##K##_##S)(const dw_grad *g, const REAL *const *x, const REAL *const *grad, ptrdiff_t planes, \
                                           REAL *acc, ptrdiff_t e0, ptrdiff_t e1) {                                         \
        DW(grad_shifted_planes)(g, x, grad, planes, acc, e0, e1, K, S, MOST);                                               \
    }
DW_GRAD_SHIFTED_TILES(TILE)
#undef TILE
#endif

/* Whether there is a shifted tile for this kernel and these columns: 0, 1 or 2, see shifted_serve. */
static int DW(grad_shifted_serve)(ptrdiff_t kh, ptrdiff_t kw, ptrdiff_t sh, ptrdiff_t sw, ptrdiff_t cols, ptrdiff_t width,
                                  ptrdiff_t pad) {
    int found = 0;
#define TILE(K, S, MOST) found |= kh == K && kw == K && sh == S && sw == S;
    DW_GRAD_SHIFTED_TILES(TILE)
#undef TILE
    if (!found || !DW(borders_serve)(kw, 1, sw, cols, width, pad, 0)) return 0;
    return DW(pairs_serve)(kw, sw, cols, width, pad) ? 2 : 1;
}

/* Adds output rows 0..g->rows of output elements e0 <= e < e1 (at most DW_MOST_LINES strips, but whole rows; e0 a multiple of a strip)
 * of some planes to the sums acc (planes, kh, kw, LANES), each lane on its own.  x: tap row 0 of output row 0, its pixel 0; grad:
 * output (0, 0). */
static void DW(grad_rows)(const dw_grad *g, const REAL *const *x, const REAL *const *grad, ptrdiff_t planes, REAL *acc, ptrdiff_t e0,
                          ptrdiff_t e1) {
#define TILE(K, S, MOST)                                                                                                    \
    if (g->shifted && g->kh == K && g->sh == S) {                                                                           \
        DW(grad_shifted_##K##_##S)(g, x, grad, planes, acc, e0, e1);                                                        \
        return;                                                                                                             \
    }
    DW_GRAD_SHIFTED_TILES(TILE)
#undef TILE
    const ptrdiff_t pixels = LANES / g->period, strip = pixels * g->period, unit = dw_steps(g->period, g->repeat);
    const int dense = g->sw == 1 && (g->pixel == unit || g->width == 1) && (g->gw == g->period || g->cols == 1);
    DW(dw_slide_lanes) b;
    dw_slide s;
    s.count = g->rows;
    s.x_line = pixels * g->sw * g->pixel;
    s.g_line = pixels * g->gw;
    s.across = 0;
    s.x_step = g->xh;
    s.x_tap = g->dilation * g->pixel;
    s.g_step = g->gh;
    s.lo = g->row_lo;
    s.hi = g->row_hi;
    s.across_lo = 0;
    s.across_hi = g->kw;
    s.acc_p = g->kw * LANES;
    s.acc_q = LANES;
    const int halves = g->period == 1 && g->sw == 2 && g->dilation == 1 && (g->pixel == 1 || g->width == 1)
                       && (g->gw == 1 || g->cols == 1);
    const int rare = !dense || g->repeat > 1;
    const int narrow = DW_REGISTERS < 32 && g->cols * g->period < 8 * LANES; /* of which many strips are masked */
    if (rare) b.x = DW(lanes)(0, (LANES - 1) / g->repeat + 1);
    for (ptrdiff_t l = 0; l < (rare ? LANES : 0); l++) {
        ((REAL_INT *)&b.index)[l] = (REAL_INT)(l / g->repeat);
        b.x_offset[l] = l / g->period * g->sw * g->pixel + l % g->period / g->repeat;
        b.g_offset[l] = l / g->period * g->gw + l % g->period;
    }
    int Q;
    for (ptrdiff_t q = 0; q < g->kw; q += Q) {
        int last = 0; /* the mode of the strips that wait in b.line */
        ptrdiff_t lo[DW_MOST_ACROSS], hi[DW_MOST_ACROSS]; /* per tap, the outputs whose x lies in the image; all taps: from..to */
        ptrdiff_t col = dw_steps(e0, g->period), from = 0, to = dense ? g->cols * g->period : 0;
        s.lines = 0;
        s.ahead = q ? 0 : g->ahead, s.next_x = 0;
        Q = DW(slide_across)(g->kw - q, g->kh, g->sh, rare || narrow);
#define RUN()                                                                                                               \
        for (ptrdiff_t k = 0, at = col - s.lines * pixels; k < planes; k++)                                                 \
            DW(slide_along)(&s, x[k] + (at * g->sw + q * g->dilation - g->pad) * g->pixel, grad[k] + at * g->gw,            \
                            acc + (k * g->kh * g->kw + q) * LANES, &b, g->kh, g->sh, Q, last)
        for (int k = 0; k < Q; k++) {
            const ptrdiff_t at = g->pad - (q + k) * g->dilation;
            lo[k] = dw_steps(at, g->sw) * g->period;
            hi[k] = dw_steps(g->width + at, g->sw) * g->period;
            from = dw_max(from, lo[k]);
            to = dw_min(to, hi[k]);
        }
        for (ptrdiff_t e = e0; e < e1; e += strip, col += pixels) {
            DW(dw_slide_masks) *m = b.line + s.lines;
            const ptrdiff_t end = dw_min(strip, e1 - e);
            const int inside = from <= e && e + LANES <= to;
            m->g = DW(lanes)(0, end);
            for (int k = 0; k < Q; k++) {
                m->out[k] = inside ? m->g : DW(lanes)(lo[k] - e, dw_min(hi[k] - e, end));
            }
            if (halves) {
                const ptrdiff_t first = g->pad - q - col * g->sw;
                for (int k = 0; k < (DW_SHIFTS ? 2 : 6); k++) {
                    const ptrdiff_t at = DW_SHIFTS ? first - k * LANES : first - k / 2 - k % 2 * LANES;
                    m->in[k] = DW(lanes)(at, g->width + at);
                }
                m->next = dw_max(first, dw_min(2 * LANES, g->width + first - 1));
            }
            const int mode = halves ? DW_HALVES : rare ? (inside ? DW_INDEXED : DW_SCATTERED) : inside ? DW_WHOLE : DW_MASKED;
            if (s.lines && mode != last) {
                RUN();
                b.line[0] = *m;
                s.lines = 0;
            }
            last = mode;
            s.lines++;
        }
        if (s.lines) RUN();
#undef RUN
    }
}

/* The sum of all lanes of vector k, in lane k; of count vectors, whose lanes belong to LANES / count sums in turn, likewise. */
DW_INLINE VEC DW(add_across)(VEC *v, const int count) {
#if DW_VECTORS && defined(DW_SHUFFLEVECTOR)
    DW_UNROLL for (int n = count / 2; n > 0; n /= 2) {
        DW_UNROLL for (int k = 0; k < n; k++) {
            const VEC low = __builtin_shufflevector(v[k], v[k + n], DW_JOIN(DW_ZIP_LOW_, LANES));
            v[k] = low + __builtin_shufflevector(v[k], v[k + n], DW_JOIN(DW_ZIP_HIGH_, LANES));
        }
    }
#else
    (void)count;
    DW(transpose)(v);
    for (int k = 1; k < LANES; k++) v[0] = v[0] + v[k];
#endif
    return v[0];
}

/* The row family's end, planes: adds the lanes of their sums (planes, taps, LANES), of LANES planes at most; w (taps, planes).
 * As grad_add_lanes, in the same order, where there are more planes than taps. */
static void DW(grad_add_planes)(const REAL *acc, ptrdiff_t taps, ptrdiff_t planes, ptrdiff_t apart, REAL *w, ptrdiff_t pitch) {
    for (ptrdiff_t tap = 0; tap < taps; tap++, acc += LANES, w += pitch) {
        VEC v[LANES];
        DW_UNROLL for (int k = 0; k < LANES; k++) v[k] = k < planes ? DW(load)(acc + k * apart) : DW(splat)(0);
        DW(store_first)(w, DW(add_across)(v, LANES), planes);
    }
}

/* ... of which every second one's lie in half of the vectors before them, see grad_paired_rows. */
static void DW(grad_add_pairs)(const REAL *acc, ptrdiff_t taps, ptrdiff_t planes, ptrdiff_t apart, REAL *w, ptrdiff_t pitch) {
#if DW_SHIFTS
#if REAL_SIZE == 4
#define IN_TURN(v) __builtin_shufflevector(v, v, DW_ZIP_LOW_8, DW_ZIP_HIGH_8)
#else
#define IN_TURN(v) __builtin_shufflevector(v, v, DW_ZIP_LOW_4, DW_ZIP_HIGH_4)
#endif
    for (ptrdiff_t tap = 0; tap < taps; tap++, acc += LANES, w += pitch) {
        VEC v[LANES / 2];
        DW_UNROLL for (int k = 0; k < LANES / 2; k++) {
            v[k] = 2 * k < planes ? DW(load)(acc + 2 * k * apart) : DW(splat)(0);
            v[k] = IN_TURN(v[k]);
        }
        const VEC sums = DW(add_across)(v, LANES / 2);
        DW(store_first)(w, IN_TURN(sums) + DW(splat)(0), planes); /* no -0, as with the other half of one plane's vector */
    }
#undef IN_TURN
#else
    (void)acc, (void)taps, (void)planes, (void)apart, (void)w, (void)pitch;
#endif
}

/* ... of any row: adds the lanes of `taps` sums that belong to the same output channel; w (taps, period), `pitch` apart. */
static void DW(grad_add_lanes)(const REAL *acc, ptrdiff_t taps, ptrdiff_t period, REAL *w, ptrdiff_t pitch) {
    for (ptrdiff_t tap = 0; tap < taps; tap += LANES) {
        VEC v[LANES];
        REAL lane[LANES];
        DW_UNROLL for (int k = 0; k < LANES; k++) v[k] = tap + k < taps ? DW(load)(acc + (tap + k) * LANES) : DW(splat)(0);
        if (period == 1) {
            DW(store)(lane, DW(add_across)(v, LANES));
            for (int k = 0; k < LANES && tap + k < taps; k++) w[(tap + k) * pitch] = lane[k];
            continue;
        }
        DW(transpose)(v);
        for (ptrdiff_t c = 0; c < period; c++) {
            VEC total = v[c];
            for (ptrdiff_t l = c + period; l < LANES / period * period; l += period) total = total + v[l];
            DW(store)(lane, total);
            for (int k = 0; k < LANES && tap + k < taps; k++) w[(tap + k) * pitch + c] = lane[k];
        }
    }
}

/* Rows of `cols` pixels, `row` apart, as rows without gaps, `pitch` apart; what follows each is fetched for the next call. */
static void DW(copy_rows)(const REAL *x, ptrdiff_t rows, ptrdiff_t row, ptrdiff_t cols, ptrdiff_t pixel, ptrdiff_t channels,
                          ptrdiff_t pitch, REAL *out) {
    const ptrdiff_t size = cols * channels;
    for (ptrdiff_t r = 0; r < rows; r++, x += row, out += pitch) {
        if (pixel == channels || cols == 1) {
            memcpy(out, x, (size_t)size * sizeof(REAL));
            for (ptrdiff_t k = size; k < 2 * size; k += 64 / REAL_SIZE) DW_PREFETCH(x + k, 0);
        } else {
            for (ptrdiff_t k = 0; k < size; k++) out[k] = x[k / channels * pixel + k % channels];
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

/* ... of a split block. */
static void DW(grad_store_split)(const REAL *acc, ptrdiff_t taps, ptrdiff_t first, ptrdiff_t channels, REAL *w, ptrdiff_t pitch) {
    for (ptrdiff_t tap = 0; tap < taps; tap++)
        for (ptrdiff_t l = 0; l < LANES; l++) w[tap * pitch + (first + l < 0 ? channels : 0) + first + l] = acc[tap * LANES + l];
}

/* a + b in place; whole vectors. */
static void DW(grad_add)(REAL *a, const REAL *b, ptrdiff_t size) {
    for (ptrdiff_t k = 0; k < size; k += LANES) DW(store)(a + k, DW(load)(a + k) + DW(load)(b + k));
}
