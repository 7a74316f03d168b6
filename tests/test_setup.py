"""The ways in agree: requirements.lock, pyproject.toml, environment.yml, Makefile; and the top level stays small."""

import importlib.metadata
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK_TEXT = (ROOT / "requirements.lock").read_text()
LOCK = [Requirement(line) for line in LOCK_TEXT.splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in LOCK}
TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, PACKAGES = TOML["project"], TOML["tool"]["setuptools"]["packages"]
EXTRAS = PROJECT["optional-dependencies"]
BOUNDS = [Requirement(text) for text in sum(EXTRAS.values(), PROJECT["dependencies"])]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
SYSTEMS = {"linux": ("Linux", "posix"), "darwin": ("Darwin", "posix"), "win32": ("Windows", "nt")}
MACHINES = [
    {"python_version": python, "sys_platform": name, "platform_system": system, "os_name": kind, "extra": ""}
    for python in ("3.11", "3.12", "3.13")
    for name, (system, kind) in SYSTEMS.items()
]


def holds(requirement: Requirement, machine: dict) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(machine)


def test_lock_pins_each_package_once_and_exactly():
    assert len(PINS) == len(LOCK)
    for requirement in LOCK:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
    names = [line.split("==")[0].lower().replace("_", "-") for line in LOCK_TEXT.splitlines() if "==" in line]
    assert names == sorted(names)


def test_lock_names_no_address_and_nothing_of_cuda():
    assert "://" not in LOCK_TEXT and " @ " not in LOCK_TEXT and not re.search("^-", LOCK_TEXT, re.MULTILINE)
    assert not [name for name in PINS if re.match("nvidia|cuda|triton|cupy", name)]


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda r: r.name)
def test_lock_is_within_the_bounds_of_pyproject(bound):
    name = canonicalize_name(bound.name)
    assert name in PINS, f"{name} is not in requirements.lock"
    assert PINS[name] in bound.specifier
    [pin] = [r for r in LOCK if canonicalize_name(r.name) == name]
    for machine in MACHINES:
        assert holds(pin, machine) or not holds(bound, machine), f"{name} is needed, and not pinned, on {machine}"


def test_lock_holds_all_that_its_packages_need():
    """On this machine, and on the others as far as the metadata installed here tell; torch's CUDA packages aside."""
    absent = set()
    for pin in LOCK:
        try:
            needs = importlib.metadata.requires(pin.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # pinned for other machines
        for need in map(Requirement, needs):
            name = canonicalize_name(need.name)
            if re.match("nvidia|cuda|triton", name):
                continue
            for machine in MACHINES:
                if holds(pin, machine) and holds(need, machine):
                    given = [r for r in LOCK if canonicalize_name(r.name) == name and holds(r, machine)]
                    if not given or PINS[name] not in need.specifier:
                        absent.add(f"{pin} needs {need} on {machine}")
    assert not absent


def test_environment_is_made_from_the_same_lock():
    [pip] = [item["pip"] for item in CONDA if isinstance(item, dict)]
    assert pip == ["--requirement requirements.lock", "--editable ."]
    pins = dict(item.split("=") for item in CONDA if isinstance(item, str) and "=" in item)  # pip brings the lock's setuptools
    assert pins.pop("python") in ("3.11", "3.12", "3.13")
    for name, version in pins.items():
        assert PINS[canonicalize_name(name)] == version
    assert {"pip", "setuptools", "cxx-compiler", "pkg-config", "libjpeg-turbo", "libopencv"} <= set(map(str, CONDA))


def test_in_condas_environment_make_uses_that(tmp_path):
    def would(**variables):
        words = ["make", "-C", ROOT, "-n", "book"]
        return subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | variables).stdout

    assert f"\n{tmp_path}/bin/python book/build.py" in would(CONDA_DEFAULT_ENV="reslib", CONDA_PREFIX=str(tmp_path))
    assert "\n.venv/bin/python book/build.py" in would(CONDA_DEFAULT_ENV="base", CONDA_PREFIX=str(tmp_path))


def test_an_editable_install_is_a_path(tmp_path):
    """So that `import reslib` finds it from the folder that holds the clone, a folder of the same name."""
    clone = tmp_path / "reslib"
    for name in PACKAGES:
        (clone / name.replace(".", "/")).mkdir(parents=True)
        (clone / name.replace(".", "/") / "__init__.py").write_text("here = True\n")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    code = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=clone, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        [path] = [wheel.read(name).decode().strip() for name in wheel.namelist() if name.endswith(".pth")]
    code = f"import sys; sys.path.append({path!r}); import reslib; print(reslib.here)"
    found = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, env={})
    assert found.stdout == "True\n", found.stderr


