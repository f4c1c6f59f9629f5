"""Network files: what is written comes back, damage ends in one sentence, nothing is left half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft import container
from regraft.errors import FileError, InputError, MismatchError
from regraft.files import (
    FORMAT,
    Header,
    NetworkFile,
    atomic_write,
    index_dtype,
    read_network,
    sha256,
    write_network,
)

HEADER = Header(
    shapes={"0.weight": (2, 3)}, model={"name": "mlp"}, provenance={"seed": 3, "from": ["a", None]}
)


def tensors() -> dict[str, torch.Tensor]:
    return {
        "0.weight.index": torch.tensor([1, 2, 5]),
        "0.weight.values": torch.tensor([0.5, -1.0, 2.0]),
        "0.bias": torch.tensor([1.0, 2.0], dtype=torch.float64),
        "1.running_mean": torch.zeros(3, dtype=torch.bfloat16),
        "1.num_batches_tracked": torch.tensor(7),
        "1.flags": torch.tensor([[True, False]]),
        "1.empty": torch.empty(0, 4, dtype=torch.float16),
    }


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "n.safetensors"
    write_network(path, tensors(), HEADER)
    return path


def parts(path: Path) -> tuple[dict[str, object], bytes]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def put(path: Path, table: object, data: bytes) -> Path:
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_what_is_written_comes_back(written: Path) -> None:
    back, header = read_network(written)
    assert list(back) == list(tensors())
    for name, tensor in tensors().items():
        assert torch.equal(back[name], tensor), name
        assert back[name].dtype == tensor.dtype, name
    assert (header.shapes, header.model, header.provenance) == (
        HEADER.shapes,
        HEADER.model,
        HEADER.provenance,
    )
    assert header.format == FORMAT
    assert set(header.versions) == {"regraft", "torch", "python"}


def test_the_safetensors_package_reads_the_file(written: Path) -> None:
    theirs = safetensors.torch.load_file(written)
    assert theirs["0.weight.index"].dtype == torch.int32
    assert torch.equal(theirs["0.weight.values"], tensors()["0.weight.values"])
    assert int(theirs["1.num_batches_tracked"]) == 7


def test_the_same_network_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_network(tmp_path / "again", tensors(), HEADER)
    assert sha256(tmp_path / "again") == sha256(written)


def test_positions_are_narrow_where_they_fit() -> None:
    assert index_dtype(2**31 - 1) == torch.int32
    assert index_dtype(2**31) == torch.int64


def test_wide_positions_survive(tmp_path: Path) -> None:
    shape, last = (2**20, 2**20), 2**40 - 1
    write_network(
        tmp_path / "w",
        {"w.index": torch.tensor([0, last]), "w.values": torch.ones(2)},
        Header(shapes={"w": shape}),
    )
    assert read_network(tmp_path / "w")[0]["w.index"].tolist() == [0, last]


def test_slices_read_only_what_is_asked(written: Path) -> None:
    with NetworkFile(written) as file:
        assert file.nnz == {"0.weight": 3}
        assert set(file.plain) == set(tensors()) - {"0.weight.index", "0.weight.values"}
        assert file.read_slice("0.weight.index", 1, 3).tolist() == [2, 5]
        assert file.read_slice("0.weight.values", 1, 2).tolist() == [-1.0]
        assert file.read_slice("0.weight.values", 3, 3).tolist() == []
        with pytest.raises(InputError, match=r"cannot read \[1, 4\)"):
            file.read_slice("0.weight.values", 1, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight.index": torch.tensor([2, 1, 5])}, "not strictly increasing"),
        ({"0.weight.index": torch.tensor([1, 2, 6])}, "must be in"),
        ({"0.weight.values": torch.tensor([1.0, float("nan"), 2.0])}, "NaN or infinite"),
        ({"0.bias": torch.tensor([float("inf")])}, "'0.bias' holds NaN or infinite"),
        ({"0.weight.values": torch.tensor([1.0])}, "one floating point number for each"),
        ({"0.weight.values": torch.tensor([1, 2, 3])}, "one floating point number for each"),
        ({"1.flags": torch.zeros(2, dtype=torch.complex64)}, "a network file cannot hold"),
    ],
)
def test_nothing_is_written_of_a_bad_network(
    tmp_path: Path, change: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises((InputError, MismatchError), match=message):
        write_network(tmp_path / "n", tensors() | change, HEADER)
    assert os.listdir(tmp_path) == []


def test_missing_tensors_and_plain_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its tensors are missing"):
        write_network(tmp_path / "n", {}, HEADER)
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_network(tmp_path / "n", tensors(), Header(HEADER.shapes, provenance={"x": float("nan")}))
    assert os.listdir(tmp_path) == []


def test_optimizer_state_may_be_infinite(tmp_path: Path) -> None:
    state = {"best": torch.tensor(float("inf"))}
    write_network(tmp_path / "s", state, Header(), finite=False)
    assert read_network(tmp_path / "s", finite=False)[0]["best"] == float("inf")
    with pytest.raises(FileError, match="NaN or infinite values in 'best'"):
        read_network(tmp_path / "s")


def test_a_failed_write_leaves_the_old_file(written: Path) -> None:
    before = sha256(written)

    def fail() -> None:
        with atomic_write(written) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sha256(written) == before
    assert os.listdir(written.parent) == [written.name]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="its folder does not exist"), atomic_write(tmp_path / "no" / "n"):
        pass
    with pytest.raises(FileError, match="it is a folder"), atomic_write(tmp_path):
        pass


def test_a_link_keeps_pointing_at_its_file(written: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(written)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert written.read_bytes() == b"new"


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot open '.*gone': No such file"):
        NetworkFile(tmp_path / "gone")
    with pytest.raises(FileError, match="Is a directory"):
        NetworkFile(tmp_path)
    for content in (b"", b"short", b"PK\x03\x04 a zip file of torch.save", b"\xff" * 64):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(FileError, match="is not a network file"):
            NetworkFile(tmp_path / "x")
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "s")
    with pytest.raises(FileError, match="but not a network of regraft"):
        NetworkFile(tmp_path / "s")


def test_truncation_is_told_at_every_length(written: Path) -> None:
    raw = written.read_bytes()
    for length in range(len(raw)):
        written.write_bytes(raw[:length])
        with pytest.raises(FileError, match="truncated" if length > 8 else "not a network file"):
            read_network(written)


def test_bytes_after_the_end(written: Path) -> None:
    with open(written, "ab") as file:
        file.write(b"more")
    with pytest.raises(FileError, match="4 bytes follow its last tensor"):
        NetworkFile(written)


def test_a_file_that_shrinks_while_it_is_open(written: Path) -> None:
    with NetworkFile(written) as file:
        os.truncate(written, written.stat().st_size - 3)
        with pytest.raises(FileError, match="truncated"):
            [file.read(name) for name in file.entries]


def edited(**changes: object) -> dict[str, object]:
    raw = {"format": 1, "shapes": {"w": [2, 3]}, "model": None, "provenance": {}, "versions": {}}
    return raw | changes


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (edited(format=FORMAT + 1), "upgrade regraft"),
        (edited(format=True), "no format number"),
        (edited(format=0), "no format number"),
        ([], "no format number"),
        (edited(shapes=[1]), "no valid shapes"),
        (edited(shapes={"w": [2, -3]}), "no valid shapes"),
        (edited(shapes={"w": [2**40, 2**40]}), "no valid shapes"),
        (edited(shapes={"v": [2, 3]}), "positions or the values of 'v' are missing"),
        (edited(shapes={"w": [1, 1]}), "do not fit its shape"),
        (edited(model="mlp"), "malformed"),
        (edited(provenance=None), "malformed"),
    ],
)
def test_bad_headers(tmp_path: Path, header: object, message: str) -> None:
    path = tmp_path / "n"
    data = {"w.index": torch.tensor([1, 5]), "w.values": torch.ones(2)}
    safetensors.torch.save_file(data, path, {"regraft": json.dumps(header)})
    with pytest.raises(FileError, match=message):
        read_network(path)


@pytest.mark.parametrize(
    ("index", "message"),
    [([5, 1], "increasing"), ([1, 1], "increasing"), ([1, 6], "position 6"), ([-1, 2], "position -1")],
)
@pytest.mark.parametrize("step", [1, 2])
def test_bad_positions_are_found_whole_and_in_slices(
    tmp_path: Path, index: list[int], message: str, step: int
) -> None:
    path = tmp_path / "n"
    data = {"w.index": torch.tensor(index, dtype=torch.int32), "w.values": torch.ones(2)}
    safetensors.torch.save_file(data, path, {"regraft": json.dumps(edited())})
    with NetworkFile(path) as file, pytest.raises(FileError, match=message):
        [file.read_slice("w.index", start, start + step) for start in range(0, 2, step)]


@pytest.mark.parametrize(
    "table",
    [
        {"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        {"w": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}},
        {"w": 3},
        {
            "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "v": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
        },
    ],
)
def test_bad_tables(tmp_path: Path, table: dict[str, object]) -> None:
    table = {"__metadata__": {"regraft": json.dumps(edited(shapes={}))}} | table
    with pytest.raises(FileError, match="corrupt"):
        NetworkFile(put(tmp_path / "n", table, b"\0" * 4))


@pytest.mark.parametrize(
    "text",
    [b'{"a":1,"a":2}', b"{" * 100_000, b'{"a": NaN}', b'{"\xff": 1}', b'{"a": ' + b"9" * 5000 + b"}", b"{}x"],
)
def test_bad_json(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "n"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FileError, match="not valid JSON"):
        NetworkFile(path)


def test_a_forged_header_length_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(FileError, match="not a network file"):
        NetworkFile(path)
    path.write_bytes((container.MAX_HEADER).to_bytes(8, "little") + b"{}")
    with pytest.raises(FileError, match="truncated"):
        NetworkFile(path)


FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(content=st.binary(max_size=200))
def test_random_bytes_end_in_a_file_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FileError):
        read_network(tmp_path / "x")


KEYS = st.sampled_from(["w", "__metadata__", "regraft", "dtype", "shape", "data_offsets"])
TABLES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(KEYS, inner | st.lists(inner, max_size=3)),
    max_leaves=12,
)


@FUZZ
@given(text=TABLES)
def test_random_tables_end_in_a_file_error(tmp_path: Path, text: object) -> None:
    with pytest.raises(FileError):
        read_network(put(tmp_path / "x", text, b"\0" * 8))


@FUZZ
@given(data=st.data())
def test_flipped_bits_end_in_a_file_error_or_in_a_valid_network(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x"
    write_network(path, tensors(), HEADER)
    raw = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=3)):
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(raw))
    try:
        back, header = read_network(path)
    except FileError:
        return
    write_network(path, back, header)  # whatever was let through is a network that can be written again
