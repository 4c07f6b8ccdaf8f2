# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The checkpoint that a run leaves and goes on from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from anomalib.callbacks import ModelCheckpoint

SHARE_OF_TIME = 0.05


class RunCheckpoint(ModelCheckpoint):
    """Saves after the last epoch, and after others as often as saving takes little of the time.

    An epoch on cached views takes less than a second, and a checkpoint of a large backbone as long. A run that is
    killed loses at most twenty times the seconds that a save takes.
    """

    def __init__(self, dirpath: str | Path, filename: str, share_of_time: float = SHARE_OF_TIME) -> None:
        super().__init__(dirpath, filename, enable_version_counter=False, save_on_train_epoch_end=True)
        self.share_of_time = share_of_time
        self._wait_until = 0.0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Save, if it is time to or the last epoch."""
        start = time.perf_counter()
        if start < self._wait_until and trainer.current_epoch + 1 != trainer.max_epochs:
            return
        super().on_train_epoch_end(trainer, pl_module)
        end = time.perf_counter()
        self._wait_until = end + (end - start) / self.share_of_time
