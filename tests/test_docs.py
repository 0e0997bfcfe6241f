"""The documentation is true: links resolve, documented commands exist with their flags, pages cover the packages."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGES = sorted(p.parent.name for p in (ROOT / "src" / "tunesmith").glob("*/__init__.py"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"```(?:bash|console|powershell|sh)\n(.*?)```", re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_a_page(package: str) -> None:
    assert (ROOT / "docs" / f"{package}.md").exists()


def documented_commands() -> list[tuple[str, str]]:
    """(page, command line) for every `tunesmith …` line in a shell block; continued lines are joined."""
    found = []
    for page in PAGES:
        for block in FENCE.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                text = line.strip().removeprefix("$ ").strip()
                if text.startswith("tunesmith "):
                    found.append((page.name, text))
    return found


def parse(words: list[str]) -> None:
    """Walk the command tree; raises AssertionError on an unknown command or flag."""
    import typer.main

    from tunesmith.cli.main import app

    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if re.match(r"--?[a-zA-Z]", word):
            assert word.split("=")[0] in flags | {"--help"}, f"no flag {word}"


@pytest.mark.parametrize(("page", "line"), documented_commands())
def test_documented_commands_parse(page: str, line: str) -> None:
    parse(shlex.split(line, comments=True)[1:])


def test_no_machine_paths_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    banned = ["/" + "work/", "/" + "root/", "pypi" + ".org", "registry." + "npmjs"]
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json"} and path.exists():
            text = path.read_text(errors="replace")
            for word in banned:
                assert word not in text, f"{name} mentions {word}"
