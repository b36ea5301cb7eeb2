/* The register tiles: R x T outputs kept in registers while every tap that reaches them is added.
 *
 * A template like _simd.h, included once for float and once for double.  Two families, by what a vector spans:
 *
 *   channel tiles   x (rows, cols, C), y (rows, cols, C*M): a vector is LANES channels of one pixel; a tile is
 *                   R rows x T columns of pixels.  NHWC.
 *   row tiles       x (rows, width), y (rows, cols): a vector is LANES neighbours in a row; a tile is R rows x T vectors.
 *                   One NCHW plane, or NHWC with few channels, whose rows are taken as flat runs of W*C numbers.
 *
 * Every output is one chain of multiply-adds, bias first, then the taps in row-major order.  Tiles differ in how many
 * such chains run at once, never in a chain's order: so any tile gives the same bits as any other, and blocks, bands
 * and threads can be cut anywhere.  Padding is clipped: a tile knows which input rows and columns exist and skips the
 * others, or takes 0 for them and -0 for their weight, so that an infinite weight over padding adds nothing.
 *
 * A block of planes can also be turned into channels (gather_planes) and run by channel tiles, which wins where rows are
 * short, strided or the kernel large.
 *
 * Rows with a stride that has no tile, or with a multiplier, are copied as rows without first (part_rows) and run by tall tiles, whose sums
 * may wait in y for further taps.
 *
 * Refused here: argument checks, allocation, threads, loops over images and blocks (all in _kernels.pyx).  Built in C because the
 * tile must be unrolled before the compiler assigns registers, which needs a pragma straight in front of each loop; Cython
 * writes its temporaries there, and gcc 12 then spilled the 3x3 tile 134 times a pass where this source is spilled twice.
 * Tiles of planes with literal kernels are in _plane_tiles.h.
 *
 * Loads per multiply-add decide the tile (a vector load that crosses a cache line, as most do from NumPy's 16-byte
 * aligned arrays, counts twice): see the tables at the end.
 */

#ifndef DW_TILES_ONCE
#define DW_TILES_ONCE

#include <stddef.h>
#include <string.h>

/* What a family of tiles needs to know of the geometry.  Distances are in elements.  Along an axis with stride s and
 * dilation d the outputs are taken in phases of every (d / gcd(s, d))-th one; within a phase the dilation is only a
 * distance in memory, and the stride is s / gcd(s, d). */
typedef struct {
    ptrdiff_t kh, kw;         /* taps */
    ptrdiff_t sh, sw;         /* stride, in taps (row tiles: sw in input elements) */
    ptrdiff_t xh, xw;         /* from one tap row/column to the next in x */
    ptrdiff_t wh, ww;         /* from one tap row/column to the next in the kernel */
    ptrdiff_t yh, yw;         /* from one output row/column to the next in y */
    ptrdiff_t x0;             /* of tap (0, 0) of output (0, 0), from the start of x; negative in the padding */
    ptrdiff_t row_lo, row_hi; /* tap rows of output row 0 and on that lie in the image: row_lo <= t < row_hi */
    ptrdiff_t col_lo, col_hi; /* the same for columns (channel tiles) */
    ptrdiff_t cols;           /* output columns (row tiles: output elements of a row) */
    ptrdiff_t width, pad;     /* row tiles: input elements of a row; how far before it tap 0 of output 0 lies */
    ptrdiff_t repeat;         /* depth multiplier where the outputs of a channel are neighbours, else 1 */
    ptrdiff_t period;         /* row tiles: after how many elements the weights of a row repeat */
    ptrdiff_t parts, part, turn; /* parted rows, see part_rows: parts of a row (0: not parted), from one to the next, and from a tap column
                               * to the next of its part; sw, xw, width and pad are then in columns of the image */
    int far;                  /* x and y by 6 MB, 2 at most: from 1 on too large for the caches of one worker; 2: see in_order,
                               * fetch_rows, and grad_strip_of of _input_grad_tiles.h */
    int stream;               /* ... for all caches */
    int strips;               /* row tiles: along the rows in strips, not down the columns; 2: nor by shifted tiles */
    int compact;              /* flat rows: weights do not repeat, inputs are neighbours */
    int packed;               /* channel tiles that take all blocks in turn: w is what pack_weights made of weights and bias */
    int alike;                /* channel tiles of any kernel: all blocks have the weights and bias of the first */
    int resume;               /* ... (AVX-512), and tall tiles: y holds the sums of the taps before these, in place of the bias */
    int clamp;                /* whether outputs are clamped to lo..hi */
    double lo, hi;
} dw_geometry;

/* How channel tiles load x: a vector; one whose lanes repeat (depth multiplier); the same with fewer lanes than a vector; one of the
 * last channels of a pixel and then its first. */
enum { DW_PLAIN, DW_REPEAT, DW_PARTIAL, DW_WRAPPED };
/* The weights of row tiles: one for all lanes; from a pattern that repeats them, as flat rows need; or picked from those of the kernel,
 * where that pattern is too large. */
enum { DW_ONE, DW_PATTERN, DW_COMPACT };
/* What the caller knows of row tiles: that they reach a border of the image, that they do not, or neither. */
enum { DW_EDGE, DW_INSIDE, DW_EITHER };

enum { DW_SHIFTED_COLS = 1024, DW_SHIFTED_VECTORS = 4 }; /* of shifted tiles: outputs of a row, vectors of a block, at most */
#define DW_WRAPS (DW_BYTES == 64) /* whether masked loads and stores are cheap enough for blocks of a pixel's last and first channels */
#define DW_ROWS_LITERAL (DW_BYTES == 32) /* whether row tiles have code for each range of their rows: measured there only */
enum { DW_TAP_LANES = 32 }; /* kernel columns whose masks a tile keeps */
enum { DW_INNER_BYTES = 16384 }; /* of weights, up to which tiles of any kernel take all channels of a pixel in turn: half of L1 */
enum { DW_AHEAD_BYTES = 1536 };  /* how far on tiles fetch what comes from memory: 768 to 6144 within a tenth */
enum { DW_TALL_ROWS = 7 };     /* of tall tiles */
enum { DW_TALL_TAPS = 10 };     /* of a kernel of more rows than one, up to which tall tiles are faster than others */
enum { DW_NEAR_BYTES = 512 };   /* of a pixel, that tiles of one column take through all rows, see dw_one_column */
enum { DW_PACKED_BYTES = 4096 }; /* of weights packed on the stack, which may be 16 KB in all (OMP_STACKSIZE, PTHREAD_STACK_MIN) */

static inline ptrdiff_t dw_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static inline ptrdiff_t dw_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t dw_ceil_div(ptrdiff_t a, ptrdiff_t b) { return a / b + (a % b > 0); }

/* Whether tiles take one column wherever x lies, at stride sw over pixels so many bytes apart.  Lines 2 KB apart share two sets
 * of L1, which then takes 4 cycles for each from L2 (4 KB: 9), others 3.3: so some lines of each of few pixels in a row, which L1 keeps
 * for the next column (14x14x512 at stride 2: 1.15 times as fast as 2 x 7; at stride 1, of which 2 x 7 loads less, 0.7). */
static inline int dw_one_column(ptrdiff_t sw, ptrdiff_t pitch) { return DW_BYTES >= 32 && sw == 2 && pitch && pitch % 2048 == 0; }

#if DW_BYTES == 64 || defined(__aarch64__)
#define DW_REGISTERS 32
#define DW_NEAR_ROWS 2 /* of tiles of one column, see dw_one_column */
#define DW_RUN 8 /* taps of a kernel of any size whose weights are in registers */
#define DW_RUN_STRIDED 7 /* ... at strides of 2 and 3 */
#else
#define DW_REGISTERS 16
#define DW_NEAR_ROWS 1
#define DW_RUN 7
#define DW_RUN_STRIDED 4
#endif

/* Cuts rows r0..r1 into strips of nearly equal height, at most MOST, here at most HERE, and calls STRIP(first row, height): equal
 * ones, because a last strip of one row would run at the speed of one-row tiles.  Rows that share too little go one by one. */
#define DW_STRIPS(MOST, HERE, STRIP)                                                 \
    do {                                                                             \
        const ptrdiff_t count_ = dw_ceil_div(r1 - r0, HERE);                         \
        for (ptrdiff_t i_ = 0; i_ < count_; i_++) {                                  \
            const ptrdiff_t r = r0 + (r1 - r0) * i_ / count_;                        \
            switch (r0 + (r1 - r0) * (i_ + 1) / count_ - r) {                        \
            case 1: STRIP(r, 1); break;                                              \
            case 2: if ((MOST) >= 2) STRIP(r, ((MOST) >= 2 ? 2 : 1)); break;         \
            case 3: if ((MOST) >= 3) STRIP(r, ((MOST) >= 3 ? 3 : 1)); break;         \
            case 4: if ((MOST) >= 4) STRIP(r, ((MOST) >= 4 ? 4 : 1)); break;         \
            }                                                                        \
        }                                                                            \
    } while (0)

#endif /* DW_TILES_ONCE */

/* The lanes of a block of channels: which exist, which of x they need, which of those each takes.  DW_WRAPPED: those of the first
 * channels (out); the others lie `count` after their place. */
typedef struct {
    MASK out, in;
    IVEC index;
    ptrdiff_t count;
    DW(dw_repeat) repeat;
} DW(dw_block);

DW_INLINE void DW(clamp_all)(const dw_geometry *g, VEC *acc, const int count) {
    if (g->clamp) DW_UNROLL for (int k = 0; k < count; k++) acc[k] = DW(clamp)(acc[k], DW(splat)((REAL)g->lo), DW(splat)((REAL)g->hi));
}

/* ---- channel tiles ---- */

DW_INLINE VEC DW(load_channels)(const REAL *x, const int mode, const DW(dw_block) *b) {
#if DW_WRAPS
    if (mode == DW_WRAPPED) return DW(load_two)(x, x + b->count, b->out);
#endif
    if (mode == DW_REPEAT) return DW(load_repeated)(x, &b->repeat);
    return mode == DW_PLAIN ? DW(load)(x) : DW(load_indexed)(x, b->in, b->index);
}

/* R x T accumulators to y; of the columns only the first `cols`, if checked. */
DW_INLINE void DW(store_channels)(const dw_geometry *g, REAL *y, VEC *acc, const ptrdiff_t cols, const DW(dw_block) *b, const int R, const int T,
                                  const int mode, const int checked) {
    const ptrdiff_t yh = g->yh, yw = g->yw;
    DW(clamp_all)(g, acc, R * T);
    DW_UNROLL for (int r = 0; r < R; r++, y += yh) {
        REAL *p = y;
        DW_UNROLL for (int c = 0; c < T; c++, p += yw) {
            if (checked && c >= cols) break;
            if (mode == DW_PARTIAL) DW(store_first)(p, acc[r * T + c], b->count);
#if DW_WRAPS
            else if (mode == DW_WRAPPED) {
                DW(store_lanes)(p, acc[r * T + c], b->out);
                DW(store_lanes)(p + b->count, acc[r * T + c], (MASK)~b->out);
            }
#endif
            else DW(store)(p, acc[r * T + c]);
        }
    }
}

/* From memory: of the outputs, and of the rows that the strip above has not read, what the tile `tiles` further on needs: the CPU fetches
 * too little by itself of ten rows in turn (145x145x200, tiles of 4 x 2: 2.2 ms without, 1.35 with). */
