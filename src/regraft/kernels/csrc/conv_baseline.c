/* Sparse convolution for what every processor of the architecture has. */
#include "conv.h"

#define VB 16
#define T float
#define NAME(x) x##_f32_baseline
#include "conv_tile.h"
#undef T
#undef NAME

#define T double
#define NAME(x) x##_f64_baseline
#include "conv_tile.h"

const conv_isa_t conv_baseline = {
    {conv_forward_f32_baseline, conv_forward_f64_baseline},
    {conv_backward_f32_baseline, conv_backward_f64_baseline},
};
