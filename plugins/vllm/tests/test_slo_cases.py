"""The same requests, read by this middleware and by the server: src/serve/slo-cases.json has what either must make of them, and
src/serve/slo-cases.test.ts is the other half."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from slos_serve_vllm.slo_args import ARGUMENTS, BadSlo, arguments_of

SERVE = Path(__file__).resolve().parents[3] / "src" / "serve"
CASES = json.loads((SERVE / "slo-cases.json").read_text())
CLASSES = ("chat", "best_effort", "tools")


@pytest.mark.parametrize("case", CASES, ids=json.dumps)
def test_means_the_same_as_to_the_server(case: dict[str, Any]) -> None:
    if "param" in case:
        with pytest.raises(BadSlo) as raised:
            arguments_of(case["headers"], case["body"], CLASSES)
        assert raised.value.param == case["param"]
    else:
        assert (arguments_of(case["headers"], case["body"], CLASSES) or {}) == case["arguments"]


def test_has_the_servers_arguments() -> None:
    table = re.search(
        r"const argsSchema = z.object\(\{(.*?)\n\}\)", (SERVE / "slo-args.ts").read_text(), re.DOTALL
    )
    assert table is not None
    assert sorted(re.findall(r"^  (slo_\w+):", table[1], re.MULTILINE)) == sorted(ARGUMENTS)
