"""What the fuzzer found, each as the smallest input that shows it."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from benchmarks.fuzz.containers import join, split
from benchmarks.fuzz.networks import CONFIG, _mergers, _rounds, _scores, _training, corpus
from benchmarks.fuzz.studies import RESULT, _exports

import regraft
from regraft import SparseWeight, checkpoint, models
from regraft.cli import main
from regraft.cli.distance import parse_image
from regraft.cli.prune_job import keep_options
from regraft.cli.ticket import Compared
from regraft.container import parse_json
from regraft.data import folder as images
from regraft.data.idx import read_idx
from regraft.data.matlab import read_matrices
from regraft.data.unpickle import read_pickle
from regraft.errors import LONGEST, FileError, InputError, MismatchError, RegraftError, visible
from regraft.export.numpy_runtime import Network
from regraft.files import Header, write_network
from regraft.kernels import rewiring
from regraft.layers import SparseConv2d, SparseLinear
from regraft.merging import Merger
from regraft.prune import rounds
from regraft.scores import learned
from regraft.studies import folder as folders
from regraft.studies.store.database import FILE, Store
from regraft.studies.store.query import contents, query
from regraft.studies.study import Result
from regraft.train import checkpoints

DEEP = "[" * 30_000


def with_header(data, key, change):
    """A file whose JSON header has been changed by a function."""
    table, body = split(data)
    header = json.loads(table["__metadata__"][key])
    changed = change(header)
    table["__metadata__"][key] = json.dumps(header) if changed is None else changed
    return join(table, bytes(body))


class TestKernels:
    @pytest.mark.parametrize("places", [[1, 0], [5, 7, 4, 6, 1], [0, 0], [-1], [10]])
    def test_places_out_of_order_write_nowhere(self, places):
        """More lay between two of them than there was room for, and it was written."""
        with pytest.raises(InputError, match="places"):
            rewiring.parted(torch.arange(10), torch.tensor(places))

    @pytest.mark.parametrize("index", [torch.arange(10, dtype=torch.int32), torch.arange(10).view(2, 5)])
    def test_positions_of_another_type_are_not_read_as_int64(self, index):
        none, some = torch.empty(0, dtype=torch.int64), torch.tensor([3])
        with pytest.raises(InputError, match="int64 vector"):
            rewiring.exchange(index, some, none, size=10)
        with pytest.raises(InputError, match="int64 vector"):
            rewiring.parted(index, some)

    @pytest.mark.parametrize("of", ["values", "bias"])
    def test_numbers_that_do_not_lie_side_by_side(self, of):
        index = torch.tensor([0, 2, 3])
        values, bias = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.25])
        if of == "values":
            values = torch.tensor([1.0, 9.0, 2.0, 9.0, 3.0, 9.0])[::2]
        else:
            bias = torch.tensor([0.5]).expand(2)
        layer = SparseLinear(SparseWeight((2, 2), index, values), bias)
        x = torch.tensor([[1.0, 10.0], [2.0, 20.0]], requires_grad=True)
        with regraft.kernels.dispatch.use("compressed"):
            y = layer(x)
            y.sum().backward()
        dense = layer.weight.dense()
        torch.testing.assert_close(y, x @ dense.t() + bias)
        torch.testing.assert_close(x.grad, dense.sum(0).expand(2, 2))

    def test_a_stride_of_nothing_is_refused_as_torch_does(self):
        weight = SparseWeight((1, 1, 1, 1), torch.tensor([0]), torch.ones(1))
        layer = SparseConv2d(weight, None, stride=(0, 1), padding=(0, 0), dilation=(1, 1))
        with pytest.raises(RuntimeError, match="stride"):
            layer(torch.ones(1, 1, 3, 3))


class TestHeaders:
    @pytest.mark.parametrize(
        "text", [{"a": 1}, None, 7, "1e999", '{"a": -1e999}', DEEP, '{"a": 1, "a": 2}', "NaN"]
    )
    def test_what_is_no_json(self, text):
        assert parse_json(text) is None

    def test_a_header_that_is_no_text(self, tmp_path):
        (tmp_path / "c").write_bytes(with_header(_training()[0][0], checkpoint.TRAINING, lambda h: h))
        with pytest.raises(FileError, match="no format number"):
            checkpoints.read(tmp_path / "c")

    @pytest.mark.parametrize("part", ["config", "run"])
    def test_a_checkpoint_whose_parts_are_no_dicts(self, tmp_path, part):
        data = with_header(_training()[0][0], checkpoint.TRAINING, lambda h: h.update({part: [1]}))
        (tmp_path / "c").write_bytes(data)
        with pytest.raises(FileError, match="no config or no state"):
            checkpoints.read(tmp_path / "c")

    @pytest.mark.parametrize(
        "change",
        [
            {"pruning": 1}, {"history": {}}, {"weights": []}, {"weights": {"fc1.weight": [2**40, "aaa"]}},
            {"history": [1]},
            {"history": [{"number": "1", "trained_density": 1, "metric": 0, "density": 1, "counts": {}}]},
            {"history": [{"number": 1, "trained_density": 1, "metric": 0, "density": 1, "counts": 3}]},
        ],
    )  # fmt: skip
    def test_rounds_of_another_form(self, tmp_path, change):
        data = with_header(_rounds()[0], "regraft", lambda h: h["provenance"].update(change))
        (tmp_path / rounds.FILE).write_bytes(data)
        with pytest.raises((FileError, MismatchError), match=r"not the state|does not fit"):
            rounds.Saved(tmp_path, CONFIG, (torch.Generator(), None)).load(
                models.build("mlp:4-5-3"), rewinds=True
            )

    @pytest.mark.parametrize("name", ["other", "random.1", "random"])
    def test_rounds_with_a_tensor_of_another_name(self, tmp_path, name):
        table, body = split(_rounds()[0])
        table[name] = table.pop("random.0")
        (tmp_path / rounds.FILE).write_bytes(join(table, bytes(body)))
        with pytest.raises(MismatchError, match="does not fit"):
            rounds.Saved(tmp_path, CONFIG, (torch.Generator(), None)).load(
                models.build("mlp:4-5-3"), rewinds=True
            )

    @pytest.mark.parametrize(
        "change",
        [
            {"weights": ["average"]},
            {"parents": [[1], [2]]},
            {"parents": [{"weight": "1"}, {}]},
            {"layers": [1]},
            {"layers": [{"shape": [2**40, "aaa"]}]},
        ],
    )
    def test_mergers_of_another_form(self, tmp_path, change):
        data = with_header(_mergers()[0], "regraft", lambda h: h["provenance"]["merger"].update(change))
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(RegraftError, match=r"malformed|has no name here"):
            Merger.load(tmp_path / "m")

    def test_a_dense_part_of_a_merger_that_has_positions(self, tmp_path):
        def dense(header):
            for layer in header["provenance"]["merger"]["layers"]:
                layer["sparse"] = False

        (tmp_path / "m").write_bytes(with_header(_mergers()[0], "regraft", dense))
        with pytest.raises(FileError, match="is dense, but has positions"):
            Merger.load(tmp_path / "m")

    @pytest.mark.parametrize("parents", [{}, {"a": 1}, 7, [7], [[]], [{"provenance": 7}]])
    def test_parents_of_another_form(self, tmp_path, parents):
        data = with_header(corpus()[0], "regraft", lambda h: h["provenance"].update(parents=parents))
        (tmp_path / "n").write_bytes(data)
        assert Compared.read(tmp_path / "n").initial is None

    def test_json_that_is_nested_without_end(self, tmp_path):
        (tmp_path / "s").write_bytes(with_header(_scores()[0], learned.KEY, lambda h: DEEP))
        with pytest.raises(FileError, match="no learned score"):
            learned.Learned.load(tmp_path / "s")
        (tmp_path / "options.json").write_text(DEEP)
        with pytest.raises(FileError, match="cannot use the folder"):
            keep_options(tmp_path, {})

    def test_a_tensor_whose_name_is_half_a_character(self, tmp_path):
        """It was read, and could not be written."""
        table, body = split(corpus()[0])
        table["\ud800"] = table.pop("fc1.bias")
        (tmp_path / "n").write_bytes(join(table, bytes(body)))
        with pytest.raises(FileError, match="half characters"):
            regraft.load(tmp_path / "n")


class TestModels:
    @pytest.mark.parametrize("text", ["mlp:4-", "resnet-", "wrn-10-", "wrn-", "gpt:1-", "vit:1-8-2-"])
    def test_endless_digits(self, text):
        with pytest.raises(InputError):
            models.resolve(text + "9" * 5000)
        with pytest.raises(InputError, match="28x28"):
            parse_image("9" * 5000 + "x1")

    def test_few_bytes_that_ask_for_a_model_without_end(self, tmp_path):
        spec = {"depth": 6_000_002, "input": [3, 32, 32], "classes": 10, "activation": "relu", "dropout": 0.0}
        (tmp_path / "n").write_bytes(
            with_header(corpus()[0], "regraft", lambda h: h.update(model={"name": "resnet", **spec}))
        )
        with pytest.raises(FileError, match="more than 2000"):
            regraft.load(tmp_path / "n")
        for name in ("gpt:1000000-8-2", "vit:1000000-8-2-4"):
            with pytest.raises(InputError, match="more than 250"):
                models.build(name, device="meta")
        with pytest.raises(InputError, match="positive integers"):
            models.build(
                {"name": "mlp", "sizes": [1] * 5000, "activation": "relu", "dropout": 0.0}, device="meta"
            )

    def test_more_values_than_a_tensor_can_have(self):
        with pytest.raises(InputError, match="cannot be made"):
            models.build("wrn-10-99999999", device="meta")


class TestData:
    def test_bytes_that_unpack_without_end(self, tmp_path):
        size = 8 * 10**7
        header = struct.pack(">II", 0x0801, size)
        (tmp_path / "x").write_bytes(gzip.compress(header + bytes(size), 6))
        with pytest.raises(FileError, match="a hundred times its length"):
            read_idx(tmp_path / "x", 1)
        body = zlib.compress(bytes(size), 1)
        (tmp_path / "x.mat").write_bytes(
            b"MATLAB 5.0".ljust(124) + struct.pack("<HHII", 0x0100, 0x4D49, 15, len(body)) + body
        )
        with pytest.raises(FileError, match="take more than"):
            read_matrices(tmp_path / "x.mat", ("X",))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"}N" + b"2\x86" * 60 + b"K\x01s.", "cannot read"),  # a name of 2**60 parts
            (b"}K\x01" + b"2\x86" * 60 + b"K\x01s.", "cannot read"),
            (b"}(K\x01\x85K\x01u.", "tuple as a name"),
            (b"(K\x01\x85K\x01d.", "tuple as a name"),
            (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "cannot read"),
            (b"}\x81.", "cannot read"),  # an opcode that makes objects
            (b"\x8f.", "cannot read"),
        ],
    )
    def test_pickles_that_ask_for_all_there_is(self, tmp_path, data, message):
        (tmp_path / "p").write_bytes(data)
        with pytest.raises(FileError, match=message):
            read_pickle(tmp_path / "p")

    def test_the_keys_that_files_have(self, tmp_path):
        for protocol in range(6):
            (tmp_path / "p").write_bytes(
                pickle.dumps({"a": [1], b"b": (2, 3), 4: None, "c": {"d": 5}}, protocol)
            )
            assert read_pickle(tmp_path / "p") == {"a": [1], "b": (2, 3), "4": None, "c": {"d": 5}}

    def test_a_picture_of_few_bytes_and_many_pixels(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            held = io.BytesIO()
            image.new("L", (2, 2)).save(held, "PNG")
            data = bytearray(held.getvalue())
            data[16:24] = struct.pack(">II", 9000, 9000)
            data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
            (tmp_path / name / "1.png").write_bytes(data)
        for size in (None, 4):
            with pytest.raises(FileError, match="9000 x 9000 pixels"):
                images.read_folder(tmp_path, size)


@pytest.fixture
def results(tmp_path):
    folder = folders.Folder(tmp_path / "results", create=True)
    place = folder.cell(RESULT["key"])
    place.mkdir(parents=True)
    return folder, place / "result.json"


class TestResults:
    @pytest.mark.parametrize(
        "change",
        [
            {"key": 1}, {"step": None}, {"config": []}, {"rows": {}}, {"rows": [1]}, {"epochs": None},
            {"epochs": ["x"]},
            {"seconds": "1"}, {"seconds": float("inf")},
        ],
    )  # fmt: skip
    def test_a_cell_of_another_form_is_moved_aside(self, results, change):
        folder, path = results
        path.write_text(json.dumps(RESULT | change))
        assert folder.read(RESULT["key"]) is None
        assert not path.parent.exists()

    def test_json_that_is_nested_without_end(self, results):
        folder, path = results
        path.write_text(DEEP)
        assert folder.read(RESULT["key"]) is None
        (folder.path / "failed" / "a.json").write_text(DEEP)
        assert "unknown" in folder.failure("a")["error"]
        (folder.path / folders.MARK).write_text(DEEP)
        with pytest.raises(FileError, match="cannot read"):
            folders.Folder(folder.path)

    def test_broken_characters_and_endless_numbers_in_a_failure(self, tmp_path):
        with Store(tmp_path / FILE) as store:
            record = {"key": "a", "step": "\ud800", "config": {}, "error": "\ud800", "when": 2**70}
            store.add_failure("mine", "smoke", record)
            assert store.connection.execute("SELECT step, error, started FROM cells").fetchone() == (
                "?",
                "?",
                str(2**70),
            )


class TestDatabase:
    @pytest.fixture
    def database(self, tmp_path):
        with Store(tmp_path / FILE) as store:
            store.add("mine", "smoke", [Result("k", "train", {"seed": 1}, [{"accuracy": 0.5}], [], tmp_path)])
        return tmp_path

    def change(self, database, statement):
        connection = sqlite3.connect(database / FILE)
        connection.executescript(statement)
        connection.commit()
        connection.close()

    def test_a_view_without_end(self, database):
        rows = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT * FROM t"
        self.change(database, f"CREATE VIEW evil AS {rows}")
        with pytest.raises(FileError, match="damaged"):
            contents(database)
        assert query(database, "SELECT accuracy FROM mine").rows == [(0.5,)]

    @pytest.mark.parametrize(
        "statement",
        [
            "DROP TABLE columns", "UPDATE columns SET column_name = x'ff00'",
            "UPDATE columns SET step = 'none'",
            "DELETE FROM steps", "DROP TABLE metrics",
        ],
    )  # fmt: skip
    def test_a_table_of_another_form(self, database, statement):
        self.change(database, statement)
        with pytest.raises(FileError, match="it is made anew"):
            Store(database / FILE)


class TestExports:
    def change(self, tmp_path, name, data):
        with zipfile.ZipFile(io.BytesIO(_exports()[0])) as old:
            members = {n: old.read(n) for n in old.namelist()} | {name: data}
        with zipfile.ZipFile(tmp_path / "m.npz", "w") as new:
            for member, content in members.items():
                new.writestr(member, content)
        return tmp_path / "m.npz"

    def program(self, tmp_path, change):
        with np.load(io.BytesIO(_exports()[3])) as file:
            arrays = dict(file)
        program = json.loads(bytes(arrays["program"]).decode())
        change(program)
        arrays["program"] = np.frombuffer(json.dumps(program).encode(), np.uint8)
        np.savez(tmp_path / "m.npz", **arrays)
        return tmp_path / "m.npz"

    def test_a_good_one(self, tmp_path):
        network = Network(self.program(tmp_path, lambda program: None))
        assert network(np.ones((2, 1, 4, 4))).shape == (2, 3)

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00", b"{}"])
    def test_no_zip_at_all(self, tmp_path, data):
        (tmp_path / "m.npz").write_bytes(data)
        with pytest.raises(ValueError, match="is not a network"):
            Network(tmp_path / "m.npz")

    def test_arrays_that_promise_more_than_there_is(self, tmp_path):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        with pytest.raises(ValueError, match="not what its header says"):
            Network(self.change(tmp_path, "1.bias.npy", array))
        with pytest.raises(ValueError, match="is not a network"):
            Network(self.change(tmp_path, "program.npy", DEEP.encode()))

    @pytest.mark.parametrize(
        ("step", "part", "value"),
        [
            (0, "op", "none"), (0, "inputs", [7]), (0, "inputs", [0, 0]), (0, "shape", [2**40]), (0,
            "weight_shape", [2**40, 1]),
            (0, "settings", {}), (0, "arrays", {}), (2, "shape", [1, 1]), (1, "shape", [3]), (0,
            "weight_shape", [2, 1, 3]),
        ],
    )  # fmt: skip
    def test_steps_that_do_not_fit(self, tmp_path, step, part, value):
        with pytest.raises(ValueError, match="is not a network"):
            Network(self.program(tmp_path, lambda p: p["steps"][step].update({part: value})))

    @pytest.mark.parametrize(
        "settings",
        [
            {"pads": [[10**9, 10**9], [0, 0]]}, {"stride": [0, 1]}, {"kernel": [0, 3]}, {"dilation": [10**9,
            1]}, {"groups": 0},
            {"groups": 2}, {"kernel": [3]}, {"pads": [[1, 1]]}, {"stride": [-1, 1]},
        ],
    )  # fmt: skip
    def test_windows_that_cannot_be(self, tmp_path, settings):
        with pytest.raises(ValueError, match="is not a network"):
            Network(self.program(tmp_path, lambda p: p["steps"][0]["settings"].update(settings)))


@pytest.mark.parametrize("name", ["[/x]", "[bold]x", "\x1b[2J", "\ud800", ":smile:", "a\nb"])
def test_names_in_files_are_shown_as_they_are(tmp_path, name, capsys):
    """Brackets were read as markup, which ended in an error or hid the name."""
    path, layer = tmp_path / "n", name if name != "\ud800" else "fc1"
    write_network(
        path,
        {f"{layer}.weight.index": torch.tensor([1]), f"{layer}.weight.values": torch.ones(1)},
        Header(shapes={f"{layer}.weight": (2, 3)}, provenance={name: name}, versions={name: name}),
    )
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(path)])
    assert ended.value.code == 0
    written = capsys.readouterr().out
    assert visible(name).splitlines()[0] in written
    assert "\x1b" not in written


def test_a_layer_of_billions_of_units_is_looked_at_by_its_connections(tmp_path, capsys):
    """A file of 500 bytes took minutes and all memory."""
    shape = (2**31, 2**31 - 1)
    write_network(
        tmp_path / "n",
        {"fc1.weight.index": torch.tensor([5, 2**61]), "fc1.weight.values": torch.ones(2)},
        Header(shapes={"fc1.weight": shape}),
    )
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "n")])
    assert ended.value.code == 0
    assert "2,147,483,646" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [RegraftError, InputError, FileError, MismatchError])
@pytest.mark.parametrize("text", ["\x1b[2J", "\ud800", "\u202e", "\0", "x" * 10**6])
def test_a_message_can_be_shown_whatever_it_quotes(kind, text):
    shown = str(kind(f"the tensor '{text}' is bad"))
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert len(shown) < LONGEST
    assert shown.startswith("the tensor '")
    assert shown.endswith("' is bad")
