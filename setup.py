"""The optional compiled kernels; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

SOURCES = "src/regraft/kernels/csrc/"

native = Extension(
    "regraft.kernels._native",
    sources=[
        SOURCES + name
        for name in (
            "module.c",
            "pool.c",
            "plan.c",
            "rewire.c",
            "isa_baseline.c",
            "isa_avx2.c",
            "isa_avx512.c",
        )
    ],
    depends=[
        SOURCES + name for name in ("common.h", "fused.h", "mlp.h", "pack.h", "pool.h", "rewire.h", "tile.h")
    ],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
    # -ffast-math would switch the whole process to flush-to-zero when linked: only its harmless parts here
    extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
    extra_link_args=["-pthread"],
    optional=True,  # without a compiler the package installs all the same and computes through torch
)

conv = Extension(
    "regraft.kernels._conv",
    sources=[
        SOURCES + name
        for name in ("conv_module.c", "pool.c", "conv_baseline.c", "conv_avx2.c", "conv_avx512.c")
    ],
    depends=[SOURCES + name for name in ("conv.h", "pool.h", "conv_tile.h")],
    define_macros=native.define_macros,
    py_limited_api=True,
    extra_compile_args=native.extra_compile_args,
    extra_link_args=native.extra_link_args,
    optional=True,
)

search = Extension(
    "regraft.kernels._search",
    sources=[
        SOURCES + name
        for name in (
            "search_module.c",
            "search.c",
            "pool.c",
            "search_baseline.c",
            "search_avx2.c",
            "search_avx512.c",
            "search_bf16.c",
        )
    ],
    depends=[SOURCES + name for name in ("search.h", "pool.h", "search_pack.h", "search_tile.h")],
    define_macros=native.define_macros,
    py_limited_api=True,
    extra_compile_args=native.extra_compile_args,
    extra_link_args=native.extra_link_args,
    optional=True,
)

setup(ext_modules=[native, conv, search], options={"bdist_wheel": {"py_limited_api": "cp311"}})
