/* The vector type of the width that the compiler was allowed, for one element type.
 *
 * A template: define REAL (float or double), REAL_SIZE (its bytes), REAL_INT (the integer of that size) and DW(name)
 * (adds the type's suffix), then include it.  It offers what a tile needs and no more: whole and masked loads and stores, the even
 * lanes of two vectors, lanes repeated by an index, a masked multiply-add, a clamp that keeps NaN.  It refuses to be
 * a SIMD library: arithmetic is the compiler's own (`a + b * c` is one multiply-add), so most of it is plain
 * vector-extension C that gcc and clang turn into any instruction set; intrinsics stand only where the extension has
 * no word for what the CPU can do (masked memory access, permutation by a run-time index), or where the compiler would choose
 * a dearer instruction (even and odd lanes, a number in all lanes).  Without vector extensions (MSVC) a vector has one lane
 * and the same source builds.
 */
#ifndef DW_SIMD_ONCE
#define DW_SIMD_ONCE

#include <stddef.h>
#include <stdint.h>

#if !defined(__GNUC__) || defined(DW_ONE_LANE)
#define DW_VECTORS 0
#define DW_BYTES 0
#elif defined(__AVX512F__) && defined(__AVX512DQ__)
#define DW_VECTORS 1
#define DW_BYTES 64
#elif defined(__AVX2__)
#define DW_VECTORS 1
#define DW_BYTES 32
#else
#define DW_VECTORS 1
#define DW_BYTES 16
#endif

#if DW_BYTES >= 32
#include <immintrin.h>
#endif

#if DW_BYTES == 64
#define DW_PAIRS 8 /* of 8 bytes in a vector */
#elif DW_BYTES == 32
#define DW_PAIRS 4
#else
#define DW_PAIRS 2
#endif

#ifdef __GNUC__
#define DW_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define DW_UNROLL _Pragma("clang loop unroll(full)")
#else
#define DW_UNROLL _Pragma("GCC unroll 64")
#endif
/* Lets the compiler know nothing of a pointer: it would compute the addresses of an unrolled loop all at once, and spill them. */
#define DW_HIDE(pointer) __asm__("" : "+r"(pointer))
/* A vector that stays in its register: the compiler would load it from memory again for every use. */
#if DW_BYTES == 64
#define DW_HOLD(vector) __asm__("" : "+v"(vector))
#elif defined(__x86_64__) || defined(__i386__)
#define DW_HOLD(vector) __asm__("" : "+x"(vector))
#else
#define DW_HOLD(vector) (void)0
#endif
#define DW_ALIGNED __attribute__((aligned(64)))
/* A line towards the caches but the nearest, to be read, or written; any address. */
#define DW_PREFETCH(p, write) __builtin_prefetch(p, write, 2)
#else
#define DW_INLINE static __forceinline
#define DW_UNROLL
#define DW_HIDE(pointer) (void)0
#define DW_HOLD(vector) (void)0
#define DW_ALIGNED
#define DW_PREFETCH(p, write) (void)(p)
#endif

