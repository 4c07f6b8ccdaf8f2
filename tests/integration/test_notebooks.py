# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The notebooks run from their sources, and what is shown beside them was made from the same cells.

To make the shown ones anew: ``python tests/integration/test_notebooks.py``.
"""

import re
import tempfile
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
jupyter_client = pytest.importorskip("jupyter_client")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# What must stand in the output, as a pattern with a number and the least that it may be; and the number of pictures.
EXPECTED = {
    "01_classes_for_your_detector": (r"NMI (\d\.\d+)", 0.8, 3),
    "02_mebin_masks": (None, None, 1),
    "03_name_and_classify": (r"(\d+)% of \d+ plates of known classes are right", 70, 3),
}


@pytest.fixture(scope="module")
def kernel():
    """A kernel for all notebooks, as each would take longest to import anomalib."""
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


def run_source(name, folder, kernel=None):
    """Run a notebook from its source in a folder of its own, and in a kernel that is cleared first."""
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    start = nbformat.v4.new_code_cell(f"%reset -f\nimport os\nos.chdir({str(folder)!r})")
    notebook.cells.insert(0, start)
    nbclient.NotebookClient(notebook, kernel, timeout=None).execute()
    notebook.cells.remove(start)
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
def test_it_runs(name, tmp_path, kernel):
    notebook = run_source(name, tmp_path, kernel)
    pattern, least, num_pictures = EXPECTED[name]
    outputs = outputs_of(notebook)
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= num_pictures
    if pattern is not None:
        [found] = re.findall(pattern, "".join(output.get("text", "") for output in outputs))
        assert float(found) >= least


if __name__ == "__main__":
    for notebook_name in EXPECTED:
        with tempfile.TemporaryDirectory() as working_folder:
            jupytext.write(run_source(notebook_name, working_folder), NOTEBOOKS / f"{notebook_name}.ipynb")
