/* Sparse convolution for avx512. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi,bmi2")
#endif
#include "conv.h"

#define VB 64
#define T float
#define NAME(x) x##_f32_avx512
#include "conv_tile.h"
#undef T
#undef NAME

#define T double
#define NAME(x) x##_f64_avx512
#include "conv_tile.h"

const conv_isa_t conv_avx512 = {
    {conv_forward_f32_avx512, conv_forward_f64_avx512},
    {conv_backward_f32_avx512, conv_backward_f64_avx512},
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int regraft_no_conv_avx512;
#endif
