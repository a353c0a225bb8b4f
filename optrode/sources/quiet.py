"""What is shown while a model loads: nothing of transformers' own, one status line of ours when it takes long."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Timer

from optrode.notebook.bar import notebook, notebook_bar


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Switch off the log lines, warnings and progress bars of transformers; put the user's settings back at the end."""
    from transformers.utils import logging as shown

    _import_quantisers()
    verbosity, bars = shown.get_verbosity(), shown.is_progress_bar_enabled()
    shown.set_verbosity_error()
    shown.disable_progress_bar()
    try:
        with warnings.catch_warnings(), _no_gguf_bar():
            warnings.simplefilter("ignore")
            yield
    finally:
        shown.set_verbosity(verbosity)
        if bars:
            shown.enable_progress_bar()


@functools.cache
def import_bars() -> None:
    """Import, without a sound, the progress bars that transformers imports.

    In a notebook without widgets tqdm warns about bars of its own, which nobody asked for.
    """
    if notebook():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tqdm.auto  # noqa: F401


@functools.cache
def _import_quantisers() -> None:
    """Import, without a sound, what transformers imports for quantised models.

    torchao, where it is installed, comes along and logs one line for each kernel that does not fit this machine.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import transformers.quantizers.auto  # noqa: F401
    finally:
        logging.disable(before)


@contextmanager
def _no_gguf_bar() -> Iterator[None]:
    # The GGUF reader of transformers draws its bar with tqdm itself, out of reach of the switch that the others obey.
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = getattr(reader, "tqdm", None)
    if bar is None:
        yield
        return
    reader.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        reader.tqdm = bar


@contextmanager
def shown_when_slow(message: str, after: float = 2.0) -> Iterator[None]:
    """A status line on stderr, shown only when the block runs longer than `after` seconds.

    On a terminal it spins, in a notebook it stands below the cell, and vanishes at the end; elsewhere the message is
    printed once.
    """
    if notebook():
        with _in_notebook(message, after):
            yield
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    status = console.status(escape(message))

    def show() -> None:
        if console.is_terminal:
            status.start()
        else:
            console.print(escape(message), highlight=False, soft_wrap=True)

    timer = Timer(after, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextmanager
def _in_notebook(message: str, after: float) -> Iterator[None]:
    bar = notebook_bar()
    # What a thread displays goes to the cell that is running only with that cell's context.
    show = functools.partial(copy_context().run, bar.add_task, message) if bar is not None else _nothing
    timer = Timer(after, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if bar is not None:
            bar.stop()


def _nothing() -> None:
    """Where output is captured, nobody looks."""
