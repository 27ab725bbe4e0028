"""Processes that take commands in lines and answer in lines of JSON: benches/arm.rs and benches/peers/*_clip.py."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

# Importing torch or compiling shaders on a busy machine takes its time; hanging forever would hide why.
PATIENCE = 900.0


class Refused(Exception):
    """A side could not do what was asked; says why."""


@dataclass
class Side:
    """A process, and the arms in it. `label` tells two processes of one program apart."""

    label: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    hello: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    unread: bytes = b""

    def start(self) -> None:
        self.unread = b""
        self.process = subprocess.Popen(
            self.command,
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.hello = self.ask("hello")

    def arms(self) -> list[str]:
        return list(self.hello["arms"])

    def name(self, arm: str) -> str:
        """What a table calls an arm."""
        return arm if arm == self.label else f"{self.label} {arm}" if len(self.arms()) > 1 else self.label

    def ask(self, line: str) -> dict[str, Any]:
        """Starts the process anew if an earlier question ended it."""
        if self.process is None:
            self.start()
        process = self.process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(line.encode() + b"\n")
            answer: dict[str, Any] = json.loads(self.line())
        except (BrokenPipeError, ValueError) as error:
            self.stop()
            raise Refused(f"{self.label}: no answer to `{line[:40]}`: {error}") from None
        if "error" in answer:
            raise Refused(f"{self.label}: {answer['error']}")
        return answer

    def line(self) -> bytes:
        assert self.process is not None and self.process.stdout is not None
        end = time.monotonic() + PATIENCE
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise ValueError(f"none within {PATIENCE:.0f} s")
            more = self.process.stdout.read(1 << 16)
            if not more:
                raise ValueError(f"the process ended with status {self.process.wait()}")
            self.unread += more
        first, _, self.unread = self.unread.partition(b"\n")
        return first

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