DW_INLINE void DW(fetch_ahead)(const dw_geometry *g, const REAL *x, const REAL *y, const ptrdiff_t tiles, const int K, const int S, const int R,
                               const int T) {
    x += tiles * (T * S) * g->xw;
    y += tiles * T * g->yw;
    DW_UNROLL for (int t = K - S; t < (R - 1) * S + K; t++)
        DW_UNROLL for (int u = K - S; u < (T - 1) * S + K; u++) DW_PREFETCH(x + t * g->xh + u * g->xw, 0);
    DW_UNROLL for (int r = 0; r < R; r++)
        DW_UNROLL for (int c = 0; c < T; c++) DW_PREFETCH(y + r * g->yh + c * g->yw, 1);
}

/* One tile of a kernel whose size is a literal, weights in w[K*K] or, if late, loaded from packed ones when their turn comes.  x: tap
 * (0, 0) of the first output.  Tap rows t0 <= t < t1 and, if checked, tap columns u0 <= u < u1 lie in the image, all rows of a tile that
 * is within; if checked, only the first `cols` columns are stored.  Each input vector is loaded once and multiplied into every output
 * that it reaches.  next: if not NULL, packed weights that go to w before the outputs are stored, for which they might wait: from_last. */
DW_INLINE void DW(channel_tile)(
        const dw_geometry *g, const REAL *x, VEC *w, const REAL *packed, const REAL *next, VEC bias, REAL *y, ptrdiff_t t0, ptrdiff_t t1,
        ptrdiff_t u0, ptrdiff_t u1, ptrdiff_t cols, ptrdiff_t ahead, const DW(dw_block) *b, const int K, const int S, const int R,
        const int T, const int mode, const int late, const int within, const int checked) {
    VEC acc[32], wv[16]; /* K is 4 at most where weights are late */
    if (T <= 2 && ahead) DW(fetch_ahead)(g, x, y, ahead, K, S, R, T);
    DW_UNROLL for (int k = 0; k < R * T; k++) acc[k] = bias;
    DW_UNROLL for (int t = 0; t < (R - 1) * S + K; t++, x += g->xh) {
        if (late && t < K) {
            DW_UNROLL for (int j = 0; j < K; j++) {
                wv[t * K + j] = DW(load)(packed + (t * K + j) * LANES);
                if (R * T > 1) DW_HOLD(wv[t * K + j]);
            }
        }
        if (!within && (t < t0 || t >= t1)) continue;
        const REAL *p = x;
        DW_UNROLL for (int u = 0; u < (T - 1) * S + K; u++, p += g->xw) {
            DW_HIDE(p);
            if (checked && (u < u0 || u >= u1)) continue;
            const VEC v = DW(load_channels)(p, mode, b);
            DW_UNROLL for (int r = 0; r < R; r++) {
                DW_UNROLL for (int c = 0; c < T; c++) {
                    const int i = t - r * S, j = u - c * S;
                    if (0 <= i && i < K && 0 <= j && j < K) acc[r * T + c] = acc[r * T + c] + v * (late ? wv[i * K + j] : w[i * K + j]);
                }
            }
        }
    }
    if (next) DW_UNROLL for (int i = 0; i <= K * K; i++) w[i] = DW(load)(next + i * LANES);
    DW(store_channels)(g, y, acc, cols, b, R, T, mode, checked);
}

/* Any kernel size: N taps of one tap row, whose weights serve all R x T outputs and each input up to N of them: for R = 2, T = 7,
 * N = 8 a third of a load per multiply-add.  Of the rows those from r0 to r1 have the tap row in the image, of the inputs along those from
 * u0 to u1 are. */
DW_INLINE void DW(channel_run)(
        const REAL *x, ptrdiff_t xw, ptrdiff_t row, const REAL *w, ptrdiff_t ww, VEC *acc, int r0, int r1, ptrdiff_t u0, ptrdiff_t u1,
        const DW(dw_block) *b, const int N, const int S, const int R, const int T, const int mode) {
    VEC wv[DW_RUN];
    DW_UNROLL for (int j = 0; j < N; j++) wv[j] = mode == DW_PARTIAL ? DW(load_lanes)(w + j * ww, b->out) : DW(load)(w + j * ww);
    DW_UNROLL for (int r = 0; r < R; r++, x += row) {
        if (r < r0 || r >= r1) continue;
        const REAL *p = x;
        DW_UNROLL for (int u = 0; u < (T - 1) * S + N; u++, p += xw) {
            DW_HIDE(p);
            if (u < u0 || u >= u1) continue;
            const VEC v = DW(load_channels)(p, mode, b);
            DW_UNROLL for (int c = 0; c < T; c++) {
                const int j = u - c * S;
                if (0 <= j && j < N) acc[r * T + c] = acc[r * T + c] + v * wv[j];
            }
        }
    }
}

/* As channel_tile, of one row of outputs (R is 1), tap row by tap row: beside seven of them 16 registers hold one row of weights. */
DW_INLINE void DW(channel_tile_by_rows)(
        const dw_geometry *g, const REAL *x, const REAL *packed, VEC bias, REAL *y, ptrdiff_t t0, ptrdiff_t t1, ptrdiff_t u0, ptrdiff_t u1,
        ptrdiff_t cols, const DW(dw_block) *b, const int K, const int S, const int T, const int mode, const int checked) {
    VEC acc[32];
    DW_UNROLL for (int k = 0; k < T; k++) acc[k] = bias;
    for (ptrdiff_t i = dw_max(t0, 0); i < dw_min(t1, K); i++)
        DW(channel_run)(x + i * g->xh, g->xw, 0, packed + i * (K * LANES), LANES, acc, 0, 1, checked ? u0 : 0,
                        checked ? u1 : (T - 1) * S + K, b, K, S, 1, T, mode);
    DW(store_channels)(g, y, acc, cols, b, 1, T, mode, checked);
}

/* Block k of `channels` from channel `first` on: blocks are whole, so the first and last may overlap their neighbours. */
DW_INLINE ptrdiff_t DW(block_at)(ptrdiff_t first, ptrdiff_t k, ptrdiff_t channels) {
    return dw_max(dw_min(first + k * LANES, channels - LANES), 0);
}

/* Weights and bias of `blocks` blocks of channels from channel `first` on, block by block, the taps in order and then the bias.  Tiles that
 * take all blocks in turn load them anew for each: at distances that the compiler knows, and never in sets of the cache that taps or
 * pixels a power of two apart share (7x7x1024: 14 us, as they lie up to 18).  wraps: whether one before channel 0 is wrapped. */
static void DW(pack_weights)(const dw_geometry *g, const REAL *w, const REAL *bias, ptrdiff_t first, ptrdiff_t blocks, ptrdiff_t channels,
                             const int wraps, REAL *packed) {
    const ptrdiff_t taps = g->kh * g->kw, size = (taps + 1) * LANES;
    DW(dw_block) b;
    b.out = DW(lanes)(-first, LANES);
    b.count = channels;
    for (ptrdiff_t tap = 0; tap <= taps; tap++, packed += LANES) { /* in the order of w: its taps may share sets of the cache */
        const REAL *row = tap < taps ? w + tap / g->kw * g->wh + tap % g->kw * g->ww : bias;
        ptrdiff_t k = 0;
        if (DW_WRAPS && wraps && first < 0) {
            DW(store)(packed, row ? DW(load_channels)(row + first, DW_WRAPPED, &b) : DW(splat)(0));
            k++;
        }
        for (; k < blocks; k++)
            DW(store)(packed + k * size, row ? DW(load)(row + DW(block_at)(first, k, channels)) : DW(splat)(0));
    }
}

/* Whether blocks of channels are better taken from the last to the first.  A load waits for a store shortly before it that has the same
 * last 12 bits of address.  Pixels a power of two apart have them in common, and what is loaded after a block is stored is the next
 * block: so blocks must move away from what is stored, be it ahead of x or behind.  Measured for 512 bytes and more (28x28x256: 45 us,
 * the other way 72); below it makes no difference. */
DW_INLINE int DW(from_last)(const dw_geometry *g, const REAL *x, const REAL *y) {
    const ptrdiff_t distances = 4096 / REAL_SIZE | g->xh | g->xw | g->yh | g->yw, pitch = distances & -distances;
    const ptrdiff_t ahead = (((intptr_t)y - (intptr_t)x) / REAL_SIZE - g->x0) & (pitch - 1);
    return pitch >= 512 / REAL_SIZE && 0 < ahead && ahead < pitch / 2;
}

/* A strip of R rows: all its columns for the block of channels that x, bias, y point to, whose weights the caller has loaded (wv); or,
 * with wv NULL, all `blocks` from channel `first` on for each tile of columns, of which one before channel 0 is wrapped, weights and
 * bias from packed ones; down: see from_last. */
