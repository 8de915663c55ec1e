"""Completion in shells: commands, flags, their values and files, as the shells' scripts offer them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Command
from verydeep.cli.commands.completion import SHELLS, completion_script
from verydeep.cli.parser import build_parser

OFFERED = {
    "data ": ["check", "pack", "show"],
    "localise ev": ["evaluate"],
    "train --colour-": ["--colour-shift"],
    "train D --colour-shift ": ["sqrt", "eigenvalue", "off"],
    "localise train --regression P": ["PCR"],
    "evaluate a": ["a run"],
    "train --seed ": [],
    "completion ": ["bash", "zsh", "fish", "tcsh"],
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_flags_values_and_files(tmp_path: Path) -> None:
    (tmp_path / "a run").mkdir()
    lines = [completion_script("bash")]
    for typed in ("", *OFFERED):
        words = " ".join(shlex.quote(word) for word in ["verydeep", *typed.split(" ")])
        lines.append(f"COMP_WORDS=({words}); COMP_CWORD={typed.count(' ') + 1}; _shtab_verydeep")
        lines.append("printf '%s\\n' \"${COMPREPLY[@]}\" --")
    run = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    first, *offered = [[line for line in part.splitlines() if line] for part in run.stdout.split("--\n")[:-1]]
    assert {"train", "report", "data", "localise"} <= set(first)
    assert offered == list(OFFERED.values())


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_commands_flags_and_values() -> None:
    for typed, offered in OFFERED.items():
        lines = f"{completion_script('fish')}\ncomplete -C {shlex.quote(f'verydeep {typed}')}"
        run = subprocess.run(["fish", "--no-config", "-c", lines], capture_output=True, text=True, check=True)
        assert {line.partition("\t")[0] for line in run.stdout.splitlines()} >= set(offered) - {"a run"}, typed


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_every_command_and_can_be_read(command: Command, shell: str) -> None:
    script = command("completion", shell).stdout
    assert json.loads(command("completion", shell, "--json").stdout) == {"shell": shell, "script": script}
    assert all(word in script for name in build_parser()[1] for word in name.split())
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_another_shell_is_a_mistake(command: Command) -> None:
    assert "shell cannot be 'ksh'; did you mean zsh?" in command("completion", "ksh").mistake()
