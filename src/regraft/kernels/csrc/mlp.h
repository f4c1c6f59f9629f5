/* One step of training a plain MLP in one region: forward, loss, backward and SGD; gradients of two layers at most.
 * Included by tile.h, inside the same definitions. */

/* ---- losses: packed outputs z become their gradient ----------------------------------------------------- */

INLINE void NAME(cross_entropy)(T *z, int64_t w, int64_t rows, int64_t i, int64_t n, const int64_t *classes,
                                int64_t step, T share, double *losses) {
    vec top = *(vec *)(z + i), sum = {0};
    for (int64_t r = 1; r < rows; r++) {
        vec v = *(vec *)(z + r * w + i);
        top = NAME(choose)(v > top, v, top);
    }
    for (int64_t b = 0; b < n; b++) losses[b] = top[b] - z[classes[b * step] * w + i + b];
    for (int64_t r = 0; r < rows; r++) {
        vec *v = (vec *)(z + r * w + i);
        *v = NAME(exp)(*v - top);
        sum += *v;
    }
    vec scale = {0};
    for (int64_t b = 0; b < n; b++) {
        losses[b] += log((double)sum[b]);
        scale[b] = share / sum[b];
    }
    for (int64_t r = 0; r < rows; r++) *(vec *)(z + r * w + i) *= scale;
    for (int64_t b = 0; b < n; b++) z[classes[b * step] * w + i + b] -= share;
}

INLINE void NAME(squares)(T *z, int64_t w, int64_t rows, int64_t i, int64_t n, const T *target, int64_t step_b,
                          int64_t step_r, T share, double *losses) {
    for (int64_t b = 0; b < L; b++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) {
            T *v = z + r * w + i + b;
            T d = b < n ? *v - target[b * step_b + r * step_r] : 0;
            sum += (double)d * d;
            *v = 2 * share * d;
        }
        if (b < n) losses[b] = sum / rows;
    }
}

/* The loss of the vectors of samples that fall to this thread. */
static void NAME(loss)(const mlp_t *job, int tid, int team) {
    const mlp_layer_t *last = &job->layers[job->depth - 1];
    int64_t nvec = vectors(job->batch, L), rows = last->plan.rows;
    int64_t from = part(nvec, tid, team), to = part(nvec, tid + 1, team);
    for (int t = 0; t < job->tiles; t++) {
        int64_t v0 = part(nvec, t, job->tiles), v1 = part(nvec, t + 1, job->tiles), w = (v1 - v0) * L;
        T *z = (T *)last->out + NAME(place)(rows, 0, v0, v1);
        for (int64_t v = v0 > from ? v0 : from; v < v1 && v < to; v++) {
            int64_t b = v * L, n = job->batch - b < L ? job->batch - b : L;
            if (job->loss == LOSS_CROSS_ENTROPY)
                NAME(cross_entropy)(z, w, rows, (v - v0) * L, n,
                                    (const int64_t *)job->target.data + b * job->target.batch_stride,
                                    job->target.batch_stride, (T)(1.0 / job->batch), job->losses + b);
            else
                NAME(squares)(z, w, rows, (v - v0) * L, n,
                              (const T *)job->target.data + b * job->target.batch_stride,
                              job->target.batch_stride, job->target.feature_stride,
                              (T)(1.0 / ((double)job->batch * rows)), job->losses + b);
        }
    }
}

/* ---- the passes of one layer ----------------------------------------------------------------------------- */

static void NAME(step_forward)(const mlp_t *job, const mlp_layer_t *layer, const T *x, int tid, int team) {
    const plan_t *p = &layer->plan;
    int64_t nvec = vectors(job->batch, L);
    int64_t r0 = split(p->rowptr, p->rows, 1, tid, team), r1 = split(p->rowptr, p->rows, 1, tid + 1, team);
    for (int t = 0; t < job->tiles; t++) {
        int64_t v0 = part(nvec, t, job->tiles), v1 = part(nvec, t + 1, job->tiles), w = (v1 - v0) * L;
        const T *tile = x + NAME(place)(p->cols, 0, v0, v1);
        T *y = (T *)layer->out + NAME(place)(p->rows, 0, v0, v1);
        /* where a tile does not stay in the second cache while rows are gathered, three vectors of each at a time */
        int64_t strips = p->cols * VB * (v1 - v0) > SECOND_CACHE ? (v1 - v0 + 2) / 3 : 1;
        for (int64_t s = 0; s < strips; s++) {
            int64_t s0 = part(v1 - v0, s, strips), s1 = part(v1 - v0, s + 1, strips), at = s0 * L;
            /* a few rows at a time, so that the activation meets them in the first cache */
            for (int64_t r = r0; r < r1; r += TOGETHER) {
                int64_t end = r + TOGETHER < r1 ? r + TOGETHER : r1;
                NAME(forward_tile)(s1 - s0, p, layer->weight.value, layer->bias.value, tile + at, w, y + at, w,
                                   (s1 - s0) * L, r, end);
                if (layer->act != ACT_NONE || layer->drop > 0)
                    NAME(activate)(y + r * w + at, w, (s1 - s0) * L, r, end, v0 * L + at, layer);
            }
        }
    }
}

