"""The entry point: every ending of a command becomes one clear line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from errno import ENOSPC
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import typer
from typer.main import get_command

from tunesmith.cli.app import app
from tunesmith.cli.screen import hush, shown
from tunesmith.errors import DiskFull, TunesmithError

__all__ = ["app", "main", "run"]

INTERRUPTED = 130
USAGE = 2


def run() -> None:
    """`tunesmith …` and `python -m tunesmith …`. Never returns."""
    sys.excepthook = explain_unexpected
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: say it to nobody
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open to the end
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # its remarks are for people who call it themselves
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when torch loads GNU's OpenMP: waiting threads spin for microseconds, then sleep. Spinning longer makes two
    # threads many times slower where other programs run; sleeping at once makes small models half as fast.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Unexpected errors pass through (see `explain_unexpected`)."""
    try:
        result = get_command(app).main(list(arguments), prog_name="tunesmith", standalone_mode=False)
    except typer.Exit as ending:
        return ending.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _fail("stopped", INTERRUPTED)
    except typer.TyperException as error:
        return _fail(f"{_usage_of(error)}{error.format_message()}", error.exit_code or USAGE)
    except TunesmithError as error:
        return _fail(error.message, error.exit_code)
    except BrokenPipeError:  # `tunesmith jobs list | head`: the reader has seen enough
        hush()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", DiskFull.exit_code if error.errno == ENOSPC else USAGE)
    return result if isinstance(result, int) else 0


def explain_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook` of the command line: the traceback goes into a file, one line to stderr."""
    if issubclass(kind, KeyboardInterrupt):
        _fail("stopped", INTERRUPTED)
        return
    text = "".join(traceback.format_exception(kind, error, trace))
    written = _write_traceback(text, os.environ)
    _fail(f"{kind.__name__}: {error}. This is a defect of tunesmith; the traceback is in {written}", 1)


def _write_traceback(text: str, environ: os._Environ[str]) -> Path:
    from tunesmith.cli.surroundings import read_surroundings
    from tunesmith.recipe.settings import home_folder

    # The command and its context are gone by now; its words are not.
    words = sys.argv[1:]
    given = next((after for word, after in pairwise(words) if word == "--home"), "")
    given = next((word.partition("=")[2] for word in words if word.startswith("--home=")), given)
    home = read_surroundings(Path(given)).home if given else home_folder(environ)
    name = f"error-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.txt"
    for folder in (home / "errors", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return Path("no file, since nowhere was writable")


def _usage_of(error: Exception) -> str:
    """The command a usage error belongs to, as `train: `."""
    context = getattr(error, "ctx", None)
    return f"{context.command_path.removeprefix('tunesmith').strip()}: " if context and context.parent else ""


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"error: {shown(' '.join(message.split()))}\n")
    sys.stderr.flush()
    return code
