"""Start-up time, and every ending of a command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith import __version__
from tunesmith.cli import main as entry
from tunesmith.cli.main import explain_unexpected, main
from tunesmith.errors import DiskFull, JobBusy, NonFinite, RecipeError, Stopped, TunesmithError

ALLOWED_SECONDS = 0.3
HEAVY = ("torch", "numpy", "diffusers", "transformers", "peft", "matplotlib", "PIL", "ruamel")


def test_help_answers_at_once() -> None:
    """In processor time, which a busy machine does not stretch as it does the clock's."""
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "tunesmith", "--help"], capture_output=True, text=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert "train" in done.stdout
    assert min(seconds) <= ALLOWED_SECONDS, seconds


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from tunesmith.cli.main import main; main(['--help'])\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "3000"), ({"OMP_WAIT_POLICY": "active"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(given: dict[str, str], found: str) -> None:
    code = (
        "import os, sys; sys.argv = ['tunesmith', '--version']\n"
        "from tunesmith.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    environment = {
        name: value for name, value in os.environ.items() if "WAIT_POLICY" not in name and "GOMP" not in name
    } | given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == found


def test_version(tunesmith: Callable[..., object]) -> None:
    ran = tunesmith("--version")
    assert (ran.code, ran.out) == (0, f"tunesmith {__version__}\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("trian",), "trian"),
        (("jobs", "shwo"), "shwo"),
        (("train", "--stepz", "3"), "--stepz"),
        (("jobs", "show"), "JOB"),
        (("dataset", "split", "x", "--seed", "many"), "--seed"),
    ],
)
def test_misspelt_commands_and_flags_are_one_line(tunesmith, words: tuple[str, ...], named: str) -> None:
    ran = tunesmith(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert named in ran.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TunesmithError("a", expected="b", do="c"), 2),
        (RecipeError("no knob is called 'x.y'"), 2),
        (NonFinite("loss is NaN"), 3),
        (JobBusy("busy"), 4),
        (DiskFull("no room"), 5),
        (Stopped("stopped at step 5; the state is saved"), 130),
        (PermissionError(13, "Permission denied", "secret.yaml"), 2),
        (OSError(28, "No space left on device"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_deliberate_ending_has_its_code(tunesmith, monkeypatch, error: BaseException, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(entry, "app", fail)
    monkeypatch.setattr(entry, "get_command", lambda _: type("Command", (), {"main": staticmethod(fail)}))
    ran = tunesmith("anything")
    assert ran.code == code
    words = error.message if isinstance(error, TunesmithError) else (getattr(error, "strerror", None) or "stopped")
    assert words in ran.error


def test_unexpected_errors_name_the_file_with_the_traceback(capsys, home: Path) -> None:
    try:
        raise ZeroDivisionError("one\nline")
    except ZeroDivisionError as error:
        explain_unexpected(type(error), error, error.__traceback__)
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = written.err.splitlines()
    assert line.startswith("error: ZeroDivisionError: one line. ")
    (file,) = (home / "errors").glob("*.txt")
    assert str(file) in line
    assert "Traceback (most recent call last)" in file.read_text()


def test_unexpected_errors_where_home_is_a_file(capsys, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    explain_unexpected(ValueError, ValueError("x"), None)
    assert str(tmp_path / "error-") in capsys.readouterr().err


def test_the_process_writes_no_traceback_of_its_own(tmp_path: Path) -> None:
    code = (
        "import tunesmith.cli.main as m\n"
        "def broken(_): raise ZeroDivisionError('inside')\n"
        "m.get_command = broken\n"
        "m.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ZeroDivisionError: inside")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from tunesmith.cli.main import run; run()"
    done = subprocess.run(
        f"{sys.executable} -c '{code}' train --help | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="signals to one process are POSIX")
def test_interrupt_of_a_waiting_command() -> None:
    code = (
        "import os, signal, tunesmith.cli.main as m\n"
        "def wait(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
        "m.get_command = lambda _: type('C', (), {'main': staticmethod(wait)})\n"
        "m.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: stopped\n")
    assert signal.SIGINT


def test_usage_errors_name_their_command(tunesmith) -> None:
    assert tunesmith("jobs", "show").error.startswith("error: jobs show: ")


def test_main_returns_instead_of_exiting() -> None:
    assert main(["--version"]) == 0


def test_the_traceback_goes_to_the_home_that_was_named(capsys, tmp_path: Path, monkeypatch) -> None:
    for words in (["--home", str(tmp_path / "a"), "jobs"], [f"--home={tmp_path / 'b'}", "jobs"]):
        monkeypatch.setattr(sys, "argv", ["tunesmith", *words])
        explain_unexpected(ValueError, ValueError("x"), None)
    assert [len(list((tmp_path / name / "errors").glob("*.txt"))) for name in "ab"] == [1, 1]
    assert str(tmp_path / "a" / "errors") in capsys.readouterr().err