static void NAME(learn_bias)(const mlp_t *job, const mlp_layer_t *layer, int64_t r0, int64_t r1) {
    const sgd_t *s = &layer->bias;
    T *bias = s->value, *momentum = s->momentum;
    if (!bias) return;
    for (int64_t r = r0; r < r1; r++) {
        T g = NAME(row_sum)(layer->dout, layer->plan.rows, vectors(job->batch, L), job->tiles, r);
        g += (T)s->decay * bias[r];
        if (momentum) {
            T m = (T)s->beta * momentum[r] + g;
            momentum[r] = m;
            g = s->nesterov ? g + (T)s->beta * m : m;
        }
        bias[r] -= (T)s->rate * g;
    }
}

static void NAME(step_learn)(const mlp_t *job, int l, int tid, int team) {
    const mlp_layer_t *layer = &job->layers[l];
    NAME(learn)(&layer->weight, job->gradients[l % 2], part(layer->plan.nnz, tid, team),
                part(layer->plan.nnz, tid + 1, team));
}

/* Gradients of the values of `layer`; the one before the activation of `below` (NULL: the input) is left there. */
static void NAME(step_backward)(const mlp_t *job, const mlp_layer_t *layer, const mlp_layer_t *below,
                                const T *x, T *dvalues, int tid, int team) {
    const plan_t *p = &layer->plan;
    int64_t nvec = vectors(job->batch, L), steps = p->panels * job->tiles;
    int64_t c0 = split(p->colptr, p->cols, p->panels, tid, team);
    int64_t c1 = split(p->colptr, p->cols, p->panels, tid + 1, team);
    NAME(learn_bias)(job, layer, part(p->rows, tid, team), part(p->rows, tid + 1, team));
    for (int64_t step = 0; step < steps; step++) {
        int64_t panel = step / job->tiles, t = step % job->tiles;
        int64_t v0 = part(nvec, t, job->tiles), v1 = part(nvec, t + 1, job->tiles), w = (v1 - v0) * L;
        const NAME(fused_t) f = {
            .last_panel = panel == p->panels - 1,
            .act = below ? below->act : ACT_NONE,
            .drop = below ? below->drop : 0,
            .seed = below ? below->seed : 0,
            .b0 = v0 * L,
        };
        const NAME(columns_t) a = {
            .colptr = p->colptr + panel * p->cols,
            .row = p->row,
            .entries = p->nnz > FAR ? p->nnz : 0,
            .perm = p->perm,
            .values = layer->weight.value,
            .x = x + NAME(place)(p->cols, 0, v0, v1),
            .x_stride = w,
            .dy = (const T *)layer->dout + NAME(place)(p->rows, 0, v0, v1),
            .dx = below ? (T *)below->dout + NAME(place)(p->cols, 0, v0, v1) : NULL,
            .dvalues = dvalues,
            .dx_stride = w,
            .n = w,
            .dx_n = w,
            .first_tile = t == 0,
            .first_panel = panel == 0,
            .fused = below ? &f : NULL,
        };
        NAME(backward_tile)(v1 - v0, &a, c0, c1);
    }
}

static void NAME(step)(void *arg, int tid, int team, barrier_t *meet) {
    mlp_t *job = arg;
    int64_t inputs = job->layers[0].plan.cols;
    NAME(pack)(job->x, inputs, job->batch, job->tiles, job->input, part(inputs, tid, team),
               part(inputs, tid + 1, team));
    const T *x = job->input;
    for (int l = 0; l < job->depth; l++) {
        pool_meet(meet);
        NAME(step_forward)(job, &job->layers[l], x, tid, team);
        x = job->layers[l].out;
    }
    pool_meet(meet);
    NAME(loss)(job, tid, team);
    for (int l = job->depth - 1; l >= 0; l--) {
        pool_meet(meet);
        /* the other buffer of gradients is filled meanwhile */
        if (l + 1 < job->depth) NAME(step_learn)(job, l + 1, tid, team);
        NAME(step_backward)(job, &job->layers[l], l ? &job->layers[l - 1] : NULL,
                            l ? job->layers[l - 1].out : job->input, job->gradients[l % 2], tid, team);
    }
    pool_meet(meet);
    NAME(step_learn)(job, 0, tid, team);
    if (tid) return;
    job->result = 0;
    for (int64_t b = 0; b < job->batch; b++) job->result += job->losses[b] / job->batch;
}