#define DW_EVEN_2 0, 2
#define DW_EVEN_4 DW_EVEN_2, 4, 6
#define DW_ODD_2 1, 3
#define DW_ODD_4 DW_ODD_2, 5, 7
#define DW_IOTA_2 0, 1
#define DW_IOTA_4 DW_IOTA_2, 2, 3
#define DW_IOTA_8 DW_IOTA_4, 4, 5, 6, 7
#define DW_IOTA_16 DW_IOTA_8, 8, 9, 10, 11, 12, 13, 14, 15
#define DW_ZIP_LOW_2 0, 2
#define DW_ZIP_HIGH_2 1, 3
#define DW_ZIP_LOW_4 0, 4, 1, 5
#define DW_ZIP_HIGH_4 2, 6, 3, 7
#define DW_ZIP_LOW_8 0, 8, 1, 9, 2, 10, 3, 11
#define DW_ZIP_HIGH_8 4, 12, 5, 13, 6, 14, 7, 15
#define DW_ZIP_LOW_16 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define DW_ZIP_HIGH_16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
/* Within each 16 bytes, the low or the high half of two vectors: numbers in turns (of 4 bytes), or 8 bytes of each. */
#define DW_LOW_FLOATS_4 0, 4, 1, 5
#define DW_LOW_FLOATS_8 0, 8, 1, 9, 4, 12, 5, 13
#define DW_LOW_FLOATS_16 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define DW_HIGH_FLOATS_4 2, 6, 3, 7
#define DW_HIGH_FLOATS_8 2, 10, 3, 11, 6, 14, 7, 15
#define DW_HIGH_FLOATS_16 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define DW_LOW_PAIRS_2 0, 2
#define DW_LOW_PAIRS_4 0, 4, 2, 6
#define DW_LOW_PAIRS_8 0, 8, 2, 10, 4, 12, 6, 14
#define DW_HIGH_PAIRS_2 1, 3
#define DW_HIGH_PAIRS_4 1, 5, 3, 7
#define DW_HIGH_PAIRS_8 1, 9, 3, 11, 5, 13, 7, 15
/* Every second 16 bytes of two vectors, from the first or from the second on. */
#define DW_EVEN_BLOCKS_2 0, 1
#define DW_EVEN_BLOCKS_4 0, 1, 4, 5
#define DW_EVEN_BLOCKS_8 0, 1, 4, 5, 8, 9, 12, 13
#define DW_ODD_BLOCKS_2 2, 3
#define DW_ODD_BLOCKS_4 2, 3, 6, 7
#define DW_ODD_BLOCKS_8 2, 3, 6, 7, 10, 11, 14, 15
#define DW_JOIN_(a, b) a##b
#define DW_JOIN(a, b) DW_JOIN_(a, b)

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define DW_SHUFFLEVECTOR 1
#endif
#endif

#endif /* DW_SIMD_ONCE */

#undef LANES
#undef VEC
#undef IVEC
#undef MASK
#undef HVEC
#define VEC DW(dw_vec)
#define IVEC DW(dw_ivec)
#define MASK DW(dw_mask)
#define HVEC DW(dw_half)

#if DW_BYTES / REAL_SIZE == 16
#define LANES 16
#elif DW_BYTES / REAL_SIZE == 8
#define LANES 8
#elif DW_BYTES / REAL_SIZE == 4
#define LANES 4
#elif DW_BYTES / REAL_SIZE == 2
#define LANES 2
#else
#define LANES 1
#endif

#if DW_VECTORS
typedef REAL VEC __attribute__((vector_size(DW_BYTES), aligned(REAL_SIZE), may_alias));
typedef REAL_INT IVEC __attribute__((vector_size(DW_BYTES), aligned(REAL_SIZE), may_alias));
typedef double DW(dw_pairs) __attribute__((vector_size(DW_BYTES), aligned(REAL_SIZE), may_alias)); /* two floats or a double a lane */
#else
typedef REAL VEC;
typedef REAL_INT IVEC;
#endif
#if DW_BYTES == 64 && REAL_SIZE == 4
typedef __mmask16 MASK; /* bit l: lane l */
#elif DW_BYTES == 64
typedef __mmask8 MASK;
#else
typedef IVEC MASK; /* all bits of a lane */
#endif

DW_INLINE VEC DW(splat)(REAL s) {
#if DW_VECTORS
    return s - (VEC){0}; /* unlike 0 + s, s itself whatever its sign: one broadcast */
#else
    return s;
#endif
}

/* *p in all lanes.  With AVX-512 by an instruction for integers: Zen 4 spends a shuffle on the one for floating point (7x7 rows of one
 * vector: 1.3 times as fast), and gcc knows no other. */
DW_INLINE VEC DW(load_splat)(const REAL *p) {
#if DW_BYTES == 64
    VEC v;
#if REAL_SIZE == 4
    __asm__("vpbroadcastd %1, %0" : "=v"(v) : "m"(*p));
#else
    __asm__("vpbroadcastq %1, %0" : "=v"(v) : "m"(*p));
#endif
    return v;
#else
    return DW(splat)(*p);
#endif
}

DW_INLINE VEC DW(load)(const REAL *p) { return *(const VEC *)p; }
DW_INLINE void DW(store)(REAL *p, VEC v) { *(VEC *)p = v; }

