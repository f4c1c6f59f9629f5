/* Vectors in and out of memory, their sums, and activations packed into tiles. Included by tile.h, inside the same
 * definitions. */

/* ---- loads, stores, sums ------------------------------------------------------------------------------ */

/* The first n elements of a vector, zeros behind; no byte beyond them is touched. */
INLINE vec NAME(load_part)(const T *from, int64_t n) {
#if ISA == 2
#if F32
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
#else
    return (vec)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), from);
#endif
#else
    vec v = {0};
    for (int64_t i = 0; i < L - 1; i++)
        if (i < n) v[i] = from[i];
    return v;
#endif
}

INLINE void NAME(store_part)(T *to, vec v, int64_t n) {
#if ISA == 2
#if F32
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    _mm512_mask_storeu_pd(to, (__mmask8)((1u << n) - 1), (__m512d)v);
#endif
#else
    for (int64_t i = 0; i < L - 1; i++)
        if (i < n) to[i] = v[i];
#endif
}

/* nv vectors, of which the first n elements exist, (nv - 1) * L < n <= nv * L. */
INLINE void NAME(load)(vec *v, const T *from, int nv, int64_t n) {
#pragma GCC unroll 8
    for (int i = 0; i < nv - 1; i++) v[i] = *(const uvec *)(from + i * L);
    const T *last = from + (nv - 1) * L;
    v[nv - 1] = n == nv * L ? (vec) * (const uvec *)last : NAME(load_part)(last, n - (nv - 1) * L);
}

INLINE void NAME(store)(T *to, const vec *v, int nv, int64_t n) {
#pragma GCC unroll 8
    for (int i = 0; i < nv - 1; i++) *(uvec *)(to + i * L) = v[i];
    T *last = to + (nv - 1) * L;
    if (n == nv * L)
        *(uvec *)last = v[nv - 1];
    else
        NAME(store_part)(last, v[nv - 1], n - (nv - 1) * L);
}

/* Sums over the lanes, folded to four. */
INLINE quad NAME(fold)(vec v) {
    union {
        vec v;
        quad q[VB / (4 * sizeof(T))];
    } u = {v};
    quad sum = u.q[0];
#pragma GCC unroll 4
    for (size_t i = 1; i < VB / (4 * sizeof(T)); i++) sum += u.q[i];
    return sum;
}

/* (sum a, sum b, sum c, sum d) */
INLINE quad NAME(sums)(quad a, quad b, quad c, quad d) {
    quad ab = SHUFFLE4(a, b, 0, 4, 1, 5) + SHUFFLE4(a, b, 2, 6, 3, 7);
    quad cd = SHUFFLE4(c, d, 0, 4, 1, 5) + SHUFFLE4(c, d, 2, 6, 3, 7);
    return SHUFFLE4(ab, cd, 0, 1, 4, 5) + SHUFFLE4(ab, cd, 2, 3, 6, 7);
}

