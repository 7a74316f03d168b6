"""A sweep on a real Slurm: one node, started here (Debian's slurm-wlm and munge), nothing pretended."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from test_sweep import SCRIPT, wait_for

import reslib
from reslib.record import read

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={tmp}/munge,cred_expire=5
StateSaveLocation={tmp}/state
SlurmdSpoolDir={tmp}/spool
SlurmctldPidFile={tmp}/slurmctld.pid
SlurmdPidFile={tmp}/slurmd.pid
SlurmctldLogFile={tmp}/slurmctld.log
SlurmdLogFile={tmp}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes={host} Default=YES State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here."""
    if not hasattr(os, "geteuid") or os.geteuid():
        return "slurmd and slurmctld are started by root"
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    for program, package in (("munged", "munge"), ("slurmctld", "slurm-wlm"), ("slurmd", "slurm-wlm"), ("srun", "slurm-wlm")):
        if not shutil.which(program, path=path):
            return f"{program} is not here: apt-get install {package}"
    return None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of a shell on this one-node cluster."""
    pytest.importorskip("submitit")
    tmp = tmp_path_factory.mktemp("slurm")
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    host = socket.gethostname().split(".")[0]
    (tmp / "slurm.conf").write_text(CONF.format(tmp=tmp, host=host, ports=ports))
    (tmp / "state").mkdir()
    (tmp / "key").touch(mode=0o600)
    (tmp / "key").write_bytes(secrets.token_bytes(128))
    environment = os.environ | {"SLURM_CONF": str(tmp / "slurm.conf"), "OMP_NUM_THREADS": "1"}
    environment["PATH"] += ":/usr/sbin:/sbin"
    munge = [f"--{name}={tmp / file}" for name, file in (("key-file", "key"), ("socket", "munge"), ("pid-file", "munge.pid"),
                                                         ("log-file", "munge.log"), ("seed-file", "munge.seed"))]  # fmt: skip
    commands = ["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]
    with open(tmp / "said", "w") as said:
        daemons = [subprocess.Popen(command, env=environment, stdout=said, stderr=said) for command in commands]
        try:
            wait_for(lambda: "idle" in subprocess.run(["sinfo", "-h"], env=environment, capture_output=True, text=True).stdout)
            yield environment
        finally:
            if daemons[1].poll() is None:
                subprocess.run(["scancel", "--user=root"], env=environment)
                wait_for(lambda: not subprocess.run(["squeue", "-h"], env=environment, capture_output=True).stdout)
            for daemon in reversed(daemons):
                daemon.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(10)
                daemon.kill()
                daemon.wait()


def test_eight_runs_one_cancelled_and_resubmitted(slurm, tmp_path):
    """Two jobs share eight runs; one is cancelled, one preempted; submitted again: every record once, as made without Slurm."""
    out, file = tmp_path / "runs", tmp_path / "sweep_tiny.py"
    file.write_text(SCRIPT.format(steps=100, out=str(out)).replace("(0, 1)", "(0, 1, 2, 3)"))
    command = [sys.executable, str(file), "--executor", "slurm", "--partition", "all", "--gpus", "0", "--time", "10"]

    def call(*words):
        return subprocess.run([*map(str, words)], env=slurm, capture_output=True, text=True, check=True).stdout

    def running():
        return call("squeue", "-h", "-r", "-t", "running", "-o", "%i").split()

    said = call(*command, "--jobs", 2)
    first, second = re.search(r"2 Slurm jobs: (\d+_0), (\d+_1)", said).groups()
    wait_for(lambda: list(out.glob("*.json")) and len(running()) == 2, 300)
    call("scancel", first)
    wait_for(lambda: first not in running())
    call("scancel", "--signal=USR2", second)  # as Slurm does before the time is up, or a preemption
    wait_for(lambda: "DUE TO JOB REQUEUE" in (out / "slurm" / f"{second}_0_log.err").read_text())
    made = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert 0 < len(made) < 8
    call(*command, "--jobs", 1)
    wait_for(lambda: len(list(out.glob("*.json"))) == 8 and not call("squeue", "-h"), 600)
    assert {path: path.stat().st_mtime_ns for path in made} == made and not list(out.glob("*.ckpt")) + list(
        out.glob("*.failed")
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for record in map(read, out.glob("*.json")):
        local = reslib.train(record.recipe, out_dir=tmp_path / "local", device="cpu")
        assert record.weights_sha256 == local.weights_sha256 and record.curve == local.curve
    torch.set_num_threads(threads)
    assert call(*command).startswith("0 Slurm jobs")


def test_what_slurm_refuses_is_one_sentence(slurm, tmp_path):
    file = tmp_path / "sweep_tiny.py"
    file.write_text(SCRIPT.format(steps=100, out=str(tmp_path / "runs")))
    command = [sys.executable, str(file), "--executor", "slurm", "--partition", "none", "--gpus", "0"]
    refused = subprocess.run(command, env=slurm, capture_output=True, text=True)
    assert refused.returncode == 1 and "invalid partition specified: none" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
