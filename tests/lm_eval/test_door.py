"""`optrode.lm_eval` without lm-eval: one line says what to install, and nothing else of optrode needs it."""

from __future__ import annotations

import sys

import pytest

import optrode.lm_eval
from optrode.errors import NotSupported


def test_without_lm_eval_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    from optrode.lm_eval.__main__ import main

    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "optrode.lm_eval.harness", raising=False)
    with pytest.raises(NotSupported, match="pip install 'optrode\\[lm-eval\\]'"):
        _ = optrode.lm_eval.Harness
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("optrode: lm-eval is not installed") and line.endswith("(see: optrode help NotSupported)")
    with pytest.raises(AttributeError):
        _ = optrode.lm_eval.nothing