DW_INLINE void DW(channel_strip)(
        const dw_geometry *g, const REAL *x, const REAL *packed, VEC *wv, const REAL *bias, REAL *y, ptrdiff_t row, ptrdiff_t first,
        ptrdiff_t blocks, ptrdiff_t channels, const int down, const DW(dw_block) *b, const int K, const int S, const int R, const int T,
        const int mode) {
    const int late = DW_REGISTERS == 16 && !wv; /* with 8 accumulators and 9 weights gcc spills */
    const int by_rows = DW_REGISTERS == 16 && T >= 7, span = (T - 1) * S + K;
    const dw_geometry copy = *g;
    if (late && R * T == 1) g = &copy; /* a tile so small feels its loads, and would repeat them after every store (1.15 times) */
    const ptrdiff_t t0 = g->row_lo - row * S, t1 = g->row_hi - row * S;
    DW(dw_block) wrapped;
    wrapped.out = DW(lanes)(-first, LANES);
    wrapped.count = channels;
    const int wraps = DW_WRAPS && !wv && first < 0 && !g->stream && (T > 2 || (S == 2 && R <= DW_NEAR_ROWS)); /* see dw_wraps */
    const ptrdiff_t last = blocks - 1, start = down && !wraps ? last : 0;
    /* whole tiles, since phases and strips leave out what lies between; not of pixels that share two sets (32 x 14x14x512 at stride 2: 0.92) */
    const ptrdiff_t tile = T * S * REAL_SIZE * (g->xw < 0 ? -g->xw : g->xw); /* bytes from one to the next */
    const ptrdiff_t ahead = g->stream && tile && !dw_one_column(S, g->xw * REAL_SIZE) ? dw_ceil_div(DW_AHEAD_BYTES, tile) : 0;
    VEC own[50]; /* of a block, and the bias; the largest K is 7: K * K + 1 would be no constant in C */
    if (!wv && !late) DW_UNROLL for (int i = 0; i <= K * K; i++) own[i] = DW(load)(packed + start * ((K * K + 1) * LANES) + i * LANES);
    y += row * g->yh;
    x += g->x0 + row * S * g->xh;
    for (ptrdiff_t col = 0; col < g->cols; col += T) {
        const ptrdiff_t c = col + T <= g->cols ? col : dw_max(g->cols - T, 0); /* the last tile overlaps its neighbour */
        const ptrdiff_t u0 = g->col_lo - c * S, u1 = g->col_hi - c * S;
        const int inside = u0 <= 0 && span <= u1 && T <= g->cols;
        /* padding by half a kernel: the compiler knows which inputs are missing (14x14x672 5x5: 1.1 times) */
        const int seven = DW_BYTES == 32 && by_rows && T == 7 && (late || S == 1) && T <= g->cols;
        const int literal = seven || (DW_BYTES == 32 && late && K == 3 && R * T == 8 && T <= g->cols);
        const REAL *xc = x + c * S * g->xw;
        REAL *yc = y + c * g->yw;
        ptrdiff_t k = start, left = blocks;
#define BLOCK(channel, b, mode, step, within, checked, lo, hi, cols)                                                   \
        do {                                                                                                           \
            const ptrdiff_t at = channel;                                                                              \
            const REAL *const from = wv ? (const REAL *)wv : packed + k * ((K * K + 1) * LANES);                       \
            const VEC v = wv ? (bias ? DW(load)(bias) : DW(splat)(0)) : late ? DW(load)(from + K * K * LANES) : own[K * K]; \
            k = --left > 0 ? k + (step) : start;                                                                       \
            const REAL *const next = packed + k * ((K * K + 1) * LANES);                                               \
            if (by_rows)                                                                                               \
                DW(channel_tile_by_rows)(g, xc + at, from, v, yc + at, t0, t1, lo, hi, cols, b, K, S, T, mode, checked); \
            else DW(channel_tile)(g, xc + at, wv ? wv : own, from, wv || late ? NULL : next, v, yc + at, t0, t1, lo, hi, cols, ahead, \
                                  b, K, S, R, T, mode, late, within, checked);                                         \
        } while (0)
#define BLOCKS(within, checked, lo, hi, cols) \
        while (left > 0) BLOCK(wv ? 0 : DW(block_at)(first, k, channels), b, mode, down ? -1 : 1, within, checked, lo, hi, cols)
        if (wraps) BLOCK(first, &wrapped, DW_WRAPPED, down ? last : 1, 0, 1, u0, u1, g->cols - c); /* always checked: one tile less to compile */
        if (late && (R > 1 || T == 1) && inside && t0 <= 0 && (R - 1) * S + K <= t1) /* so small a tile feels a test for each row */
            BLOCKS(1, 0, 0, span, T);
        else if (inside) BLOCKS(0, 0, 0, span, T);
        else if (seven && u0 == K / 2 && u1 == span - K / 2) BLOCKS(0, 1, K / 2, span - K / 2, T);
        else if (literal && u0 == K / 2 && u1 >= span) BLOCKS(0, 1, K / 2, span, T);
        else if (literal && u0 <= 0 && u1 == span - K / 2) BLOCKS(0, 1, 0, span - K / 2, T);
        else if (!late || !by_rows) BLOCKS(0, 1, u0, u1, g->cols - c); /* others never come here, see tile_serves */
#undef BLOCKS
#undef BLOCK
    }
}

/* Stride S along; 0: any, of which inputs serve one output each.  What only columns past `cols` would need is left out. */
DW_INLINE void DW(channel_tile_any)(
        const dw_geometry *g, const REAL *x, const REAL *w, VEC bias, REAL *y, ptrdiff_t t0, ptrdiff_t t1, ptrdiff_t u0, ptrdiff_t u1,
        const ptrdiff_t cols, const DW(dw_block) *b, const int S, const int R, const int T, const int mode) {
    VEC acc[32];
    const ptrdiff_t run = S == 0 ? 1 : S > 1 ? DW_RUN_STRIDED : DW_RUN, most = dw_ceil_div(g->kw, dw_ceil_div(g->kw + !g->kw, run));
    DW_UNROLL for (int k = 0; k < R * T; k++) {
        acc[k] = bias;
        if (DW_BYTES == 64 && mode == DW_PLAIN && g->resume && k % T < cols) acc[k] = DW(load)(y + k / T * g->yh + k % T * g->yw);
    }
    for (ptrdiff_t i = dw_max(t0 - (R - 1) * g->sh, 0); i < dw_min(t1, g->kh); i++) {
        const int r0 = i < t0, r1 = i + (R - 1) * g->sh < t1 ? R : 1;
        for (ptrdiff_t j = 0; j < g->kw; j += most) {
            const ptrdiff_t n = dw_min(most, g->kw - j);
            ptrdiff_t lo = u0 - j, hi = u1 - j;
            if (!S && (lo > 0 || hi <= (T - 1) * g->sw)) lo = dw_ceil_div(lo, g->sw), hi = dw_ceil_div(hi, g->sw);
            hi = dw_min(hi, S ? (cols - 1) * S + n : cols);
            if (hi <= 0 || lo >= hi) continue;
#define RUN(N) DW(channel_run)(x + i * g->xh + j * g->xw, S ? g->xw : g->sw * g->xw, g->sh * g->xh, w + i * g->wh + j * g->ww, g->ww, acc, \
                               r0, r1, lo, hi, b, N, S ? S : 1, R, T, mode)
            switch (S ? n : 1) {
            case 1: RUN(1); break;
            case 2: if (S) RUN(2); break;
            case 3: if (S) RUN(3); break;
            case 4: if (S) RUN(4); break;
            case 5: if (S == 1 || (S > 1 && DW_RUN_STRIDED >= 5)) RUN(5); break;
            case 6: if (S == 1 || (S > 1 && DW_RUN_STRIDED >= 6)) RUN(6); break;
            case 7: if (S == 1 || (S > 1 && DW_RUN_STRIDED >= 7)) RUN(7); break;
#if DW_RUN == 8
            case 8: if (S == 1) RUN(8); break;
#endif
            }
#undef RUN
        }
    }
    DW(store_channels)(g, y, acc, cols, b, R, T, mode, 1);
}

/* A strip of R rows, all `blocks` from channel `first` on for each tile of columns. */
DW_INLINE void DW(channel_strip_any)(
        const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t row, ptrdiff_t first, ptrdiff_t blocks,
        ptrdiff_t channels, const DW(dw_block) *b, const int S, const int R, const int T, const int mode) {
    const ptrdiff_t t0 = g->row_lo - row * g->sh, t1 = g->row_hi - row * g->sh;
    x += g->x0 + row * g->sh * g->xh;
    y += row * g->yh;
    for (ptrdiff_t c = 0; c < g->cols; c += T) {
        for (ptrdiff_t k = 0; k < blocks; k++) {
            const ptrdiff_t at = mode == DW_PLAIN ? DW(block_at)(first, k, channels) : 0, own = g->alike ? 0 : at;
            const VEC v = !bias ? DW(splat)(0) : mode == DW_PARTIAL ? DW(load_lanes)(bias + own, b->out) : DW(load)(bias + own);
            DW(channel_tile_any)(g, x + c * g->sw * g->xw + at, w + own, v, y + c * g->yw + at, t0, t1, g->col_lo - c * g->sw,
                                 g->col_hi - c * g->sw, g->cols - c, b, S, R, T, mode);
        }
    }
}

/* ---- row tiles ---- */

/* What the tiles of a plane or image share. */
typedef struct {
    ptrdiff_t lo[DW_TAP_LANES], hi[DW_TAP_LANES]; /* outputs, as elements of a row, whose input for tap column j exists */
    IVEC weights[LANES];                          /* which of a tap's weights, by place in the period */
} DW(dw_row);

/* Outputs whose input for tap column j exists. */
DW_INLINE void DW(row_reach)(const dw_geometry *g, ptrdiff_t j, ptrdiff_t *lo, ptrdiff_t *hi) {
    *lo = g->pad - j * g->xw;
    *hi = dw_min(*lo + g->width, g->cols);
}

static void DW(row_fill)(const dw_geometry *g, DW(dw_row) *q, const int weights) {
    for (ptrdiff_t j = 0; j < dw_min(g->kw, DW_TAP_LANES); j++) DW(row_reach)(g, j, &q->lo[j], &q->hi[j]);
    for (ptrdiff_t k = 0; k < (weights == DW_COMPACT ? g->period : 0); k++)
        for (ptrdiff_t l = 0; l < LANES; l++) ((REAL_INT *)&q->weights[k])[l] = (REAL_INT)((k + l) % g->period);
}

/* The rows of a tile of R that tap row t reaches, for any kernel and stride: from *first to before the result. */
DW_INLINE int DW(rows_reached)(const dw_geometry *g, ptrdiff_t t, int *first, const int R) {
    int end = 0;
    *first = 0;
    DW_UNROLL for (int r = 0; r < R; r++) {
        *first += r * g->sh + g->kh <= t;
        end += r * g->sh <= t;
    }
    return end;
}

/* From one vector of a row to the next of the same weights: the least multiple of the period in whole vectors. */
DW_INLINE ptrdiff_t DW(vectors_apart)(ptrdiff_t period) {
    ptrdiff_t apart = LANES;
    while (apart % period) apart += LANES;
    return apart;
}

/* From afar: what the strip of `rows` rows from `row` on needs of x and y in place of the same columns of the strip above it, which is
 * about to run; the CPU does not see that coming, as a strip takes some of many rows in turn (1920x1080x3: 1.2 to 1.3 times; with AVX-512
 * from 12 MB on, 1000x1000x3: 1.05 to 1.3 times, below it or with AVX2 down to 0.9).  x: tap (0, 0) of output (0, 0). */
DW_INLINE void DW(fetch_rows)(const dw_geometry *g, const REAL *x, const REAL *y, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t c, ptrdiff_t size,
                              const int S) {
    enum { LINE = 64 / REAL_SIZE };
    if (!(DW_BYTES == 64 ? g->far > 1 : g->stream) || g->cols * REAL_SIZE < 512) return; /* several shorter rows are one run */
    x += (row * g->sh + g->kh - g->sh) * g->xh + c * S;
    y += row * g->yh + c;
    for (; rows > 0; rows--, y += g->yh) {
        for (ptrdiff_t s = 0; s < g->sh; s++, x += g->xh)
            for (ptrdiff_t k = 0; k < size * S; k += LINE) DW_PREFETCH(x + k, 0);
        for (ptrdiff_t k = 0; k < size; k += LINE) DW_PREFETCH(y + k, 1);
    }
}

/* Tap column j of one input row: T vectors of x, and for rows r0..r1, all of which it reaches, one weight each.  *from: x at tap column 0 of
 * output element c, or, where rows are literal, at column j, and moved on. */
DW_INLINE void DW(row_tap)(
        const dw_geometry *g, const DW(dw_row) *q, const REAL **from, const REAL *w, VEC *acc, const ptrdiff_t j, ptrdiff_t c, ptrdiff_t apart,
        ptrdiff_t phase, const MASK *table, int r0, int r1, const int R, const int T, const int weights, const int checked,
        const int all_rows) {
    VEC v[4];
    MASK out[4];
    const REAL *x = *from + (DW_ROWS_LITERAL ? 0 : j * g->xw);
    DW_UNROLL for (int k = 0; k < T; k++) {
        ptrdiff_t lo = 0, hi = 0;
        out[k] = DW(lanes)(0, LANES);
        if (checked && j >= DW_TAP_LANES) {
            DW(row_reach)(g, j, &lo, &hi);
            out[k] = DW(lanes)(lo - c - k * apart, hi - c - k * apart);
        } else if (checked) out[k] = table[j * T + k];
        v[k] = checked ? DW(load_lanes)(x + k * apart, out[k]) : DW(load)(x + k * apart);
        if (all_rows) DW_HOLD(v[k]);
    }
    if (DW_ROWS_LITERAL) { /* here, so that gcc does not load one of the vectors again for every row; with 32 registers it spills more */
        *from += g->xw;
        DW_HIDE(*from);
    }
    DW_UNROLL for (int r = 0; r < R; r++) {
        if (!all_rows && (r < r0 || r >= r1)) continue;
        const REAL *p = w - r * g->sh * g->wh + j * g->ww;
        const VEC wv = weights == DW_ONE      ? DW(load_splat)(p)
                       : weights == DW_PATTERN ? DW(load)(p + phase)
                                              : DW(load_indexed)(p, DW(lanes)(0, g->period), q->weights[phase]);
        DW_UNROLL for (int k = 0; k < T; k++) {
            if (checked) acc[r * T + k] = DW(add_product)(acc[r * T + k], v[k], wv, out[k]);
            else acc[r * T + k] = acc[r * T + k] + v[k] * wv;
        }
    }
}

