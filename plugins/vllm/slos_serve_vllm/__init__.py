"""Puts SLOs-Serve's scheduler inside vLLM: --scheduler-cls slos_serve_vllm.Scheduler."""

from typing import Any

__all__ = ["Scheduler"]


def __getattr__(name: str) -> Any:
    """vLLM is imported only for what needs it: what stands beside the scheduler is used in processes without one."""
    if name == "Scheduler":
        from .scheduler import Chosen

        return Chosen
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
