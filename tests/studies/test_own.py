"""Studies in files of the user's own."""

import subprocess
import sys

import pytest

from regraft.errors import FileError, InputError
from regraft.studies import own
from regraft.studies.catalogue import named
from regraft.studies.folder import Folder
from regraft.studies.run import run as run_study
from regraft.studies.study import Work
from regraft.studies.tables import table

FILE = """
from regraft.studies import Cell, Outcome, Preset, Study, step


@step
def double(work):
    return Outcome(rows=[{"value": 2 * work.config["x"]}])


def cells(settings):
    return [Cell(double, {"x": x}) for x in range(settings["n"])]


STUDY = Study(
    name="doubles", title="Doubles", reproduces="nothing", about="It doubles.", cells=cells,
    presets={"smoke": Preset({"n": 3}, "no time")},
)
"""


def write(path, text=FILE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_found_run_and_read(tmp_path):
    study = named(str(write(tmp_path / "my-study.py")))
    folder = Folder(tmp_path / "results", create=True)
    run_study(study, "smoke", folder, executor="inline")
    assert table(study, "smoke", folder).column("value") == [0, 2, 4]


def test_keys_do_not_depend_on_where_the_file_lies(tmp_path):
    one, other = (own.find(str(write(tmp_path / d / "mine.py"))) for d in ("a", "b"))
    keys = [[c.key for c in s.cells({"n": 2})] for s in (one, other)]
    assert keys[0] == keys[1]
    assert next(iter(one.cells({"n": 1}))).step.name == "own.mine.double"
    # yet they are two modules
    assert next(iter(one.cells({"n": 1}))).step.place != next(iter(other.cells({"n": 1}))).step.place


def test_a_step_is_found_again_in_this_and_in_another_process(tmp_path):
    study = own.find(str(write(tmp_path / "mine.py")))
    step = next(iter(study.cells({"n": 1}))).step
    path = own.source(step)
    assert path == str(tmp_path / "mine.py")
    assert own.resolve_step(*step.place, path) is step
    code = (
        "from regraft.studies.own import resolve_step; from regraft.studies import Work; "
        f"s = resolve_step({step.place[0]!r}, {step.place[1]!r}, {path!r}); "
        "print(s.name, s.run(Work({'x': 21})).rows)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "own.mine.double [{'value': 42}]\n"


def test_copies_of_a_file_are_loaded_once(tmp_path):
    step = next(iter(own.find(str(write(tmp_path / "mine.py"))).cells({"n": 1}))).step
    module = step.place[0].replace("mine_", "mine_0")  # as another machine calls it
    before = len(sys.path)
    copies = [
        own.resolve_step(module, "double", str(write(tmp_path / d / "mine.py"))) for d in ("a", "b", "c")
    ]
    assert copies[0] is copies[1] is copies[2]
    assert copies[0].name == step.name
    assert len(sys.path) == before + 1
    # another text under the same name is no copy
    changed = write(tmp_path / "d" / "mine.py", FILE.replace("2 * work", "3 * work"))
    assert own.resolve_step(module, "double", str(changed)).run(Work({"x": 2})).rows == [{"value": 6}]


def test_the_same_file_run_as_a_program_gives_the_same_steps(tmp_path):
    text = FILE + (
        "if __name__ == '__main__':\n"
        "    from regraft.studies import own\n"
        "    s = next(iter(cells({'n': 1}))).step\n"
        "    print(s.name, own.source(s), *s.place)\n"
    )
    path = write(tmp_path / "mine.py", text)
    said = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True)
    name, source, module, qualname = said.stdout.split()
    assert name == next(iter(own.find(str(path)).cells({"n": 1}))).step.name
    # another process, whose main module is another, finds the step by the path
    assert own.resolve_step(module, qualname, source).run(Work({"x": 1})).rows == [{"value": 2}]


def test_a_step_in_a_module_beside_the_file_is_found_in_another_process(tmp_path):
    write(tmp_path / "steps_beside.py", FILE.split("def cells")[0])
    rest = (
        "from steps_beside import double\nfrom regraft.studies import *\n\ndef cells"
        + FILE.split("def cells")[1]
    )
    study = own.find(str(write(tmp_path / "mine.py", rest)))
    step = next(iter(study.cells({"n": 1}))).step
    code = (
        "from regraft.studies.own import resolve_step; "
        f"print(resolve_step({step.place[0]!r}, {step.place[1]!r}, {own.source(step)!r}).name)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "steps_beside.double\n"


def test_steps_that_regraft_brings_need_no_path():
    def run(work):
        raise AssertionError

    from regraft.studies.study import Step

    run.__module__ = "regraft.studies.networks"
    assert own.source(Step(run)) is None


def test_an_edited_file_is_loaded_again(tmp_path):
    path = write(tmp_path / "mine.py")
    assert own.find(str(path)) is own.find(str(path))
    write(path, FILE.replace('"doubles"', '"doubles-again"'))
    assert own.find(str(path)).name == "doubles-again"


def test_one_of_several_is_chosen_by_variable_or_name(tmp_path):
    path = write(
        tmp_path / "two.py", FILE + "\nimport dataclasses\nOTHER = dataclasses.replace(STUDY, name='other')\n"
    )
    assert [s.name for s in own.load(path)] == ["doubles", "other"]
    with pytest.raises(InputError, match=r"holds 2 studies: choose one, such as .*two.py:STUDY"):
        own.find(str(path))
    assert own.find(f"{path}:OTHER").name == own.find(f"{path}:other").name == "other"
    with pytest.raises(InputError, match="no study 'OTER': did you mean 'OTHER'"):
        own.find(f"{path}:OTER")


def test_studies_in_a_list_are_found(tmp_path):
    path = write(tmp_path / "lists.py", FILE.replace("STUDY = Study(", "STUDIES = [Study(") + "]\n")
    assert own.find(str(path)).name == "doubles"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\nx = = 2\n", r"broken.py', line 2: invalid syntax"),
        ("\n\nimport nowhere_at_all\n", r"line 3: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", r"line 2: ZeroDivisionError"),
        ("raise SystemExit(3)\n", r"line 1: it ends the program"),
        (
            "from regraft.studies import Study\nStudy('A B', '', '', '', list, {})\n",
            r"line 2: InputError: .*'A B'",
        ),
        ("x = 1\n", r"holds no study: it needs a value such as"),
    ],
)
def test_a_broken_file_ends_in_a_sentence_with_its_line(tmp_path, text, told):
    with pytest.raises(InputError, match=told):
        own.find(str(write(tmp_path / "broken.py", text)))


def test_a_missing_file_and_a_missing_step(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        own.find(str(tmp_path / "none.py"))
    path = write(tmp_path / "mine.py")
    with pytest.raises(InputError, match="has no step 'triple' at its top level"):
        own.resolve_step(own.module_name(path), "triple", str(path))
    with pytest.raises(InputError, match="cannot import the module 'nowhere_at_all'"):
        own.resolve_step("nowhere_at_all", "f")
