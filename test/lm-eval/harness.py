"""lm-evaluation-harness, as its users run it: on tasks of local files, for no hub is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lm_eval
import requests
from lm_eval.tasks import TaskManager

HERE = Path(__file__).parent
URL = os.environ.get("LM_EVAL_URL", "http://127.0.0.1:8080")
MODEL = os.environ.get("LM_EVAL_MODEL", "tiny-f32")


def evaluate(task: str, *, chat: bool = False, **arguments: Any) -> dict[str, Any]:
    """One task; answers with its `results` and its `samples`."""
    made = lm_eval.simple_evaluate(
        model="local-chat-completions" if chat else "local-completions",
        model_args={
            "model": MODEL,
            "base_url": f"{URL}/v1/{'chat/completions' if chat else 'completions'}",
            "max_retries": 1,
            **arguments,
        },
        tasks=[task],
        task_manager=TaskManager(include_path=str(HERE / "tasks"), include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    return {"results": made["results"][task], "samples": made["samples"][task]}


def scores(made: dict[str, Any]) -> list[tuple[float, bool]]:
    """Log-likelihood of each choice of each sample, and whether it is what the model itself would say."""
    return [
        (float(score), bool(greedy))
        for sample in made["samples"]
        for score, greedy in sample["filtered_resps"]
    ]


def tokens_of(text: str) -> list[int]:
    answer = requests.post(f"{URL}/tokenize", json={"prompt": text, "add_special_tokens": False}, timeout=60)
    return answer.json()["tokens"]
