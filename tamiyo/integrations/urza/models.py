"""The library's one table; any database SQLAlchemy knows."""

from sqlalchemy import Double, LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Base", "BlueprintRow"]


class Base(DeclarativeBase):
    """The library's own metadata: it shares nothing with the projections."""


class BlueprintRow(Base):
    """A blueprint: `descriptor` is a serialised BlueprintDescriptor, `extras` a JSON object in UTF-8.

    `tier` and `risk` repeat the descriptor's, to list by; a risk that is NaN is NULL.
    """

    __tablename__ = "blueprints"
    blueprint_id: Mapped[str] = mapped_column(primary_key=True)
    tier: Mapped[int]
    risk: Mapped[float | None] = mapped_column(Double)
    descriptor: Mapped[bytes] = mapped_column(LargeBinary)
    artifact: Mapped[bytes] = mapped_column(LargeBinary)
    extras: Mapped[bytes | None] = mapped_column(LargeBinary)
