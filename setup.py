"""The optional compiled kernels; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

SOURCES = "src/regraft/kernels/csrc/"

native = Extension(
    "regraft.kernels._native",
    sources=[
        SOURCES + name
        for name in ("module.c", "pool.c", "plan.c", "isa_baseline.c", "isa_avx2.c", "isa_avx512.c")
    ],
    depends=[SOURCES + name for name in ("common.h", "pool.h", "tile.h")],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
    # -ffast-math would switch the whole process to flush-to-zero when linked: only its harmless parts here
    extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
    extra_link_args=["-pthread"],
    optional=True,  # without a compiler the package installs all the same and computes through torch
)

setup(ext_modules=[native], options={"bdist_wheel": {"py_limited_api": "cp311"}})
