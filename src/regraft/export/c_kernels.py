"""The C functions that an exported network is made of; only those that it uses are written.

Each is a piece of C99 with ``@`` for the network's name. The traversals of connections are written once and
filled in for the coding of places, the type of values and whether values carry a scale.
"""

from __future__ import annotations

from typing import NamedTuple

from regraft.export.pack import Packed

C_TYPES = {
    "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "int8": "int8_t",
    "float32": "float", "float16": "uint16_t",
}  # fmt: skip

HALF = """\
/* A float of 16 bits, kept in an integer: sign, 5 bits of exponent, 10 of fraction. */
static float @_half(uint16_t h) {
    union { uint32_t i; float f; } u, magic;
    u.i = (uint32_t)(h & 0x7fffu) << 13;
    magic.i = 0x77800000u; /* 2^112, which moves the exponent and makes subnormals normal */
    u.f *= magic.f;
    u.i |= (uint32_t)(h & 0x8000u) << 16;
    return u.f;
}
"""

ROWS = """\
/* y = W x + b, each output gathering its inputs. */
static void @_{name}(const float *restrict x, float *restrict y, int rows, const {count} *n, const {at} *at,
                     const {value} *v, const float *scale, const float *bias) {{
    int r;
    for (r = 0; r < rows; r++) {{
        float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
        uint32_t left = n[r];
        const float *p = x;
        for (; left >= 4; left -= 4, at += 4, v += 4) {{
            const float *p0 = {from} + at[0], *p1 = {from0} + at[1];
            const float *p2 = {from1} + at[2], *p3 = {from2} + at[3];
            a += {v0} * *p0;
            b += {v1} * *p1;
            c += {v2} * *p2;
            d += {v3} * *p3;
            p = p3;
        }}
        for (; left > 0; left--, at++, v++) {{
            p = {from} + at[0];
            a += {v0} * *p;
        }}
        y[r] = {total} + bias[r];
    }}
    (void)scale;
}}
"""

COLUMNS = """\
/* y = W x + b, each input spreading over its outputs; inputs that are zero cost nothing. */
static void @_{name}(const float *restrict x, float *restrict y, int rows, int columns, const {count} *n,
                     const {at} *at, const {value} *v, const float *scale, const float *bias) {{
    int r, c;
    uint32_t k;
    for (r = 0; r < rows; r++) y[r] = {start};
    for (c = 0; c < columns; c++) {{
        const float s = x[c];
        float *p = y;
        if (s != 0.0f) {{
            for (k = 0; k < n[c]; k++) {{
                p = {from} + at[k];
                *p += s * {vk};
            }}
        }}
        at += n[c];
        v += n[c];
    }}
{finish}    (void)scale;
}}
"""

DENSE = """\
/* y = W x + b with every connection present. */
static void @_{name}(const float *restrict x, float *restrict y, int rows, int columns, const {value} *v,
                     const float *scale, const float *bias) {{
    int r, c, j;
    for (r = 0; r < rows; r++) {{
        float a[8] = {{0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}};
        for (c = 0; c + 8 <= columns; c += 8)
            for (j = 0; j < 8; j++) a[j] += {vcj} * x[c + j];
        for (; c < columns; c++) a[0] += {vc} * x[c];
        y[r] = {total} + bias[r];
        v += columns;
    }}
    (void)scale;
}}
"""

GRID = """\
/* How a kernel walks over an image of `channels` x `h` x `w`. */
typedef struct {
    int channels, h, w, out, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h,
        dilation_w, groups, count_pad;
} @_grid;

/* The outputs [*from, *to) whose input at offset `off` lies within [0, n). */
static void @_range(int off, int stride, int n, int out, int *from, int *to) {
    *from = off < 0 ? (-off + stride - 1) / stride : 0;
    *to = off >= n ? 0 : (n - 1 - off) / stride + 1;
    if (*to > out) *to = out;
}
"""

