"""vLLM's own server with the plug-in: what `vllm_xargs` say reaches the planner, and steps are planned."""

import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .conftest import settings_for
from .free_port import free_port
from .planner_process import PlannerProcess
from .tiny_model import write_tiny_model
from .waits import LONG_S, wait_until


def ask(url: str, body: dict[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=LONG_S) as answer:
        return str(answer.read().decode())


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    def is_up() -> bool:
        assert process.poll() is None, "vLLM has ended"
        try:
            ask(url)
        except OSError:
            return False
        return True

    wait_until(is_up, "vLLM does not come up")


def figure(metrics: str, name: str) -> float:
    """Sum over all labels."""
    lines = [line for line in metrics.splitlines() if line.startswith(name) and line[len(name)] in " {"]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_a_server_plans_its_steps(tmp_path: Path) -> None:
    model, page = write_tiny_model(tmp_path / "tiny"), free_port()
    planner = PlannerProcess(tmp_path / "p.sock", "--metrics-port", str(page))
    planner.start()
    port = free_port()
    settings = {"slos_serve": settings_for(planner)}
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
        server.wait(LONG_S)
        planner.stop()
