"""`optrode chat`: what a person sees in a terminal, and what a script gets from a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.cells import cell_len

import optrode as op
from optrode import edits
from optrode.cli import run
from optrode.cli.chat import Dial, Room
from optrode.cli.chat.loop import _turns
from optrode.cli.chat.screen import Flow
from optrode.edits import Provenance
from optrode.engine.hooks import ACTIVE, HOOKS

OUT = "layers.1.out"
V = 3 * torch.randn(32, generator=torch.Generator().manual_seed(100))
SHORT = ["--max-new-tokens", "6"]


@pytest.fixture
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> op.Model:
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    return llama


@pytest.fixture
def edit(tiny: op.Model, tmp_path: Path) -> str:
    made = edits.add(OUT, V).with_provenance(Provenance({"name": "tiny", **tiny.fingerprint}))
    return str(made.save(tmp_path / "loud.edit"))


@pytest.fixture
def prompt(tmp_path: Path) -> str:
    return str(edits.prompt("You are a cat.").save(tmp_path / "cat.edit"))


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list, list]]:
    """The lines of standard output and standard error of a chat that is fed some lines, after its exit code."""

    def chat(lines: str, *arguments: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        code = run(["chat", *arguments, *SHORT])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return chat


def asked(model: op.Model, messages: list[str], *active: Any, **options: Any) -> str:
    """The reply to turns of user and assistant in turn, written at once."""
    roles = ("user", "assistant")
    talk = [{"role": roles[number % 2], "content": text} for number, text in enumerate(messages)]
    if not active:
        return model.generate(talk, max_new_tokens=6, **options)
    with model.edited(*active):
        return model.generate(talk, max_new_tokens=6, **options)


# In a pipe ------------------------------------------------------------------------------------------------------------


def test_turns_are_a_conversation(tiny: op.Model, piped: Any):
    first = asked(tiny, ["The cat"])
    second = asked(tiny, ["The cat", first, "dog"])
    code, out, err = piped("The cat\n\ndog\n", "tiny")
    assert code == 0 and "\n".join(out) == f"{first}\n{second}" and err == []


def test_edits_are_turned_up_down_on_and_off(tiny: op.Model, edit: str, piped: Any):
    loud = op.load_edit(edit)
    lines = ["The cat", "/reset", "/strength loud 0.1", "The cat", "/reset", "/off", "The cat", "/again", "/on loud",
             "/again", "/strength -2", "/again", "/strength 0", "/again"]  # fmt: skip
    code, out, err = piped("\n".join(lines), "--edit", edit)
    text = "\n".join(out)
    assert code == 0 and err == []
    for strength in (1, 0.1, -2):
        assert asked(tiny, ["The cat"], loud * strength) in text
    plain = asked(tiny, ["The cat"])
    assert text.count(plain) == 3 and len({asked(tiny, ["The cat"], loud * s) for s in (1, 0.1, -2)} | {plain}) == 4


def test_side_by_side(tiny: op.Model, edit: str, piped: Any):
    loud, first = op.load_edit(edit), asked(tiny, ["The cat"], op.load_edit(edit))
    code, out, _ = piped("The cat\ndog\n/side off\n/again\n", edit and "tiny", "--edit", edit, "--side")
    text = "\n".join(out)
    assert code == 0 and text.startswith(f"edited: {first}\nunedited: {asked(tiny, ['The cat'])}\n")
    # Both answer the conversation as it went on: with the edited reply.
    then = ["The cat", first, "dog"]
    both = f"edited: {asked(tiny, then, loud)}\nunedited: {asked(tiny, then)}\n"
    assert both in text and text.endswith(f"the edited model alone\n{asked(tiny, then, loud)}")


def test_prompts_and_system_texts(tiny: op.Model, prompt: str, edit: str, piped: Any):
    cat, loud = op.load_edit(prompt), op.load_edit(edit)
    lines = "The cat\n/again\n/system off\n/again\n/off cat\n/again\n/strength cat 2\n"
    code, out, err = piped(lines, "tiny", "-e", prompt, "-e", edit, "--system", "Hm.")
    text = "\n".join(out)
    with_system = asked(tiny, ["The cat"], cat, loud, system="Hm.")
    assert text.startswith(f"{with_system}\n{with_system}\nno system prompt\n{asked(tiny, ['The cat'], cat, loud)}\n")
    assert asked(tiny, ["The cat"], loud) in text
    assert code == 1 and "no strength" in err[0]


def test_unknown_commands_and_names_say_the_nearest(tiny: op.Model, edit: str, piped: Any):
    lines = "/strenght loud 2\n/strength lod 2\n/strength loud much\n/on loudd\n/strength\n/undo\n/save\n/side maybe\n"
    code, out, err = piped(lines, "tiny", "--edit", edit)
    assert code == 1 and out == []
    for line, says in zip(
        err,
        ["did you mean /strength", "did you mean loud?", "'much' is no number", "did you mean loud?", "write /strength",
         "nothing was said", "write /save", "neither on nor off"],
        strict=True,
    ):  # fmt: skip
        assert line.startswith("optrode: ") and says in line


def test_the_chat_goes_on_after_an_edit_that_did_nothing(tiny: op.Model, tmp_path: Path, piped: Any):
    idle = str(edits.add(OUT, V, "span:dog").save(tmp_path / "idle.edit"))
    late = str(edits.add(OUT, V, "generated:50-").save(tmp_path / "late.edit"))
    code, out, err = piped("The cat\n/off idle\nThe cat\n", "tiny", "--edit", idle)
    assert code == 1 and "does not contain this text" in err[0]
    assert out[-1] == asked(tiny, ["The cat"]).splitlines()[-1]
    code, out, err = piped("The cat\n/edits\n", "tiny", "--edit", late)
    assert code == 1 and "touched no position" in err[0], "the reply is there, and so is the warning"
    assert out[:-1] == asked(tiny, ["The cat"]).splitlines() and out[-1].startswith("late  on  x1")


def test_lines_that_begin_with_slashes_or_span_lines(tiny: op.Model, piped: Any):
    _, out, _ = piped("//help me\n/reset\n/HELP\n", "tiny")
    assert "\n".join(out).startswith(asked(tiny, ["/help me"]))
    assert sum(line.startswith("/") for line in out) == 13
    lines = iter(['"""one', "two", "", 'three"""', "four", '"""five"""', '"""', '"""', '"""never closed', "six"])
    assert list(_turns(lines)) == ["one\ntwo\n\nthree", "four", "five", "never closed\nsix"]


