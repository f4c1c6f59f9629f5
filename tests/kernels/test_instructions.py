"""One wheel for every x86-64: newer instructions stand only in functions that are chosen at run time."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import regraft

LIBRARIES = sorted((Path(regraft.__file__).parent / "kernels").glob("*.so"))
CHOSEN = re.compile(r"avx2|avx512|bf16")  # in the name of each function for such processors
# AVX and later: wide registers, masks, FMA; then BMI, without tzcnt, which older processors take for bsf
NEWER = re.compile(
    r"%[yz]mm|%k[1-7]\b|\tv[a-z0-9]+ "
    r"|\t(?:andn|bextr|bls[ir]|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx)[lq]? "
)


def functions(library: Path) -> dict[str, str]:
    """Instructions of each function of a library, as objdump writes them."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    parts = re.split(r"^[0-9a-f]+ <(.+)>:$", told, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86-64")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump here")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_only_functions_chosen_at_run_time_use_newer_instructions(library: Path) -> None:
    found = functions(library)
    if not any(CHOSEN.search(name) for name in found):
        pytest.skip("the library has no names of its functions: it is stripped, as in a wheel")
    newer = {name for name, text in found.items() if NEWER.search(text)}
    assert {name for name in newer if CHOSEN.search(name)}, "the kernels for newer processors do not use them"
    assert {name for name in newer if not CHOSEN.search(name)} == set()