/* Lanes lo <= l < hi, for any lo and hi. */
DW_INLINE MASK DW(lanes)(ptrdiff_t lo, ptrdiff_t hi) {
    lo = lo < 0 ? 0 : lo > LANES ? LANES : lo;
    hi = hi < 0 ? 0 : hi > LANES ? LANES : hi;
#if DW_BYTES == 64
    return (MASK)(((1u << hi) - 1) & ~((1u << lo) - 1));
#elif DW_VECTORS
    const IVEC lane = {DW_JOIN(DW_IOTA_, LANES)};
    return (lane >= (IVEC){0} + (REAL_INT)lo) & (lane < (IVEC){0} + (REAL_INT)hi);
#else
    return -(lo <= 0 && 0 < hi);
#endif
}

DW_INLINE int DW(lane_on)(MASK m, int l) {
#if DW_BYTES == 64
    return m >> l & 1;
#elif DW_VECTORS
    return m[l] != 0;
#else
    return m != 0;
#endif
}

/* Lane l reads p[l * step] where it is on, and nothing where it is off: those lanes are 0. */
DW_INLINE VEC DW(load_strided)(const REAL *p, ptrdiff_t step, MASK m) {
    REAL lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = DW(lane_on)(m, l) ? p[l * step] : 0;
    return DW(load)(lane);
}

DW_INLINE VEC DW(load_lanes)(const REAL *p, MASK m) {
#if DW_BYTES == 64 && REAL_SIZE == 4
    return (VEC)_mm512_maskz_loadu_ps((__mmask16)m, p);
#elif DW_BYTES == 64
    return (VEC)_mm512_maskz_loadu_pd((__mmask8)m, p);
#elif DW_BYTES == 32 && REAL_SIZE == 4
    return (VEC)_mm256_maskload_ps(p, (__m256i)m);
#elif DW_BYTES == 32
    return (VEC)_mm256_maskload_pd(p, (__m256i)m);
#else
    return DW(load_strided)(p, 1, m);
#endif
}

/* The same where, if `within`, the whole vector may be read: AVX2's masked load takes 10 cycles on Zen 1, and without it each lane a branch. */
DW_INLINE VEC DW(load_within)(const REAL *p, MASK m, const int within) {
#if DW_VECTORS && DW_BYTES < 64
    if (within) return (VEC)((IVEC)DW(load)(p) & m);
#endif
    (void)within;
    return DW(load_lanes)(p, m);
}

/* v in the lanes that are on, else -0, by which the product with 0 changes no sum. */
#if DW_VECTORS && DW_BYTES < 64
DW_INLINE VEC DW(else_minus_zero)(VEC v, MASK m) { return (VEC)(((IVEC)v & m) | ((IVEC)DW(splat)((REAL)-0.0) & ~m)); }
#endif

#if DW_BYTES == 64
/* Lanes that are on from a, the others from b. */
DW_INLINE VEC DW(load_two)(const REAL *a, const REAL *b, MASK m) {
#if REAL_SIZE == 4
    return (VEC)_mm512_mask_loadu_ps(_mm512_maskz_loadu_ps((__mmask16)m, a), (__mmask16)~m, b);
#else
    return (VEC)_mm512_mask_loadu_pd(_mm512_maskz_loadu_pd((__mmask8)m, a), (__mmask8)~m, b);
#endif
}

/* Half a vector: Zen 4 multiplies and adds two of them in the time of one vector. */
typedef REAL HVEC __attribute__((vector_size(32), aligned(REAL_SIZE), may_alias));

DW_INLINE HVEC DW(load_half_lanes)(const REAL *p, MASK m) {
#if REAL_SIZE == 4
    return (HVEC)_mm256_maskz_loadu_ps((__mmask8)m, p);
#else
    return (HVEC)_mm256_maskz_loadu_pd((__mmask8)m, p);
#endif
}

DW_INLINE HVEC DW(first_half)(VEC v) {
#if REAL_SIZE == 4
    return (HVEC)_mm512_castps512_ps256((__m512)v);
#else
    return (HVEC)_mm512_castpd512_pd256((__m512d)v);
#endif
}

/* The first half of the lanes from a, the second from b, where they are on in m, whose first lanes count; the others are 0.  By halves, of
 * which fewer lie across lines. */
