"""PyTorch's FSDP2 beside this crate: one norm over ranks, on the same rows of the same gradients, and the exact one.

    python -m venv FOLDER && FOLDER/bin/pip install -r benches/fsdp/requirements.txt
    cargo build --release --example shards
    FOLDER/bin/python benches/fsdp/compare.py --csv record.csv

PyTorch on the CPU over gloo, a thread a rank; this crate on its CPU path under mpirun. Prints a table in Markdown and, a line each, what was not
finite. Run by hand."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

# The working tree stays clean.
sys.dont_write_bytecode = True

import cases
import rank
import torch
import torch.multiprocessing

PACKAGE = Path(__file__).resolve().parents[2]
COLUMNS = ["case", "ranks", "program", "exact", "norm", "bits", "ulp", "found", "after", "error"]


def torch_rows(folder: Path, case: cases.Case, ranks: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"torch-{case.name}-{ranks}-{i}.json").read_text()) for i in range(ranks)]


def own_rows(folder: Path, case: cases.Case, ranks: int, cuts: str, program: Path) -> list[dict[str, Any]]:
    """A line of each rank of examples/shards, in the order of ranks."""
    given = [str(program), str(case.file(folder)), "--shards", str(case.shards(ranks)), "--cuts", cuts]
    if case.replicated():
        given += ["--replicated", ",".join(case.replicated())]
    environment = os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "RAYON_NUM_THREADS": "1",
    }
    run = ["mpirun", "--oversubscribe", "-n", str(ranks), *given]
    out = subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout
    rows = sorted((json.loads(line) for line in out.splitlines()), key=lambda row: row["rank"])
    assert len(rows) == ranks, out
    return rows


def alike(rows: list[dict[str, Any]], key: str) -> Any:
    """What all ranks have, which is to be the same."""
    values = [row[key] for row in rows]
    return values[0] if all(value == values[0] for value in values) else "ranks differ: " + " ".join(map(str, values))


def after(rows: list[dict[str, Any]]) -> str:
    """What became of the gradients, over all ranks."""
    if any(row.get("skipped") for row in rows):
        return "untouched"
    if any(row["nan_after"] for row in rows):
        count = sum(row["nan_after"] for row in rows)
        largest = max(row["largest_after"] for row in rows)
        return f"NaN on {count} of {len(rows)} ranks, the rest " + ("0" if largest == 0 else f"up to {largest:.3g}")
    return f"up to {max(row['largest_after'] for row in rows):.3g}"


def row(
    case: cases.Case, ranks: int, program: str, exact: Fraction | None, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the ranks of one program say, beside what is exact."""
    found = alike(rows, "found_inf" if program == "FSDP2" else "skipped")
    told = {"case": case.name, "ranks": ranks, "program": program, "found": found}
    told["exact"] = float(exact) if exact is not None else math.nan
    if any("error" in one for one in rows):
        return told | {"error": next(one["error"] for one in rows if "error" in one)}
    given = alike(rows, "bits")
    told |= {"bits": given, "after": after(rows)}
    if len(given) == 8:
        told["norm"] = cases.value(given)
        told["ulp"] = cases.ulps(given, exact) if exact is not None else math.nan
    return told


def short(ulp: float) -> str:
    return f"{ulp:.2f}" if not math.isfinite(ulp) or abs(ulp) < 10 else f"{ulp:,.0f}"


def cell(told: dict[str, Any]) -> str:
    if "error" in told:
        return "error"
    if "ulp" not in told:
        return told["bits"]
    return str(told["norm"]) if not math.isfinite(told["ulp"]) else short(told["ulp"])


def print_table(wanted: list[cases.Case], counts: list[int], all_rows: list[dict[str, Any]]) -> None:
    print(f"| gradients | exact | program | {' | '.join(map(str, counts))} | bits |")
    print("|" + "---|" * (4 + len(counts)))
    for case in wanted:
        for program in ["FSDP2", "rows", "chunks"]:
            own = [one for one in all_rows if (one["case"], one["program"]) == (case.name, program)]
            told = [one for n in counts for one in own if one["ranks"] == n]
            bits = {one.get("bits") for one in told}
            cells = " | ".join(cell(one) for one in told)
            count = "none" if bits == {None} else len(bits)
            print(f"| {case.words} | {told[0]['exact']:.9g} | {program} | {cells} | {count} |")


def print_findings(all_rows: list[dict[str, Any]]) -> None:
    for one in all_rows:
        if not math.isfinite(one.get("norm", math.nan)) or one["found"] or "error" in one:
            kept = {key: one.get(key) for key in ("case", "ranks", "program", "norm", "found", "after", "error")}
            print(json.dumps(kept))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2,3,4,7", help="numbers of ranks")
    parser.add_argument("--cases", default=",".join(case.name for case in cases.CASES))
    parser.add_argument("--csv", type=Path, help="the record that rows are written to")
    parser.add_argument("--program", type=Path, default=PACKAGE / "target/release/examples/shards")
    given = parser.parse_args()
    counts = [int(n) for n in given.ranks.split(",")]
    wanted = [case for case in cases.CASES if case.name in given.cases.split(",")]
    all_rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exact = {}
        for case in wanted:
            case.write(folder)
            exact[case.name] = cases.exact(case.file(folder))
        for ranks in counts:
            torch.multiprocessing.spawn(rank.run, (ranks, folder, wanted), nprocs=ranks)
            for case in wanted:
                of_case = [("FSDP2", torch_rows(folder, case, ranks))]
                for cuts in ["rows", "chunks"]:
                    of_case.append((cuts, own_rows(folder, case, ranks, cuts, given.program)))
                all_rows += [row(case, ranks, program, exact[case.name], rows) for program, rows in of_case]
                print(f"{case.name}, {ranks} ranks: {all_rows[-3:]}", file=sys.stderr, flush=True)
    print_table(wanted, counts, all_rows)
    print_findings(all_rows)
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(all_rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
