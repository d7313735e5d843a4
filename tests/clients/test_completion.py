import os
import shutil
import subprocess
import sys

import pytest

ASK_BASH = """
eval "$(recctl completion bash)"
COMP_WORDS=({words}); COMP_CWORD={at}
_recctl_completion recctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [(("sta",), ["start", "status"]), (("dataset", "p"), ["pack", "purge"])],
)
def test_bash_completes_commands_and_subcommands_by_the_printed_script(tmp_path, words, offered):
    command = tmp_path / "recctl"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m recd.clients.recctl.cli "$@"\n')
    command.chmod(0o755)
    script = ASK_BASH.format(words=" ".join(("recctl", *words)), at=len(words))
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
    )
    assert done.stdout.split() == offered, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_the_other_shells_ask_recctl(shell, recctl):
    said = recctl("completion", shell)
    assert said.code == 0
    assert f"_RECCTL_COMPLETE={shell}_complete" in said.out
