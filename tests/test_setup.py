"""The Makefile and tools/setup.sh, run in a copy of the project with a PATH of our choosing.

The folder has a space in its name. uv is a script that notes its calls; Python is the one that runs
the tests, behind a script that leaves out the costly import at the end of a set-up. Nothing here
touches the network: the one address that is asked is a closed port of this machine.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["sh", "make", "awk", "cat", "chmod", "date", "grep", "head", "ln", "mkdir", "rm"]
COMMANDS += ["mktemp", "sed", "sleep", "tail"]

PYTHON = f"""#!/bin/sh
case "$2" in *sklearn*) exit 0 ;; esac
exec '{sys.executable}' "$@"
"""
OLD_PYTHON = f"""#!/bin/sh
shift
exec '{sys.executable}' -c '
import sys
sys.version_info = (3, 10, 13)
exec(sys.argv.pop(1))
' "$@"
"""
BROKEN_SHIM = "#!/bin/sh\necho 'command not found in any version' >&2\nexit 127\n"
PYTHON_WITHOUT_ENSUREPIP = f"""#!/bin/sh
case "$2" in *sklearn*) exit 0 ;; esac
shift
exec '{sys.executable}' -c '
import sys
sys.modules["ensurepip"] = None
exec(sys.argv.pop(1))
' "$@"
"""
UV = """#!/bin/sh
echo "$*" >>"$HOME/calls"
case "$1 $2" in
    "--version ") echo "uv 9.9.9" ;;
    "venv "*)
        mkdir -p .venv/bin && ln -s "$(command -v python3)" .venv/bin/python
        printf '#!/bin/sh\\necho nnref "$@"\\n' >.venv/bin/nnref && chmod +x .venv/bin/nnref ;;
    "pip install") [ -z "$INSTALL_FAILS" ] || { echo "disk full"; exit 1; } ;;
