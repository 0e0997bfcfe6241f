"""Imported by every child process of the tests (this folder is on their PYTHONPATH): no network there either."""

import socket

from tunesmith_test_engines.offline import guarded_connect

socket.socket.connect = guarded_connect  # type: ignore[method-assign]
