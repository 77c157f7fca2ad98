"""The plan of one step, as the planner sends it."""

from dataclasses import dataclass, field

from .client import Message
from .frames import FrameError, numbers_of


@dataclass(slots=True)
class Plan:
    """What one step is to run: columns of one length, in the order in which the requests are taken."""

    seq: int
    batch: int
    """0: nothing is to run."""
    predicted_us: float
    """How long the step should take."""
    ids: list[int]
    positions: list[int]
    """Tokens whose KV is to be in place before."""
    tokens: list[int]
    """Known tokens to compute."""
    drafts: list[int] | None = None
    """Drafted tokens to verify besides, at most; None: none."""
    evict: list[int] = field(default_factory=list)
    wake_us: int | None = None
    """Of a plan without a batch: nothing is to run before this time, if nothing else happens."""
    is_withdrawn: bool = False
    """The planner was asked for another in its place and counts on it no more."""


def nothing() -> Plan:
    """A plan that runs nothing."""
    return Plan(0, 0, 0.0, [], [], [])


def read_plan(message: Message) -> Plan:
    """Raises FrameError for what is no plan."""
    seq, batch, wake = message.get("seq"), message.get("batch"), message.get("wakeUs")
    predicted = message.get("predictedUs")
    if not isinstance(seq, int) or not isinstance(batch, int) or not isinstance(predicted, (int, float)):
        raise FrameError("a plan without numbers")
    ids = numbers_of(message.get("ids"))
    plan = Plan(
        seq=seq,
        batch=batch,
        predicted_us=predicted,
        ids=ids,
        positions=numbers_of(message.get("positions")),
        tokens=numbers_of(message.get("tokens")),
        drafts=numbers_of(message["drafts"]) if message.get("drafts") is not None else None,
        evict=numbers_of(message["evict"]) if message.get("evict") is not None else [],
        wake_us=int(wake) if isinstance(wake, (int, float)) else None,
    )
    columns = [plan.positions, plan.tokens, ids if plan.drafts is None else plan.drafts]
    if any(len(column) != len(ids) for column in columns):
        raise FrameError("a plan with columns of different lengths")
    if plan.tokens and min(plan.tokens) < 1:
        raise FrameError("a plan that computes no token of a request")
    return plan
