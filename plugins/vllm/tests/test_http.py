"""vLLM's own server with the plug-in: what `vllm_xargs` say reaches the planner, and steps are planned."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .planner_process import PlannerProcess
from .tiny_model import write_tiny_model

START_S = 400


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: dict[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(answer.read().decode())


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        assert process.poll() is None, "vLLM has ended"
        try:
            ask(url)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("vLLM does not come up")


def figure(metrics: str, name: str) -> float:
    """Sum over all labels."""
    lines = [line for line in metrics.splitlines() if line.startswith(name) and line[len(name)] in " {"]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_a_server_plans_its_steps(tmp_path: Path) -> None:
    model, page = write_tiny_model(tmp_path / "tiny"), free_port()
    planner = PlannerProcess(tmp_path / "p.sock", "--metrics-port", str(page))
    planner.start()
    port = free_port()
    settings = {"slos_serve": {"socket": str(tmp_path / "p.sock"), "start": False, "deadline_ms": 10_000}}
    arguments = f"--model {model} --load-format dummy --skip-tokenizer-init --dtype float32 --enforce-eager --port {port}"
    limits = "--host 127.0.0.1 --max-model-len 512 --max-num-seqs 8 --block-size 32 --served-model-name tiny"
    ours = ["--scheduler-cls", "slos_serve_vllm.Scheduler", "--additional-config", json.dumps(settings)]
    api_server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    server = subprocess.Popen(
        [*api_server, *arguments.split(), *limits.split(), *ours],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)

        def complete(number: int) -> int:
            body = {
                "model": "tiny",
                "prompt": [5 + number] * 40,
                "max_tokens": 12,
                "temperature": 0,
                "ignore_eos": True,
                "detokenize": False,
                "vllm_xargs": {"slo_ttft_ms": 60_000, "slo_tpot_ms": 10_000, "slo_class": "chat"},
            }
            answer = json.loads(ask(f"http://127.0.0.1:{port}/v1/completions", body))
            return int(answer["usage"]["completion_tokens"])

        with ThreadPoolExecutor(6) as clients:
            assert list(clients.map(complete, range(6))) == [12] * 6
        metrics = ask(f"http://127.0.0.1:{page}/metrics")
        assert "slos_serve_slo_argument_mistakes_total{" not in metrics
        assert figure(metrics, "slos_serve_engine_steps_total") > 0, metrics
    finally:
        server.terminate()
        server.wait(60)
        planner.stop()