CONV = """\
/* A convolution: each connection adds its shifted input plane to its output plane. */
static void @_{name}(const float *restrict x, float *restrict y, const @_grid *g, const {count} *n,
                     const {at} *at, const {value} *v, const float *scale, const float *bias) {{
    const int plane = g->out_h * g->out_w, window = g->kernel_h * g->kernel_w;
    const int per_group = g->channels / g->groups, out_per_group = g->out / g->groups;
    int o, i, j, y0, y1, x0, x1;
    uint32_t k;
    for (o = 0; o < g->out; o++, y += plane) {{
        const float *in = x + (o / out_per_group) * per_group * g->h * g->w;
        int place = 0;
        for (i = 0; i < plane; i++) y[i] = {start};
        for (k = 0; k < n[o]; k++) {{
            const float weight = {vk};
            {advance}
            const int off_y = place % window / g->kernel_w * g->dilation_h - g->pad_h;
            const int off_x = place % g->kernel_w * g->dilation_w - g->pad_w;
            const float *from = in + place / window * g->h * g->w;
            @_range(off_y, g->stride_h, g->h, g->out_h, &y0, &y1);
            @_range(off_x, g->stride_w, g->w, g->out_w, &x0, &x1);
            for (i = y0; i < y1; i++) {{
                const float *line = from + (i * g->stride_h + off_y) * g->w + off_x;
                float *to = y + i * g->out_w;
                if (g->stride_w == 1)
                    for (j = x0; j < x1; j++) to[j] += weight * line[j];
                else
                    for (j = x0; j < x1; j++) to[j] += weight * line[j * g->stride_w];
            }}
        }}
        at += n[o];
        v += n[o];
{finish}    }}
    (void)scale;
}}
"""

POOL = """\
/* The largest (kind 0) or the mean value (kind 1) under each window. */
static void @_pool(const float *x, float *y, const @_grid *g, int kind) {
    int c, i, j, ky, kx;
    for (c = 0; c < g->channels; c++, x += g->h * g->w)
        for (i = 0; i < g->out_h; i++)
            for (j = 0; j < g->out_w; j++) {
                float best = 0.0f, sum = 0.0f;
                int seen = 0;
                for (ky = 0; ky < g->kernel_h; ky++)
                    for (kx = 0; kx < g->kernel_w; kx++) {
                        const int row = i * g->stride_h + ky * g->dilation_h - g->pad_h;
                        const int column = j * g->stride_w + kx * g->dilation_w - g->pad_w;
                        if (row >= 0 && row < g->h && column >= 0 && column < g->w) {
                            const float value = x[row * g->w + column];
                            if (seen == 0 || value > best) best = value;
                            sum += value;
                            seen++;
                        }
                    }
                if (g->count_pad) seen = g->kernel_h * g->kernel_w;
                *y++ = kind == 0 ? best : sum / (float)seen;
            }
}
"""

SCALE = """\
static void @_scale(const float *x, float *y, int channels, int each, const float *factor,
                    const float *bias) {
    int c, i;
    for (c = 0; c < channels; c++)
        for (i = 0; i < each; i++, x++, y++) *y = *x * factor[c] + bias[c];
}
"""

ADD = """\
static void @_add(const float *x, const float *other, float *y, int n) {
    int i;
    for (i = 0; i < n; i++) y[i] = x[i] + other[i];
}
"""

COPY = """\
static void @_copy(const float *x, float *y, int n) {
    int i;
    for (i = 0; i < n; i++) y[i] = x[i];
}
"""

SOFTMAX = """\
static void @_softmax(const float *x, float *y, int n, int each) {
    int i, start;
    for (start = 0; start < n; start += each, x += each, y += each) {
        float top = x[0], sum = 0.0f;
        for (i = 1; i < each; i++)
            if (x[i] > top) top = x[i];
        for (i = 0; i < each; i++) sum += y[i] = expf(x[i] - top);
        for (i = 0; i < each; i++) y[i] /= sum;
    }
}
"""

_SIGMOID = "(v >= 0.0f ? 1.0f / (1.0f + expf(-v)) : expf(v) / (1.0f + expf(v)))"

