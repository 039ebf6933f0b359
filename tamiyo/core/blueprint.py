"""A blueprint as decisions and graphs see it: descriptor and safety sheet, read once from the library's bytes."""

from dataclasses import dataclass
from hashlib import sha256
from math import isnan

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.limits import ALLOWED_PARAMETERS_MAX, TEXT_CHARS_MAX
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Blueprint", "SafetySheet", "content_digest", "read_blueprint", "unobserved"]


@dataclass(frozen=True, slots=True)
class SafetySheet:
    """The Blueprint Safety Data Sheet (BSDS); numbers are Leyline enums, unknown ones kept as they came."""

    risk_score: float
    hazard_band: int
    handling_class: int
    resource_profile: int
    provenance: int
    recommendation: str


@dataclass(frozen=True, slots=True)
class Blueprint:
    """One observed version of one blueprint; `digest` names its content, and is all that is hashed of it."""

    blueprint_id: str
    digest: str
    tier: int
    stage: int
    descriptor_risk: float
    quarantine_only: bool
    approval_required: bool
    allowed_parameters: tuple[tuple[str, float, float], ...]  # (name, min, max), by name, the first ones
    sheet: SafetySheet | None

    def __hash__(self) -> int:
        """Of its id and digest: it is a key of what is remembered of each version."""
        return hash((self.blueprint_id, self.digest))

    @property
    def risk(self) -> float:
        """The larger of the descriptor's risk and its sheet's; a NaN in either is the result."""
        if self.sheet is None or isnan(self.descriptor_risk):
            return self.descriptor_risk
        sheet_risk = self.sheet.risk_score
        return sheet_risk if isnan(sheet_risk) or sheet_risk > self.descriptor_risk else self.descriptor_risk


def unobserved(blueprint_id: str) -> Blueprint:
    """What stands for a host's own blueprint where there is no library to ask."""
    return Blueprint(blueprint_id, "", 0, 0, 0.0, False, False, (), None)


def content_digest(content: journal.BlueprintContent) -> str:
    """SHA-256, hex, over the three parts, each behind its length so that no two contents run together."""
    digest = sha256()
    for part in (content.descriptor, content.safety_sheet, content.graph_metadata):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def read_blueprint(blueprint_id: str, digest: str, content: journal.BlueprintContent) -> Blueprint:
    """Read the observed bytes; of what may be of any length, as much as a state keeps.

    Raises:
        google.protobuf.message.DecodeError: a part is not the message it should be.
    """
    descriptor = pb.BlueprintDescriptor.FromString(content.descriptor)
    allowed = descriptor.allowed_parameters
    names = sorted(name for name in allowed if len(name) <= TEXT_CHARS_MAX)[:ALLOWED_PARAMETERS_MAX]
    return Blueprint(
        blueprint_id=blueprint_id,
        digest=digest,
        tier=descriptor.tier,
        stage=descriptor.stage,
        descriptor_risk=descriptor.risk,
        quarantine_only=descriptor.quarantine_only,
        approval_required=descriptor.approval_required,
        allowed_parameters=tuple((name, allowed[name].min_value, allowed[name].max_value) for name in names),
        sheet=_sheet(content.safety_sheet),
    )


def _sheet(data: bytes) -> SafetySheet | None:
    if not data:
        return None
    sheet = pb.BSDS.FromString(data)
    return SafetySheet(
        risk_score=sheet.risk_score,
        hazard_band=sheet.hazard_band,
        handling_class=sheet.handling_class,
        resource_profile=sheet.resource_profile,
        provenance=sheet.provenance,
        recommendation=sheet.recommendation[:TEXT_CHARS_MAX],
    )