/* R rows x T vectors from output element c, of row `row`.  If checked, lanes outside the image or past the row's end are left out; tap
 * columns f0 <= j < f1 miss none. */
DW_INLINE void DW(row_tile)(
        const dw_geometry *g, const DW(dw_row) *q, const REAL *x, const REAL *w, VEC bias, REAL *y, ptrdiff_t row, ptrdiff_t c,
        ptrdiff_t apart, ptrdiff_t phase, const MASK *table, ptrdiff_t f0, ptrdiff_t f1, const int R, const int T, const int weights,
        const int checked) {
    const ptrdiff_t t0 = dw_max(g->row_lo - row * g->sh, 0), t1 = dw_min(g->row_hi - row * g->sh, (R - 1) * g->sh + g->kh);
    const int all = !checked || DW_ROWS_LITERAL; /* whether some tap columns miss nothing */
    VEC acc[32];
    DW_UNROLL for (int k = 0; k < R * T; k++) acc[k] = bias;
    x += (row * g->sh + t0) * g->xh;
    w += t0 * g->wh;
    for (ptrdiff_t t = t0; t < t1; t++, x += g->xh, w += g->wh) {
        int first;
        const int end = DW(rows_reached)(g, t, &first, R);
        const REAL *p = x;
        ptrdiff_t j = 0;
#define TAPS(last, r0, r1, checked, all_rows) \
        for (; j < last; j++) DW(row_tap)(g, q, &p, w, acc, j, c, apart, phase, table, r0, r1, R, T, weights, checked, all_rows)
        if (checked) TAPS(f0, first, end, 1, 0);
        if (all) { /* literal rows: to test each at each tap takes 1.2 times as long in a 7x7 kernel (compact weights 1.08, for 45 KB) */
#define ROWS(r0, r1)                                                                                                        \
            else if (DW_ROWS_LITERAL && weights != DW_COMPACT && 0 <= r0 && r1 <= R && r0 < r1 && first == r0 && end == r1) \
                TAPS(f1, r0, r1, 0, 0)
            if (first == 0 && end == R) TAPS(f1, 0, R, 0, 1);
            ROWS(0, 1); ROWS(0, 2); ROWS(0, 3);
            ROWS(R - 1, R); ROWS(R - 2, R); ROWS(R - 3, R);
            else TAPS(f1, first, end, 0, 0);
#undef ROWS
        }
        if (checked) TAPS(g->kw, first, end, 1, 0);
#undef TAPS
    }
    y += row * g->yh;
    DW(clamp_all)(g, acc, R * T);
    DW_UNROLL for (int r = 0; r < R; r++, y += g->yh) {
        DW_UNROLL for (int k = 0; k < T; k++) {
            const VEC v = acc[r * T + k];
            if (checked && c + k * apart + LANES > g->cols) DW(store_first)(y + k * apart, v, g->cols - c - k * apart);
            else DW(store)(y + k * apart, v);
        }
    }
}

/* Output rows r0..r1 of T vectors, `apart` from each other, from output element c on. */
DW_INLINE void DW(row_column)(
        const dw_geometry *g, const DW(dw_row) *q, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0, ptrdiff_t r1,
        ptrdiff_t c, ptrdiff_t apart, const int MOST, const int T, const int weights, const int known) {
    const ptrdiff_t at = c - g->pad, last = (T - 1) * apart + LANES, end = at + last;
    const int fits = at >= 0 && end + (g->kw - 1) * g->xw <= g->width && c + last <= g->cols;
    const int inside = known == DW_EITHER ? fits : known == DW_INSIDE;
    const ptrdiff_t phase = weights == DW_ONE ? 0 : c % g->period;
    const VEC b = !bias ? DW(splat)(0)
                  : weights == DW_ONE    ? DW(splat)(*bias)
                  : weights == DW_PATTERN ? DW(load)(bias + phase)
                                         : DW(load_indexed)(bias, DW(lanes)(0, g->period), q->weights[phase]);
    MASK table[DW_TAP_LANES * 4]; /* filled once for all rows */
    if (!inside)
        for (ptrdiff_t k = 0; k < dw_min(g->kw, DW_TAP_LANES) * T; k++)
            table[k] = DW(lanes)(q->lo[k / T] - c - k % T * apart, q->hi[k / T] - c - k % T * apart);
    ptrdiff_t f0 = 0, f1 = inside ? g->kw : 0; /* tap columns that miss no lane */
    if (DW_ROWS_LITERAL && !inside && c + last <= g->cols) {
        f0 = dw_min(dw_ceil_div(dw_max(-at, 0), g->xw), g->kw);
        f1 = g->width < end ? 0 : dw_min((g->width - end) / g->xw + 1, g->kw);
    }
    x += c;
    y += c;
#define STRIP(row, R)                                                                                           \
    {                                                                                                           \
        if (!inside) DW(row_tile)(g, q, x, w, b, y, row, c, apart, phase, table, f0, f1, R, T, weights, 1);     \
        else DW(row_tile)(g, q, x, w, b, y, row, c, apart, phase, table, f0, f1, R, T, weights, 0);             \
    }
    DW_STRIPS(MOST, g->sh >= g->kh ? 1 : MOST, STRIP);
#undef STRIP
}

/* Output rows r0..r1: down the columns, or along rows so long that going down touches a page per row.  R x T vectors beside the
 * borders, where masks need registers, and wide_r x wide_t inside, if not 0. */
DW_INLINE void DW(row_any)(
        const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0, ptrdiff_t r1, const int wide_r,
        const int wide_t, const int weights) {
    enum { R = 4, T = 2 };
    DW(dw_row) q;
    const ptrdiff_t step = !g->strips ? r1 - r0 : wide_r ? wide_r : R; /* more rows at once: 2000x2000 2x2 takes 2.4 times as long */
    DW(row_fill)(g, &q, weights);
    const ptrdiff_t apart = weights == DW_ONE ? LANES : DW(vectors_apart)(g->period);
    x += g->x0;
    for (ptrdiff_t row = r0; row < r1; row += step) {
        const ptrdiff_t last = dw_min(row + step, r1);
        for (ptrdiff_t base = 0, many; base < g->cols; base += many * apart) {
            const ptrdiff_t end = base + wide_t * apart;
            const int inside = wide_t && base >= g->pad && end <= g->cols && end - g->pad + (g->kw - 1) * g->xw <= g->width;
            many = inside ? wide_t : g->cols - base > apart ? T : 1;
            if (wide_t && g->strips) DW(fetch_rows)(g, x, y, last, last - row, base, many * apart, 1);
            for (ptrdiff_t c = base; c < dw_min(base + apart, g->cols); c += LANES) {
                if (wide_t && inside) DW(row_column)(g, &q, x, w, bias, y, row, last, c, apart, wide_r, wide_t, weights, DW_INSIDE);
                else if (many == T) DW(row_column)(g, &q, x, w, bias, y, row, last, c, apart, R, T, weights, DW_EITHER);
                else DW(row_column)(g, &q, x, w, bias, y, row, last, c, apart, R, 1, weights, DW_EDGE);
            }
        }
    }
}

/* Small kernels and parted rows: DW_TALL_ROWS rows at most of one vector of outputs from element c of a row on, tap by tap.  A load for each
 * multiply-add, which two cycles each allow where it crosses lines: 2.2 measured; wide tiles, whose rows share nothing in such kernels,
 * took 4 to 5.  at: where the tap columns lie, DW_TAP_LANES at most, from the first on.  If checked, `count` outputs are stored, and masks
 * say which lanes have the input of each tap column. */
DW_INLINE void DW(tall_tile)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t row, ptrdiff_t rows,
                             ptrdiff_t c, ptrdiff_t count, const ptrdiff_t *at, const MASK *masks, const int checked) {
    enum { T = DW_TALL_ROWS };
    VEC acc[T];
    const ptrdiff_t step = g->sh * g->xh, phase = g->period > 1 ? c % g->period : 0;
    const VEC start = !bias ? DW(splat)(0) : g->period > 1 ? DW(load)(bias + phase) : DW(splat)(*bias);
    x += row * step + c;
    y += row * g->yh + c;
    w += phase;
    if (g->parts && g->far > 1) DW_UNROLL for (int k = 0; k < T; k++) DW_PREFETCH(y + (k + T) * g->yh, 1); /* in place 0.87 */
    DW_UNROLL for (int k = 0; k < T; k++)
        acc[k] = !g->resume || k >= rows ? start : checked ? DW(load_lanes)(y + k * g->yh, DW(lanes)(0, count)) : DW(load)(y + k * g->yh);
    for (ptrdiff_t i = 0; i < g->kh; i++) {
        const ptrdiff_t lo = dw_ceil_div(g->row_lo - i, g->sh) - row, hi = dw_min(dw_ceil_div(g->row_hi - i, g->sh) - row, rows);
#define TAPS(all_rows)                                                                                     \
        for (ptrdiff_t j = 0; j < g->kw; j++) {                                                            \
            const REAL *p = x + i * g->xh + at[j], *own = w + i * g->wh + j * g->ww;                       \
            const VEC wv = g->period > 1 ? DW(load)(own) : DW(load_splat)(own);                            \
            DW_UNROLL for (int k = 0; k < T; k++, p += step) {                                             \
                DW_HIDE(p);                                                                                \
                if (!all_rows && (k < lo || k >= hi)) continue;                                            \
                if (checked) acc[k] = DW(add_product)(acc[k], DW(load_lanes)(p, masks[j]), wv, masks[j]);  \
                else acc[k] = acc[k] + DW(load)(p) * wv;                                                   \
            }                                                                                              \
        }
        if (lo <= 0 && hi == T) TAPS(1)
        else TAPS(0)
#undef TAPS
    }
    DW(clamp_all)(g, acc, T);
    DW_UNROLL for (int k = 0; k < T; k++, y += g->yh) {
        if (k >= rows) break;
        if (checked && count < LANES) DW(store_first)(y, acc[k], count);
        else DW(store)(y, acc[k]);
    }
}

/* Whether column_plane serves: one column of taps, none beside the image, and rows that do not share sets of the cache (1024 wide: 0.7). */
DW_INLINE int DW(column_serves)(const dw_geometry *g) {
    return DW_BYTES > 0 && g->kw == 1 && g->sw == 1 && g->period == 1 && g->pad == 0 && g->cols >= LANES && g->cols <= g->width
           && g->kh * (ptrdiff_t)sizeof(VEC) <= DW_PACKED_BYTES && g->xh * REAL_SIZE % 4096 != 0;
}

