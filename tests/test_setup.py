"""The Makefile and tools/setup.sh, in a copy of the project with a PATH of our choosing.

uv is a script that notes its calls; Python is the one that runs the tests. Nothing here touches the
network: the one address that is asked is a closed port.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [
    "sh",
    "make",
    "awk",
    "cat",
    "chmod",
    "head",
    "ln",
    "mkdir",
    "rm",
    "sed",
    "sleep",
    "tail",
]
PYTHON = f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n"
CHANGED = f"""#!/bin/sh
shift
exec '{sys.executable}' -c 'import sys; CHANGE; exec(sys.argv.pop(1))' "$@"
"""
OLD = CHANGED.replace("CHANGE", "sys.version_info = (3, 10, 13)")
WITHOUT_ENSUREPIP = CHANGED.replace("CHANGE", 'sys.modules["ensurepip"] = None')
BROKEN_SHIM = "#!/bin/sh\necho 'command not found in any version' >&2\nexit 127\n"
UV = """#!/bin/sh
[ "$1" = --version ] || echo "$*" >>"$HOME/calls"
case "$1 $2" in
    "venv "*)
        mkdir -p "$6/bin" && ln -s "$(command -v python3)" "$6/bin/python"
        printf '#!/bin/sh\\necho nnref "$@"\\n' >"$6/bin/nnref" && chmod +x "$6/bin/nnref" ;;
    "pip install") [ -z "$UV_FAILS" ] || { echo "disk full"; exit 1; } ;;
esac
"""


class Project:
    """A copy of the set-up's files, in a folder with a space, and the programs that it can see."""

    def __init__(self, home: Path):
        self.home, self.programs, self.folder = home, home / "bin", home / "a project"
        self.programs.mkdir()
        for name in COMMANDS:
            (self.programs / name).symlink_to(shutil.which(name))
        shutil.copytree(ROOT / "tools", self.folder / "tools")
        (self.folder / "experiments").mkdir()
        for name in ("Makefile", "pyproject.toml", "experiments/xor_small.json"):
            shutil.copy(ROOT / name, self.folder / name)

    def has(self, name: str, script: str) -> None:
        (self.programs / name).write_text(script)
        (self.programs / name).chmod(0o755)

    def make(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {"PATH": str(self.programs), "HOME": str(self.home)}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
        said = {"capture_output": True, "text": True}
        command = [self.programs / "make", *words]
        return subprocess.run(command, cwd=self.folder, env=environment | variables, **said)

    def calls(self) -> list[str]:
        """What uv was called with since the last look."""
        notes = self.home / "calls"
        lines = notes.read_text().splitlines() if notes.exists() else []
        notes.unlink(missing_ok=True)
        return lines

    def was_refused(self, *reasons: str, **variables: str) -> bool:
        made = self.make("experiment", **variables)
        assert made.returncode == 2
        assert [reason for reason in reasons if reason not in made.stderr] == [], made.stderr
        return not (self.folder / ".venv").exists()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def ready(project: Project) -> Project:
    """One that uv has set up for a run."""
    project.has("uv", UV)
    project.has("python3", PYTHON)
    made = project.make("experiment", "NAME=xor_small")
    assert made.stdout == "nnref run experiments/xor_small.json\n", made.stderr
    assert [line.split()[-1] for line in project.calls()] == [".venv", ".[data]"]
    return project


def test_help_is_the_default_and_lists_every_target(project):
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).split()
    assert re.findall(r"^  make ([a-z-]+) +\S", project.make().stdout, re.M) == targets


def test_experiment_hands_the_file_to_nnref(project):
    for name in ("xor_small", "xor_small.json", "experiments/xor_small.json"):
        said = project.make("-n", "experiment", f"NAME={name}", "ARGS=--seed 3").stdout
        assert said.endswith('.venv/bin/nnref run "experiments/xor_small.json" --seed 3\n')
    # Some systems export a NAME of their own.
    assert "DESKTOP" not in project.make("-n", "experiment", NAME="DESKTOP").stdout


def test_only_a_change_of_what_is_installed_sets_up_again(ready):
    file = ready.folder / "pyproject.toml"
    file.write_text(file.read_text().replace("line-length = 100", "line-length = 99"))
    assert ready.make("experiment").stderr == ""
    assert ready.calls() == []
    file.write_text(file.read_text().replace('"jax>=', '"jax>0,>='))
    ready.make("experiment")
    assert [line.split()[0] for line in ready.calls()] == ["pip"]


def test_the_tests_add_their_extra_and_a_run_needs_no_more(ready):
    ready.make("lint")
    assert [line.split()[-2:] for line in ready.calls()] == [["-e", ".[dev]"]]
    (ready.folder / ".venv/nnref-run").unlink()
    assert ready.make("experiment").stderr == ""


def test_a_moved_or_unfinished_environment_is_made_anew(ready):
    ready.folder = ready.folder.rename(ready.home / "elsewhere")
    ready.make("experiment")
    assert [line.split()[0] for line in ready.calls()] == ["venv", "pip"]
    with subprocess.Popen(["true"]) as ended:
        (ready.folder / ".venv/nnref-unfinished").write_text(str(ended.pid))
    ready.make("experiment")
    assert [line.split()[0] for line in ready.calls()] == ["venv", "pip"]


def test_what_others_made_or_are_making_is_left_alone(project):
    (project.folder / ".venv").mkdir()
    assert not project.was_refused(".venv holds no Python", "move it away")
    (project.folder / ".venv/nnref-unfinished").write_text(str(os.getpid()))
    assert not project.was_refused("another call")


def test_the_lowest_versions_have_an_environment_of_their_own(ready):
    ready.make("test-oldest")
    assert ready.calls()[-1].endswith("-e .[dev] -c .venv-oldest/lowest.txt")
    lowest = (ready.folder / ".venv-oldest/lowest.txt").read_text().splitlines()
    project = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^    "([\w-]+)(?:\[\w+\])?>=', project, re.M)
    assert [line.split("==")[0] for line in lowest] == wanted
    assert "jax==0.10.2" in lowest


def test_no_python_that_works_is_said_with_the_reasons(project):
    assert project.was_refused("no other Python", "Install Python 3.11 or newer", "PYTHON=")
    project.has("python3", OLD)
    project.has("python3.14", BROKEN_SHIM)
    project.has("python", WITHOUT_ENSUREPIP)
    assert project.was_refused(
        "python3: is Python 3.10", "found in any version", "import of ensurepip"
    )


def test_a_python_is_named_or_looked_for_behind_a_broken_shim(ready):
    shutil.rmtree(ready.folder / ".venv")
    ready.make("experiment", f"PYTHON={sys.executable}")
    assert f"--python {sys.executable} .venv" in ready.calls()[0]
    behind = ready.home / "behind"
    shutil.copytree(ready.programs, behind, symlinks=True)
    (behind / "python3").write_text(WITHOUT_ENSUREPIP)  # which uv does not need
    ready.has("python3", BROKEN_SHIM)
    shutil.rmtree(ready.folder / ".venv")
    assert ready.make("experiment", PATH=f"{ready.programs}:{behind}").returncode == 0
    assert f"--python {behind}/python3 .venv" in ready.calls()[0]


def test_without_a_network_pip_gives_up_after_uv(ready):
    shutil.rmtree(ready.folder / ".venv")
    assert ready.was_refused("uv | disk full", "pip | ", "hatchling", "network", UV_FAILS="yes")
