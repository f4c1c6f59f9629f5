from __future__ import annotations

import builtins
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft import data
from regraft.errors import FileError, InputError, MissingDependency

Image = pytest.importorskip("PIL.Image")


def picture(seed: int, height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fill(root: Path, classes=("cat", "dog"), count: int = 8, suffix: str = ".png", channels: int = 3) -> Path:
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(picture(100 * c + i, channels=channels)).save(root / name / f"{i:02d}{suffix}")
    return root


def test_class_folders_with_a_stratified_split(tmp_path):
    made = data.load(fill(tmp_path / "pets"), standardise=False)
    assert (made.name, made.class_names, made.input_shape) == ("pets", ("cat", "dog"), (3, 6, 5))
    assert (made.train.counts(), made.test.counts()) == ([6, 6], [2, 2])
    kept = {t.numpy().tobytes() for t in made.train.x} | {t.numpy().tobytes() for t in made.test.x}
    files = {
        picture(100 * c + i).transpose(2, 0, 1).astype(np.float32).tobytes() for c in (0, 1) for i in range(8)
    }
    assert kept == files


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_train_and_test_folders(tmp_path, test_name):
    fill(tmp_path / "train", count=3)
    fill(tmp_path / test_name, ("dog",), count=2)
    made = data.load(str(tmp_path), standardise=False)
    assert (made.train.counts(), made.test.counts(2)) == ([3, 3], [0, 2])
    assert torch.equal(made.test.x[1], torch.from_numpy(picture(1).transpose(2, 0, 1)).float())


def test_a_train_folder_alone_is_split(tmp_path):
    fill(tmp_path / "train")
    assert len(data.load(tmp_path).test) == 4


def test_grey_images_have_one_channel(tmp_path):
    made = data.load(fill(tmp_path, channels=1), standardise="pixel")
    assert made.input_shape == (1, 6, 5)
    assert 0.0 <= float(made.train.x.min()) < 0.1 < 0.9 < float(made.train.x.max()) <= 1.0


def test_one_colour_image_makes_all_three_channels(tmp_path):
    fill(tmp_path, channels=1, count=3)
    Image.fromarray(picture(9)).save(tmp_path / "cat" / "colour.png")
    assert data.load(tmp_path, test_fraction=0.5).input_shape == (3, 6, 5)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    wide = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(wide).save(tmp_path / name / f"{i}.png")
    made = data.load(tmp_path, standardise=False, test_fraction=0.5)
    assert np.array_equal(made.train.x[0, 0].numpy(), wide // 256)


def test_palettes_and_transparency_become_rgb(tmp_path):
    fill(tmp_path, count=2)
    Image.fromarray(picture(5)).quantize(8).save(tmp_path / "cat" / "p.png")
    Image.fromarray(picture(6, channels=4)).save(tmp_path / "dog" / "a.png")
    assert data.load(tmp_path, test_fraction=0.4).input_shape == (3, 6, 5)


def test_jpegs_below_deeper_folders_and_files_that_are_no_images(tmp_path):
    fill(tmp_path, count=2, suffix=".JPG")
    fill(tmp_path / "cat", ("more",), count=2, suffix=".bmp")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / ".hidden.png").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    made = data.load(tmp_path, test_fraction=0.4)
    assert (np.array(made.train.counts()) + made.test.counts()).tolist() == [4, 2]


@pytest.mark.parametrize(("size", "shape"), [(4, (3, 4, 4)), ((4, 8), (3, 4, 8))])
def test_sizes_that_differ_need_image_size(tmp_path, size, shape):
    fill(tmp_path)
    odd = tmp_path / "dog" / "odd.png"
    Image.fromarray(picture(1, 9, 9)).save(odd)
    with pytest.raises(FileError, match=r"9 x 9 pixels, but .* is 6 x 5: pass image_size") as caught:
        data.load(tmp_path)
    assert str(odd) in str(caught.value)
    assert data.load(tmp_path, image_size=size).input_shape == shape


@pytest.mark.parametrize("size", [0, (1, 2, 3), (True, 2), "4"])
def test_bad_image_size(tmp_path, size):
    fill(tmp_path, count=2)
    with pytest.raises(InputError, match="image_size"):
        data.load(tmp_path, image_size=size)


def test_image_size_is_for_folders_alone():
    with pytest.raises(InputError, match="image_size"):
        data.load("digits", image_size=4)


def test_folders_that_are_none(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "single" / "one").mkdir(parents=True)
    with pytest.raises(FileError, match="too short"):  # a file is taken for a text
        data.load(str(tmp_path / "file"))
    with pytest.raises(FileError, match="there is no folder"):
        data.load(str(tmp_path / "nothing"))
    with pytest.raises(FileError, match="1 subfolders"):
        data.load(str(tmp_path / "single"))


def test_a_class_without_images_and_a_strange_test_class(tmp_path):
    fill(tmp_path / "train", count=2)
    (tmp_path / "train" / "emu").mkdir()
    with pytest.raises(FileError, match=r"emu' has no images"):
        data.load(tmp_path)
    (tmp_path / "train" / "emu").rmdir()
    fill(tmp_path / "test", ("cow",), count=2)
    with pytest.raises(FileError, match=r"cow' is a class that"):
        data.load(tmp_path)
    for path in (tmp_path / "test" / "cow").iterdir():
        path.unlink()
    (tmp_path / "test" / "cow").rename(tmp_path / "test" / "cat")
    with pytest.raises(FileError, match=r"test' has no images"):
        data.load(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    fill(tmp_path, suffix=suffix)
    path = tmp_path / "dog" / f"03{suffix}"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FileError, match="as an image") as caught:
        data.load(tmp_path)
    assert str(path) in str(caught.value)


def test_pixels_of_floating_point_are_refused(tmp_path):
    fill(tmp_path, suffix=".tif")
    Image.fromarray(np.ones((6, 5), np.float32)).save(tmp_path / "cat" / "f.tif")
    with pytest.raises(FileError, match=r"f.tif' has pixels of mode 'F'"):
        data.load(tmp_path)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    fill(tmp_path)
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match=r"pillow.*regraft\[images\]"):
        data.load(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".png", ".jpg", ".bmp", ".gif", ".tif"]),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
@pytest.mark.filterwarnings("ignore")
def test_corruption_ends_in_our_errors_alone(refusal, corrupted, suffix, cut, changes):
    with tempfile.TemporaryDirectory() as root:
        path = fill(Path(root), count=2, suffix=suffix) / "cat" / f"01{suffix}"
        path.write_bytes(corrupted(path.read_bytes(), cut, changes))
        message = refusal(lambda: data.load(root, test_fraction=0.5))
        assert message is None or str(path) in message
