"""Builds arms: of the working tree, of commits, and the virtual environment of the peers."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from timing.rounds import say

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# What an older commit gets, so that every commit is asked the same questions.
ARM = [ROOT / "benches/arm.rs", ROOT / "benches/arm"]
# In place of benches/arm/prepared.rs where the crate prepares no clips of the CPU path.
UNPREPARED = """
pub(crate) struct Prepared;

impl Prepared {
    pub(crate) fn new(_: &mut [Vec<f32>], _: &gradclip::Clip) -> crate::Result<Prepared> {
        Err("this commit prepares nothing".into())
    }

    pub(crate) fn clip(&mut self, _: &mut [Vec<f32>]) -> crate::Result<f64> {
        Err("this commit prepares nothing".into())
    }
}
"""
# What an arm calls that commits before 0.2 call otherwise.
BEFORE_0_2 = {
    "gradclip::{adapter_name, adapters}": "gradclip::session::{adapter_name, adapters}",
    "Clipper::recommended_limits": "Clipper::required_limits",
    "Adam::adamw": "Adam::decoupled",
    "clip, adam, history": "clip, &adam, history",
}
ENTRY = '\n[[bench]]\nname = "arm"\nharness = false\n'


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit() -> str:
    """That of the working tree, with a `+` where the library was changed since."""
    changed = git("status", "--porcelain", "--", "src", "shaders", "Cargo.toml", "Cargo.lock")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def arm(tree: pathlib.Path, name: str, target: pathlib.Path) -> pathlib.Path:
    """Builds the arm of a source tree and returns the program."""
    command = ["cargo", "bench", "--no-run", "--bench", "arm", "--message-format=json-render-diagnostics"]
    environment = os.environ | {"GRADCLIP_COMMIT": name, "CARGO_TARGET_DIR": str(target)}
    built = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        sys.exit(f"the arm of {name} does not build")
    messages = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    programs = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "arm"]
    return pathlib.Path(programs[0])


def arm_here() -> pathlib.Path:
    say(f"building the arm of {commit()}")
    return arm(ROOT, commit(), TARGET)


def stamp() -> str:
    """Changes with the arm's own source."""
    files = sorted(file for path in ARM for file in ([path] if path.is_file() else path.rglob("*.rs")))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def arm_of(revision: str) -> tuple[str, pathlib.Path]:
    """The short name of a commit and its arm, built in a work tree of its own and kept in target/compare.
    `.` is the working tree as it is."""
    if revision == ".":
        return commit() + " (here)", arm_here()
    sha = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    short = git("rev-parse", "--short", sha)
    kept = TARGET / "compare" / f"{sha}-{stamp()}" / "arm"
    if not kept.exists():
        say(f"building the arm of {short}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        # One target folder for all commits: the crates they depend on are built once.
        shutil.copy2(in_worktree(sha, short), kept)
    return short, kept


def in_worktree(sha: str, short: str) -> pathlib.Path:
    with tempfile.TemporaryDirectory(prefix="gradclip-") as folder:
        tree = pathlib.Path(folder) / "tree"
        git("worktree", "add", "--quiet", "--detach", str(tree), sha)
        try:
            shutil.copy2(ARM[0], tree / "benches/arm.rs")
            shutil.copytree(ARM[1], tree / "benches/arm", dirs_exist_ok=True)
            if not (tree / "src/cpu/prepared.rs").exists():
                (tree / "benches/arm/prepared.rs").write_text(UNPREPARED)
            if "recommended_limits" not in (tree / "src/gpu/clipper.rs").read_text():
                as_before(tree / "benches/arm")
            manifest = tree / "Cargo.toml"
            if 'name = "arm"' not in manifest.read_text():
                with manifest.open("a") as file:
                    file.write(ENTRY)
            return arm(tree, short, TARGET / "compare" / "build")
        finally:
            git("worktree", "remove", "--force", str(tree))


def as_before(arm: pathlib.Path) -> None:
    for file in arm.glob("*.rs"):
        text = file.read_text()
        for now, before in BEFORE_0_2.items():
            text = text.replace(now, before)
        file.write_text(text)


def python(venv: str | None) -> str:
    """The interpreter of the peers' environment, which is made where there is none."""
    folder = pathlib.Path(venv) if venv else TARGET / "peers"
    program = folder / "bin" / "python"
    if not program.exists():
        if venv:
            sys.exit(f"there is no {program}")
        say(f"making the virtual environment {folder} with the peers of benches/peers/requirements.txt (several GB)")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        wanted = ROOT / "benches/peers/requirements.txt"
        subprocess.run([str(program), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
    return str(program)
