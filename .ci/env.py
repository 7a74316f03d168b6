"""Make .venv: what `make env` runs, with any Python 3.11 or newer and nothing else installed.

1. What FFCV is built from (Linux): asked of apt, as root or with sudo; or named in one sentence. Needed only to build.
2. .venv, with the exact releases of requirements.lock, and reslib itself, editable.
3. JupyterLab's settings, inside .venv: a double-click opens a .py as a notebook.

A whole .venv carries a stamp, which says what it was made from, and is left alone; anything less is finished.
TORCH=cpu takes torch and torchvision from PyTorch's own CPU index (1 GB instead of 5); a .venv made so stays so.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "reslib-stamp"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCK = ROOT / "requirements.lock"
CPU_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")
LINUX = sys.platform == "linux"
VERBOSE = os.environ.get("V", "0") not in ("", "0")


def run(*command: object, **options) -> None:
    """Run it and show it; a failure ends here, with its name."""
    print("+", *command, flush=True)
    if (code := subprocess.run([str(c) for c in command], **options).returncode) != 0:
        sys.exit(f"make env: stopped, because this failed (exit status {code}): {' '.join(str(c) for c in command)}")


def quiet(*command: object) -> bool:
    """Whether the command exists and succeeds."""
    try:
        return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except OSError:
        return False


def pinned(*names: str) -> list[str]:
    """The lock's lines `name==version` for these names."""
    return [re.search(rf"^{name}==[^\s;]+", LOCK.read_text(), re.MULTILINE)[0] for name in names]


def missing_packages() -> list[str]:
    """Debian's and Ubuntu's names of what is needed to make .venv and to build FFCV, and is not there."""
    python = f"python3.{sys.version_info.minor}"
    wanted = {
        f"{python}-venv": quiet(sys.executable, "-c", "import venv, ensurepip"),
        f"{python}-dev": Path(sysconfig.get_path("include"), "Python.h").exists(),  # torch.compile needs it too
        "g++": bool(shutil.which("c++") or shutil.which("g++")),
        "pkg-config": quiet("pkg-config", "--version"),
        "libopencv-dev": quiet("pkg-config", "--exists", "opencv4"),
        "libturbojpeg0-dev": quiet("pkg-config", "--exists", "libturbojpeg"),
    }
    missing = [package for package, there in wanted.items() if not there]
    if "pkg-config" in missing:  # without it nobody can tell
        missing = [p for p in wanted if p in missing or p.startswith("lib")]
    if sys.base_prefix != "/usr" and (own := [p for p in missing if p.startswith(python)]):
        sys.exit(f"make env: {sys.executable} lacks what Debian calls {' and '.join(own)}; choose another: PYTHON=...")
    return missing


def system_packages() -> None:
    missing = missing_packages()
    if not missing:
        return
    root = os.geteuid() == 0
    if not shutil.which("apt-get") or not (root or quiet("sudo", "-n", "true")):
        sys.exit(
            "make env: reslib needs these system packages first, and they can be installed here only by root "
            f"(names as in Debian and Ubuntu): apt-get install --no-install-recommends {' '.join(missing)}"
        )
    apt = [*([] if root else ["sudo", "-n"]), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    apt += ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    quiet(*apt, "update")  # one broken source of many is no reason to stop: installing tells
    run(*apt, "install", "-y", "--no-install-recommends", *missing, stdin=subprocess.DEVNULL)


def key() -> str:
    """What a whole .venv was made from: another key, and it is brought up to date."""
    parts = [LOCK, ROOT / "pyproject.toml", Path(__file__)]
    return hashlib.sha256(b"\0".join([str(ROOT).encode(), *(p.read_bytes() for p in parts)])).hexdigest()


def torch_kind() -> str:
    """'cpu' or 'default': which torch lies in .venv; '' if none does."""
    found = [p.name for p in VENV.glob("lib/python3*/site-packages/torch-*.dist-info")]
    return "" if not found else "cpu" if "+cpu" in found[0] else "default"


def start_afresh() -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    run(sys.executable, "-m", "venv", VENV)
    pip("install", "--quiet", *pinned("pip", "setuptools"))
    mark("unfinished")


def mark(state: str) -> None:
    (part := STAMP.with_suffix(".part")).write_text(f"{ROOT}\n{state}\n")
    os.replace(part, STAMP)


def pip(*arguments: object, **environment: str) -> None:
    environment |= {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run(BIN / "python", "-m", "pip", *arguments, env={**os.environ, **environment})


def remove_fragments() -> None:
    """Drop the marks of half-installed packages, which an interrupted pip leaves and would take for whole ones."""
    for site in VENV.glob("lib/python3*/site-packages"):
        for folder in [*site.glob("*.dist-info"), *site.glob("~*")]:
            if folder.name.startswith("~") or not (folder / "RECORD").exists():
                shutil.rmtree(folder, ignore_errors=True)


def python_packages(cpu: bool) -> None:
    remove_fragments()
    say_less = [] if VERBOSE else ["--quiet"]  # else some 200 lines
    if not torch_kind():
        print("make env: fetching the packages takes some minutes (V=1 shows each of them)", flush=True)
    if cpu:
        pip("install", *say_less, "--no-deps", "--index-url", CPU_INDEX, *pinned("torch", "torchvision"))
    pip("install", *say_less, "--no-build-isolation", "--requirement", LOCK)
    pip("install", "--no-build-isolation", "--no-deps", "--quiet", "--editable", ROOT, PYTHONWARNINGS="ignore")
    pip("check")
    if LINUX and not quiet(BIN / "python", "-c", "import ffcv"):  # pip kept a build made for other system libraries
        again = ["--no-build-isolation", "--no-deps", "--no-cache-dir", "--force-reinstall"]
        pip("install", *again, *pinned("ffcv"))
        run(BIN / "python", "-c", "import ffcv")


def lab_settings() -> None:
    settings = VENV / "share/jupyter/lab/settings/overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    viewers = {"python": "Jupytext Notebook"}
    settings.write_text(json.dumps({"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": viewers}}, indent=2))


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 (said by whichever Python it is)
        sys.exit(f"make env: reslib needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}")
    wanted = os.environ.get("TORCH", "")
    if wanted not in ("", "cpu"):
        sys.exit(f"make env: TORCH={wanted} is not known; TORCH=cpu takes PyTorch's CPU build, no TORCH the usual one")
    place, state = (STAMP.read_text().split("\n") + ["", ""])[:2] if STAMP.exists() else ("", "")
    sound = place == str(ROOT) and quiet(BIN / "python", "-c", "")
    switch = LINUX and wanted == "cpu" and torch_kind() == "default"
    if sound and state == key() and not switch:
        return
    if LINUX:
        system_packages()
    cpu = LINUX and (wanted == "cpu" or torch_kind() == "cpu")
    if sound and not switch:
        mark("unfinished")
    else:
        start_afresh()
    python_packages(cpu)
    lab_settings()
    mark(key())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("make env: interrupted; the next call goes on from here")