DW_INLINE VEC DW(load_halves)(const REAL *a, const REAL *b, MASK m) {
#if REAL_SIZE == 4
    const __m512 first = _mm512_castps256_ps512((__m256)DW(load_half_lanes)(a, m));
    return (VEC)_mm512_insertf32x8(first, (__m256)DW(load_half_lanes)(b, m), 1);
#else
    const __m512d first = _mm512_castpd256_pd512((__m256d)DW(load_half_lanes)(a, m));
    return (VEC)_mm512_insertf64x4(first, (__m256d)DW(load_half_lanes)(b, m), 1);
#endif
}

/* p[0] in the first half of the lanes, p[1] in the second: both, again and again, and then by a shuffle within 16 bytes. */
DW_INLINE VEC DW(load_two_splats)(const REAL *p) {
#if REAL_SIZE == 4
    const __m512i half = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return (VEC)_mm512_permutevar_ps((__m512)_mm512_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)p)), half);
#else
    return (VEC)_mm512_permute_pd(_mm512_broadcast_f64x2(_mm_loadu_pd(p)), 0xf0);
#endif
}

DW_INLINE void DW(store_lanes)(REAL *p, VEC v, MASK m) {
#if REAL_SIZE == 4
    _mm512_mask_storeu_ps(p, (__mmask16)m, (__m512)v);
#else
    _mm512_mask_storeu_pd(p, (__mmask8)m, (__m512d)v);
#endif
}

/* The first or the second half of v where it is on in m, whose first lanes count: faster than store_lanes.  Held, since gcc would make one
 * instruction of the extraction and the store, which faults on lanes that are off. */
DW_INLINE void DW(store_half)(REAL *p, VEC v, MASK m, const int second) {
#if REAL_SIZE == 4
    __m256 half = second ? _mm512_extractf32x8_ps((__m512)v, 1) : (__m256)DW(first_half)(v);
    DW_HOLD(half);
    _mm256_mask_storeu_ps(p, (__mmask8)m, half);
#else
    __m256d half = second ? _mm512_extractf64x4_pd((__m512d)v, 1) : (__m256d)DW(first_half)(v);
    DW_HOLD(half);
    _mm256_mask_storeu_pd(p, (__mmask8)m, half);
#endif
}
#endif

/* The first n lanes; by halves or elements where there is no cheap masked store (AMD's AVX2 one is microcoded). */
DW_INLINE void DW(store_first)(REAL *p, VEC v, ptrdiff_t n) {
#if DW_BYTES == 64
    DW(store_lanes)(p, v, DW(lanes)(0, n));
#elif DW_BYTES == 32
    __m128i half = _mm256_castsi256_si128((__m256i)v);
    n *= REAL_SIZE;
    if (n >= 32) {
        DW(store)(p, v);
        return;
    }
    if (n < 0) return;
    if (n & 16) {
        _mm_storeu_si128((__m128i *)p, half);
        half = _mm256_extracti128_si256((__m256i)v, 1);
        p += 16 / REAL_SIZE;
    }
    if (n & 8) {
        _mm_storel_epi64((__m128i *)p, half);
        half = _mm_unpackhi_epi64(half, half);
        p += 8 / REAL_SIZE;
    }
    if (n & 4) _mm_store_ss((float *)p, _mm_castsi128_ps(half));
#else
    REAL lane[LANES];
    DW(store)(lane, v);
    for (int l = 0; l < LANES && l < n; l++) p[l] = lane[l];
#endif
}

#if DW_BYTES == 32 && REAL_SIZE == 8
/* Lanes of doubles as those of their halves, which alone have a shuffle by a run-time index. */
DW_INLINE __m256i DW(halves)(IVEC index) {
    const IVEC twice = index + index;
    return (__m256i)((twice | twice << 32) + ((int64_t)1 << 32));
}
#endif

#if DW_BYTES >= 32
/* Lane l is that of index[l], of which only the bits below LANES count. */
DW_INLINE VEC DW(permute)(VEC v, IVEC index) {
#if DW_BYTES == 64 && REAL_SIZE == 4
    return (VEC)_mm512_permutexvar_ps((__m512i)index, (__m512)v);
#elif DW_BYTES == 64
    return (VEC)_mm512_permutexvar_pd((__m512i)index, (__m512d)v);
#elif REAL_SIZE == 4
    return (VEC)_mm256_permutevar8x32_ps((__m256)v, (__m256i)index);
#else
    return (VEC)_mm256_permutevar8x32_ps((__m256)v, DW(halves)(index));
#endif
}
#endif

