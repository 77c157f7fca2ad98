"""What can be set: --additional-config '{"slos_serve": {...}}'."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]


class ConfigError(ValueError):
    """A setting that cannot be used. vLLM does not start with it."""


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Settings of the plug-in. Times are in the unit that the name ends with."""

    socket: str | None = None
    """Path of the planner's socket. Default: one of this vLLM's own, in the user's runtime folder."""
    start: bool = True
    """Start a planner where none listens at the socket."""
    command: list[str] | None = None
    """How to start `slos-serve`. Default: `slos-serve` on PATH, else `npx slos-serve`."""
    arguments: list[str] = []
    """More arguments for a planner that is started, as ["--config", "slos.yaml"]."""
    deadline_ms: Positive | None = None
    """How long a step waits for its plan before vLLM schedules it by itself. Default: by how long steps take, at least what the
    planner says, a few ms."""
    start_seconds: Positive = 30.0
    """How long vLLM's own start waits for a planner."""
    hang_seconds: Positive = 2.0
    """A planner that has owed an answer for so long is left, and connected to anew."""
    name: str | None = None
    """The engine's name in metrics. Default: the model's name."""


def read_config(additional: object) -> Config:
    """The settings within vLLM's --additional-config. Raises ConfigError for what is none of them."""
    given: Any = additional.get("slos_serve", {}) if isinstance(additional, dict) else {}
    try:
        return msgspec.convert(given, Config)
    except msgspec.ValidationError as error:
        names = ", ".join(Config.__struct_fields__)
        raise ConfigError(f"--additional-config: slos_serve: {error}; there are: {names}") from error


def socket_of(config: Config, instance: str) -> Path:
    """Where the planner listens. The ranks of one vLLM share `instance`, and so the planner."""
    if config.socket is not None:
        return Path(config.socket).expanduser()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) if runtime else Path(tempfile.gettempdir())
    return folder / f"slos-serve-{os.getuid()}" / f"vllm-{instance}.sock"