ELEMENTWISE: dict[str, str] = {
    "relu": "v < 0.0f ? 0.0f : v",
    "relu6": "v < 0.0f ? 0.0f : (v > 6.0f ? 6.0f : v)",
    "leaky_relu": "v > 0.0f ? v : setting * v",
    "elu": "v > 0.0f ? v : setting * (expf(v) - 1.0f)",
    "sigmoid": _SIGMOID,
    "silu": f"v * {_SIGMOID}",
    "tanh": "v > 0.0f ? 2.0f / (1.0f + expf(-2.0f * v)) - 1.0f : 1.0f - 2.0f / (1.0f + expf(2.0f * v))",
}
"""Activations as an expression in the value ``v`` and one ``setting``."""

GELU = """\
/* x Phi(x), with the error function of Abramowitz and Stegun 7.1.26 (error below 1.5e-7). */
static void @_gelu(const float *x, float *y, int n, float setting) {
    int i;
    for (i = 0; i < n; i++) {
        const float v = x[i], z = (v < 0.0f ? -v : v) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
        float series = 1.421413741f + t * (-1.453152027f + t * 1.061405429f);
        series = t * (0.254829592f + t * (-0.284496736f + t * series));
        series *= 0.5f * expf(-z * z);
        y[i] = v * (v > 0.0f ? 1.0f - series : series);
    }
    (void)setting;
}
"""


def elementwise(op: str) -> str:
    """The C function of an activation that looks at one value at a time."""
    if op == "gelu":
        return GELU
    return (
        f"static void @_{op}(const float *x, float *y, int n, float setting) {{\n"
        "    int i;\n"
        "    for (i = 0; i < n; i++) {\n"
        "        const float v = x[i];\n"
        f"        y[i] = {ELEMENTWISE[op]};\n"
        "    }\n"
        "    (void)setting;\n"
        "}\n"
    )


class Kernel(NamedTuple):
    """A function for one coding: its name without the network's, and its text."""

    name: str
    text: str


def kernel_for(packed: Packed, *, conv: bool) -> Kernel:
    """The function that multiplies by a packed weight."""
    kind = str(packed.values.dtype)
    counts = C_TYPES[str(packed.counts.dtype)]
    places = C_TYPES[str(packed.at.dtype)]
    shape = "conv" if conv else packed.layout
    coding = "step" if packed.coding == "step" else f"place{packed.at.dtype.itemsize * 8}"
    name = f"{shape}_{coding}_n{packed.counts.dtype.itemsize * 8}_{kind}"
    if packed.layout == "dense":
        name = f"dense_{kind}"
    value = {"float32": "v[{}]", "float16": "@_half(v[{}])", "int8": "(float)v[{}]"}[kind]
    stepping, scaled = packed.coding == "step", kind == "int8"
    eight = "(a[0] + a[1] + a[2] + a[3] + (a[4] + a[5] + a[6] + a[7]))"
    each = eight if packed.layout == "dense" else "(a + b + (c + d))"
    fields = {
        "name": name, "count": counts, "at": places, "value": C_TYPES[kind],
        "vk": value.format("k"), "vc": value.format("c"), "vcj": value.format("c + j"),
        **{f"v{i}": value.format(i) for i in range(4)},
        **{f"from{i}": f"p{i}" if stepping else "x" for i in range(3)},
        "total": each + (" * scale[r]" if scaled else ""),
    }  # fmt: skip
    if conv:
        fields["start"] = "0.0f" if scaled else "bias[o]"
        fields["advance"] = "place += at[k];" if stepping else "place = at[k];"
        fields["finish"] = (
            "        for (i = 0; i < plane; i++) y[i] = y[i] * scale[o] + bias[o];\n" if scaled else ""
        )
        return Kernel(name, CONV.format(**fields))
    if packed.layout == "dense":
        return Kernel(name, DENSE.format(**fields))
    if packed.layout == "rows":
        return Kernel(name, ROWS.format(**{**fields, "from": "p" if stepping else "x"}))
    fields["from"] = "p" if stepping else "y"
    fields["start"] = "0.0f" if scaled else "bias[r]"
    fields["finish"] = "    for (r = 0; r < rows; r++) y[r] = y[r] * scale[r] + bias[r];\n" if scaled else ""
    return Kernel(name, COLUMNS.format(**fields))