/* Lane l is p[index[l]] of a whole vector. */
DW_INLINE VEC DW(load_picked)(const REAL *p, IVEC index) {
#if DW_BYTES >= 32
    return DW(permute)(DW(load)(p), index);
#elif DW_VECTORS
    REAL lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = p[index[l]];
    return DW(load)(lane);
#else
    return p[index];
#endif
}

/* ... indices are of lanes that are on in m, the others are not read. */
DW_INLINE VEC DW(load_indexed)(const REAL *p, MASK m, IVEC index) {
#if DW_BYTES >= 32
    return DW(permute)(DW(load_lanes)(p, m), index);
#elif DW_VECTORS
    (void)m;
    return DW(load_picked)(p, index);
#else
    return m ? p[index] : 0;
#endif
}

/* How lanes repeat neighbouring numbers, at least two of which exist: read from `from` on. */
typedef struct {
    ptrdiff_t from, second; /* AVX2: two numbers from there on, and two from `second` further on */
    MASK in;
    IVEC index;
} DW(dw_repeat);

/* Lane l: number (first + l) / repeat of `numbers`, for all lanes or the first `lanes`; repeat 2 at least. */
static DW(dw_repeat) DW(repeat_lanes)(ptrdiff_t first, ptrdiff_t lanes, ptrdiff_t repeat, ptrdiff_t numbers) {
    DW(dw_repeat) q;
    const ptrdiff_t begin = first / repeat, count = (first + lanes - 1) / repeat - begin + 1;
    q.from = begin, q.second = 0;
    q.in = DW(lanes)(0, count);
#if DW_BYTES == 32
    q.from = count == 1 && begin == numbers - 1 ? begin - 1 : begin;
    if (REAL_SIZE == 4 && count > 2) q.second = count - 2;
#else
    (void)numbers;
#endif
    for (int l = 0; l < LANES; l++) {
        REAL_INT at = (REAL_INT)(l < lanes ? (first + l) / repeat - q.from : 0);
#if DW_BYTES == 32 && REAL_SIZE == 4
        at = 0x03020100 + 0x04040404 * (at < 2 ? at : at - (REAL_INT)q.second + 2);
#elif DW_BYTES == 32
        at = 0x0706050403020100 + 0x0808080808080808 * at;
#endif
        ((REAL_INT *)&q.index)[l] = at;
    }
    return q;
}

/* With AVX2 by shuffles of bytes within 16 of them: Zen 1 takes 10 cycles for a masked load and 4 for a permutation, of which this takes
 * 2.5 in all (64x64x32, multiplier 4). */
DW_INLINE VEC DW(load_repeated)(const REAL *p, const DW(dw_repeat) *q) {
#if DW_BYTES == 32 && REAL_SIZE == 4
    typedef double two __attribute__((aligned(4), may_alias));
    const __m256d low = _mm256_set1_pd(*(const two *)p), high = _mm256_set1_pd(*(const two *)(p + q->second));
    return (VEC)_mm256_shuffle_epi8((__m256i)_mm256_blend_pd(low, high, 0xa), (__m256i)q->index);
#elif DW_BYTES == 32
    return (VEC)_mm256_shuffle_epi8((__m256i)_mm256_broadcast_pd((const __m128d *)p), (__m256i)q->index);
#else
    return DW(load_indexed)(p, q->in, q->index);
#endif
}

#if DW_BYTES >= 32
/* Lane l is that of index[l] in a followed by b, of which only the bits below 2 * LANES count. */
DW_INLINE VEC DW(pick)(VEC a, VEC b, IVEC index) {
#if DW_BYTES == 64 && REAL_SIZE == 4
    return (VEC)_mm512_permutex2var_ps((__m512)a, (__m512i)index, (__m512)b);
#elif DW_BYTES == 64
    return (VEC)_mm512_permutex2var_pd((__m512d)a, (__m512i)index, (__m512d)b);
#elif REAL_SIZE == 4
    const __m256 low = _mm256_permutevar8x32_ps((__m256)a, (__m256i)index), high = _mm256_permutevar8x32_ps((__m256)b, (__m256i)index);
    return (VEC)_mm256_blendv_ps(low, high, (__m256)_mm256_slli_epi32((__m256i)index, 28));
#else
    const __m256i halves = DW(halves)(index);
    const __m256 low = _mm256_permutevar8x32_ps((__m256)a, halves), high = _mm256_permutevar8x32_ps((__m256)b, halves);
    return (VEC)_mm256_blendv_pd((__m256d)low, (__m256d)high, (__m256d)_mm256_slli_epi64((__m256i)index, 61));
#endif
}
#endif

