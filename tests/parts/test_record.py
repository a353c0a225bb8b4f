"""The run record: plain, timed, and with a command that a shell reads back."""

from __future__ import annotations

import json
import shlex
import sys
import time
from datetime import datetime
from importlib import metadata

from optrode.parts.record import RunRecord, versions


def test_versions_are_those_that_are_installed():
    found = versions()
    assert found["torch"] == metadata.version("torch") and found["scikit-learn"] == metadata.version("scikit-learn")
    assert found["python"] == ".".join(map(str, sys.version_info[:3])) and found["optrode"]


def test_the_command_reads_back_as_the_arguments():
    arguments = ["compare", "steering", "--data", "my own pairs.csv", "--note", "it's $HOME"]
    record = RunRecord(arguments, seed=3).as_dict()
    assert shlex.split(record["command"]) == ["optrode", *arguments]
    assert record["arguments"] == arguments and record["seed"] == 3
    assert RunRecord().as_dict()["command"] == ""


def test_it_counts_its_seconds_and_is_plain():
    record = RunRecord()
    time.sleep(0.05)
    first = record.as_dict()
    assert 0.05 <= first["seconds"] < 5 and json.loads(json.dumps(first)) == first
    assert datetime.fromisoformat(first["started"]).tzinfo is not None


def test_it_names_no_machine_and_no_path():
    import platform

    text = json.dumps(RunRecord(["a"]).as_dict())
    assert platform.node() not in text and "/home" not in text and "/root" not in text


def test_hashes_are_kept():
    record = RunRecord()
    record.hashes = {"model": "abc"}
    assert record.as_dict()["hashes"] == {"model": "abc"}
