#!/usr/bin/env bash
# Build the sdist of the last commit, and from it the wheel, into dist/, and look into both: `make wheel`.
#
#     release/build.sh VENV [DIST]      VENV holds the tools of release/requirements.txt
#
# The C code is compiled by gcc and linked against the symbols of an old glibc, which zig brings along, so that
# the wheel runs on any Linux since 2014 wherever it was built. zig only links: its own memcpy and memset would
# make a training step 1.8 times slower, so its runtime library is left out for gcc's.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(cd "$1/bin" && pwd)
dist=${2:-dist}

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
export CC="gcc -g0"
link="$tools/python -m ziglang cc -target $(uname -m)-linux-gnu.2.17 -shared -s"
export LDSHARED="$link -nostdlib -lc -lpthread -lm $(gcc -print-libgcc-file-name)"
export PATH="$tools:$PATH" # auditwheel looks for patchelf there

git diff --quiet HEAD || echo "note: what is not committed is not built" >&2

rm -rf "$dist"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
quietly() { "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; return 1; }; }

mkdir "$scratch/tree"
git archive HEAD | tar -x -C "$scratch/tree"
quietly python -m build --no-isolation --sdist --outdir "$scratch" "$scratch/tree"
python release/repack.py "$scratch"/regraft-*.tar.gz "$dist"
tar -xzf "$dist"/regraft-*.tar.gz -C "$scratch"
quietly python -m build --no-isolation --wheel --outdir "$scratch" "$scratch"/regraft-*/
quietly auditwheel repair --only-plat --wheel-dir "$dist" "$scratch"/regraft-*.whl

twine check --strict "$dist"/*
check-wheel-contents "$dist"/*.whl
abi3audit --strict --summary "$dist"/*.whl
python release/inspect_dist.py "$dist"
