/* The kernels for what every processor of the architecture has (SSE2, NEON). */
#include <math.h>

#include "common.h"

#define ISA 0
#define VB 16
#define T float
#define F32 1
#define INT int32_t
#define NAME(x) x##_f32_baseline
#include "tile.h"
#undef VB
#undef T
#undef F32
#undef INT
#undef NAME

#define VB 32
#define T double
#define F32 0
#define INT int64_t
#define NAME(x) x##_f64_baseline
#include "tile.h"

const isa_t isa_baseline = {
    "baseline",
    {16 / sizeof(float), 32 / sizeof(double)},
    {forward_f32_baseline, forward_f64_baseline},
    {backward_f32_baseline, backward_f64_baseline},
    {step_f32_baseline, step_f64_baseline},
};