/* Whether tall tiles are the fastest for rows as they lie. */
DW_INLINE int DW(tall_serves)(const dw_geometry *g) {
    return DW_BYTES >= 32 && g->sw == 1 && g->period == 1 && g->cols >= LANES && (g->kh == 1 || g->kh * g->kw <= DW_TALL_TAPS)
           && g->kw <= DW_TAP_LANES && g->xh * REAL_SIZE % 4096 != 0;
}

DW_INLINE int DW(down_serves)(const dw_geometry *g) { return DW(column_serves)(g) || DW(tall_serves)(g); }

/* Where the vector of element k begins: a row's last one overlaps its neighbour, but where outputs are added to has some lanes only. */
DW_INLINE ptrdiff_t DW(tall_start)(const dw_geometry *g, ptrdiff_t k) { return g->resume ? k : dw_max(dw_min(k, g->cols - LANES), 0); }

/* Output rows r0..r1: along the rows where all inputs exist, then down the vectors that miss some. */
static void DW(tall_plane)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0, ptrdiff_t r1) {
    enum { T = DW_TALL_ROWS };
    ptrdiff_t at[DW_TAP_LANES], lo[DW_TAP_LANES], hi[DW_TAP_LANES]; /* of tap columns: where they lie; outputs that have their input */
    ptrdiff_t first = 0, last = g->cols;                            /* ... that have all */
    for (ptrdiff_t j = 0; j < g->kw; j++) {
        const ptrdiff_t before = g->pad - j * g->xw;
        at[j] = g->parts ? j % g->parts * g->part + j / g->parts * g->turn : j * g->xw;
        lo[j] = dw_ceil_div(before, g->sw) * g->period;
        hi[j] = dw_min(dw_ceil_div(before + g->width, g->sw) * g->period, g->cols);
        first = dw_max(first, lo[j]);
        last = dw_min(last, hi[j]);
    }
    x += g->x0;
    for (ptrdiff_t row = r0; row < r1; row += T)
        for (ptrdiff_t k = 0; k < g->cols; k += LANES) {
            const ptrdiff_t c = DW(tall_start)(g, k);
            if (first <= c && c + LANES <= last)
                DW(tall_tile)(g, x, w, bias, y, row, dw_min(r1 - row, T), c, LANES, at, NULL, 0);
        }
    for (ptrdiff_t k = 0; k < g->cols; k += LANES) {
        const ptrdiff_t c = DW(tall_start)(g, k), count = dw_min(g->cols - c, LANES);
        MASK masks[DW_TAP_LANES];
        if (first <= c && c + LANES <= last) continue;
        for (ptrdiff_t j = 0; j < g->kw; j++) masks[j] = DW(lanes)(lo[j] - c, hi[j] - c);
        for (ptrdiff_t row = r0; row < r1; row += T)
            DW(tall_tile)(g, x, w, bias, y, row, dw_min(r1 - row, T), c, count, at, masks, 1);
    }
}

/* S vectors of a row as S vectors of every S-th number. */
DW_INLINE void DW(part_vectors)(const VEC *in, VEC *out, const int S) {
    if (S == 2) out[0] = DW(even)(in[0], in[1]), out[1] = DW(odd)(in[0], in[1]);
#if DW_BYTES == 32
    if (S == 3) DW(part_thirds)(in, out);
#elif DW_BYTES == 64
    if (S == 3) DW_UNROLL for (int f = 0; f < 3; f++) {
        const IVEC lane = {DW_JOIN(DW_IOTA_, LANES)};
        const IVEC from = lane * 3 + f, past = lane + (from >= 2 * LANES) * (lane - from + LANES);
        out[f] = DW(pick)(DW(pick)(in[0], in[1], from), in[2], past);
    }
#endif
    if (S == 4) {
        const VEC e = DW(even)(in[0], in[1]), f = DW(even)(in[2], in[3]), o = DW(odd)(in[0], in[1]), p = DW(odd)(in[2], in[3]);
        out[0] = DW(even)(e, f), out[1] = DW(even)(o, p), out[2] = DW(odd)(e, f), out[3] = DW(odd)(o, p);
    }
}

/* A row of a plane as S parts of neighbouring tap columns. */
DW_INLINE void DW(part_row)(const dw_geometry *g, const REAL *x, ptrdiff_t cols, REAL *out, ptrdiff_t ahead, const int S) {
    x -= g->pad;
    for (ptrdiff_t e = 0, lo = g->pad, hi = g->pad + g->width; e < cols; e += LANES, out += LANES) {
        VEC in[4], v[4];
        if (lo <= 0 && hi >= S * LANES) DW_UNROLL for (int k = 0; k < S; k++) in[k] = DW(load)(x + k * LANES);
        else DW_UNROLL for (int k = 0; k < S; k++) in[k] = DW(load_lanes)(x + k * LANES, DW(lanes)(lo - k * LANES, hi - k * LANES));
        DW(part_vectors)(in, v, S);
        DW_UNROLL for (int f = 0; f < S; f++) {
            DW(store)(out + f * g->part, v[f]);
            if (ahead) DW_PREFETCH(x + ahead + f * LANES, 0);
        }
        x += S * LANES, lo -= S * LANES, hi -= S * LANES;
    }
}

/* S vectors of every S-th number as S vectors of a row. */
DW_INLINE void DW(join_vectors)(const VEC *in, VEC *out, const int S) {
#if DW_BYTES == 32
    if (S == 3) {
        DW(join_thirds)(in, out);
        return;
    }
#endif
#if DW_BYTES >= 32
    DW_UNROLL for (int f = 0; f < S; f++) {
        const IVEC lane = {DW_JOIN(DW_IOTA_, LANES)};
        const IVEC n = lane + f * LANES, at = n / S, c = n - S * at; /* comparisons are -1 where they hold */
        out[f] = DW(pick)(in[0], in[1], at - (c == 1) * LANES);
        if (S == 3) out[f] = DW(pick)(out[f], in[2], lane - (c == 2) * (at + LANES - lane));
        if (S == 4) out[f] = DW(pick)(out[f], DW(pick)(in[2], in[3], at - (c == 3) * LANES), lane - (c >= 2) * LANES);
    }
#else
    (void)in, (void)out, (void)S;
#endif
}

/* A row of pixels of few numbers, `pixel` apart, as a row of each of as many planes, `apart` from each other, in whole vectors; and back. */
static void DW(split_pixels)(const REAL *x, ptrdiff_t pixels, ptrdiff_t pixel, ptrdiff_t channels, REAL *out, ptrdiff_t apart) {
    dw_geometry g;
    g.pad = 0, g.width = pixels * channels, g.part = apart;
#define TILE(S) if (DW_BYTES >= 32 && channels == S && pixel == S) { DW(part_row)(&g, x, pixels, out, 0, S); return; }
    TILE(2) TILE(3) TILE(4)
#undef TILE
    for (ptrdiff_t c = 0; c < channels; c++)
        for (ptrdiff_t k = 0; k < pixels; k++) out[c * apart + k] = x[k * pixel + c];
}

static void DW(join_pixels)(const REAL *x, ptrdiff_t apart, ptrdiff_t numbers, ptrdiff_t channels, REAL *y) {
#define TILE(S)                                                                                                             \
    if (DW_BYTES >= 32 && channels == S) {                                                                                  \
        for (ptrdiff_t left = numbers; left > 0; x += LANES, y += S * LANES, left -= S * LANES) {                           \
            VEC in[S], out[S];                                                                                              \
            DW_UNROLL for (int c = 0; c < S; c++) in[c] = DW(load)(x + c * apart);                                          \
            DW(join_vectors)(in, out, S);                                                                                   \
            DW_UNROLL for (int f = 0; f < S; f++) {                                                                         \
                if (left >= (f + 1) * LANES) DW(store)(y + f * LANES, out[f]);                                              \
                else if (left > f * LANES) DW(store_first)(y + f * LANES, out[f], left - f * LANES);                        \
            }                                                                                                               \
        }                                                                                                                   \
        return;                                                                                                             \
    }
    TILE(2) TILE(3) TILE(4)
#undef TILE
    if (channels == 1) memcpy(y, x, (size_t)numbers * sizeof(REAL));
    else for (ptrdiff_t c = 0; c < channels; c++) {
        const REAL *p = x + c * apart;
        for (ptrdiff_t k = c; k < numbers; k += channels) y[k] = *p++;
    }
}

/* How vectors of a part pick their inputs, by place in the period. */
typedef struct {
    ptrdiff_t cols, over;               /* from one vector to the next: columns and elements more */
    ptrdiff_t from[LANES][LANES];       /* inputs of the lanes, from the column's first on */
    IVEC index[LANES], past[2][LANES];  /* ... as lanes of two vectors, from the first on, and then of what was picked and one more */
} DW(dw_picks);

/* One part of any row: elements lo <= e < hi at least, each vector picked from V of the row (0: number by number).  p: from x to the first
 * input of element 0's column.  ahead: if not 0, how far on the same inputs of a row are fetched that is next. */
DW_INLINE void DW(part_any)(const dw_geometry *g, const DW(dw_picks) *q, const REAL *x, ptrdiff_t p, ptrdiff_t width, REAL *to, ptrdiff_t lo,
                            ptrdiff_t hi, ptrdiff_t ahead, const int V) {
    const ptrdiff_t step = g->sw * (g->period / g->repeat);
    (void)width;
    for (ptrdiff_t k = 0, e = 0; e < hi; e += LANES) {
        const ptrdiff_t at = p + q->from[k][0];
        VEC v;
#if DW_BYTES >= 32
#define PART(k) (checked ? DW(load_lanes)(x + at + k * LANES, DW(lanes)(-at - k * LANES, width - at - k * LANES)) \
                         : DW(load)(x + at + k * LANES))
#define PICK                                                             \
        {                                                                \
            v = DW(pick)(PART(0), PART(1), q->index[k]);                 \
            if (V > 2) v = DW(pick)(v, PART(2), q->past[0][k]);          \
            if (V > 3) v = DW(pick)(v, PART(3), q->past[1][k]);          \
        }
        if (V && at >= 0 && at + V * LANES <= width) {
            enum { checked = 0 };
            PICK
        } else if (V) {
            enum { checked = 1 };
            PICK
        } else
#undef PART
#undef PICK
#endif
        {
            REAL lane[LANES];
            for (ptrdiff_t l = 0; l < LANES; l++) lane[l] = lo <= e + l && e + l < hi ? x[p + q->from[k][l]] : 0;
            v = DW(load)(lane);
        }
        for (int i = 0; i < (ahead ? V : 0); i++) DW_PREFETCH(x + at + ahead + i * LANES, 0);
        DW(store)(to + e, v);
        p += q->cols * step, k += q->over;
        if (k >= g->period) k -= g->period, p += step;
    }
}

/* Strided rows, and those with a multiplier, as rows without: a part holds, as often as outputs need them, the inputs of one tap column,
 * and of the tap columns g->parts, 2 * g->parts, ... further on, whose inputs are outputs of the first one's further on.  Copied once for
 * all rows of outputs and taps, since to pick them in registers takes two loads and a shuffle each time (112x112x8, 7x7 at stride 3: 3
 * times as long).  Tap rows t0..t1 of the window g, whose xw, pad and width are in columns here; x: column 0 of tap row 0. */
