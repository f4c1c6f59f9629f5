/* The search for what every processor of the architecture has. */
#include "search.h"

#define VB 16
#define TM 6
#define NAME(x) x##_baseline
#if defined(__SSE2__)
#include <immintrin.h>
#define MASK(v, least) _mm_movemask_ps(_mm_cmpge_ps((__m128)(v), (__m128)(least)))
#else
#define MASK(v, least)                                                                                        \
    ((v)[0] >= (least)[0] | ((v)[1] >= (least)[1]) << 1 | ((v)[2] >= (least)[2]) << 2 | ((v)[3] >= (least)[3]) << 3)
#endif
#include "search_tile.h"

const search_isa_t search_baseline = {walk_baseline, products_baseline, TM, 2 * VB / sizeof(float)};
