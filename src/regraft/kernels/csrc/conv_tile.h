/* Sparse convolution for one element type and one instruction set.
 *
 * The including file defines T (element), VB (bytes of a vector) and NAME(x) (x with a suffix).
 *
 * Images are packed into rows, one for each channel (and phase of the stride): the samples of a group one
 * after the other, line after line, zeros in between where the padding is. In such rows a connection
 * (out, in, ky, kx) is one number: output element p takes weight times input element p + shift. A convolution
 * is then a sparse matrix product whose gathered rows are shifted, and runs as fast as one: a tile of
 * accumulators stays in registers while the connections of an output channel stream by.
 *
 * The gradients: dx[q] += w dy[q - shift] and dw = sum over q of x[q] dy[q - shift], so each dy is read once
 * for both. Elements of the packed output between the images are not outputs; their dy is zero.
 */

#define L ((int64_t)(VB / sizeof(T)))
#define INLINE static inline __attribute__((always_inline))
typedef T NAME(cvec) __attribute__((vector_size(VB), aligned(sizeof(T)), may_alias));
#define cvec NAME(cvec)

INLINE T NAME(conv_total)(cvec v) {
    T sum[VB / sizeof(T)];
    __builtin_memcpy(sum, &v, sizeof sum);
#pragma GCC unroll 8
    for (size_t half = VB / sizeof(T) / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) sum[i] += sum[i + half];
    return sum[0];
}

/* ---- packing ------------------------------------------------------------------------------------------ */

/* Lines are short: for the usual lengths a copy without a loop. */
INLINE void NAME(copy)(T *to, const T *from, int64_t n) {
    switch (n) {
#define CASE(k)                                                                                               \
    case k:                                                                                                   \
        __builtin_memcpy(to, from, k * sizeof(T));                                                            \
        return;
        CASE(4) CASE(7) CASE(8) CASE(14) CASE(16) CASE(28) CASE(32) CASE(56)
#undef CASE
    }
    for (int64_t i = 0; i < n; i++) to[i] = from[i];
}

typedef struct {
    int64_t y0, y1, x0, x1; /* the lines and columns of a phase that lie in the image */
} NAME(window_t);

/* First step whose place step * stride + offset is not below `edge`. */
INLINE int64_t NAME(reach)(int64_t edge, int64_t offset, int64_t stride) {
    return edge <= offset ? 0 : (edge - offset + stride - 1) / stride;
}

INLINE NAME(window_t) NAME(window)(const conv_plan_t *p, int64_t phase) {
    int64_t a = p->phase[2 * phase], b = p->phase[2 * phase + 1];
    NAME(window_t) w = {
        NAME(reach)(p->top, a, p->stride_y), NAME(reach)(p->top + p->height, a, p->stride_y),
        NAME(reach)(p->left, b, p->stride_x), NAME(reach)(p->left + p->width, b, p->stride_x)};
    if (w.y1 > p->lines) w.y1 = p->lines; /* what lies behind is read by no output */
    if (w.x1 > p->columns) w.x1 = p->columns;
    return w;
}

/* Pack rows [r0, r1) of `samples` images into `to`. */
static void NAME(pack_x)(const conv_plan_t *p, const T *from, int64_t samples, T *to, int64_t r0, int64_t r1) {
    const int64_t image = p->height * p->width;
    for (int64_t r = r0; r < r1; r++) {
        int64_t channel = r / p->phases, phase = r % p->phases;
        NAME(window_t) w = NAME(window)(p, phase);
        int64_t dy = p->phase[2 * phase] - p->top, dx = p->phase[2 * phase + 1] - p->left;
        int64_t n = w.x1 - w.x0;
        T *row = to + r * p->row;
        __builtin_memset(row, 0, p->row * sizeof(T));
        for (int64_t s = 0; s < samples; s++) {
            const T *source = from + (s * p->channels + channel) * image;
            T *grid = row + s * p->grid_height * p->grid_width;
            for (int64_t y = w.y0; y < w.y1; y++) {
                const T *line = source + (y * p->stride_y + dy) * p->width + w.x0 * p->stride_x + dx;
                T *out = grid + y * p->grid_width + w.x0;
                if (p->stride_x == 1)
                    NAME(copy)(out, line, n);
                else
                    for (int64_t x = 0; x < n; x++) out[x] = line[x * p->stride_x];
            }
        }
    }
}

