"""What docs/log-format.md says of recovery, written from the table: `python -m wal.docs` prints it."""

from wal.recovery import RECOVERY_CASES, Case, Conditions

BEGIN, END = "<!-- recovery: begin -->", "<!-- recovery: end -->"
"""Between these lines of docs/log-format.md stands what `recovery` returns."""

_MARKS = {True: "yes", False: "no", None: "-"}


def recovery() -> str:
    """Return the recovery table as Markdown, and the same as a Mermaid diagram of questions and decisions."""
    header = ("case", *Conditions._fields, "decision", "why")
    rows = [
        (case.label, *[_MARKS[want] for want in case.when], f"**{case.action}**", case.why) for case in RECOVERY_CASES
    ]
    lines = [header, ["---"] * len(header), *rows]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return f"{table}\n```mermaid\nflowchart TD\n{_tree(RECOVERY_CASES, frozenset(), 'q')}```\n"


def _tree(cases: tuple[Case, ...], asked: frozenset[int], name: str) -> str:
    """Return the questions that tell these cases apart, the one that parts them best first, as Mermaid lines."""
    place = _next_question(cases, asked)
    if place is None:
        case = cases[0]
        return f'    {name}(["{case.label} {case.action}: {case.why}"])\n'
    text = f"    {name}{{{Conditions._fields[place]}?}}\n"
    for answer, mark in ((True, "y"), (False, "n")):
        below = tuple([case for case in cases if case.when[place] in (None, answer)])
        text += f"    {name} -- {_MARKS[answer]} --> {name}{mark}\n{_tree(below, asked | {place}, name + mark)}"
    return text


def _next_question(cases: tuple[Case, ...], asked: frozenset[int]) -> int | None:
    """Return the condition that most of these cases name, the first of them in a tie; None when one case is left."""
    counts = [
        (sum([case.when[place] is not None for case in cases]), -place)
        for place in range(len(Conditions._fields))
        if place not in asked
    ]
    return -max(counts)[1] if len(cases) > 1 else None


if __name__ == "__main__":
    print(recovery(), end="")  # noqa: T201  printing is what it is run for
