/* The kernels for avx2. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#endif
#include <immintrin.h>
#include <math.h>

#include "common.h"

#define ISA 1
#define VB 32
#define T float
#define F32 1
#define INT int32_t
#define NAME(x) x##_f32_avx2
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
#define NAME(x) x##_f64_avx2
#include "tile.h"

const isa_t isa_avx2 = {
    "avx2",
    {32 / sizeof(float), 32 / sizeof(double)},
    {forward_f32_avx2, forward_f64_avx2},
    {backward_f32_avx2, backward_f64_avx2},
    {step_f32_avx2, step_f64_avx2},
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int regraft_no_avx2;
#endif
