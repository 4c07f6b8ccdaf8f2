# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
from tqdm import tqdm

from anomalib_ncd.cli.console import Stopped, error_message, messages_for_errors, quiet_libraries, stop_on_signals


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("`x` must be\n1."), "`x` must be 1."),
        (PermissionError(13, "Permission denied", "/ro/run"), "Permission denied: /ro/run."),
        (OSError(28, "No space left on device", "a.png"), "No space left on device: a.png."),
        (OSError("no file"), "no file"),
        (MemoryError(), "Out of memory."),
        (ModuleNotFoundError("No module named 'x'", name="x"), "No module named 'x'"),
    ],
)
def test_errors_in_one_line(error, expected):
    assert error_message(error) == expected


@pytest.mark.parametrize(
    ("module", "extra"), [("onnxscript", "export"), ("openvino.runtime", "export"), ("ray", "ray")]
)
def test_a_missing_package_names_the_extra(module, extra):
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert f'pip install "anomalib-ncd[{extra}]"' in error_message(error)


@pytest.mark.parametrize("error", [KeyError("boxes"), ValueError(""), AssertionError("a == b")])
def test_faults_of_the_program_ask_for_a_report(error):
    assert "A fault of the program, " + type(error).__name__ in error_message(error)
    assert "--debug" in error_message(error)


def test_debug_shows_the_traceback_that_is_hidden_else():
    with pytest.raises(SystemExit, match="anomalib-ncd: invalid literal"), messages_for_errors(debug=False):
        int("`x`")
    with pytest.raises(ValueError, match="invalid literal"), messages_for_errors(debug=True):
        int("`x`")


def test_nothing_is_printed_behind_an_open_bar(capsys):
    bar = iter(tqdm(range(3), desc="Working", file=sys.stderr))
    next(bar)
    with pytest.raises(SystemExit), messages_for_errors(debug=False):
        int("wrong")
    assert capsys.readouterr().err.endswith("\n")
    bar = iter(tqdm(range(3), desc="Again", file=sys.stderr))
    next(bar)
    with quiet_libraries(debug=False):
        logging.getLogger("anomalib_ncd.x").warning("above")
    shown = [line.rpartition("\r")[2] for line in capsys.readouterr().err.split("\n")]
    assert "above" in shown


@pytest.mark.parametrize("debug", [False, True])
def test_libraries_are_silent(capsys, debug):
    with quiet_libraries(debug=debug):
        logging.getLogger("anomalib.engine").warning("Model weights will not be loaded.")
        logging.getLogger("anomalib_ncd.runs").info("ours")
        logging.getLogger("lightning").error("broken")
        logging.getLogger("lightning.pytorch.utilities.rank_zero").info("GPU available")
        if not debug:
            warnings.warn("theirs", stacklevel=1)
    text = capsys.readouterr().err
    assert ("Model weights" in text) == debug
    assert "ours" in text
    assert "broken" in text
    assert "theirs" not in text
    assert debug or "GPU available" not in text


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_in_good_order(number, status):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as ended, stop_on_signals(), messages_for_errors(debug=False):
        signal.raise_signal(number)
    assert ended.value.code == status
    assert signal.getsignal(number) is before


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_ends_without_a_traceback_while_libraries_are_imported(number, status, tmp_path):
    (tmp_path / "lightning").mkdir()
    slow = tmp_path / "lightning" / "__init__.py"
    slow.write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(600)\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from anomalib_ncd.cli.main import main; main()"
    args = ["discover", "--images", "a", "--anomaly_maps", "b", "--output", "c"]
    process = subprocess.Popen([sys.executable, "-c", code, *args], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert "Traceback" not in process.communicate()[1]
    assert process.returncode == status
