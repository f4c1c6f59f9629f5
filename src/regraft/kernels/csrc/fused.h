/* What a fused step adds to the walk over columns: the derivative of the activation before it; and the update
 * of the values once all their gradients are there. Included by tile.h, inside the same definitions. */

typedef struct NAME(fused) {
    int last_panel;
    int act; /* of the layer before, with its dropout */
    double drop;
    uint64_t seed;
    int64_t b0; /* first element of the tile */
} NAME(fused_t);

/* SGD for the values [from, to), front to back: updating each where its gradient is complete, in column order,
 * would write to scattered places of two arrays instead of one. */
static void NAME(learn)(const sgd_t *s, const T *restrict gradient, int64_t from, int64_t to) {
    T *restrict value = s->value, *restrict momentum = s->momentum;
    const T rate = s->rate, beta = s->beta, decay = s->decay;
    if (!momentum) {
        for (int64_t j = from; j < to; j++) value[j] -= rate * (gradient[j] + decay * value[j]);
    } else if (s->nesterov) {
        for (int64_t j = from; j < to; j++) {
            T g = gradient[j] + decay * value[j], m = beta * momentum[j] + g;
            momentum[j] = m;
            value[j] -= rate * (g + beta * m);
        }
    } else {
        for (int64_t j = from; j < to; j++) {
            T m = beta * momentum[j] + (gradient[j] + decay * value[j]);
            momentum[j] = m;
            value[j] -= rate * m;
        }
    }
}

/* ---- dropout: whether an element is kept depends on (seed, feature, sample) alone ---------------------- */

INLINE uint32_t NAME(hash)(uint64_t seed, int64_t feature, int64_t b) {
    uint32_t h = (uint32_t)seed ^ ((uint32_t)feature * 0x9e3779b1u);
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h ^= (uint32_t)(seed >> 32) + (uint32_t)b * 0x85ebca77u;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    h = (h ^ (h >> 13)) * 0xc2b2ae35u;
    return h ^ (h >> 16);
}

/* Multiply by 0 where dropped, by 1 / (1 - p) where kept. */
static void NAME(drop_row)(T *a, int64_t n, int64_t feature, int64_t b0, double p, uint64_t seed) {
    const uint32_t limit = (uint32_t)(p * 4294967296.0 > 4294967295.0 ? 4294967295.0 : p * 4294967296.0);
    const T scale = p < 1 ? (T)(1 / (1 - p)) : 0;
    for (int64_t b = 0; b < n; b++) a[b] = NAME(hash)(seed, feature, b0 + b) < limit ? 0 : a[b] * scale;
}

/* ---- activations --------------------------------------------------------------------------------------- */

INLINE vec NAME(choose)(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

INLINE vec NAME(exp)(vec x) {
#if F32
    const vec zero = {0}, shift = zero + 12582912.0f;
    x = NAME(choose)(x > zero + 88.3f, zero + 88.3f, x);
    x = NAME(choose)(x < zero - 87.3f, zero - 87.3f, x);
    vec t = x * 1.44269504f + shift, n = t - shift;
    vec r = x - n * 0.693145752f - n * 1.42860677e-6f;
    vec p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)(((ivec)t - (ivec)shift + 127) << 23);
#else
    for (int64_t i = 0; i < L; i++) x[i] = exp(x[i]);
    return x;
#endif
}

INLINE vec NAME(tanh)(vec x) {
#if F32
    const vec zero = {0};
    vec size = NAME(choose)(x < zero, -x, x), e = NAME(exp)(2 * size), big = 1 - 2 / (e + 1), q = x * x;
    vec small = x + x * q * (-1 / 3.0f + q * (2 / 15.0f + q * (-17 / 315.0f + q * (62 / 2835.0f))));
    big = NAME(choose)(x < zero, -big, big);
    return NAME(choose)(size < zero + 0.3f, small, big);
#else
    for (int64_t i = 0; i < L; i++) x[i] = tanh(x[i]);
    return x;
#endif
}

/* Rows [r0, r1) of pre-activations, w elements of each, become activations. */
static void NAME(activate)(T *rows, int64_t stride, int64_t w, int64_t r0, int64_t r1, int64_t b0,
                           const mlp_layer_t *layer) {
    const vec zero = {0};
    for (int64_t r = r0; r < r1; r++) {
        vec *a = (vec *)(rows + (r - r0) * stride);
        for (int64_t i = 0; i < w / L; i++) {
            if (layer->act == ACT_RELU)
                a[i] = (vec)((ivec)a[i] & ~(a[i] <= zero)); /* keeps NaN, as torch does */
            else if (layer->act == ACT_SIGMOID)
                a[i] = 1 / (1 + NAME(exp)(-a[i]));
            else if (layer->act == ACT_TANH)
                a[i] = NAME(tanh)(a[i]);
        }
        if (layer->drop > 0) NAME(drop_row)((T *)a, w, r, b0, layer->drop, layer->seed);
    }
}

static __attribute__((noinline)) void NAME(derive_smooth)(int nv, vec *dx, const vec *x, int64_t c,
                                                          const NAME(fused_t) * f) {
    const T keep = (T)(1 - f->drop);
    for (int i = 0; i < nv; i++) {
        vec y = x[i] * keep; /* before dropout, where it was kept */
        if (f->act == ACT_SIGMOID) dx[i] *= y * (1 - y);
        if (f->act == ACT_TANH) dx[i] *= 1 - y * y;
    }
    if (f->drop > 0) NAME(drop_row)((T *)dx, nv * L, c, f->b0, f->drop, f->seed);
}

/* dx of feature c, given its activations x, becomes the gradient before the activation. */
INLINE void NAME(derive)(const int nv, vec *dx, const vec *x, int64_t c, const NAME(fused_t) * f) {
    if (f->act == ACT_RELU) {
        const vec zero = {0};
        const T scale = f->drop < 1 ? (T)(1 / (1 - f->drop)) : 0;
#pragma GCC unroll 8
        for (int i = 0; i < nv; i++) dx[i] = (vec)((ivec)(dx[i] * scale) & ~(x[i] <= zero));
    } else if (f->act != ACT_NONE || f->drop > 0) {
        vec to[WIDEST], from[WIDEST];
#pragma GCC unroll 8
        for (int i = 0; i < nv; i++) {
            to[i] = dx[i];
            from[i] = x[i];
        }
        NAME(derive_smooth)(nv, to, from, c, f);
#pragma GCC unroll 8
        for (int i = 0; i < nv; i++) dx[i] = to[i];
    }
}
