/* The kernels for avx512. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi,bmi2")
#endif
#include <immintrin.h>
#include <math.h>

#include "common.h"

#define ISA 2
#define VB 64
#define T float
#define F32 1
#define INT int32_t
#define NAME(x) x##_f32_avx512
#include "tile.h"
#undef VB
#undef T
#undef F32
#undef INT
#undef NAME

#define VB 64
#define T double
#define F32 0
#define INT int64_t
#define NAME(x) x##_f64_avx512
#include "tile.h"

const isa_t isa_avx512 = {
    "avx512",
    {64 / sizeof(float), 64 / sizeof(double)},
    {forward_f32_avx512, forward_f64_avx512},
    {backward_f32_avx512, backward_f64_avx512},
    {step_f32_avx512, step_f64_avx512},
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int regraft_no_avx512;
#endif
