# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from anomalib_ncd.runs import checkpoint as run_checkpoint
from anomalib_ncd.runs.checkpoint import RunCheckpoint


class Clock:
    """A clock that stands still but for what is added to it."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds_to_save", "saved"), [(0.0, [0, 1, 2, 3, 4, 5, 6]), (1.0, [0, 2, 4, 6]), (9.0, [0, 6])]
)
def test_it_saves_as_often_as_the_share_allows_and_at_the_end(monkeypatch, tmp_path, seconds_to_save, saved):
    clock, epochs = Clock(), []
    monkeypatch.setattr(run_checkpoint, "time", clock)

    class Saver(RunCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            epochs.append(trainer.current_epoch)
            clock.now += seconds_to_save

    class Model(BoringModel):
        learning_type = None
        val_dataloader = validation_step = None

        def on_train_epoch_start(self):
            clock.now += 10

    arguments = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    saver = Saver(tmp_path, "model", share_of_time=0.05)
    Trainer(max_epochs=7, limit_train_batches=1, callbacks=[saver], **arguments).fit(Model())
    assert epochs == saved