INLINE quad NAME(dots)(vec a, vec b, vec c, vec d) {
#if ISA == 2 && F32
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0x44),
                  _mm512_shuffle_f32x4((__m512)a, (__m512)b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4((__m512)c, (__m512)d, 0x44),
                  _mm512_shuffle_f32x4((__m512)c, (__m512)d, 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
    const __m512i every = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
    return (quad)_mm512_castps512_ps128(_mm512_permutexvar_ps(every, s));
#else
    return NAME(sums)(NAME(fold)(a), NAME(fold)(b), NAME(fold)(c), NAME(fold)(d));
#endif
}

INLINE T NAME(total)(vec v) {
    quad q = NAME(fold)(v);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/* ---- packing ------------------------------------------------------------------------------------------ */

/* Place of element b of feature f in tiles. */
INLINE int64_t NAME(place)(int64_t features, int64_t f, int64_t v0, int64_t v1) {
    return (features * v0 + f * (v1 - v0)) * L;
}

INLINE void NAME(transpose4)(const T *from, int64_t stride, T *to, int64_t to_stride) {
    quad r0 = *(const quad *)from, r1 = *(const quad *)(from + stride);
    quad r2 = *(const quad *)(from + 2 * stride), r3 = *(const quad *)(from + 3 * stride);
    quad s0 = SHUFFLE4(r0, r1, 0, 4, 1, 5), s1 = SHUFFLE4(r0, r1, 2, 6, 3, 7);
    quad s2 = SHUFFLE4(r2, r3, 0, 4, 1, 5), s3 = SHUFFLE4(r2, r3, 2, 6, 3, 7);
    *(quad *)to = SHUFFLE4(s0, s2, 0, 1, 4, 5);
    *(quad *)(to + to_stride) = SHUFFLE4(s0, s2, 2, 3, 6, 7);
    *(quad *)(to + 2 * to_stride) = SHUFFLE4(s1, s3, 0, 1, 4, 5);
    *(quad *)(to + 3 * to_stride) = SHUFFLE4(s1, s3, 2, 3, 6, 7);
}

/* to[f, b] = from[b, f], in blocks whose lines stay in the first cache; on the side of the longer stride,
 * whose lines may fall on one another there, only four rows at a time. */
static void NAME(transpose)(const T *from, int64_t stride, T *to, int64_t to_stride, int64_t nb, int64_t nf) {
    const int64_t whole_b = nb & ~(int64_t)3, whole_f = nf & ~(int64_t)3;
    for (int64_t f0 = 0; f0 < whole_f; f0 += 16) {
        int64_t f1 = f0 + 16 < whole_f ? f0 + 16 : whole_f;
        for (int64_t b0 = 0; b0 < whole_b; b0 += 16) {
            int64_t b1 = b0 + 16 < whole_b ? b0 + 16 : whole_b;
            if (stride > to_stride) {
                for (int64_t b = b0; b < b1; b += 4)
                    for (int64_t f = f0; f < f1; f += 4)
                        NAME(transpose4)(from + b * stride + f, stride, to + f * to_stride + b, to_stride);
            } else {
                for (int64_t f = f0; f < f1; f += 4)
                    for (int64_t b = b0; b < b1; b += 4)
                        NAME(transpose4)(from + b * stride + f, stride, to + f * to_stride + b, to_stride);
            }
        }
    }
    for (int64_t b = 0; b < nb; b++)
        for (int64_t f = b < whole_b ? whole_f : 0; f < nf; f++) to[f * to_stride + b] = from[b * stride + f];
}

/* Pack features [f0, f1) of `m` into tiles. */
static void NAME(pack)(matrix_t m, int64_t features, int64_t batch, int tiles, T *to, int64_t f0, int64_t f1) {
    const T *from = m.data;
    int64_t nvec = vectors(batch, L);
    for (int t = 0; t < tiles; t++) {
        int64_t v0 = part(nvec, t, tiles), v1 = part(nvec, t + 1, tiles), w = (v1 - v0) * L;
        int64_t b0 = v0 * L, n = batch - b0 < w ? batch - b0 : w;
        T *out = to + NAME(place)(features, f0, v0, v1);
        if (n < w)
            for (int64_t f = 0; f < f1 - f0; f++)
                for (int64_t b = n; b < w; b++) out[f * w + b] = 0;
        if (m.batch_stride == 1) {
            for (int64_t f = f0; f < f1; f++, out += w)
                __builtin_memcpy(out, from + f * m.feature_stride + b0, n * sizeof(T));
        } else if (m.feature_stride == 1) {
            NAME(transpose)(from + b0 * m.batch_stride + f0, m.batch_stride, out, w, n, f1 - f0);
        } else {
            for (int64_t f = f0; f < f1; f++, out += w)
                for (int64_t b = 0; b < n; b++)
                    out[b] = from[(b0 + b) * m.batch_stride + f * m.feature_stride];
        }
    }
}

/* Sum over the batch of packed feature f: the gradient of its bias. */
static T NAME(row_sum)(const T *packed, int64_t features, int64_t nvec, int tiles, int64_t f) {
    vec sum = {0};
    for (int t = 0; t < tiles; t++) {
        int64_t v0 = part(nvec, t, tiles), v1 = part(nvec, t + 1, tiles);
        const vec *row = (const vec *)(packed + NAME(place)(features, f, v0, v1));
        for (int64_t i = 0; i < v1 - v0; i++) sum += row[i];
    }
    return NAME(total)(sum);
}

/* Whether `m` already lies as one tile would be packed. */
static int NAME(is_packed)(matrix_t m, int64_t batch, int tiles) {
    return tiles == 1 && batch % L == 0 && m.batch_stride == 1 && m.feature_stride == batch &&
           (uintptr_t)m.data % VB == 0;
}