static void DW(part_rows)(const dw_geometry *g, const REAL *x, ptrdiff_t xh, ptrdiff_t t0, ptrdiff_t t1, REAL *out, ptrdiff_t ahead) {
#define TILE(S)                                                                                                             \
    if (g->period == 1 && g->sw == S && g->xw == 1 && g->parts == S) {                                                      \
        for (ptrdiff_t t = t0; t < t1; t++)                                                                                 \
            if (t % g->sh < g->kh) DW(part_row)(g, x + t * xh, g->cols + (g->kw - 1) / S, out + t * g->xh, ahead, S);       \
        return;                                                                                                             \
    }
    TILE(2) TILE(4)
#if DW_BYTES >= 32
    TILE(3)
#endif
#undef TILE
    const ptrdiff_t unit = g->period / g->repeat;
    ptrdiff_t most = 0;
    DW(dw_picks) q;
    q.cols = LANES / g->period, q.over = LANES % g->period;
    for (ptrdiff_t k = 0; k < g->period; k++) {
        for (ptrdiff_t l = 0, c = k, col = 0; l < LANES; l++) { /* element c of a column */
            const ptrdiff_t from = col + c / g->repeat, near = from - (l ? q.from[k][0] : from);
            q.from[k][l] = from;
            most = dw_max(most, near);
            ((REAL_INT *)&q.index[k])[l] = (REAL_INT)near;
            for (int i = 0; i < 2; i++) ((REAL_INT *)&q.past[i][k])[l] = (REAL_INT)(near < (i + 2) * LANES ? l : near - (i + 1) * LANES);
            if (++c == g->period) c = 0, col += g->sw * unit;
        }
    }
    for (ptrdiff_t t = t0; t < t1; t++) {
        if (t % g->sh >= g->kh) continue; /* no output sees it */
        for (ptrdiff_t b = 0; b < g->parts; b++) {
            const ptrdiff_t before = g->pad - b * g->xw, more = (g->kw - 1 - b) / g->parts * g->turn;
            const ptrdiff_t lo = dw_ceil_div(before, g->sw) * g->period;
            const ptrdiff_t hi = dw_min(dw_ceil_div(before + g->width, g->sw) * g->period, g->cols + more);
#define PART(V)                                                                                                             \
    DW(part_any)(g, &q, x + t * xh, -before * unit, g->width * unit, out + t * g->xh + b * g->part, lo, hi, b ? 0 : ahead, V)
            if (DW_BYTES >= 32 && most < 2 * LANES) PART(2);
            else if (DW_BYTES >= 32 && most < 3 * LANES) PART(3);
            else if (DW_BYTES >= 32 && most < 4 * LANES) PART(4);
            else PART(0);
#undef PART
        }
    }
}

/* ---- the tables: which tile runs for which kernel ---- */

#ifndef DW_TABLES_ONCE
#define DW_TABLES_ONCE
/*   kernel, stride, rows at most, columns, whether a tile of columns takes all channel blocks in turn, and when (the first that fits):
 *   1: x and y come from afar, where what is in order is fast: few columns a tile keep each row one stream of addresses, see fetch_ahead too
 *      (145x145x200, all fetching: 1.35 ms, 4 x 1 1.7, 2 x 7 1.9); and pixels 2 KB apart at stride 2, see dw_one_column;
 *   2: the last tile of a row repeats fewer columns than one of seven would (8x8 maps: 1.6 times faster);
 *   3: (AVX2) 3x3 over rows of 7 outputs, at stride 1 also 14, padded by one tap at most: no column is computed twice, and the borders
 *      cost nothing (7x7x1000, 14x14x480 dilated by 2: 1.2 times as fast as 2 x 4; longer rows 0.8, as each of x is loaded from L2 thrice);
 *   0: always.
 *
 * 7 columns, because the maps of the usual networks are 7 * 2^n wide; 2 x 7 accumulators leave registers for the 9 weights of a
 * 3x3 kernel, which is bound by memory: it takes a pixel's channels in their order in memory.  Larger kernels are bound by
 * multiply-adds and keep one block's weights through a band of rows.  With 32 registers those of a tap row of 7 fit, and the tile of
 * any kernel is as fast as one for 7x7.  With 16 it is what fits that decides: 2 x 4 accumulators and the weights of two tap rows of
 * a 3x3 kernel, or 7 and one row of weights (7x7: 1.1 to 1.3 times as fast as 2 x 4 and weights from memory).
 *
 * Rows of any kernel take DW_WIDE_ROWS x DW_WIDE_VECTORS: loads per multiply-add are 1/rows + 1/vectors.  With AVX2 a tile for 7x7 took
 * 1.5 times as long (1024x1024), so that there is none. */
#if DW_REGISTERS == 32
#define DW_CHANNEL_TILES(TILE)                                                                     \
    TILE(3, 1, 4, 2, 1, 1) TILE(3, 2, 4, 1, 1, 1)                                                  \
    TILE(3, 1, 2, 4, 1, 2) TILE(3, 2, 2, 4, 1, 2) TILE(5, 1, 2, 4, 0, 2)                           \
    TILE(3, 1, 2, 7, 1, 0) TILE(3, 2, 2, 7, 1, 0) TILE(5, 1, 2, 7, 0, 0) TILE(5, 2, 2, 4, 0, 2) TILE(5, 2, 2, 7, 0, 0)
#define DW_REPEAT_TILES(TILE) TILE(3, 1, 2, 7) TILE(3, 2, 2, 7)
#define DW_PLANE_UNIT(TILE) TILE(3, 1, 3, 1) TILE(5, 1, 2, 1) TILE(7, 1, 2, 0)
#define DW_FLAT_TILES(TILE) TILE(3, 3) TILE(5, 3) TILE(7, 3)
enum { DW_ANY_ROWS = 2, DW_ANY_COLS = 7, DW_ANY_STRIDE = 3, DW_WIDE_ROWS = 4, DW_WIDE_VECTORS = 4, DW_PLANE_ROWS = 4, DW_PLANE_VECTORS = 3 };
#else
#define DW_CHANNEL_TILES(TILE)                                                                     \
    TILE(3, 1, 4, 2, 1, 1) TILE(3, 2, 4, 1, 1, 1)                                                  \
    TILE(3, 1, 1, 7, 1, 3) TILE(3, 2, 1, 7, 1, 3)                                                  \
    TILE(2, 1, 2, 4, 1, 0) TILE(2, 2, 2, 4, 1, 0) TILE(3, 1, 2, 4, 1, 0) TILE(3, 2, 2, 4, 1, 0) TILE(4, 1, 2, 4, 1, 0) \
    TILE(5, 1, 1, 8, 0, 2) TILE(7, 1, 1, 8, 0, 2)                                                   \
    TILE(5, 1, 1, 7, 0, 0) TILE(5, 2, 1, 7, 0, 0) TILE(7, 1, 1, 7, 0, 0) TILE(7, 2, 1, 7, 0, 0)
#if DW_BYTES == 32
#define DW_REPEAT_TILES(TILE) /* vectors of outputs are written out, see spread_rows of _scratch.pxi */
#define DW_PLANE_UNIT(TILE) TILE(3, 1, 2, 1) TILE(5, 1, 2, 0)
#define DW_FLAT_TILES(TILE) TILE(3, 2) TILE(5, 2) TILE(7, 2)
enum { DW_WIDE_ROWS = 4, DW_WIDE_VECTORS = 3 }; /* 12 sums, 3 inputs, 1 weight */
#else /* x86 without AVX2: half a megabyte of code for few planes on old CPUs */
#define DW_REPEAT_TILES(TILE) TILE(3, 1, 2, 4)
#define DW_PLANE_UNIT(TILE) TILE(3, 1, 2, 1)
#define DW_FLAT_TILES(TILE) TILE(3, 2)
enum { DW_WIDE_ROWS = 3, DW_WIDE_VECTORS = 3 }; /* without an instruction that multiplies and adds, a product needs a register */
#endif
enum { DW_ANY_ROWS = 1, DW_ANY_COLS = 7, DW_ANY_STRIDE = DW_BYTES == 32 ? 3 : 2, DW_PLANE_ROWS = 4, DW_PLANE_VECTORS = 2 };
#endif
/*   planes: kernel, stride, vectors, whether short rows slide (7x7 kernels: planes as channels are as fast).  Weights of a 3x3
 *   kernel stay in registers; of others each load should serve two multiply-adds.
 *   flat rows: kernel, vectors. */
#if DW_BYTES == 64 && defined(DW_SHUFFLEVECTOR)
#define DW_SHIFTS 1
#define DW_SHIFTED_TILES(TILE)                                                 \
    TILE(2, 1, 4) TILE(3, 1, 4) TILE(4, 1, 4) TILE(5, 1, 4) TILE(7, 1, 3)      \
    TILE(2, 2, 4) TILE(3, 2, 4) TILE(4, 2, 4) TILE(5, 2, 4) TILE(7, 2, 2)
#define DW_PLANE_TILES(TILE) DW_PLANE_UNIT(TILE) TILE(3, 2, 2, 0) TILE(5, 2, 2, 0) TILE(7, 2, 1, 0)
enum { DW_SHIFTED_LEAST = 2 }; /* of those vectors: the masks of every block are kept */
#elif DW_BYTES == 32
#define DW_SHIFTS 0 /* the shifted tiles load instead */
#define DW_SHIFTED_TILES(TILE) TILE(2, 1, 4) TILE(3, 1, 4) TILE(2, 2, 4) TILE(3, 2, 4)
enum { DW_SHIFTED_LEAST = 4 };
#define DW_PLANE_TILES(TILE) DW_PLANE_UNIT(TILE)
#else
#define DW_SHIFTS 0
#define DW_SHIFTED_TILES(TILE)
#define DW_PLANE_TILES(TILE) DW_PLANE_UNIT(TILE)
#endif

/* Whether tiles for this kernel and stride take all blocks in turn. */
static inline int dw_takes_all(ptrdiff_t kh, ptrdiff_t kw, ptrdiff_t sh, ptrdiff_t sw) {
#define TILE(K, S, R, T, INNER, WHEN) if (INNER && kh == K && kw == K && sh == S && sw == S) return 1;
    DW_CHANNEL_TILES(TILE)
#undef TILE
    return 0;
}

/* Whether the first of all blocks may be wrapped: not from memory, where that is no faster. */
static inline int dw_wraps(ptrdiff_t kh, ptrdiff_t kw, ptrdiff_t sh, ptrdiff_t sw, int stream) {
    return DW_WRAPS && !stream && dw_takes_all(kh, kw, sh, sw);
}
#endif

#include "_plane_tiles.h"

/* Whether x and y come from so far that what matters is the order of memory: beyond the caches or, with AVX2, beyond 12 MB, if tap
 * columns are not too close together (one column a tile: 145x145x100 1.33 times, 4 x 28x28x512 1.5; of 24 channels 0.92; 7 MB 0.8) or 4 KB
 * apart (16 x 7x7x2048 0.79).  Not measured with other vectors. */
DW_INLINE int DW(in_order)(const dw_geometry *g) {
    return g->stream || (DW_BYTES == 32 && g->far > 1 && g->xw * REAL_SIZE >= 256 && g->xw * REAL_SIZE % 4096 != 0);
}

