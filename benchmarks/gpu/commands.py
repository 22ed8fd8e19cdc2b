"""Runs other programs for what they print."""

from __future__ import annotations

import shutil
import subprocess


def printed(*command: str) -> str:
    """The output of a command; empty if the command is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
