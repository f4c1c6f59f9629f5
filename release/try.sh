#!/usr/bin/env bash
# Install what release/build.sh made as a stranger would, and use it, away from the checkout: `make wheel`.
#
#     release/try.sh [DIST] [PYTHON]
#
# An empty environment gets the wheel and nothing that regraft does not ask for: it trains, merges, completes a TAB,
# and its types reach mypy. Then the sdist takes the wheel's place, without a compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
dist=$(realpath "${1:-dist}")
python=${2:-python3}
constraints=$PWD/constraints.txt
user=$PWD/release/user.py

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
export PATH="$place/venv/bin:$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
unset PYTHONPATH REGRAFT_ISA REGRAFT_KERNEL REGRAFT_BACKEND
install() { python -m pip install --quiet --disable-pip-version-check -c "$constraints" "$@"; }
cd "$place"

look() { # $1: what `regraft doctor` must say of the linear kernels
  python -c "import regraft; assert regraft.__file__.startswith('$place'), regraft.__file__"
  regraft --version
  regraft doctor --json doctor.json >/dev/null
  python - "$1" <<'CHECK'
import json
import sys

linear = json.load(open("doctor.json"))["kernels"]["linear"]
assert linear["agrees"] and linear["backend"] == sys.argv[1], linear
print("linear kernels:", linear["backend"], linear["isa"] or "")
CHECK
}

train() { # $1: seed
  regraft train --data digits --model mlp:64-100-10 --epochs 3 --seed "$1" --out "$1.safetensors" >/dev/null
}

install "$dist"/regraft-*.whl
python -m pip check
look native
train 0
train 1
regraft merge 0.safetensors 1.safetensors --out merged.safetensors >/dev/null
regraft evaluate merged.safetensors --data digits
install mypy
python -m mypy --strict "$user"
test "$(COMP_WORDS='regraft tra' COMP_CWORD=1 _REGRAFT_COMPLETE=bash_complete regraft)" = plain,train

python -m pip uninstall --quiet --yes regraft
CC=/bin/false install --no-deps "$dist"/regraft-*.tar.gz
look csr
train 2
regraft evaluate merged.safetensors --data digits