def test_undo_takes_a_turn_back_and_quit_ends(tiny: op.Model, piped: Any):
    _, out, _ = piped("The cat\ndog\n/undo\ndog\n/quit\ndog\n", "tiny")
    first = asked(tiny, ["The cat"])
    second = asked(tiny, ["The cat", first, "dog"])
    assert "\n".join(out) == f"{first}\n{second}\ntaken back: 'dog' and its reply\n{second}"


def test_again_that_fails_leaves_the_conversation_as_it_was(tiny: op.Model, edit: str):
    room = Room(tiny, [Dial("loud", op.load_edit(edit))], max_new_tokens=3)
    from optrode.cli.chat import commands
    from optrode.cli.chat.screen import Plain

    screen = Plain()
    screen.turn(room, "The cat")
    kept = room.turns[0]
    room.dials.append(Dial("bad", edits.add(OUT, V, "span:dog")))
    with pytest.raises(op.errors.BadInput):
        commands.run(room, "/again", screen)
    assert room.turns == [kept]


def test_what_does_not_fit_is_refused_before_the_first_turn(
    tiny: op.Model, edit: str, gpt2: op.Model, monkeypatch: Any, capsys: Any, tmp_path: Path
):
    monkeypatch.setattr("sys.stdin", io.StringIO("The cat\n"))
    assert run(["chat", "tiny", "--edit", str(edits.add("layers.9.out", V).save(tmp_path / "far.edit"))]) == 1
    assert "layers.9.out" in capsys.readouterr().err
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: gpt2)
    assert run(["chat", "other", "--edit", edit]) == 1
    assert "fitted on tiny" in capsys.readouterr().err
    assert run(["chat"]) == 1 and "no model was named" in capsys.readouterr().err
    monkeypatch.setattr(gpt2.tokenizer, "chat_template", None)
    assert run(["chat", "other"]) == 1 and "no chat template" in capsys.readouterr().err


def test_a_reply_is_as_long_as_there_is_room(tiny: op.Model):
    room = Room(tiny, max_new_tokens=500)
    assert room._longest([{"role": "user", "content": "The cat"}]) == 256 - tiny.encode("The cat").width


def test_a_conversation_that_gets_too_long_is_refused(tiny: op.Model, piped: Any):
    code, out, err = piped("The cat " * 100 + "\ndog\n", "tiny")
    assert code == 1 and "takes 256" in err[0] and "/undo or /reset" in err[0]
    assert "\n".join(out) == asked(tiny, ["dog"])


# Files ---------------------------------------------------------------------------------------------------------------


