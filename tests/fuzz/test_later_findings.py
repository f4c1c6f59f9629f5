"""What the fuzzer found among the later of its million inputs, each as the smallest input that shows it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

import regraft
from regraft import SparseLinear, SparseWeight
from regraft.data.folder import _header, _webp_size, read_folder
from regraft.data.idx import read_idx
from regraft.data.unpickle import read_pickle
from regraft.errors import FileError, InputError, RegraftError
from regraft.federated import state as federation_state
from regraft.kernels import plan
from regraft.studies.folder import read as read_result
from regraft.studies.grid.read import read_grid
from regraft.train.optimizers import parse_options


def test_a_bias_of_whole_numbers_is_refused() -> None:
    weight = SparseWeight((2, 3), torch.tensor([0, 4]), torch.ones(2))
    with pytest.raises(InputError, match=r"bias is of type torch\.int64, but must be floating point"):
        SparseLinear(weight, torch.tensor([1, 2]))


@pytest.mark.parametrize("options", ["text", 3, [1], None])
def test_options_of_a_federation_that_are_no_table(options: object, tmp_path: Path) -> None:
    model = regraft.sparsify(torch.nn.Sequential(torch.nn.Linear(4, 3)), 0.5)
    path = tmp_path / "round-000001.safetensors"
    regraft.save(model, path, provenance={"federation": {"history": [], "config": options}})
    with pytest.raises(RegraftError, match="its options are damaged"):
        federation_state.load(tmp_path, model, {})


@pytest.mark.parametrize("name", ["null", "3", "[a, b]", "2020-01-01", "1.5"])
def test_a_part_of_a_grid_with_a_name_of_another_type(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n? {name}\n: 5\n")
    with pytest.raises(RegraftError):
        read_grid(path)


@pytest.mark.parametrize(
    "damage", [{"seconds": 10**19}, {"seconds": -1}, {"step": "\ud800"}, {"started": "\ud800"}]
)
def test_results_that_no_database_can_hold(damage: dict[str, object], tmp_path: Path) -> None:
    good = {
        "key": "ab",
        "step": "train",
        "config": {},
        "rows": [],
        "epochs": [],
        "seconds": 1.0,
        "started": "",
    }
    (tmp_path / "result.json").write_text(json.dumps(good))
    assert read_result(tmp_path) is not None
    (tmp_path / "result.json").write_text(json.dumps(good | damage))
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytes\ns.",
        b"\x80\x02}X\x01\x00\x00\x00a]c__builtin__\nbytes\nas.",
        b"\x80\x02}X\x01\x00\x00\x00acnumpy\nndarray\ns.",
    ],
)
def test_a_function_in_the_place_of_data(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "train").write_bytes(data)
    with pytest.raises(FileError, match="a function or a type in the place of data"):
        read_pickle(tmp_path / "train")


def webp(kind: bytes, at: int, number: int) -> bytes:
    head = bytearray(b"RIFF\x80\x00\x00\x00WEBP" + kind + bytes(132))
    head[at : at + 8] = number.to_bytes(8, "little")
    return bytes(head)


@pytest.mark.parametrize(
    "data",
    [
        webp(b"VP8 ", 26, 16000 | 16000 << 16),
        webp(b"VP8L", 21, 15999 | 15999 << 14),
        webp(b"VP8X", 24, 15999 | 15999 << 24),
    ],
)
def test_a_webp_is_measured_before_its_decoder_makes_room(data: bytes, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "a.webp").write_bytes(data)
    with pytest.raises(FileError, match="is 16000 x 16000 pixels in 148 bytes, which no picture is"):
        _header(tmp_path / "a.webp")


def test_each_image_of_a_folder_is_measured(tmp_path: Path) -> None:
    """Also where the first is coloured, which settles the mode, and all are resized."""
    image = pytest.importorskip("PIL.Image")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    image.new("RGB", (7, 5), (1, 2, 3)).save(tmp_path / "a" / "1.webp")
    (tmp_path / "b" / "1.webp").write_bytes(webp(b"VP8X", 24, 15999 | 15999 << 24))
    with pytest.raises(FileError, match="which no picture is"):
        read_folder(tmp_path, 4)


def test_a_chunk_of_a_png_that_claims_four_gigabytes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image.new("RGB", (7, 5), (1, 2, 3)).save(tmp_path / name / "1.png")
    data = (tmp_path / "b" / "1.png").read_bytes()
    at = data.index(b"IDAT")
    (tmp_path / "b" / "1.png").write_bytes(data[: at - 4] + b"\xff\xff\xff\xf0" + data[at:])
    assert read_folder(tmp_path, 4).train.x.shape == (2, 3, 4, 4)  # decoders make room for what is there


def test_half_a_date_in_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: !!timestamp 2020-01\n")
    with pytest.raises(InputError, match="YAML that cannot be read"):
        read_grid(path)


def test_options_with_too_many_brackets() -> None:
    with pytest.raises(InputError, match="options look like"):
        parse_options("SGD:a=" + "[" * 100_000, "optimizer")


@pytest.mark.parametrize(("lossless", "size"), [(True, (7, 5)), (False, (40, 30))])
def test_the_size_of_a_webp_is_the_decoders(lossless: bool, size: tuple[int, int], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.webp"
    image.new("RGB", size, (1, 2, 3)).save(path, lossless=lossless)
    assert _webp_size(path.read_bytes()) == (size[1], size[0])
    assert _webp_size(b"\x89PNG") == (0, 0)


def test_a_promise_of_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 8, 0, 0, 0]) + bytes(2**20)))
    with pytest.raises(FileError, match=f"promises {2**27} bytes of shape .*, but holds only {2**20}"):
        read_idx(path, 1)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_plans_of_positions_of_other_types(dtype: torch.dtype) -> None:
    index = torch.tensor([0, 2, 4, 7])
    made, wanted = plan.build(index.to(dtype), 3, 3), plan.build(index, 3, 3)
    assert all(torch.equal(a, b) for a, b in zip(made.parts, wanted.parts, strict=True))
    with pytest.raises(InputError, match="one-dimensional"):
        plan.build(index.view(2, 2), 3, 3)
