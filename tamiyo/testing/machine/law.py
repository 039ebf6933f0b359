"""How a broken law is reported."""

__all__ = ["LawBroken", "require"]


class LawBroken(AssertionError):
    """A controller did what none may do. `law` is the rule in a few words, and stands first in the message."""

    def __init__(self, law: str, detail: str) -> None:
        super().__init__(f"{law}: {detail}")
        self.law = law


def require(holds: bool, law: str, detail: object = "") -> None:  # noqa: FBT001  a condition, not an option
    """Raise `LawBroken` where the law does not hold."""
    if not holds:
        raise LawBroken(law, str(detail))