/* Lanes 0, 2, 4, ... of a followed by b, or if odd 1, 3, 5, ..., in the order in which a shuffle within 16 bytes leaves them; and a vector
 * from that order.  With AVX2 to it as well: two 8 bytes change places. */
DW_INLINE VEC DW(turned)(VEC a, VEC b, const int odd) {
#if DW_BYTES == 64 && REAL_SIZE == 4
    return (VEC)(odd ? _mm512_shuffle_ps((__m512)a, (__m512)b, 0xdd) : _mm512_shuffle_ps((__m512)a, (__m512)b, 0x88));
#elif DW_BYTES == 64
    return (VEC)(odd ? _mm512_unpackhi_pd((__m512d)a, (__m512d)b) : _mm512_unpacklo_pd((__m512d)a, (__m512d)b));
#elif DW_BYTES == 32 && REAL_SIZE == 4
    return (VEC)(odd ? _mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd) : _mm256_shuffle_ps((__m256)a, (__m256)b, 0x88));
#elif DW_BYTES == 32
    return (VEC)(odd ? _mm256_unpackhi_pd((__m256d)a, (__m256d)b) : _mm256_unpacklo_pd((__m256d)a, (__m256d)b));
#elif DW_VECTORS && defined(DW_SHUFFLEVECTOR)
    return odd ? __builtin_shufflevector(a, b, DW_JOIN(DW_ODD_, LANES)) : __builtin_shufflevector(a, b, DW_JOIN(DW_EVEN_, LANES));
#elif DW_VECTORS
    VEC v;
    for (int l = 0, k = odd; l < LANES; l++, k += 2) v[l] = k < LANES ? a[k] : b[k - LANES];
    return v;
#else
    return odd ? b : a;
#endif
}

DW_INLINE VEC DW(turn)(VEC v) {
#if DW_BYTES == 64
    return (VEC)_mm512_permutexvar_pd(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), (__m512d)v);
#elif DW_BYTES == 32
    return (VEC)_mm256_permute4x64_pd((__m256d)v, 0xd8);
#else
    return v;
#endif
}

/* ... in their order.  Two shuffles, since one that takes any lanes of two vectors is as much as two across 16 bytes, and those within are
 * free beside multiply-adds (Zen 4; rows of 5x5 at stride 2 1.1 times as fast). */
DW_INLINE VEC DW(even)(VEC a, VEC b) { return DW(turn)(DW(turned)(a, b, 0)); }
DW_INLINE VEC DW(odd)(VEC a, VEC b) { return DW(turn)(DW(turned)(a, b, 1)); }

#if DW_BYTES == 32
/* step 1: a vector; 2: the even and the odd numbers of two, turned. */
DW_INLINE void DW(load_turned)(const REAL *p, VEC *v, const int step) {
    const VEC a = DW(load)(p);
    v[0] = a;
    if (step == 1) return;
    const VEC b = DW(load)(p + LANES);
    v[0] = DW(turned)(a, b, 0);
    v[1] = DW(turned)(a, b, 1);
}
#endif

#if DW_BYTES == 32
/* The second half of a, then a half of b; no permutation of halves, on which Zen 1 spends three times as long. */
DW_INLINE VEC DW(upper)(VEC a, VEC b, const int second) {
    const __m256 half = _mm256_castps128_ps256(_mm256_extractf128_ps((__m256)a, 1));
    return (VEC)(second ? _mm256_blend_ps(half, (__m256)b, 0xf0) : _mm256_insertf128_ps(half, _mm256_castps256_ps128((__m256)b), 1));
}

DW_INLINE VEC DW(ends)(VEC a, VEC b) { return (VEC)_mm256_blend_ps((__m256)a, (__m256)b, 0xf0); } /* a's first half, b's second */