esac
"""


class Project:
    """A copy of the set-up's files, and the programs that it can see."""

    def __init__(self, folder: Path):
        self.home = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name in COMMANDS:
            (self.programs / name).symlink_to(shutil.which(name))
        self.folder = folder / "a project"
        shutil.copytree(ROOT / "tools", self.folder / "tools")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        (self.folder / "experiments").mkdir()
        (self.folder / "experiments/xor_small.json").write_text("{}")

    def has(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(script)
        path.chmod(0o755)

    def make(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {
            "PATH": str(self.programs),
            "HOME": str(self.home),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        }
        return subprocess.run(
            [self.programs / "make", *words],
            cwd=self.folder,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[str]:
        """What uv was called with since the last look, without the questions."""
        notes = self.home / "calls"
        lines = notes.read_text().splitlines() if notes.exists() else []
        notes.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith(("--version", "pip compile"))]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def with_uv(project: Project) -> Project:
    project.has("uv", UV)
    project.has("python3", PYTHON)
    return project


def refused(made: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, the words among what is said, and no traceback."""
    assert made.returncode == 2, made
    assert "Traceback" not in made.stderr
    for word in words:
        assert word in made.stderr


# ---- What the targets call


def test_help_is_the_default_and_lists_every_target(project):
    said = project.make().stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).split()
    assert re.findall(r"^  make ([a-z]+) +\S", said, re.M) == targets


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["NAME=xor_small"], 'run "experiments/xor_small.json"'),
        (["NAME=xor_small.json"], 'run "experiments/xor_small.json"'),
        (["NAME=experiments/xor_small.json"], 'run "experiments/xor_small.json"'),
        (["NAME=xor_smal"], 'run "experiments/xor_smal.json"'),
        (["NAME=xor_small", "ARGS=--seed 3 --json"], 'run "experiments/xor_small.json" --seed 3'),
        ([], "run"),
    ],
)
def test_experiment_hands_the_file_to_nnref(project, words, command):
    lines = project.make("-n", "experiment", *words).stdout.splitlines()
    assert lines[0] == "sh tools/setup.sh run"
    assert lines[1].split()[0] == ".venv/bin/nnref"
    assert " ".join(lines[1].split()[1:]).startswith(command)
    assert bool(words) == ("experiments" in lines[1])


def test_a_name_that_the_system_exports_is_no_experiment(project):
    assert "DESKTOP" not in project.make("-n", "experiment", NAME="DESKTOP").stdout
    assert "xor_small" in project.make("-n", "experiment", NAME="xor_small").stdout


def test_the_ci_script_can_be_run():
    assert os.access(ROOT / ".ci/run", os.X_OK)


# ---- Set-up on first use, and only then


def test_the_second_call_sets_nothing_up(with_uv):
    first = with_uv.make("experiment", "NAME=xor_small")
    assert first.returncode == 0, first
    assert "first use" in first.stderr
    assert first.stdout == "nnref run experiments/xor_small.json\n"
    assert [line.split()[0] for line in with_uv.calls()] == ["venv", "pip"]

    second = with_uv.make("experiment", "NAME=xor_small")
    assert second.stdout == first.stdout
    assert second.stderr == ""
    assert not (with_uv.home / "calls").exists()


def test_only_a_change_of_what_is_installed_sets_up_again(with_uv):
    with_uv.make("experiment")
    with_uv.calls()
    file = with_uv.folder / "pyproject.toml"
    file.write_text(file.read_text().replace("line-length = 100", "line-length = 99"))
    with_uv.make("experiment")
    assert with_uv.calls() == []
    file.write_text(file.read_text().replace('"jax>=0.10,', '"jax>=0.11,'))
    with_uv.make("experiment")
    assert [line.split()[0] for line in with_uv.calls()] == ["pip"]


def test_the_tests_add_their_extra_to_the_same_environment(with_uv):
    with_uv.make("experiment")
    assert with_uv.calls()[-1].endswith("-e .")
    with_uv.make("lint")
    assert [line.split()[-1] for line in with_uv.calls()] == [".[dev]"]


def test_what_the_tests_need_is_enough_for_a_run(with_uv):
    with_uv.make("lint")
    with_uv.calls()
    with_uv.make("experiment")
    assert with_uv.calls() == []


def test_a_folder_that_was_moved_is_set_up_anew(with_uv):
    with_uv.make("experiment")
    with_uv.calls()
    with_uv.folder = with_uv.folder.rename(with_uv.home / "elsewhere")
    assert with_uv.make("experiment").returncode == 0
    assert [line.split()[0] for line in with_uv.calls()] == ["venv", "pip"]


def test_a_failed_installation_leaves_nothing_behind(with_uv):
    refused(with_uv.make("experiment", INSTALL_FAILS="yes"), "uv install failed", "| disk full")
    assert not (with_uv.folder / ".venv").exists()
    assert with_uv.make("experiment").returncode == 0


def test_a_set_up_that_was_killed_starts_over(with_uv):
    with_uv.make("experiment")
    with_uv.calls()
    ended = subprocess.Popen(["true"])
    ended.wait()
    (with_uv.folder / ".venv/nnref-unfinished").write_text(str(ended.pid))
    assert with_uv.make("experiment").returncode == 0
    assert [line.split()[0] for line in with_uv.calls()] == ["venv", "pip"]


def test_two_set_ups_at_once_do_not_meet(with_uv):
    with_uv.make("experiment")
    (with_uv.folder / ".venv/nnref-unfinished").write_text(str(os.getpid()))
    refused(with_uv.make("experiment"), "another call", str(os.getpid()))


def test_an_environment_of_someone_else_is_not_removed(with_uv):
    (with_uv.folder / ".venv").mkdir()
    (with_uv.folder / ".venv/mine").touch()
    refused(with_uv.make("experiment"), ".venv", "Move it away")
    assert (with_uv.folder / ".venv/mine").exists()


# ---- Which Python


def test_no_python_is_said_in_plain_words(project):
    start = time.monotonic()
    refused(project.make("experiment"), "no Python was found", "3.11 or newer", "PYTHON=")
    assert time.monotonic() - start < 15
    assert not (project.folder / ".venv").exists()


def test_what_was_tried_is_named_with_the_reason(project):
    project.has("python3", OLD_PYTHON)
    project.has("python3.13", BROKEN_SHIM)
    project.has("python3.11", PYTHON_WITHOUT_ENSUREPIP)
    refused(
        project.make("test"),
        "bin/python3 is Python 3.10.13, and 3.11 or newer is needed",
        "bin/python3.13 does not run",
        "apt install python3-venv",
    )


def test_uv_needs_no_ensurepip(with_uv):
    with_uv.has("python3", PYTHON_WITHOUT_ENSUREPIP)
    assert with_uv.make("experiment").returncode == 0


def test_a_broken_shim_does_not_hide_a_python_behind_it(with_uv):
    behind = with_uv.home / "behind"
    behind.mkdir()
    (with_uv.programs / "python3").rename(behind / "python3")
    with_uv.has("python3", BROKEN_SHIM)
    with_uv.has("python3.13", BROKEN_SHIM)
    made = with_uv.make("experiment", PATH=f"{with_uv.programs}:{behind}")
    assert made.returncode == 0, made
    assert f"--python {behind}/python3 .venv" in with_uv.calls()[0]


def test_the_user_can_name_the_python(with_uv):
    with_uv.has("python3.13", OLD_PYTHON)
    with_uv.has("mine", PYTHON)
    with_uv.make("experiment", "PYTHON=mine")
    assert f"--python {with_uv.programs}/mine .venv" in with_uv.calls()[0]
    shutil.rmtree(with_uv.folder / ".venv")
    refused(with_uv.make("experiment", "PYTHON=/no/such/python"), "/no/such/python does not run")


# ---- No network


def test_no_network_is_said_in_plain_words(project):
    project.has("python3", PYTHON)
    start = time.monotonic()
    refused(project.make("experiment"), "no packages can be fetched", "needs the network")
    assert time.monotonic() - start < 15
    assert not (project.folder / ".venv").exists()


def test_a_network_that_never_answers_is_given_up(project):
    project.has("python3", PYTHON)
    project.has("uv", '#!/bin/sh\n[ "$1" = --version ] && echo "uv 9.9.9" || sleep 50\n')
    start = time.monotonic()
    refused(project.make("experiment"), "uv: no answer within", "pip of ")
    assert time.monotonic() - start < 15
    assert not (project.folder / ".venv").exists()
