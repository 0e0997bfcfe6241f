"""Which executors exist, by the name given to `--on`."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tunesmith.errors import JobError
from tunesmith.executors.inline import InlineExecutor
from tunesmith.executors.process import ProcessExecutor
from tunesmith.jobs.executor import Executor

_EXECUTORS: dict[str, Callable[[], Executor]] = {
    "inline": InlineExecutor,
    "process": ProcessExecutor,
    "local": ProcessExecutor,
}


def executor_names() -> tuple[str, ...]:
    """Every name that can be asked for; `local` is `process`."""
    return tuple(_EXECUTORS)


def executor_named(name: str) -> Executor:
    """The executor called `name`. Raises JobError with the nearest name."""
    if name not in _EXECUTORS:
        near = difflib.get_close_matches(name, _EXECUTORS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        raise JobError(f"no executor is called {name!r}", expected=f"one of {', '.join(_EXECUTORS)}", do=hint)
    return _EXECUTORS[name]()