/* The reverse: write rows [r0, r1) of packed gradients to the images. */
static void NAME(unpack_x)(const conv_plan_t *p, const T *from, int64_t samples, T *to, int64_t r) {
    const int64_t image = p->height * p->width;
    int64_t channel = r / p->phases, phase = r % p->phases;
    NAME(window_t) w = NAME(window)(p, phase);
    int64_t dy = p->phase[2 * phase] - p->top, dx = p->phase[2 * phase + 1] - p->left;
    int64_t n = w.x1 - w.x0;
    for (int64_t s = 0; s < samples; s++) {
        T *target = to + (s * p->channels + channel) * image;
        const T *grid = from + s * p->grid_height * p->grid_width;
        for (int64_t y = w.y0; y < w.y1; y++) {
            T *line = target + (y * p->stride_y + dy) * p->width + w.x0 * p->stride_x + dx;
            const T *in = grid + y * p->grid_width + w.x0;
            if (p->stride_x == 1)
                NAME(copy)(line, in, n);
            else
                for (int64_t x = 0; x < n; x++) line[x * p->stride_x] = in[x];
        }
    }
}

/* Pack output gradients of channels [r0, r1), and sum them up for the bias. */
static void NAME(pack_dy)(const conv_plan_t *p, const T *from, int64_t samples, T *to, T *dbias, int64_t r0,
                          int64_t r1) {
    const int64_t image = p->out_height * p->out_width, length = p->lead + p->row;
    for (int64_t r = r0; r < r1; r++) {
        T *row = to + r * length + p->lead, total = 0;
        __builtin_memset(row - p->lead, 0, length * sizeof(T));
        for (int64_t s = 0; s < samples; s++) {
            const T *source = from + (s * p->out + r) * image;
            T *grid = row + s * p->grid_height * p->grid_width;
            for (int64_t y = 0; y < p->out_height; y++)
                NAME(copy)(grid + y * p->grid_width, source + y * p->out_width, p->out_width);
            if (dbias) {
                cvec sum = {0};
                T rest = 0;
                int64_t i = 0;
                for (; i + L <= image; i += L) sum += *(const cvec *)(source + i);
                for (; i < image; i++) rest += source[i];
                total += NAME(conv_total)(sum) + rest;
            }
        }
        if (dbias) dbias[r] += total;
    }
}

/* Elements of the packed output of `samples` images, up to the last that is an output. */
INLINE int64_t NAME(extent)(const conv_plan_t *p, int64_t samples) {
    return ((samples - 1) * p->grid_height + p->out_height - 1) * p->grid_width + p->out_width;
}

/* ---- forward ------------------------------------------------------------------------------------------ */

INLINE void NAME(conv_row)(const int nv, const conv_plan_t *p, const T *values, T start, const T *x, T *y,
                           int64_t j, int64_t end) {
    cvec acc[CONV_WIDEST], odd[CONV_WIDEST];
#pragma GCC unroll 8
    for (int i = 0; i < nv; i++) {
        acc[i] = (cvec){0} + start;
        odd[i] = (cvec){0};
    }
    if (nv < 4) { /* few vectors: two chains hide the latency of the additions */
        for (; j + 2 <= end; j += 2) {
            const T *a = x + p->place[j], *b = x + p->place[j + 1];
#pragma GCC unroll 8
            for (int i = 0; i < nv; i++) {
                acc[i] += values[j] * *(const cvec *)(a + i * L);
                odd[i] += values[j + 1] * *(const cvec *)(b + i * L);
            }
        }
    }
    for (; j < end; j++) {
        const T *a = x + p->place[j];
        T v = values[j];
#pragma GCC unroll 8
        for (int i = 0; i < nv; i++) acc[i] += v * *(const cvec *)(a + i * L);
    }
#pragma GCC unroll 8
    for (int i = 0; i < nv; i++) *(cvec *)(y + i * L) = acc[i] + odd[i];
}