def test_saving_the_conversation(tiny: op.Model, edit: str, piped: Any, tmp_path: Path):
    file, foreign = tmp_path / "deep" / "chat.json", tmp_path / "mine.json"
    foreign.write_text("{}")
    lines = f"/save {file}\nThe cat\n/save {file}\n/off\ndog\n/save {file}\n/save {foreign}\n/save {tmp_path}\n"
    code, _, err = piped(lines, "tiny", "--edit", edit, "--strength", "0.5", "--system", "Hm.")
    assert code == 1 and len(err) == 3 and "nothing was said" in err[0] and "no saved chat" in err[1]
    assert foreign.read_text() == "{}" and [path.name for path in file.parent.iterdir()] == ["chat.json"]
    kept = json.loads(file.read_text())
    first = asked(tiny, ["The cat"], op.load_edit(edit) * 0.5, system="Hm.")
    assert [message["role"] for message in kept["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert kept["messages"][2]["content"] == first and kept["model"] == tiny.name
    (one,) = kept["turns"][0]["edits"]
    assert (one["name"], one["strength"], one["file"]) == ("loud", 0.5, edit) and kept["turns"][1]["edits"] == []


def test_saving_the_edits_as_they_are_set(tiny: op.Model, edit: str, prompt: str, piped: Any, tmp_path: Path):
    twin = tmp_path / "twin" / "loud.edit"
    twin.parent.mkdir()
    (edits.scale(OUT, 2.0)).save(twin)
    saved = tmp_path / "both.edit"
    lines = f"/strength loud -0.5\n/save {saved}\n/save {saved}\nThe cat\n/off\n/save {tmp_path / 'none.edit'}\n"
    code, out, err = piped(lines, "tiny", "-e", edit, "-e", str(twin))
    assert "saved the edits" in out[1] and "loud x-0.5, loud-2 x1" in out[1]
    assert code == 1 and "already" in err[0] and "no edit is on" in err[1]
    both = op.load_edit(saved)
    assert asked(tiny, ["The cat"], both) == asked(tiny, ["The cat"], op.load_edit(edit) * -0.5, op.load_edit(twin))
    assert asked(tiny, ["The cat"], both) in "\n".join(out)
    code, _, err = piped(f"/save {tmp_path / 'mixed.edit'}\n", "tiny", "-e", edit, "-e", prompt)
    assert code == 1 and "one file holds" in err[0] and not (tmp_path / "mixed.edit").exists()


# Words ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [21, 40, 80])
def test_flowing_text_wraps_between_words_and_loses_nothing(width: int):
    text = "The restaurant was quite wonderful,  and\n\nthe soup: 漢字漢字 " + "x" * 100 + " end."
    for size in (1, 3, 7, 200):
        flow = Flow(width)
        shown = "".join(flow.add(text[at : at + size]) for at in range(0, len(text), size)) + flow.rest()
        assert "".join(shown.split()) == "".join(text.split()) and "wonder\n" not in shown and "\n\nthe soup" in shown
        assert max(cell_len(line) for line in shown.split("\n")) <= max(width, 25)


def test_what_has_no_blanks_is_shown_at_once():
    flow = Flow(80)
    assert [flow.add(character) for character in "漢字 a"] == ["漢", "字", " ", ""]
    assert "".join(flow.add("x") for _ in range(40)).count("x") == 40 - 0 and flow.rest() == ""


def test_what_steers_a_terminal_is_not_shown():
    flow = Flow(80)
    assert flow.add("a\x1b[2Jb\x07\rc\x9b1m d") + flow.rest() == "a[2Jbc1m d"


def test_a_reply_that_was_stopped_stays_as_far_as_it_came(tiny: op.Model, edit: str):
    def stop_after(count: int) -> Callable[..., None]:
        def show(stream: Any, beside: Any, reply: Any) -> None:
            for _ in range(count):
                reply.text += next(stream)
            raise KeyboardInterrupt

        return show

    room = Room(tiny, [Dial("loud", op.load_edit(edit))], side=True)
    turn = room.ask("The cat", stop_after(2))
    assert turn.reply.stopped and turn.reply.text and room.messages()[1]["content"] == turn.reply.text
    with pytest.raises(KeyboardInterrupt):
        room.ask("dog", stop_after(0))
    assert room.turns == [turn] and len(HOOKS) == 0


# In a terminal -------------------------------------------------------------------------------------------------------


class Person:
    """Somebody at a pseudo-terminal in which a chat runs."""

    def __init__(self, master: int, pid: int):
        self.master, self.pid, self.seen = master, pid, ""

    def types(self, text: str) -> None:
        os.write(self.master, text.encode())

    def waits_for(self, text: str, times: int = 1) -> str:
        """All that came until `text` was seen so often, since the last time."""
        until = time.monotonic() + 120
        while self.seen.count(text) < times:
            assert time.monotonic() < until, f"never saw {text!r} in:\n{self.seen}"
            ready, _, _ = select.select([self.master], [], [], 1.0)
            if ready:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError as problem:
                    raise AssertionError(f"the chat ended before {text!r}:\n{self.seen}") from problem
        seen, self.seen = self.seen, ""
        return seen

    def waits_for_text(self, length: int) -> None:
        """Until this many characters were seen."""
        until = time.monotonic() + 120
        while len(self.seen) < length:
            assert time.monotonic() < until, self.seen
            if select.select([self.master], [], [], 1.0)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")

    def interrupts(self, until: str) -> None:
        """Control-C at the prompt, again where nothing came of it: it fell before the line editor was ready."""
        deadline = time.monotonic() + 60
        while "> " not in self.seen.partition(until)[2]:
            assert time.monotonic() < deadline, f"never saw {until!r} in:\n{self.seen}"
            self.types("\x03")
            while "> " not in self.seen.partition(until)[2] and select.select([self.master], [], [], 3.0)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        self.seen = ""

    def ends(self) -> int:
        """The exit code, once the chat has ended."""
        deadline = time.monotonic() + 60
        while self.alive():
            assert time.monotonic() < deadline, "the chat does not end"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def alive(self) -> bool:
        """False when there is no more to see; waits a moment for what there is."""
        if not select.select([self.master], [], [], 2.0)[0]:
            return True
        try:
            return bool(os.read(self.master, 65536))
        except OSError:
            return False


TALK = """
import sys, time
sys.path[:0] = {paths!r}
import importlib.util, torch
import optrode as op
from optrode import edits
from optrode.cli.chat import Dial, Room, talk
spec = importlib.util.spec_from_file_location("house", {conftest!r})
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)
torch.set_num_threads(1)
tokenizer = house.make_tokenizer()
model = op.load(house.tiny_module("llama", tokenizer, torch.float32, 0), tokenizer=tokenizer)
module, length = model.module, {length}
module.generation_config.min_new_tokens = length
module.register_forward_pre_hook(lambda *_: time.sleep({pause}))
edit = edits.add("layers.1.out", 3 * torch.randn(32, generator=torch.Generator().manual_seed(100)))
room = Room(model, [Dial("loud", edit)], max_new_tokens=length)
sys.exit(talk(room))
"""


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    people: list[Person] = []
    root = Path(__file__).parents[2]

    def sit_down(length: int, pause: float = 0.0) -> Person:
        code = TALK.format(paths=[str(root)], conftest=str(root / "tests" / "conftest.py"), length=length,
                           pause=pause)  # fmt: skip
        pid, master = pty.fork()
        if pid == 0:
            # What runs in the background of a shell ignores interrupts, and so would its children.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONUNBUFFERED": "1"}
            os.execve(sys.executable, [sys.executable, "-c", code], environment)
        people.append(Person(master, pid))
        return people[-1]

    yield sit_down
    for one in people:
        try:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(one.master)


def test_a_person_at_a_terminal(person: Callable[..., Person]):
    me = person(8)
    assert "with loud x1" in me.waits_for("\n> ")
    me.types("The cat\n")
    seen = me.waits_for("\n> ")
    assert "[loud x1; changed " in seen and "8 tokens" in seen and "cut at 8 tokens" in seen
    me.types("/strenth loud 2\n")
    assert "did you mean /strength" in me.waits_for("\n> ")
    me.types("/side\n")
    me.waits_for("\n> ")
    me.types("/again\n")
    seen = me.waits_for("\n> ")
    assert "edited" in seen and "unedited" in seen
    me.types("/st\t")
    me.waits_for("/strength ")
    me.types("lo\t2\n")
    assert "loud x2 from the next turn on" in me.waits_for("\n> ")
    me.interrupts("Ctrl-D or /quit")
    me.types("\x04")
    while me.alive():
        # An interrupt that was late took the first one.
        me.types("\x04")
    assert me.ends() == 0


def test_control_c_stops_the_reply_and_not_the_chat(person: Callable[..., Person]):
    me = person(230, pause=0.03)
    me.waits_for("\n> ")
    me.types("The cat\n")
    me.waits_for_text(60)
    me.types("\x03")
    assert "stopped]" in me.waits_for("\n> ")
    me.types("/undo\n")
    assert "taken back: 'The cat'" in me.waits_for("\n> ")
    me.types("/quit\n")
    assert me.ends() == 0


def test_nothing_is_left(tiny: op.Model, edit: str, piped: Any):
    piped("The cat\n/side\ndog\n", "tiny", "--edit", edit)
    assert len(HOOKS) == 0 and ACTIVE.get() == () and op.active() == ()
