"""The runner: the same cells whatever does them, nothing twice, nothing lost, errors kept."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regraft.errors import FileError, InputError
from regraft.studies import Cell, Outcome, Preset, Study, step
from regraft.studies.run import Folder, run
from regraft.studies.study import in_order
from regraft.studies.tables import table


def test_pool_and_inline_make_the_same_cells(dice, tmp_path, contents):
    one = run(dice, "smoke", tmp_path / "one", executor="inline")
    two = run(dice, "smoke", tmp_path / "two", executor="pool", workers=2)
    assert (one.done, one.total, one.complete) == (24, 24, True)
    assert (two.done, two.total, two.complete) == (24, 24, True)
    assert contents(dice, "smoke", tmp_path / "one") == contents(dice, "smoke", tmp_path / "two")


def test_what_is_there_is_not_done_again(dice, tmp_path):
    run(dice, "smoke", tmp_path, executor="inline")
    missing = in_order(dice.cells(dice.presets["smoke"].settings))[3]
    shutil.rmtree(Folder(tmp_path).cell(missing.key))
    ran = run(dice, "smoke", tmp_path, executor="inline")
    assert (ran.before, ran.done) == (23, 1)


def test_studies_share_equal_cells(dice, tmp_path):
    run(dice, "smoke", tmp_path, executor="inline")
    more = dataclasses.replace(dice, name="more-dice", presets={"small": Preset({"most": 25}, "1 s")})
    ran = run(more, "small", tmp_path, executor="inline")
    assert (ran.before, ran.done) == (24, 6)


def test_a_cell_is_seeded_by_itself_alone(dice, tmp_path, contents):
    # the same throws in a study that has only the second half of them
    run(dice, "smoke", tmp_path / "all", executor="inline")

    def half(settings):
        return [c for c in in_order(dice.cells(settings)) if c.config.get("n", 0) >= 10]

    part = dataclasses.replace(dice, cells=half)
    run(part, "smoke", tmp_path / "part", executor="inline")
    whole = {c["key"]: c for c in contents(dice, "smoke", tmp_path / "all")}
    some = contents(part, "smoke", tmp_path / "part")
    assert len(some) == 10
    assert all(whole[c["key"]] == c for c in some)


def test_a_failed_cell_is_kept_with_its_error_and_blocks_what_needs_it(dice, tmp_path):
    ran = run(dice, "fails", tmp_path, executor="inline")
    assert (ran.total, ran.done, len(ran.failed), ran.blocked) == (26, 24, 1, 1)
    assert not ran.complete
    record = Folder(tmp_path).failure(ran.failed[0])
    assert record["error"] == "ValueError: the dice fell from the table"
    assert record["config"] == {"fails": True}
    assert "dice_study.py" in record["traceback"]
    again = run(dice, "fails", tmp_path, executor="inline")
    assert (again.done, again.failed, again.blocked) == (0, ran.failed, 1)


def test_failed_cells_are_tried_again_on_demand(dice, tmp_path, dice_file):
    failed = run(dice, "fails", tmp_path, executor="inline").failed
    text = dice_file.read_text().replace('if work.config.get("fails")', 'if work.config.get("never")')
    mended = tmp_path / "mended" / dice_file.name
    mended.parent.mkdir()
    mended.write_text(text)
    from regraft.studies.own import find

    ran = run(find(str(mended)), "fails", tmp_path, executor="inline", retry_failed=True)
    assert (ran.before, ran.done, ran.failed, ran.blocked) == (24, 2, (), 0)
    assert failed[0] not in Folder(tmp_path).failed()


def test_a_full_disk_ends_the_study_and_says_what_is_kept(dice, tmp_path):
    with pytest.raises(FileError, match=r"cannot keep results in .*No space left.*make room there"):
        run(dice, "full", tmp_path, executor="inline")
    assert not Folder(tmp_path).failed()
    assert len(Folder(tmp_path).done()) >= 2


def test_a_process_that_dies_once_fails_no_cell(dice, tmp_path, contents):
    mark = tmp_path / "died"
    settings = {"most": 40, "dies": str(mark)}
    study = dataclasses.replace(dice, presets={"smoke": Preset(settings, "1 s")})
    ran = run(study, "smoke", tmp_path / "with", workers=2)
    assert mark.exists()
    assert (ran.done, ran.failed) == (48, ())
    run(study, "smoke", tmp_path / "without", executor="inline")
    assert contents(study, "smoke", tmp_path / "with") == contents(study, "smoke", tmp_path / "without")


def test_a_cell_that_always_kills_its_process_is_given_up_alone(dice, tmp_path):
    ran = run(dice, "deadly", tmp_path, workers=2)
    assert (ran.done, len(ran.failed), ran.blocked) == (12, 1, 1)
    assert "died 3 times" in Folder(tmp_path).failure(ran.failed[0])["error"]


def start(dice_file, folder, preset="small"):
    command = [
        sys.executable, "-m", "regraft", "study", "run", str(dice_file), "--preset", preset, "--workers", "2",
        "--folder", str(folder),
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def descendants(pid):
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the processes")
def test_a_study_killed_twice_ends_with_the_same_table(dice, dice_file, tmp_path, contents):
    folder = tmp_path / "killed"
    first = start(dice_file, folder)
    wait_for(lambda: len(done(folder)) >= 5)
    processes = descendants(first.pid)
    assert len(processes) >= 2
    first.kill()
    first.communicate()
    wait_for(lambda: not any(alive(pid) for pid in processes))  # no orphan stays behind
    before = len(done(folder))
    assert 5 <= before < 100
    second = start(dice_file, folder)
    wait_for(lambda: len(done(folder)) >= before + 20)
    os.kill(max(descendants(second.pid)), signal.SIGKILL)  # the youngest: a worker
    _, said = second.communicate(timeout=100)
    assert second.returncode == 0, said
    run(dice, "small", tmp_path / "whole", executor="inline")
    assert contents(dice, "small", folder) == contents(dice, "small", tmp_path / "whole")
    assert not list((folder / "parts").iterdir())


def done(folder):
    return Folder(folder).done() if (folder / "regraft-studies.json").exists() else set()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_run_in_one_folder_is_refused(dice, tmp_path):
    folder = Folder(tmp_path, create=True)
    with folder.locked(), pytest.raises(FileError, match=rf"another run writes .*process {os.getpid()} on "):
        run(dice, "smoke", Folder(tmp_path), executor="inline")
    assert run(dice, "smoke", tmp_path, executor="inline").complete


def test_missing_data_is_told_before_anything_is_done(dice, tmp_path):
    with pytest.raises(FileError, match=r"no Fashion-MNIST here: expected .* in .*; get them from"):
        run(dice, "data", tmp_path, executor="inline", data_dir=tmp_path / "nowhere")
    assert not Folder(tmp_path).done()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "smal"}, r"no preset 'smal': did you mean 'small'"),
        ({"executor": "pol"}, r"unknown executor 'pol': did you mean 'pool'"),
        ({"workers": 0}, r"workers is 0, but must be 1 or more"),
        ({"executor": "inline", "workers": 2}, r"has one worker, not 2"),
        ({"address": "auto"}, r"address 'auto' is for the executor 'ray'"),
    ],
)
def test_bad_options_are_named(dice, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(dice, **{"preset": "smoke", "folder": tmp_path, **options})


def test_a_cell_that_cannot_be_read_any_more_is_done_again(dice, tmp_path, contents):
    run(dice, "smoke", tmp_path, executor="inline")
    before = contents(dice, "smoke", tmp_path)
    folder = Folder(tmp_path)
    torn = folder.cell(sorted(folder.done())[0]) / "result.json"
    torn.write_text(torn.read_text()[:40])
    assert len(table(dice, "smoke", folder).results) == 23  # moved aside by reading
    ran = run(dice, "smoke", tmp_path, executor="inline")
    assert (ran.before, ran.done) == (23, 1)
    assert contents(dice, "smoke", tmp_path) == before


@step
def odd(work):
    return Outcome(rows=[{"value": [1]}])


@step
def wrong(work):
    return {"value": 1}


@pytest.mark.parametrize(
    ("made", "message"),
    [(odd, r"returned 'value' = \[1\] \(list\)"), (wrong, r"returned dict, but must return an Outcome")],
)
def test_what_a_step_may_return(tmp_path, made, message):
    study = Study("odd", "Odd", "-", "-", lambda s: [Cell(made, {})], {"smoke": Preset({}, "1 s")})
    ran = run(study, "smoke", tmp_path, executor="inline")
    record = Folder(tmp_path).failure(ran.failed[0])
    assert re.search(message, record["error"])


def test_progress_counts_and_estimates(dice, tmp_path):
    seen = []
    run(dice, "smoke", tmp_path, executor="inline", tell=lambda p: seen.append((p.ended, p.remaining())))
    assert seen[0] == (0, None)
    assert seen[-1][0] == 24
    assert seen[-1][1] == pytest.approx(0.0)
    assert [e for e, _ in seen] == sorted(e for e, _ in seen)


def test_failure_records_are_json(dice, tmp_path):
    ran = run(dice, "fails", tmp_path, executor="inline")
    record = json.loads((tmp_path / "failed" / f"{ran.failed[0]}.json").read_text())
    assert {"key", "step", "config", "error", "traceback", "when"} <= record.keys()