static void NAME(conv_rows)(int nv, const conv_t *job, const T *x, T *y, int64_t r0, int64_t r1) {
    const conv_plan_t *p = &job->plan;
    const T *values = job->values, *bias = job->bias;
#define CASE(k)                                                                                               \
    case k:                                                                                                   \
        for (int64_t r = r0; r < r1; r++)                                                                     \
            NAME(conv_row)(k, p, values, bias ? bias[r] : 0, x, y + r * (p->lead + p->row), p->rowptr[r],     \
                           p->rowptr[r + 1]);                                                                 \
        return;
    switch (nv) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
}

static void NAME(conv_forward)(void *arg, int tid, int team, barrier_t *meet) {
    const conv_t *job = arg;
    const conv_plan_t *p = &job->plan;
    int64_t r0 = conv_split(p->rowptr, p->out, tid, team), r1 = conv_split(p->rowptr, p->out, tid + 1, team);
    int64_t c0 = conv_part(p->planes, tid, team), c1 = conv_part(p->planes, tid + 1, team);
    const int64_t image = p->channels * p->height * p->width, out_image = p->out_height * p->out_width;
    T *packed_y = job->packed_y;
    for (int64_t s0 = 0; s0 < job->batch; s0 += p->group) {
        int64_t samples = job->batch - s0 < p->group ? job->batch - s0 : p->group;
        if (s0) pool_meet(meet); /* nobody reads the group before any more */
        NAME(pack_x)(p, (const T *)job->x + s0 * image, samples, job->packed_x, c0, c1);
        pool_meet(meet);
        int64_t vectors = (NAME(extent)(p, samples) + L - 1) / L;
        int64_t tiles = (vectors + CONV_WIDEST - 1) / CONV_WIDEST;
        for (int64_t t = 0; t < tiles; t++) {
            int64_t v0 = conv_part(vectors, t, tiles), v1 = conv_part(vectors, t + 1, tiles);
            NAME(conv_rows)((int)(v1 - v0), job, (const T *)job->packed_x + v0 * L, packed_y + v0 * L, r0, r1);
        }
        for (int64_t s = 0; s < samples; s++)
            for (int64_t r = r0; r < r1; r++) {
                T *to = (T *)job->y + ((s0 + s) * p->out + r) * out_image;
                const T *from = packed_y + r * (p->lead + p->row) + s * p->grid_height * p->grid_width;
                for (int64_t y = 0; y < p->out_height; y++)
                    NAME(copy)(to + y * p->out_width, from + y * p->grid_width, p->out_width);
            }
    }
}

/* ---- backward ----------------------------------------------------------------------------------------- */

