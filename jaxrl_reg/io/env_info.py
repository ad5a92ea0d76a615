"""What a bug report, and the record of a run, should say about the machine and the installed versions."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any, cast

import jaxrl_reg

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "distrax",
    "chex",
    "brax",
    "mujoco",
    "mujoco-mjx",
    "playground",
    "gymnasium",
    "minari",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "h5py",
    "matplotlib",
    "tensorboardX",
    "wandb",
)


def versions() -> dict[str, str]:
    """Installed versions by distribution name; packages that are not installed are left out. Does not import them."""
    found = {"python": platform.python_version(), "jaxrl-reg": jaxrl_reg.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout this package is imported from, with ``+changes`` if it is edited; None outside one."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package must not report the repository it happens to lie in
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def cache_state(directory: str | None) -> dict[str, Any]:
    """Persistent compilation cache: where, how many programs, how many bytes."""
    if not directory or not pathlib.Path(directory).is_dir():
        return {"directory": directory, "programs": 0, "bytes": 0}
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    programs = sum(path.name.endswith("-cache") for path in files)
    return {"directory": directory, "programs": programs, "bytes": sum(path.stat().st_size for path in files)}


def describe() -> dict[str, Any]:
    """Everything as plain values, ready for JSON. Starts the JAX backend."""
    import jax

    devices, settings = jax.devices(), cast(Any, jax.config)  # its attributes are made at run time
    return {
        "versions": versions(),
        "commit": git_commit(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in devices],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "precision": str(settings.jax_default_matmul_precision or "default"),
        "x64": bool(settings.jax_enable_x64),
        "cache": cache_state(settings.jax_compilation_cache_dir),
    }


def lines(info: dict[str, Any]) -> list[str]:
    """The same, one ``name  value`` line each, for the terminal."""
    cache = info["cache"]
    held = f"{cache['programs']} programs, {cache['bytes'] / 1e6:.1f} MB"
    rows = {
        **info["versions"],
        "commit": info["commit"] or "not a git checkout",
        "platform": info["platform"],
        "cores": info["cores"],
        "devices": ", ".join(info["devices"]),
        "XLA_FLAGS": info["xla_flags"] or "(empty)",
        "matmul precision": info["precision"],
        "64-bit": "on" if info["x64"] else "off",
        "compilation cache": f"{cache['directory']}: {held}" if cache["directory"] else "off",
    }
    width = max(map(len, rows))
    return [f"{name:<{width}}  {value}" for name, value in rows.items()]