#define STRIP(row, R) \
    DW(channel_strip)(g, x, w, INNER_ ? NULL : wv, bias, y, row, first, blocks, channels, down, NULL, K_, S_, R, T_, DW_PLAIN)
#define TILE(K, S, R, T, INNER, WHEN)                                                                                       \
    static void DW(channel_##K##_##S##_##T)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, \
                                            ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t first, ptrdiff_t blocks, ptrdiff_t channels) { \
        enum { K_ = K, S_ = S, T_ = T, INNER_ = INNER };                                                                   \
        const int down = INNER && DW(from_last)(g, x, y);                                                                  \
        VEC wv[K * K];                                                                                                     \
        if (!INNER) DW_UNROLL for (int k = 0; k < K * K; k++) wv[k] = DW(load)(w + k / K * g->wh + k % K * g->ww);         \
        DW_STRIPS(R, g->sh > g->kh ? 1 : T == 1 && !DW(in_order)(g) ? dw_min(R, DW_NEAR_ROWS) : R, STRIP);                 \
    }
DW_CHANNEL_TILES(TILE)
#undef TILE
#undef STRIP

#define STRIP(row, R) DW(channel_strip)(g, x, w, wv, bias, y, row, 0, 1, 0, 0, b, K_, S_, R, T_, DW_REPEAT)
#define TILE(K, S, R, T)                                                                                                   \
    static void DW(repeat_##K##_##S)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y,        \
                                     ptrdiff_t r0, ptrdiff_t r1, const DW(dw_block) *b) {                                  \
        enum { K_ = K, S_ = S, T_ = T };                                                                                   \
        VEC wv[K * K];                                                                                                     \
        DW_UNROLL for (int k = 0; k < K * K; k++) wv[k] = DW(load)(w + k / K * g->wh + k % K * g->ww);                     \
        DW_STRIPS(R, g->sh > g->kh ? 1 : R, STRIP);                                                                        \
    }
DW_REPEAT_TILES(TILE)
#undef TILE
#undef STRIP

/* R rows at most, and literals for strides along the row up to MOST.  Blocks of fewer channels than lanes, and a stride of 3, take one
 * row at a time: two take 3 to 8 % less (3 channels, multiplier 2, 64x64), for twice the code. */
#define DW_CHANNEL_ANY(NAME, MODE, R, MOST)                                                                                \
    static void DW(channel_##NAME)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0, \
                                   ptrdiff_t r1, ptrdiff_t first, ptrdiff_t blocks, ptrdiff_t channels, const DW(dw_block) *b) { \
        enum { MODE_ = MODE, MOST_ = MOST };                                                                               \
        const int here = g->sh > g->kh ? 1 : R;                                                                            \
        if (g->sw == 1) DW_STRIPS(R, here, STRIP_1);                                                                       \
        else if (MOST >= 2 && g->sw == 2) DW_STRIPS(R, here, STRIP_2);                                                     \
        else if (MOST >= 3 && g->sw == 3) DW_STRIPS(1, 1, STRIP_3);                                                        \
        else DW_STRIPS(R, here, STRIP_0);                                                                                  \
    }
#define STRIP(row, S, R) DW(channel_strip_any)(g, x, w, bias, y, row, first, blocks, channels, b, S, R, DW_ANY_COLS, MODE_)
#define STRIP_0(row, R) STRIP(row, 0, R)
#define STRIP_1(row, R) STRIP(row, 1, R)
#define STRIP_2(row, R) if (MOST_ >= 2) STRIP(row, 2, R)
#define STRIP_3(row, R) if (MOST_ >= 3) STRIP(row, 3, R)
DW_CHANNEL_ANY(any, DW_PLAIN, DW_ANY_ROWS, DW_ANY_STRIDE)
DW_CHANNEL_ANY(repeat, DW_REPEAT, DW_ANY_ROWS, (DW_BYTES == 32 ? 2 : 1))
DW_CHANNEL_ANY(partial, DW_PARTIAL, 1, (DW_BYTES >= 32 ? DW_ANY_STRIDE : 1))
#undef STRIP
#undef STRIP_0
#undef STRIP_1
#undef STRIP_2
#undef STRIP_3
#undef DW_CHANNEL_ANY

/* When 3 must answer for every tile of the row that at each end it misses no input or one, for which alone channel_strip has code.
 * Strides of 2 take four columns where seven fit as well: 5 to 10 % less time. */
DW_INLINE int DW(tile_serves)(const dw_geometry *g, const int S, const int T, const int when) {
    if (when == 3)
        return DW_BYTES == 32 && (g->cols == T || (S == 1 && g->cols == 2 * T)) && g->col_lo <= 1 && g->col_hi >= (g->cols - 1) * S + 2;
    if (when == 1) return DW(in_order)(g) || dw_one_column(S, g->xw * REAL_SIZE);
    return when == 0 || dw_ceil_div(g->cols, T) * T < dw_ceil_div(g->cols, 7) * 7 + (S == 2);
}

typedef void DW(tile)(const dw_geometry *, const REAL *, const REAL *, const REAL *, REAL *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t,
                      ptrdiff_t);

/* A tile of T columns that takes all blocks in turn, or, see dw_one_column, some of each pixel, with the caller's packed weights or
 * packed here for as many as fit. */
static void DW(packed_blocks)(DW(tile) *tile, const int T, const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y,
                              ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t first, ptrdiff_t blocks, ptrdiff_t channels) {
    DW_ALIGNED REAL packed[DW_PACKED_BYTES / REAL_SIZE];
    const ptrdiff_t size = (g->kh * g->kw + 1) * LANES, end = first + blocks * LANES;
    ptrdiff_t most = g->packed ? dw_max(blocks, 1) : DW_PACKED_BYTES / REAL_SIZE / size;
    if (T == 1 && !DW(in_order)(g)) most = dw_min(most, DW_NEAR_BYTES / (ptrdiff_t)sizeof(VEC));
    for (ptrdiff_t parts = dw_ceil_div(blocks, most); parts > 0; parts--) {
        const ptrdiff_t count = dw_ceil_div((end - first) / LANES, parts);
        if (g->packed) {
            tile(g, x, w, NULL, y, r0, r1, first, count, channels);
            w += count * size;
        } else {
            DW(pack_weights)(g, w, bias, first, count, channels, !g->stream, packed);
            tile(g, x, packed, NULL, y, r0, r1, first, count, channels);
        }
        first += count * LANES;
    }
}

/* Output rows r0..r1 of `blocks` blocks of LANES output channels from channel `first` on, see block_at (of fewer lanes, where
 * there are fewer than LANES channels in all).  x: channel 0 of an image; w, bias, y: output channel 0 (w: packed weights and biases of
 * those blocks, if g->packed); bias may be NULL. */
