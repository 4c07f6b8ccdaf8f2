# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Generated plates for anomalib's detectors."""

from collections.abc import Callable

import pytest
from anomalib.data import Folder

from anomalib_ncd.synthetic.plates import GeneratedDataset, generate_dataset


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
