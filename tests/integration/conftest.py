# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Generated plates for anomalib's detectors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from anomalib.data import Folder

from anomalib_ncd.synthetic.plates import GeneratedDataset, generate_dataset

# Forks for each piece of code it is sent, and answers with exit status and what was printed.
FORKING = """
import json, os, sys, tempfile, traceback
import anomalib.engine, anomalib.models
for line in sys.stdin:
    code, args = json.loads(line)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        if not (child := os.fork()):
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.argv, status = ["code", *args], 1
            try:
                exec(code, {"__name__": "__main__"})
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        log.seek(0)
        print(json.dumps([status, log.read()]), flush=True)
"""


@pytest.fixture(scope="session")
def run_fresh() -> Iterator[Callable[..., None]]:
    """Runs code in a process in the C locale that has imported anomalib, which takes long, but not this package."""
    if not hasattr(os, "fork"):
        pytest.skip("each piece of code has a fork of a process that has imported anomalib")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"OMP_NUM_THREADS": "1", "LC_ALL": "C", "LANG": "C", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:

        def run(code: str, *args: object) -> None:
            server.stdin.write(json.dumps([code, [str(arg) for arg in args]]) + "\n")
            server.stdin.flush()
            status, log = json.loads(server.stdout.readline())
            assert status == 0, log

        yield run
        server.stdin.close()


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedDataset:
    """Four good plates to train on, and six to test: two good, two with a hole, two with a scratch."""
    return generate_dataset(
        tmp_path_factory.mktemp("generated"),
        kinds=["hole", "scratch"],
        num_train_good=4,
        num_test_good=2,
        num_per_kind=2,
        num_mixed=0,
        size=64,
    )


@pytest.fixture(scope="session")
def make_datamodule(generated: GeneratedDataset) -> Callable[..., Folder]:
    """Makes a datamodule of these plates."""

    def make(train_batch_size: int = 4) -> Folder:
        return Folder(
            name="generated",
            root=generated.root,
            normal_dir="train/good",
            normal_test_dir="test/good",
            abnormal_dir=["test/hole", "test/scratch"],
            mask_dir=["ground_truth/hole", "ground_truth/scratch"],
            train_batch_size=train_batch_size,
            eval_batch_size=3,
            num_workers=0,
            val_split_mode="same_as_test",
        )

    return make


@pytest.fixture
def datamodule(make_datamodule: Callable[..., Folder]) -> Folder:
    """A datamodule of these plates."""
    return make_datamodule()