def test_version_is_stated_once():
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_what_is_installed_is_what_is_pinned():
    if not (Path(sys.prefix) / "reslib-stamp").exists():
        pytest.skip("this Python is not the one that `make env` makes")
    assert importlib.metadata.version("reslib") == PROJECT["version"]
    for pin in LOCK:
        if holds(pin, {}):
            assert importlib.metadata.version(pin.name).split("+")[0] == PINS[canonicalize_name(pin.name)]


def test_make_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    assert targets == set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert targets >= {"env", "book", "test", "lab", "bench", "rerun", "clean"}
    said = subprocess.run(["make", "-C", ROOT, "--no-print-directory"], capture_output=True, text=True, check=True).stdout
    for target in targets:
        assert re.search(rf"^  make {target}  +\w.+$", said, re.MULTILINE), target


def test_top_level_is_small():
    allowed = """notebooks reslib book tests environment.yml README.md pyproject.toml requirements.lock Makefile LICENSE
        CITATION.cff""".split()
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    top = {name.split("/")[0] for name in tracked.split("\0") if name}
    assert not {name for name in top if not name.startswith(".")} - set(allowed)


class TestEnv:
    """.ci/env.py, without installing anything."""

    @pytest.fixture
    def env(self, tmp_path, monkeypatch):
        script = runpy.run_path(str(ROOT / ".ci" / "env.py"))
        monkeypatch.delenv("TORCH", raising=False)
        module = script["main"].__globals__  # the functions see what is changed here
        module["VENV"], module["STAMP"] = tmp_path, tmp_path / "reslib-stamp"
        return module

    def test_names_the_packages_where_they_cannot_be_installed(self, env, monkeypatch):
        env["missing_packages"] = lambda: ["g++", "libopencv-dev"]
        env["quiet"] = lambda *command: False
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        with pytest.raises(SystemExit, match=r"apt-get install --no-install-recommends g\+\+ libopencv-dev$"):
            env["system_packages"]()

    def test_asks_for_nothing_where_nothing_is_missing(self, env):
        env["missing_packages"] = list
        env["run"] = env["quiet"] = None  # calling either would fail
        env["system_packages"]()

    def test_unknown_torch_is_refused(self, env, monkeypatch):
        monkeypatch.setenv("TORCH", "gpu")
        with pytest.raises(SystemExit, match="TORCH=gpu is not known; TORCH=cpu"):
            env["main"]()

    def test_half_installed_packages_are_forgotten(self, env, tmp_path):
        site = tmp_path / "lib/python3.11/site-packages"
        for name in ("whole-1.dist-info", "half-1.dist-info", "~orch"):
            (site / name).mkdir(parents=True)
        (site / "whole-1.dist-info/RECORD").touch()
        env["remove_fragments"]()
        assert [p.name for p in site.iterdir()] == ["whole-1.dist-info"]

    @pytest.mark.parametrize(
        ("torch", "wanted", "afresh", "cpu"),
        [
            ("2.0", "", False, False),  # a new lock: brought up to date
            ("2.0+cpu", "", False, True),  # one made with TORCH=cpu stays so
            ("2.0+cpu", "cpu", False, True),
            ("2.0", "cpu", True, True),  # CUDA's packages have to go
        ],
    )
    @pytest.mark.skipif(sys.platform != "linux", reason="TORCH=cpu is for Linux")
    def test_what_is_done_to_an_older_one(self, env, tmp_path, monkeypatch, torch, wanted, afresh, cpu):
        (tmp_path / f"lib/python3.11/site-packages/torch-{torch}.dist-info").mkdir(parents=True)
        env["mark"]("an older key")
        monkeypatch.setenv("TORCH", wanted)
        done = []
        env["quiet"] = lambda *command: True
        env["start_afresh"] = lambda: done.append("afresh")
        env["python_packages"] = lambda cpu: done.append(cpu)
        env["system_packages"] = lambda: None
        env["main"]()
        assert done == [*["afresh"] * afresh, cpu]
        env["main"]()  # now whole, and left alone, whatever TORCH says
        assert len(done) == 1 + afresh or wanted == "cpu" and torch == "2.0"

    def test_lab_opens_scripts_as_notebooks(self, env, tmp_path):
        env["lab_settings"]()
        settings = json.loads((tmp_path / "share/jupyter/lab/settings/overrides.json").read_text())
        assert settings["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"] == {"python": "Jupytext Notebook"}