static void DW(channel_blocks)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0,
                               ptrdiff_t r1, ptrdiff_t first, ptrdiff_t blocks, ptrdiff_t channels) {
    if (g->repeat == 1 && channels >= LANES) {
#define TILE(K, S, R, T, INNER, WHEN)                                                                                       \
        if (g->kh == K && g->kw == K && g->sh == S && g->sw == S && DW(tile_serves)(g, S, T, WHEN)) {                      \
            if (INNER)                                                                                                     \
                DW(packed_blocks)(DW(channel_##K##_##S##_##T), T, g, x, w, bias, y, r0, r1, first, blocks, channels);      \
            else for (ptrdiff_t k = 0; k < blocks; k++) {                                                                  \
                const ptrdiff_t c = DW(block_at)(first, k, channels);                                                      \
                DW(channel_##K##_##S##_##T)(g, x + c, w + c, bias ? bias + c : NULL, y + c, r0, r1, 0, 1, channels);       \
            }                                                                                                              \
            return;                                                                                                        \
        }
        DW_CHANNEL_TILES(TILE)
#undef TILE
    }
    dw_geometry turned = *g;
    if (g->kw == 1 && g->kh > 1) { /* one column of taps is run down the columns, as one row is along the rows */
        turned.kh = 1, turned.kw = g->kh, turned.sh = g->sw, turned.sw = g->sh;
        turned.xh = g->xw, turned.xw = g->xh, turned.wh = g->ww, turned.ww = g->wh, turned.yh = g->yw, turned.yw = g->yh;
        turned.row_lo = g->col_lo, turned.row_hi = g->col_hi;
        turned.col_lo = g->row_lo - r0 * g->sh, turned.col_hi = g->row_hi - r0 * g->sh;
        turned.x0 += r0 * g->sh * g->xh;
        y += r0 * g->yh;
        turned.cols = r1 - r0, r0 = 0, r1 = g->cols;
        g = &turned;
    }
    if (g->repeat == 1 && channels >= LANES) {
        const ptrdiff_t some = g->kh * g->kw * channels * (ptrdiff_t)sizeof(REAL) <= DW_INNER_BYTES ? blocks : 1;
        for (ptrdiff_t k = 0; k < blocks; k += some) {
            const ptrdiff_t at = some == blocks ? 0 : DW(block_at)(first, k, channels);
            DW(channel_any)(g, x + at, w + at, bias ? bias + at : NULL, y + at, r0, r1, some == blocks ? first : 0, some,
                            some == blocks ? channels : LANES, NULL);
        }
        return;
    }
    /* load_repeated reads two numbers: of images of one channel, the next pixel's, which the last row may lack */
    const ptrdiff_t numbers = channels / g->repeat;
    const int alone = DW_BYTES == 32 && numbers == 1;
    const ptrdiff_t safe = !alone ? r1 : g->xh <= 0 || g->xw <= 0 ? r0 : dw_max(dw_min(dw_ceil_div(g->row_hi - g->kh, g->sh), r1), r0);
    for (ptrdiff_t k = 0; k < blocks; k++) {
        DW(dw_block) b;
        const ptrdiff_t at = DW(block_at)(first, k, channels), in = at / g->repeat;
        b.count = dw_min(channels - at, LANES);
        b.out = DW(lanes)(0, b.count);
        b.in = DW(lanes)(0, (at + b.count - 1) / g->repeat - in + 1);
        for (int l = 0; l < LANES; l++) ((REAL_INT *)&b.index)[l] = (REAL_INT)(l < b.count ? (at + l) / g->repeat - in : 0);
        const REAL *own = bias ? bias + at : NULL;
        const ptrdiff_t split = b.count < LANES ? r0 : safe;
        if (split < r1) DW(channel_partial)(g, x + in, w + at, own, y + at, split, r1, 0, 1, channels, &b);
        if (r0 == split) continue;
        b.repeat = DW(repeat_lanes)(at, LANES, g->repeat, alone ? 2 : numbers);
        const REAL *const from = x + b.repeat.from;
#define TILE(K, S, R, T)                                                                                                   \
        if (g->kh == K && g->kw == K && g->sh == S && g->sw == S) {                                                        \
            DW(repeat_##K##_##S)(g, from, w + at, own, y + at, r0, split, &b);                                             \
            continue;                                                                                                      \
        }
        DW_REPEAT_TILES(TILE)
#undef TILE
        DW(channel_repeat)(g, from, w + at, own, y + at, r0, split, 0, 1, channels, &b);
    }
}

/* Whether shifted tiles take so many rows of so many planes: where they load, not a few of one plane, of which too many are the first or
 * the last (3x112x112, input gradient: 0.8). */
DW_INLINE int DW(shifted_takes)(const dw_geometry *g, ptrdiff_t rows, ptrdiff_t planes) {
    return DW(shifted_serve)(g) && (DW_SHIFTS || planes > 1 || rows > DW_PLANE_ROWS);
}

/* Whether rows are copied as parted rows first: flat ones, of those that run_rows may part, and strided ones for which no tile is. */
static int DW(parts_serve)(const dw_geometry *g, ptrdiff_t rows, ptrdiff_t planes) {
    if (g->period > 1) return 1;
#define TILE(K, S, T, SLIDE) \
    if (S > 1 && g->kh == K && g->kw == K && g->sh == S && g->sw == S && g->xw == 1 && rows >= DW_PLANE_ROWS) return 0;
    DW_PLANE_TILES(TILE)
#undef TILE
    return g->sw > 1 && !DW(shifted_takes)(g, rows, planes);
}

#define DW_ROW_ARGUMENTS \
    const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0, ptrdiff_t r1

#define DW_ROW_ANY(NAME, WIDE_R, WIDE_T, WEIGHTS) \
    static void DW(row_##NAME)(DW_ROW_ARGUMENTS) { DW(row_any)(g, x, w, bias, y, r0, r1, WIDE_R, WIDE_T, WEIGHTS); }
DW_ROW_ANY(unit, DW_WIDE_ROWS, DW_WIDE_VECTORS, DW_ONE)
DW_ROW_ANY(pattern, DW_WIDE_ROWS, DW_WIDE_VECTORS, DW_PATTERN)
DW_ROW_ANY(compact, 0, 0, DW_COMPACT)
#undef DW_ROW_ANY

/* A kernel of one column over a plane: its columns are channels that share weights, and the taps one row that is run down them. */
static void DW(column_plane)(DW_ROW_ARGUMENTS) {
    DW_ALIGNED REAL weights[DW_PACKED_BYTES / REAL_SIZE], start[LANES];
    dw_geometry turned = *g;
    for (ptrdiff_t i = 0; i < g->kh; i++) DW(store)(weights + i * LANES, DW(splat)(w[i * g->wh]));
    DW(store)(start, DW(splat)(bias ? *bias : 0));
    turned.kh = 1, turned.kw = g->kh, turned.sh = 1, turned.sw = g->sh, turned.xw = g->xh, turned.yw = g->yh, turned.ww = LANES;
    turned.row_lo = 0, turned.row_hi = 1, turned.col_lo = g->row_lo - r0 * g->sh, turned.col_hi = g->row_hi - r0 * g->sh;
    turned.cols = r1 - r0, turned.x0 += r0 * g->sh * g->xh, turned.alike = 1;
    DW(channel_any)(&turned, x, weights, start, y + r0 * g->yh, 0, 1, 0, dw_ceil_div(g->cols, LANES), g->cols, NULL);
}

/* Output rows r0..r1 of one plane (period 1: w are single weights, bias one number), or of an image whose rows are flat runs
 * (w and bias then repeat each row of weights to period + LANES - 1 numbers, unless they are compact). */
static void DW(row_plane)(DW_ROW_ARGUMENTS) {
    const int strip = r1 - r0 >= DW_PLANE_ROWS;
    const int far = g->far && g->cols * REAL_SIZE >= 4096; /* 1080x1920x3 7x7: 1.24 times as fast by row_pattern, AVX2 1.35 */
#define TILE(K, S, T, SLIDE) if (g->kh == K && g->kw == K && g->sh == S && g->sw == S && (S == 1 || g->xw == 1) && g->period == 1 \
                                 && (SLIDE || strip)) { DW(plane_##K##_##S)(g, x, w, bias, y, r0, r1); return; }
    DW_PLANE_TILES(TILE)
#undef TILE
    if (DW(column_serves)(g)) DW(column_plane)(g, x, w, bias, y, r0, r1);
    else if (DW(tall_serves)(g)) DW(tall_plane)(g, x, w, bias, y, r0, r1);
    else if (g->period == 1) DW(row_unit)(g, x, w, bias, y, r0, r1);
    else if (g->compact) DW(row_compact)(g, x, w, bias, y, r0, r1);
#define TILE(K, T) else if (strip && !(K == 7 && far) && g->kh == K && g->kw == K && g->sh == 1) DW(flat_##K)(g, x, w, bias, y, r0, r1);
    DW_FLAT_TILES(TILE)
#undef TILE
    else DW(row_pattern)(g, x, w, bias, y, r0, r1);
}

/* ... of some planes, xc and yc apart, whose weights and bias follow each other. */
static void DW(row_block)(DW_ROW_ARGUMENTS, ptrdiff_t planes, ptrdiff_t xc, ptrdiff_t yc) {
    if (DW(shifted_takes)(g, r1 - r0, planes)) {
#define TILE(K, S, MOST) if (g->kh == K && g->sw == S) DW(shifted_##K##_##S)(g, x, w, bias, y, r0, r1, planes, xc, yc);
        DW_SHIFTED_TILES(TILE)
#undef TILE
        return;
    }
    for (; planes > 0; planes--, x += xc, w++, y += yc, bias += bias != NULL) DW(row_plane)(g, x, w, bias, y, r0, r1);
}

/* `channels` numbers, at least a vector, of pixels `pixel` apart in rows `row` apart, as pixels without gaps.  far: as many after
 * them are fetched, for the call that takes the next channels. */
DW_INLINE void DW(copy_each)(const REAL *x, ptrdiff_t rows, ptrdiff_t row, ptrdiff_t cols, ptrdiff_t pixel, ptrdiff_t channels,
                             REAL *out, const int far) {
    const ptrdiff_t last = channels - LANES;
    for (; rows > 0; rows--, x += row)
        for (ptrdiff_t col = 0; col < cols; col++, out += channels) {
            const REAL *const p = x + col * pixel;
            for (ptrdiff_t c = 0; c < last; c += LANES) {
                DW(store)(out + c, DW(load)(p + c));
                if (far) DW_PREFETCH(p + channels + c, 0);
            }
            DW(store)(out + last, DW(load)(p + last));
            if (far) DW_PREFETCH(p + channels + last, 0);
        }
}
static void DW(copy_pixels)(const REAL *x, ptrdiff_t rows, ptrdiff_t row, ptrdiff_t cols, ptrdiff_t pixel, ptrdiff_t channels,
                            REAL *out, const int far) {
    if (far) DW(copy_each)(x, rows, row, cols, pixel, channels, out, 1);
    else DW(copy_each)(x, rows, row, cols, pixel, channels, out, 0);
}

/* The same of `channels` output channels from `first` on, of which `repeat` share one of the `numbers` of a pixel of x, or of fewer than a
 * vector, which becomes one. */
static void DW(pack_pixels)(const REAL *x, ptrdiff_t rows, ptrdiff_t row, ptrdiff_t cols, ptrdiff_t pixel, ptrdiff_t first,
                            ptrdiff_t channels, ptrdiff_t repeat, ptrdiff_t numbers, REAL *out) {
    const ptrdiff_t width = dw_max(channels, LANES), lanes = dw_min(channels, LANES);
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        const ptrdiff_t at = dw_max(dw_min(c, channels - LANES), 0), one = (first + at) / repeat;
        const DW(dw_repeat) q = DW(repeat_lanes)(first + at, lanes, repeat, numbers);
        REAL *to = out + at;
#define PIXELS(from, load) \
    for (ptrdiff_t r = 0; r < rows; r++) \
        for (ptrdiff_t i = 0; i < cols; i++, to += width) { const REAL *const p = x + r * row + i * pixel + (from); DW(store)(to, load); }
        if (numbers == 1) PIXELS(0, DW(load_splat)(p))
        else if (repeat > 1) PIXELS(q.from, DW(load_repeated)(p, &q))
        else PIXELS(one, DW(load_lanes)(p, q.in))
#undef PIXELS
    }
}

/* ---- planes as channels: `pixels` numbers of each of LANES planes to a run of vectors, and back ---- */

/* Pixels to take first, of planes of which the last of LANES is `span` bytes after the first.  Where planes lie 2 KB or more apart in
 * powers of two they share few sets of the cache, which would lose half a line before its turn: each line is then taken whole
 * (64x64 planes: a third of the time). */
DW_INLINE ptrdiff_t DW(first_pixels)(const REAL *p, ptrdiff_t pixels, ptrdiff_t span) {
    const ptrdiff_t past = (ptrdiff_t)((uintptr_t)p / sizeof(REAL) % LANES);
    return dw_min(pixels, span % 2048 == 0 ? LANES - past : LANES);
}

/* Planes are taken from a table, since a multiplier repeats them; numbers from `at` on.  far: as many of the planes after them are
 * fetched for the next call, if planes are so small that the CPU does not see them coming. */
static void DW(gather_planes)(const REAL *const *planes, ptrdiff_t at, ptrdiff_t pixels, REAL *block, const int far) {
    const ptrdiff_t span = (const char *)planes[LANES - 1] - (const char *)planes[0], all = pixels * LANES;
    for (ptrdiff_t k = 0; k < (far && all * (ptrdiff_t)sizeof(REAL) <= 4096 ? all : 0); k += 64 / REAL_SIZE)
        DW_PREFETCH(planes[LANES - 1] + at + pixels + k, 0);
    for (ptrdiff_t i = 0, n = DW(first_pixels)(planes[0] + at, pixels, span); i < pixels; i += n, n = dw_min(pixels - i, LANES)) {
        if (4 * n <= LANES) { /* a 7x7 plane ends with one number: not worth a transposition */
            for (ptrdiff_t p = i; p < i + n; p++)
                for (int l = 0; l < LANES; l++) block[p * LANES + l] = planes[l][at + p];
            continue;
        }
        VEC v[LANES];
        if (n == LANES) DW_UNROLL for (int l = 0; l < LANES; l++) v[l] = DW(load)(planes[l] + at + i);
        else DW_UNROLL for (int l = 0; l < LANES; l++) v[l] = DW(load_lanes)(planes[l] + at + i, DW(lanes)(0, n));
        DW(transpose)(v);
        DW_UNROLL for (int l = 0; l < LANES; l++)
            if (l < n) DW(store)(block + (i + l) * LANES, v[l]);
    }
}

/* The planes of y are `pitch` apart; only planes skip and on are written. */
static void DW(scatter_planes)(const REAL *block, ptrdiff_t pixels, REAL *y, ptrdiff_t pitch, ptrdiff_t skip) {
    const ptrdiff_t span = (LANES - 1) * pitch * (ptrdiff_t)sizeof(REAL);
    for (ptrdiff_t i = 0, n = DW(first_pixels)(y, pixels, span); i < pixels; i += n, n = dw_min(pixels - i, LANES)) {
        if (4 * n <= LANES) {
            for (ptrdiff_t p = i; p < i + n; p++)
                for (ptrdiff_t l = skip; l < LANES; l++) y[l * pitch + p] = block[p * LANES + l];
            continue;
        }
        VEC v[LANES];
        DW_UNROLL for (int l = 0; l < LANES; l++) v[l] = l < n ? DW(load)(block + (i + l) * LANES) : DW(splat)(0);
        DW(transpose)(v);
        DW_UNROLL for (int l = 0; l < LANES; l++)
            if (l >= skip) {
                if (n == LANES) DW(store)(y + l * pitch + i, v[l]);
                else DW(store_first)(y + l * pitch + i, v[l], n);
            }
    }
}
