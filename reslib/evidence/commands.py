"""python -m reslib plan | sweep | start | audit | claims: which runs are missing, and what the recorded ones show."""

import math
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..machine import in_a_line
from ..options import Backend, DataDir, Device, Out, expanded

app = typer.Typer()


@app.command()
def plan(
    scale: Annotated[str | None, typer.Option(help="pocket, night or paper; default: all")] = None,
    out: Annotated[Path | None, typer.Option(help="a sweep's folder, whose records count too", callback=expanded)] = None,
):
    """List every run that a claim or a table needs, the most valuable first, and how many of them are recorded."""
    from ..record import load, records
    from .plan import PLAN, table

    if out is not None and not out.is_dir():
        raise ValueError(f"{out} is no folder: --out names the one that a sweep wrote its records to.")
    rows = table(records([*load(), *(load(out) if out else [])]), scale)
    print("\n".join(f"{group.name} ({group.claims}): {group.why}" for group in PLAN), end="\n\n")
    print(rows.to_markdown(index=False, floatfmt=",.2f"))
    missing = (rows.hours * (rows.runs - rows.recorded)).sum(skipna=False)
    hours = "unknown" if math.isnan(missing) else f"{missing:,.0f} hours"
    print(f"\n{rows.recorded.sum()} of {rows.runs.sum()} runs recorded. hours: of one run, estimated from the faster of those "
          f"recorded on a CPU (one thread); all that is missing: {hours}")  # fmt: skip


@app.command()
def sweep(
    plan: Annotated[str | None, typer.Option(help="one group of the plan; default: all, the most valuable first")] = None,
    scale: Annotated[str, typer.Option(help="pocket, night or paper")] = "pocket",
    jobs: Annotated[int | None, typer.Option(help="runs at once; default: one a CPU core, 4 on a GPU, 1 on slurm")] = None,
    time_limit: Annotated[float | None, typer.Option(help="seconds; what runs then is stopped with a checkpoint")] = None,
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    backend: Backend = "auto",
    device: Device = None,
    executor: Annotated[str, typer.Option(help="local: processes on this machine; slurm: jobs of a cluster")] = "local",
    partition: Annotated[str | None, typer.Option(help="slurm: where the jobs run")] = None,
    account: Annotated[str | None, typer.Option(help="slurm: whom they are charged to")] = None,
    gpus: Annotated[int, typer.Option(min=0, max=1, help="slurm: of a job; 0: a core")] = 1,
    minutes: Annotated[int, typer.Option("--time", min=1, help="slurm: minutes of a job, after which it is requeued")] = 60,
):
    """Carry out what is missing of the plan; stop it at any time, and go on with the same command."""
    from .plan import missing
    from .sweep import run_parallel, submit

    if executor not in ("local", "slurm"):
        raise ValueError(f"executor {executor!r} is unknown: use local or slurm.")
    if executor == "slurm":
        asked = dict(jobs=jobs, gpus=gpus, minutes=minutes, partition=partition, account=account)
        started = submit(missing(scale, plan, out), out=out, data_dir=data_dir, backend=backend, **asked)
        return print(f"{len(started)} Slurm jobs: {', '.join(started)}; logs in {out}/slurm, what fails in {out}/*.failed")
    where = dict(out=out, data_dir=data_dir, device=device, backend=backend)
    failed = run_parallel(missing(scale, plan, out), jobs=jobs, time_limit=time_limit, **where)
    left = len(missing(scale, plan, out))
    print(f"{left} planned runs are still missing at {scale} scale" + (f"; {len(failed)} failed" if failed else ""))
    if failed:
        sys.exit(1)


@app.command()
def start(
    write: Annotated[Path | None, typer.Option(help="folder for slopes.json", callback=expanded)] = None,
    data_dir: DataDir = None,
):
    """What a layer does to signals and gradients before any training (C22): computed on CIFAR-10, about ten minutes."""
    from . import start

    values = start.compute(data_dir)
    means = start.table(values).groupby([*start.NAMES, "depth"])[["forward", "backward"]].mean()
    table = means.reset_index().to_markdown(index=False, floatfmt=".4f")
    print(f"decades a layer, means of {len(start.SEEDS)} draws\n\n{table}")
    if write:
        print(f"\n{start.write(values, write)}")


@app.command()
def claims(
    write: Annotated[
        Path | None, typer.Option(help="the file whose claims marks the summary goes between", callback=expanded)
    ] = None,
):
    """Print the verdicts on the paper's claims, from the records."""
    from ..files import renamed
    from ..record import folder
    from .claims import summary, table

    if not any(folder().glob("*.json")):
        raise ValueError(f"{folder()} holds no records: RESLIB_RECORDS must name the folder that does.")
    if write is None:
        return print(table())
    old = write.read_text(encoding="utf-8") if write.is_file() else ""
    marks = re.compile(r"(<!-- claims -->\n).*?(<!-- /claims -->)", re.DOTALL)
    if not marks.search(old):
        raise ValueError(f"{write} has no claims marks: put <!-- claims --> and <!-- /claims --> where the table belongs.")
    text = summary()
    with renamed(write) as file:
        file.write(marks.sub(lambda m: f"{m[1]}{text}\n{m[2]}", old).encode())


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="of <owner>+<repo>/ folders of weights and logs, or one", callback=expanded)],
    out: Annotated[Path | None, typer.Option(help="default: the recorded audits' folder", callback=expanded)] = None,
    data_dir: DataDir = None,
):
    """Measure the CIFAR-10 nets that others published: errors, probes and predictions, one record a net."""
    from ..record import folder as recorded
    from .audit import audit_folder, write_audit

    out, failed = out or recorded() / "audits", False
    for found in audit_folder(folder, data_dir):
        if isinstance(found, ValueError):
            failed = True
            print(in_a_line(found), file=sys.stderr, flush=True)
            continue
        said = ", ".join(f"{kind} {error:.2f} %" for kind, error in found.reported.items()) or "nothing"
        print(f"{write_audit(found, out)}: test error {found.measured['test_error']:.2f} %; reported: {said}; agrees with "
              f"{found.agrees_with or 'none'}", flush=True)  # fmt: skip
    if failed:
        sys.exit(1)
