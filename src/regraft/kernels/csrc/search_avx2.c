/* The search for avx2. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#endif
#include <immintrin.h>

#include "search.h"

#define VB 32
#define TM 6
#define NAME(x) x##_avx2
#define MASK(v, least) _mm256_movemask_ps(_mm256_cmp_ps((__m256)(v), (__m256)(least), _CMP_GE_OQ))
#include "search_tile.h"

const search_isa_t search_avx2 = {walk_avx2, products_avx2, TM, 2 * VB / sizeof(float)};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int regraft_no_search_avx2;
#endif