/* Every third number of three vectors, and three vectors of such: halves that are then shuffled within 16 bytes. */
DW_INLINE void DW(part_thirds)(const VEC *in, VEC *out) {
    const VEC a = DW(ends)(in[0], in[1]), b = DW(upper)(in[0], in[2], 0), c = DW(ends)(in[1], in[2]);
#if REAL_SIZE == 4 /* a: x0 y0 z0 x1, b: y1 z1 x2 y2, c: z2 x3 y3 z3 */
    const __m256 bc = _mm256_shuffle_ps((__m256)b, (__m256)c, 0x9e), ab = _mm256_shuffle_ps((__m256)a, (__m256)b, 0x49);
    out[0] = (VEC)_mm256_shuffle_ps((__m256)a, bc, 0x8c);
    out[1] = (VEC)_mm256_shuffle_ps(ab, bc, 0xd8);
    out[2] = (VEC)_mm256_shuffle_ps(ab, (__m256)c, 0xcd);
#else /* a: x0 y0, b: z0 x1, c: y1 z1 */
    out[0] = (VEC)_mm256_shuffle_pd((__m256d)a, (__m256d)b, 0xa);
    out[1] = (VEC)_mm256_shuffle_pd((__m256d)a, (__m256d)c, 0x5);
    out[2] = (VEC)_mm256_shuffle_pd((__m256d)b, (__m256d)c, 0xa);
#endif
}

DW_INLINE void DW(join_thirds)(const VEC *in, VEC *out) {
#if REAL_SIZE == 4
    const __m256 x = (__m256)in[0], y = (__m256)in[1], z = (__m256)in[2];
    const __m256 xy = _mm256_shuffle_ps(x, y, 0x88), yz = _mm256_shuffle_ps(y, z, 0xdd), zx = _mm256_shuffle_ps(z, x, 0xd8);
    const VEC a = (VEC)_mm256_shuffle_ps(xy, zx, 0x88), b = (VEC)_mm256_shuffle_ps(yz, xy, 0xd8), c = (VEC)_mm256_shuffle_ps(zx, yz, 0xdd);
#else
    const __m256d x = (__m256d)in[0], y = (__m256d)in[1], z = (__m256d)in[2];
    const VEC a = (VEC)_mm256_unpacklo_pd(x, y), b = (VEC)_mm256_shuffle_pd(z, x, 0xa), c = (VEC)_mm256_unpackhi_pd(y, z);
#endif
    out[0] = (VEC)_mm256_insertf128_ps((__m256)a, _mm256_castps256_ps128((__m256)b), 1);
    out[1] = DW(ends)(c, a);
    out[2] = DW(upper)(b, c, 1);
}
#endif

#if DW_BYTES == 64 && defined(DW_SHUFFLEVECTOR)
/* Lanes n, n + 1, ... of a followed by b. */
DW_INLINE VEC DW(shift)(VEC a, VEC b, const int n) {
    return (VEC)_mm512_alignr_epi32((__m512i)b, (__m512i)a, n * REAL_SIZE / 4);
}
#endif

/* Lane l of vector k and lane k of vector l change places.  First within each 16 bytes, then those blocks: a shuffle that leaves
 * numbers in their 16 bytes is the cheapest (Zen 4, 64 bytes: 0.66 cycles; one of blocks 1, of single numbers 1.25). */
