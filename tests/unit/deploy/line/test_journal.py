# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import errno
import json
import os
import subprocess
import sys

import pytest

from anomalib_ncd.deploy.line import journal as journal_module
from anomalib_ncd.deploy.line.journal import UNSETTLED, FileStamp, Journal, OutputError, write_file

STAMP = FileStamp(10, 20, "ab")
RESULT = {"image": "a", "error": None}


def entries(*names, error=None):
    return [(name, STAMP, {"image": name, "error": error}) for name in names]


def test_what_was_added_is_there_after_a_restart(tmp_path):
    file = tmp_path / "out" / "journal.jsonl"
    with Journal(file) as journal:
        journal.append(entries("a", "b/ä"))
        journal.append(entries("c"))
    with Journal(file) as journal:
        assert len(journal) == 3
        assert journal.stamp_of("b/ä") == STAMP
        assert journal.stamp_of("d") is None
        assert [result["image"] for result in journal.results()] == ["a", "b/ä", "c"]


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_half_a_line_is_cut_off(tmp_path, cut):
    file = tmp_path / "journal.jsonl"
    with Journal(file) as journal:
        journal.append(entries("a"))
        whole = file.read_bytes()
        journal.append(entries("b"))
    file.write_bytes(file.read_bytes()[:-cut])
    with Journal(file) as journal:
        assert (journal.stamp_of("a"), journal.stamp_of("b")) == (STAMP, None)
        assert file.read_bytes() == whole
        journal.append(entries("b"))
        assert [result["image"] for result in journal.results()] == ["a", "b"]


def test_damage_in_the_middle_is_named(tmp_path):
    file = tmp_path / "journal.jsonl"
    file.write_text('{"name": "a"\n{"name": "b"}\n')
    with pytest.raises(OutputError, match=r"Line 1 of .* is damaged"):
        Journal(file)


def test_an_error_that_was_got_over_is_left_out(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append([("a", UNSETTLED, {"image": "a", "error": "no map"})])
        journal.append(entries("b", error="broken"))
        journal.append(entries("a"))
        assert list(journal.results()) == [{"image": "b", "error": "broken"}, {"image": "a", "error": None}]


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch, failing):
    file = tmp_path / "journal.jsonl"
    with Journal(file) as journal:
        journal.append(entries("a"))
        before = file.read_bytes()
        real = os.write
        written = []

        def write_a_little_then_fail(descriptor, data):
            if written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(real(descriptor, bytes(data[:20])))
            return 20

        def fail(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(journal_module.os, failing, {"write": write_a_little_then_fail, "fsync": fail}[failing])
            with pytest.raises(OutputError, match=r"The disk is full: .* free some space and give the same command"):
                journal.append(entries("b"))
        assert file.read_bytes() == before
        assert journal.stamp_of("b") is None
        journal.append(entries("b"))
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()] == ["a", "b"]


def test_two_processes_do_not_write_one_journal(tmp_path):
    pytest.importorskip("fcntl")
    file = tmp_path / "journal.jsonl"
    code = (
        "from anomalib_ncd.deploy.line.journal import Journal\n"
        f"journal = Journal({str(file)!r})\n"
        "print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(OutputError, match="Another process writes"):
            Journal(file)
        other.kill()
    # The lock goes with the process.
    Journal(file).close()


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    write_file(tmp_path / "a" / "b.jpg", b"first")
    assert (tmp_path / "a" / "b.jpg").read_bytes() == b"first"

    def fail(path, data):
        with path.open("wb") as stream:
            stream.write(data[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal_module.Path, "write_bytes", fail)
    with pytest.raises(OutputError, match="The disk is full"):
        write_file(tmp_path / "a" / "b.jpg", b"second")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.jpg"]
    assert (tmp_path / "a" / "b.jpg").read_bytes() == b"first"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"can't be written: .* Check the output folder"):
        Journal(tmp_path / "file" / "journal.jsonl")
