from __future__ import annotations

import subprocess
import sys
import time
import warnings

import pytest
from transformers.utils import logging

from optrode.sources.quiet import quiet_transformers, shown_when_slow


@pytest.mark.parametrize("bars", [True, False])
def test_settings_come_back_even_after_an_error(bars: bool):
    before, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
    logging.set_verbosity_info()
    try:
        with pytest.raises(ValueError), quiet_transformers():
            warnings.warn("unseen", stacklevel=1)
            assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
            raise ValueError
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled() == bars
    finally:
        logging.set_verbosity(before)
        (logging.enable_progress_bar if had_bars else logging.disable_progress_bar)()


def test_the_bar_of_the_gguf_reader_is_still_where_we_switch_it_off():
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = reader.tqdm
    with quiet_transformers():
        assert reader.tqdm is not bar
    assert reader.tqdm is bar


def test_only_slow_work_is_announced_and_only_on_stderr(capsys: pytest.CaptureFixture[str]):
    with shown_when_slow("quick", after=5):
        pass
    with shown_when_slow("slow [work]", after=0.01):
        time.sleep(0.2)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "slow [work]\n"


def test_loading_says_nothing_of_kernels_that_do_not_fit_this_machine():
    """torchao logs them when transformers imports it, before any model is there."""
    code = (
        "import logging, sys\n"
        "from optrode.sources.quiet import quiet_transformers\n"
        "with quiet_transformers():\n"
        "    import transformers.modeling_utils\n"
        "logging.getLogger('later').warning('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "heard\n")