DW_INLINE void DW(transpose)(VEC *v) {
#if DW_VECTORS && defined(DW_SHUFFLEVECTOR)
#define SHUFFLE(a, b, pattern, count) __builtin_shufflevector(a, b, DW_JOIN(pattern, count))
    enum { BLOCK = 16 / REAL_SIZE, BLOCKS = LANES / BLOCK };
    DW(dw_pairs) p[LANES];
    DW_UNROLL for (int k = 0; k < LANES; k += BLOCK) {
#if REAL_SIZE == 4
        DW(dw_pairs) a[4];
        DW_UNROLL for (int i = 0; i < 2; i++) {
            a[i] = (DW(dw_pairs))SHUFFLE(v[k + 2 * i], v[k + 2 * i + 1], DW_LOW_FLOATS_, LANES);
            a[2 + i] = (DW(dw_pairs))SHUFFLE(v[k + 2 * i], v[k + 2 * i + 1], DW_HIGH_FLOATS_, LANES);
        }
#else
        const VEC *a = v + k;
#endif
        DW_UNROLL for (int i = 0; i < BLOCK; i += 2) {
            p[k + i] = SHUFFLE(a[i], a[i + 1], DW_LOW_PAIRS_, DW_PAIRS);
            p[k + i + 1] = SHUFFLE(a[i], a[i + 1], DW_HIGH_PAIRS_, DW_PAIRS);
        }
    }
    DW_UNROLL for (int stage = 1; stage < BLOCKS; stage *= 2) {
        DW(dw_pairs) q[LANES];
        DW_UNROLL for (int k = 0; k < BLOCKS / 2; k++) {
            DW_UNROLL for (int i = 0; i < BLOCK; i++) {
                const DW(dw_pairs) a = p[2 * k * BLOCK + i], b = p[(2 * k + 1) * BLOCK + i];
                q[k * BLOCK + i] = SHUFFLE(a, b, DW_EVEN_BLOCKS_, DW_PAIRS);
#if DW_BYTES == 32
                q[BLOCK + i] = (DW(dw_pairs))DW(upper)((VEC)a, (VEC)b, 1);
#else
                q[(k + BLOCKS / 2) * BLOCK + i] = SHUFFLE(a, b, DW_ODD_BLOCKS_, DW_PAIRS);
#endif
            }
        }
        DW_UNROLL for (int k = 0; k < LANES; k++) p[k] = q[k];
    }
    DW_UNROLL for (int k = 0; k < LANES; k++) v[k] = (VEC)p[k];
#undef SHUFFLE
#elif DW_VECTORS
    for (int k = 0; k < LANES; k++)
        for (int l = 0; l < k; l++) {
            const REAL swap = v[k][l];
            v[k][l] = v[l][k];
            v[l][k] = swap;
        }
#else
    (void)v;
#endif
}

/* acc + a * b in the lanes that are on; the others keep acc, whatever a and b hold there. */
DW_INLINE VEC DW(add_product)(VEC acc, VEC a, VEC b, MASK m) {
#if DW_BYTES == 64 && REAL_SIZE == 4
    return (VEC)_mm512_mask3_fmadd_ps((__m512)a, (__m512)b, (__m512)acc, (__mmask16)m);
#elif DW_BYTES == 64
    return (VEC)_mm512_mask3_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)acc, (__mmask8)m);
#elif DW_BYTES == 32 && REAL_SIZE == 4
    return (VEC)_mm256_blendv_ps((__m256)acc, (__m256)(acc + a * b), (__m256)m);
#elif DW_BYTES == 32
    return (VEC)_mm256_blendv_pd((__m256d)acc, (__m256d)(acc + a * b), (__m256d)m);
#elif DW_VECTORS
    const VEC sum = acc + a * b;
    return (VEC)((m & (IVEC)sum) | (~m & (IVEC)acc));
#else
    return m ? acc + a * b : acc;
#endif
}

#if DW_BYTES == 64
/* acc + a * b in the first half of the lanes, in those that are on; the second half may hold anything.  By assembly, since gcc would keep
 * a copy of b for its half. */
DW_INLINE VEC DW(add_half)(VEC acc, HVEC a, VEC b) {
#if REAL_SIZE == 4
    __asm__("vfmadd231ps %1, %t2, %t0" : "+v"(acc) : "vm"(a), "v"(b));
#else
    __asm__("vfmadd231pd %1, %t2, %t0" : "+v"(acc) : "vm"(a), "v"(b));
#endif
    return acc;
}

DW_INLINE VEC DW(add_half_product)(VEC acc, HVEC a, VEC b, MASK m) {
#if REAL_SIZE == 4
    __asm__("vfmadd231ps %1, %t2, %t0%{%3%}" : "+v"(acc) : "v"(a), "v"(b), "Yk"(m));
#else
    __asm__("vfmadd231pd %1, %t2, %t0%{%3%}" : "+v"(acc) : "v"(a), "v"(b), "Yk"(m));
#endif
    return acc;
}
#endif

/* min(max(v, lo), hi) that keeps NaN. */
DW_INLINE VEC DW(clamp)(VEC v, VEC lo, VEC hi) {
#if DW_VECTORS
    const IVEC low = v < lo;
    v = (VEC)((low & (IVEC)lo) | (~low & (IVEC)v));
    const IVEC high = v > hi;
    return (VEC)((high & (IVEC)hi) | (~high & (IVEC)v));
#else
    v = v < lo ? lo : v;
    return v > hi ? hi : v;
#endif
}
