"""Signatures: only durable decisions and bare pauses get one, and a verifier says why it refuses."""

import base64
import hashlib
import hmac
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import DECISION_ID, SECRET, WALL_NS, Bench, packet

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.command import safe_pause
from tamiyo.core.events import KINDS
from tamiyo.core.limits import Limits
from tamiyo.core.observation import read_packet
from tamiyo.errors import InvariantViolation, SecretMissing
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.signing import REASONS, Verifier, read_secret, release, secret_for, sign_safe_pause, signature_of

SECOND_NS = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = WALL_NS

    def __call__(self) -> int:
        return self.now_ns


def decided() -> wal.Entry:
    bench = Bench()
    bench.observe()
    made = next(e for e in bench.step(packet()).events if isinstance(e, journal.DecisionMade))
    return wal.Entry(7, KINDS[journal.DecisionMade], made.SerializeToString())


def signed() -> pb.AdaptationCommand:
    return release(decided(), SECRET)


def resigned(command: pb.AdaptationCommand) -> pb.AdaptationCommand:
    command.annotations["signature"] = signature_of(command, SECRET)
    return command


def test_the_signature_is_hmac_sha256_over_the_bytes_without_it() -> None:
    command = pb.AdaptationCommand(version=1, command_id="c", command_type=pb.COMMAND_PAUSE)
    command.annotations["a"] = "1"
    bare = b"\x08\x01\x12\x01c\x18\x05\xa2\x01\x06\x0a\x01a\x12\x011"
    expected = base64.b64encode(hmac.new(SECRET, bare, hashlib.sha256).digest()).decode()
    assert signature_of(command, SECRET) == expected
    command.annotations["signature"] = "anything"
    assert signature_of(command, SECRET) == expected


def test_a_durable_decision_is_signed_and_accepted_once() -> None:
    verifier = Verifier(SECRET, wall_ns=Clock())
    command = signed()
    assert verifier.verify(command).accepted
    assert verifier.verify(command).reason == "nonce_replayed"


def test_only_a_decision_is_released() -> None:
    with pytest.raises(InvariantViolation, match="not a decision"):
        release(wal.Entry(1, KINDS[journal.ServiceOpened], b""), SECRET)


def test_a_safe_pause_is_signed_and_nothing_else_is() -> None:
    observation = read_packet(packet().SerializeToString(), Limits())
    pause = sign_safe_pause(safe_pause(observation, DECISION_ID, WALL_NS, "timeout_wal", budget_ms=5), SECRET)
    assert Verifier(SECRET, wall_ns=Clock()).verify(pause).accepted
    with pytest.raises(InvariantViolation, match="bare PAUSE"):
        sign_safe_pause(signed(), SECRET)


def test_a_safe_pause_is_a_pure_function_of_packet_and_cause() -> None:
    observation = read_packet(packet(training_loss=1.0).SerializeToString(), Limits())
    one = safe_pause(observation, DECISION_ID, WALL_NS, "timeout_wal", budget_ms=5)
    assert one == safe_pause(observation, DECISION_ID, WALL_NS, "timeout_wal", budget_ms=5)
    assert one.command_id != safe_pause(observation, DECISION_ID, WALL_NS, "log_full", budget_ms=5).command_id
    assert one.annotations["policy_action"] == "timeout"
    assert "feature_coverage" in one.annotations
    assert "coverage_types" in one.annotations


REJECTED = {
    "missing_signature": lambda c: c.annotations.pop("signature"),
    "invalid_signature": lambda c: c.annotations.update({"risk_reason": "other"}),
    "missing_command_id": lambda c: (setattr(c, "command_id", ""), resigned(c)),
    "missing_timestamp": lambda c: (c.ClearField("issued_at"), resigned(c)),
    "stale_command": lambda c: (c.issued_at.FromNanoseconds(WALL_NS - 60 * SECOND_NS - 1), resigned(c)),
    "issued_in_future": lambda c: (c.issued_at.FromNanoseconds(WALL_NS + 5 * SECOND_NS + 1), resigned(c)),
}


@pytest.mark.parametrize(("reason", "change"), REJECTED.items(), ids=REJECTED.keys())
def test_each_rejection_has_its_reason_and_leaves_no_trace(reason: str, change: object) -> None:
    verifier = Verifier(SECRET, wall_ns=Clock())
    command = signed()
    change(command)
    assert verifier.verify(command).reason == reason
    assert verifier.verify(signed()).accepted


def test_every_reason_is_among_the_cases() -> None:
    assert {*REJECTED, "nonce_replayed"} == set(REASONS)


@pytest.mark.parametrize("age_s", [-5, 0, 60])
def test_the_limits_of_freshness_themselves_are_accepted(age_s: int) -> None:
    command = signed()
    command.issued_at.FromNanoseconds(WALL_NS - age_s * SECOND_NS)
    assert Verifier(SECRET, wall_ns=Clock()).verify(resigned(command)).accepted


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_never_accepted(place: int, change: int) -> None:
    data = bytearray(signed().SerializeToString(deterministic=True))
    data[place % len(data)] ^= change
    try:
        command = pb.AdaptationCommand.FromString(bytes(data))
    except Exception:  # noqa: BLE001  not parsing is as good as not accepted
        return
    verdict = Verifier(SECRET, wall_ns=Clock()).verify(command)
    assert not verdict.accepted or command == signed()


def test_another_key_is_refused() -> None:
    assert Verifier(b"another secret, long enough").verify(signed()).reason == "invalid_signature"


def test_the_memory_of_ids_is_bounded() -> None:
    verifier = Verifier(SECRET, nonces_max=3, wall_ns=Clock())
    for index in range(5):
        command = signed()
        command.command_id = f"id-{index}"
        assert verifier.verify(resigned(command)).accepted
    assert len(verifier._nonces) == 3


def test_without_a_secret_the_error_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET", raising=False)
    with pytest.raises(SecretMissing, match="token_hex"):
        read_secret(None)
    with pytest.raises(SecretMissing, match="fewer than 16"):
        read_secret("short")
    with pytest.raises(SecretMissing, match="a int is no secret"):
        read_secret(123)
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", b"\xff".decode("utf-8", "surrogateescape") * 32)
    with pytest.raises(SecretMissing, match=r"no UTF-8 text; set .*token_hex"):
        read_secret(None)


def test_a_directory_keeps_a_secret_of_its_own(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET", raising=False)
    with pytest.raises(SecretMissing):
        secret_for(tmp_path)
    made = secret_for(tmp_path, create=True)
    assert secret_for(tmp_path) == secret_for(tmp_path, create=True) == made
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "the environment's own secret")
    assert secret_for(tmp_path) == b"the environment's own secret"
