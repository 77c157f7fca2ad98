"""Requests with structured output: planned when their grammars are compiled, ended by vLLM where they cannot be."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output.request import StructuredOutputRequest

from .fake_engine import FakeEngine, RequestMaker, engine_config, make_scheduler


class Grammar:
    """Takes every token."""

    def accept_tokens(self, _name: str, _tokens: list[int]) -> bool:
        return True

    def is_terminated(self) -> bool:
        return False


def with_grammar(request: Request) -> "Future[Any]":
    """Makes it wait for a grammar, as the engine core does."""
    compiled: Future[Any] = Future()
    request.structured_output_request = StructuredOutputRequest(StructuredOutputsParams(regex="a*"), compiled)
    request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    return compiled


def test_waits_for_its_grammar_and_then_runs_as_planned(folder: Path, settings: dict[str, Any]) -> None:
    config = engine_config(folder, False, 0, 1)
    engine = FakeEngine(make_scheduler(config, 400, settings), 1, seed=1)
    make = RequestMaker(config)
    waits, fails = make("waits", [5] * 40, 6), make("fails", [6] * 40, 6)
    compiled, broken = with_grammar(waits), with_grammar(fails)
    for request in (waits, make("plain", [7] * 40, 20), fails):
        engine.add(request)
    for _ in range(6):
        engine.step()
    assert engine.tokens["plain"]
    assert not engine.tokens["waits"]
    compiled.set_result(Grammar())
    broken.set_exception(ValueError("no such grammar"))
    engine.run_until_idle()
    assert (len(engine.tokens["waits"]), len(engine.tokens["fails"])) == (6, 0)
    assert engine.ended == {"waits", "plain", "fails"}
    counters = engine.scheduler.conductor.counters
    assert (counters.mismatches, counters.own_steps) == (0, 0)
    engine.scheduler.shutdown()


def test_one_that_is_compiled_while_a_step_is_scheduled_keeps_no_other_from_it(
    folder: Path, settings: dict[str, Any]
) -> None:
    config = engine_config(folder, False, 0, 1)
    scheduler = make_scheduler(config, 400, settings)
    engine, make = FakeEngine(scheduler, 1, seed=1), RequestMaker(config)
    waits = make("waits", [5] * 40, 6)
    compiled, plan_of_step = with_grammar(waits), scheduler.conductor.plan_of_step

    def and_then_it_is_there() -> Any:
        plan = plan_of_step()
        if not compiled.done():
            compiled.set_result(Grammar())
        return plan

    scheduler.conductor.plan_of_step = and_then_it_is_there  # type: ignore[method-assign]
    for request in (waits, make("plain", [7] * 40, 20)):
        engine.add(request)
    engine.run_until_idle()
    assert {name: len(tokens) for name, tokens in engine.tokens.items()} == {"waits": 6, "plain": 20}
    counters = scheduler.conductor.counters
    assert (counters.mismatches, counters.own_steps) == (0, 0)
    scheduler.shutdown()
