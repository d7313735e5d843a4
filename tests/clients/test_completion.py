import os
import shutil
import subprocess
import sys
import termios

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
    [(("sta",), ["start", "status"]), (("dataset", "p"), ["pack", "purge"]),
     (("config", "check", "bi"), ["bimanual_so101"])],
)  # fmt: skip
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


@pytest.fixture
def shell_environment(tmp_path, recctl):
    """An environment in which `recctl` is this one; the printed scripts lie in `tmp_path`."""
    command = tmp_path / "recctl"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m recd.clients.recctl.cli "$@"\n')
    command.chmod(0o755)
    (tmp_path / "_recctl").write_text(recctl("completion", "zsh").out)
    (tmp_path / "recctl.fish").write_text(recctl("completion", "fish").out)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}


LINES = [
    ("recctl sta", ["start", "status"]),
    ("recctl dataset p", ["pack", "purge"]),
    ("recctl record --client-lost ", ["continue", "finish", "stop"]),
]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
@pytest.mark.parametrize(("line", "offered"), LINES)
def test_fish_completes_by_the_printed_script(tmp_path, shell_environment, line, offered):
    ask = f"source {tmp_path}/recctl.fish; complete -C '{line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", ask],
        capture_output=True, text=True, env=shell_environment, timeout=60,
    )  # fmt: skip
    told = [text.split("\t")[0] for text in done.stdout.splitlines() if text]
    assert sorted(told) == offered, done.stderr


ASK_ZSH = """
fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -d {folder}/dump; PS1='ready> '
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
@pytest.mark.parametrize(("line", "offered"), LINES)
def test_zsh_completes_by_the_printed_script(tmp_path, shell_environment, line, offered):
    (tmp_path / ".zshrc").write_text(ASK_ZSH.format(folder=tmp_path))
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    shell = subprocess.Popen(
        ["zsh", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**shell_environment, "ZDOTDIR": str(tmp_path), "TERM": "vt100"},
    )  # fmt: skip
    os.close(theirs)
    shown = ""
    try:
        while "ready> " not in shown:
            shown += os.read(ours, 4096).decode()
        os.write(ours, f"{line}\t\t".encode())
        while not all(word in shown for word in offered):
            shown += os.read(ours, 4096).decode()
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
