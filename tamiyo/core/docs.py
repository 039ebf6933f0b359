"""docs/state-machine.md's tables and diagrams, written from the constants: `python -m tamiyo.core.docs` prints them."""

from collections.abc import Iterable, Sequence

from tamiyo.core.behaviour import FLAGS
from tamiyo.core.breakers import BREAKERS, STEP_BREAKERS, TRANSITIONS
from tamiyo.core.intent import POLICY_ACTIONS
from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.risk import RISK_ROWS, Row, Test
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["BEGIN", "END", "tables"]

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
"""Between these lines of docs/state-machine.md stands what `tables` returns."""

DEFAULTS = Thresholds()


def tables() -> str:
    """The risk table, the breakers, the lifecycle, the policy's actions and the behaviour flags, as Markdown."""
    return "\n".join([_risk(), _breakers(), _lifecycle(), _actions(), _flags()])


def _risk() -> str:
    rows = [
        (f"`{row.reason}`", _when(row), _level(row.level), _priority(row.priority), _effect(row)) for row in RISK_ROWS
    ]
    return f"### Risk: {len(rows)} rows\n\n{_table(('reason', 'triggers when', 'level', 'priority', 'asks for'), rows)}"


def _when(row: Row) -> str:
    """Alternatives with "or", what must hold together with "and"."""
    return " or ".join(" and ".join(_test(test) for test in group) for group in row.when)


def _test(test: Test) -> str:
    if test.comparison == "finite":
        return f"`{test.signal}` is not finite"
    if isinstance(test.threshold, float):
        return f"`{test.signal}` {test.comparison} {test.threshold:g}"
    number: float = getattr(DEFAULTS, test.threshold)
    name = f"`{test.threshold}`"
    if test.factor:
        number, name = number * getattr(DEFAULTS, test.factor), f"{name} x `{test.factor}`"
    return f"`{test.signal}` {test.comparison} {number:g} ({name})"


def _effect(row: Row) -> str:
    return f"{row.asks}, conservative" if row.conservative else row.asks


def _breakers() -> str:
    rows = []
    arrows = ["    [*] --> CLOSED"]
    holds = {
        "always": "at once",
        "failures_reached": f"after {DEFAULTS.breaker_failures:g} in a row",
        "trials_passed": f"after {DEFAULTS.breaker_trials:g}",
        "cooled_down": f"once {DEFAULTS.breaker_cool_down_s:g} s have passed",
    }
    for state, events in TRANSITIONS.items():
        for event, transition in events.items():
            names = (_circuit(state), _circuit(transition.to_state))
            rows.append((names[0], event, holds[transition.when], names[1], f"`{transition.cause}`"))
            arrows.append(f"    {names[0]} --> {names[1]}: {event}, {holds[transition.when]}")
    title = f"### Breakers: {', '.join(BREAKERS)}\n\nA step needs {' and '.join(STEP_BREAKERS)}.\n"
    header = ("from", "event", "when (by default)", "to", "cause in the journal")
    return f"{title}\n{_diagram(arrows)}\n{_table(header, rows)}"


def _lifecycle() -> str:
    """Each stage with its operation. A stage that is not in the table has none, and its seed is no candidate."""
    rows = []
    for stage in sorted(pb.SeedLifecycleStage.values()):
        operation = OPERATION_BY_STAGE.get(stage)
        named = "none: no candidate" if operation is None else _short(pb.SeedOperation.Name(operation), "SEED_OP_")
        rows.append((_short(pb.SeedLifecycleStage.Name(stage), "SEED_STAGE_"), named))
    arrows = [f"    {stage} --> {operation}" for stage, operation in rows if not operation.startswith("none")]
    title = "### Lifecycle: what a seed's stage calls for"
    return f"{title}\n\n{_diagram(arrows, kind='flowchart LR')}\n{_table(('stage', 'operation'), rows)}"


def _actions() -> str:
    rows = []
    for action, (command_type, detail) in POLICY_ACTIONS.items():
        named = _short(pb.CommandType.Name(command_type), "COMMAND_")
        if command_type == pb.COMMAND_CIRCUIT_BREAKER:
            named += f" {_circuit(detail)}"
        elif command_type == pb.COMMAND_SEED:
            named += f" {_short(pb.SeedOperation.Name(detail), 'SEED_OP_')}" if detail else ", as its stage says"
        rows.append((str(action), named))
    rows.append(("others", "PAUSE, `policy_reserved_action`"))
    return f"### Policy actions\n\n{_table(('class', 'command'), rows)}"


def _flags() -> str:
    rows = [(f"`{name}`", flag.since, flag.what, "yes" if flag.retired else "no") for name, flag in FLAGS.items()]
    return f"### Behaviour flags\n\n{_table(('flag', 'since', 'what is different', 'retired'), rows)}"


def _level(level: int) -> str:
    return _short(pb.TelemetryLevel.Name(level), "TELEMETRY_LEVEL_")


def _priority(priority: int) -> str:
    return _short(pb.MessagePriority.Name(priority), "MESSAGE_PRIORITY_")


def _circuit(state: int) -> str:
    return _short(pb.CircuitBreakerState.Name(state), "CIRCUIT_STATE_")


def _short(name: str, family: str) -> str:
    return name.removeprefix(family)


def _diagram(lines: Iterable[str], kind: str = "stateDiagram-v2") -> str:
    return "```mermaid\n" + "\n".join([kind, *lines]) + "\n```\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(tables(), end="")  # noqa: T201  printing is what it is run for
