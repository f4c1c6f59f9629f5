/* The search for avx512 with bfloat16. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma,bmi,bmi2")
#endif
#include <immintrin.h>

#include "search.h"

#define PAIRS
#define VB 64
#define TM 12
#define NAME(x) x##_bf16
#define MASK(v, least) _mm512_cmp_ps_mask((__m512)(v), (__m512)(least), _CMP_GE_OQ)
#include "search_tile.h"

const search_isa_t search_bf16 = {walk_bf16, NULL, TM, 2 * VB / sizeof(float)};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int regraft_no_search_bf16;
#endif
