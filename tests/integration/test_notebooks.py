# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The notebooks run from their sources, and what is shown beside them was made from the same cells.

To make the shown ones anew: ``python tests/integration/test_notebooks.py``.
"""

import logging
import os
import re
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from anomalib_ncd.synthetic import plates
from anomalib_ncd.synthetic.plates import generate_dataset

interactiveshell = pytest.importorskip("IPython.core.interactiveshell")
capture = pytest.importorskip("IPython.utils.capture")
jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# What must stand in the output, as a pattern with a number and the least that it may be; and the number of pictures.
EXPECTED = {
    "01_classes_for_your_detector": (r"NMI (\d\.\d+)", 0.8, 3),
    "02_mebin_masks": (None, None, 1),
    "03_name_and_classify": (r"(\d+)% of \d+ plates of known classes are right", 70, 3),
}
# Fewer plates than they draw, which show the same.
FEWER = {
    "01_classes_for_your_detector": {"num_per_kind": 7, "num_test_good": 6},
    "02_mebin_masks": {"num_per_kind": 2, "num_test_good": 3, "num_mixed": 3},
    "03_name_and_classify": {},
}


@pytest.fixture(scope="module")
def shell():
    """IPython in this process, which has imported anomalib, with matplotlib as in a notebook."""
    shell = interactiveshell.InteractiveShell.instance()
    shell.history_manager.enabled = False
    shell.enable_gui = lambda *_: None
    shell.run_line_magic("matplotlib", "inline")
    yield shell
    plt.switch_backend("agg")
    interactiveshell.InteractiveShell.clear_instance()


@pytest.fixture
def cleared_shell(shell, tmp_path, monkeypatch):
    """The same in an empty folder and without variables; what notebooks change in the process is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", os.environ.get("TQDM_DISABLE", ""))
    shell.reset()
    with warnings.catch_warnings():
        yield shell
    logging.disable(logging.NOTSET)
    plt.close("all")


def run_source(name, folder):
    """Run a notebook from its source in a folder of its own."""
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    resources = {"metadata": {"path": folder}}
    nbclient.NotebookClient(notebook, timeout=None, resources=resources).execute()
    return notebook


def cells_of(notebook):
    return [cell.source.strip() for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_shown_is_the_source_with_its_outputs(name):
    source, shown = (jupytext.read(NOTEBOOKS / f"{name}.{suffix}") for suffix in ("py", "ipynb"))
    assert cells_of(shown) == cells_of(source)
    assert not [output for output in outputs_of(shown) if output.output_type == "error"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs_of(shown)) >= EXPECTED[name][2]
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 2**20


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.usefixtures("little_of_normal")
def test_it_runs(name, cleared_shell, monkeypatch):
    monkeypatch.setattr(plates, "generate_dataset", lambda *args, **kw: generate_dataset(*args, **kw | FEWER[name]))
    pattern, least, num_pictures = EXPECTED[name]
    with capture.capture_output() as captured:
        for code in cells_of(jupytext.read(NOTEBOOKS / f"{name}.py")):
            cleared_shell.run_cell(code).raise_error()
    assert sum("image/jpeg" in output.data for output in captured.outputs) >= num_pictures
    if pattern is not None:
        [found] = re.findall(pattern, captured.stdout)
        assert float(found) >= least


if __name__ == "__main__":
    for notebook_name in EXPECTED:
        with tempfile.TemporaryDirectory() as working_folder:
            jupytext.write(run_source(notebook_name, working_folder), NOTEBOOKS / f"{notebook_name}.ipynb")