INLINE void NAME(conv_column)(const int nv, const int want_dx, const int want_dv, const conv_plan_t *p,
                              const T *values, const T *x_row, const T *dy, T *dx_row, T *dvalues, int64_t k,
                              int64_t end) {
    cvec x[CONV_WIDEST], dx[CONV_WIDEST];
#pragma GCC unroll 8
    for (int i = 0; i < nv; i++) {
        if (want_dv) x[i] = *(const cvec *)(x_row + i * L);
        dx[i] = (cvec){0};
    }
    for (; k + 2 <= end; k += 2) {
        const T *a = dy + p->back[k], *b = dy + p->back[k + 1];
        int64_t ja = p->perm[k], jb = p->perm[k + 1];
        T va = want_dx ? values[ja] : 0, vb = want_dx ? values[jb] : 0;
        cvec da = {0}, db = {0};
#pragma GCC unroll 8
        for (int i = 0; i < nv; i++) {
            cvec ea = *(const cvec *)(a + i * L), eb = *(const cvec *)(b + i * L);
            if (want_dv) da += ea * x[i];
            if (want_dv) db += eb * x[i];
            if (want_dx) dx[i] += va * ea;
            if (want_dx) dx[i] += vb * eb;
        }
        if (want_dv) dvalues[ja] += NAME(conv_total)(da);
        if (want_dv) dvalues[jb] += NAME(conv_total)(db);
    }
    if (k < end) {
        const T *a = dy + p->back[k];
        int64_t j = p->perm[k];
        T v = want_dx ? values[j] : 0;
        cvec d = {0};
#pragma GCC unroll 8
        for (int i = 0; i < nv; i++) {
            cvec e = *(const cvec *)(a + i * L);
            if (want_dv) d += e * x[i];
            if (want_dx) dx[i] += v * e;
        }
        if (want_dv) dvalues[j] += NAME(conv_total)(d);
    }
#pragma GCC unroll 8
    for (int i = 0; i < nv; i++)
        if (want_dx) *(cvec *)(dx_row + i * L) = dx[i];
}

/* One packed row of the input: all its tiles. dx may take the place of x. */
static void NAME(conv_plane)(const conv_t *job, int64_t c, int64_t vectors, const T *x, T *dx) {
    const conv_plan_t *p = &job->plan;
    const T *dy = job->packed_y;
    int kind = (job->dx ? 1 : 0) + (job->dvalues ? 2 : 0);
    int64_t tiles = (vectors + CONV_WIDEST - 1) / CONV_WIDEST, k = p->colptr[c], end = p->colptr[c + 1];
    for (int64_t t = 0; t < tiles; t++) {
        int64_t v0 = conv_part(vectors, t, tiles), v1 = conv_part(vectors, t + 1, tiles);
        switch ((v1 - v0) * 4 + kind) {
#define ONE(n, want_dx, want_dv)                                                                              \
    case n * 4 + want_dx + 2 * want_dv:                                                                       \
        NAME(conv_column)(n, want_dx, want_dv, p, job->values, x + v0 * L, dy + v0 * L, dx + v0 * L,          \
                          job->dvalues, k, end);                                                              \
        break;
#define CASE(n) ONE(n, 1, 0) ONE(n, 0, 1) ONE(n, 1, 1)
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
#undef ONE
        }
    }
}

static void NAME(conv_backward)(void *arg, int tid, int team, barrier_t *meet) {
    const conv_t *job = arg;
    const conv_plan_t *p = &job->plan;
    int64_t r0 = conv_part(p->out, tid, team), r1 = conv_part(p->out, tid + 1, team);
    int64_t c0 = conv_split(p->colptr, p->planes, tid, team);
    int64_t c1 = conv_split(p->colptr, p->planes, tid + 1, team);
    const int64_t image = p->channels * p->height * p->width;
    T *packed_x = job->packed_x;
    for (int64_t s0 = 0; s0 < job->batch; s0 += p->group) {
        int64_t samples = job->batch - s0 < p->group ? job->batch - s0 : p->group;
        if (s0) pool_meet(meet);
        NAME(pack_dy)(p, (const T *)job->dy + s0 * p->out * p->out_height * p->out_width, samples,
                      job->packed_y, job->dbias, r0, r1);
        pool_meet(meet);
        if (!job->dx && !job->dvalues) continue;
        int64_t vectors = p->row / L;
        for (int64_t c = c0; c < c1; c++) {
            T *row = packed_x + c * p->row;
            if (job->dvalues) NAME(pack_x)(p, (const T *)job->x + s0 * image, samples, packed_x, c, c + 1);
            NAME(conv_plane)(job, c, vectors, row, row);
            if (job->dx) NAME(unpack_x)(p, row, samples, (T *)job->dx + s0 * image, c);
        }
    }
}

#undef cvec
#undef L
#undef INLINE
