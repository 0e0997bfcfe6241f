"""What every test gets: the test engines installed as plug-ins, no network, one thread, a home folder of its own."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PLUGIN = TESTS / "plugin"

# Before torch, the hub libraries and any child process look at them.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MPLBACKEND": "Agg",
}.items():
    os.environ[name] = value
for folder in (TESTS, PLUGIN):  # modules that several tests share; the plug-in with the test engines
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
if str(PLUGIN) not in paths:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), *paths])


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that leave this machine fail; children are guarded by plugin/sitecustomize.py."""
    from tunesmith_test_engines.offline import guarded_connect

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, also for its child processes."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TUNESMITH_HOME", str(folder))
    return folder
