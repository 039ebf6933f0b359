"""Policy updates while a service runs: taken over, refused, rolled back; and after a restart."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from live import PATIENT
from rig import SECRET, packet

from tamiyo import Settings, TamiyoService
from tamiyo.audit import replay
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event, decode
from tamiyo.core.evolve import evolve
from tamiyo.core.policies import PROBATION_PROPOSALS, REASONS, failed_probation
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.core.registries import Registries, RegistryStamp, digest
from tamiyo.core.state import Policies, State
from tamiyo.errors import CheckpointRejected, InvariantViolation, NotRecorded, PolicyUnchanged
from tamiyo.graph import Graph
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policies import UpdateVerdict
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.policy_updates import UPDATE_MAX_BYTES, Refused, require_fresh, require_signature
from tamiyo.signing import sign_update, update_signature
from tamiyo.testing import FailingPolicy, FixedPolicy, ManualClock

BASELINE = BaselinePolicy().identity.version


@dataclass
class Loaded:
    """What stands for a network here: proposes an OPTIMIZER command, and goes wrong where `gate` says so."""

    identity: PolicyIdentity
    registry_stamps: dict[str, RegistryStamp] = field(default_factory=dict)
    failing: bool = False
    gate: threading.Event | None = None

    def propose(self, graph: Graph) -> Proposal:
        if self.gate is not None:
            self.gate.wait()
        if self.failing:
            raise RuntimeError("it fell over")
        return FixedPolicy(1).propose(graph)


class Run:
    """One directory; checkpoints are words, and what they say is what the loaded policy does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.loaded: dict[str, Loaded] = {}
        self.policy: Any = None
        self.service = self.open()

    def open(self, policy: Any = None) -> TamiyoService:
        return TamiyoService.open(
            self.directory, policy=policy, secret=SECRET, settings=Settings(**PATIENT), clock=self.clock,
            load=self.load,
        )  # fmt: skip

    def load(self, data: bytes, name: str, registries: Registries) -> Loaded:
        words = data.decode().split()
        if words[0] in REASONS:
            raise CheckpointRejected(f"{name} is no checkpoint", words[0])
        policy = Loaded(PolicyIdentity(words[0], "words", "python", sha256(data).hexdigest()))
        if "trained" in words:
            policy.registry_stamps = {"seed_id": RegistryStamp(1, digest({words[-1]: 1}))}
        policy.failing = "broken" in words
        self.loaded[words[0]] = policy
        return policy

    def update(self, payload: str, **changed: Any) -> pb.PolicyUpdate:
        issued_ns = changed.pop("issued_ns", self.clock.wall_ns())
        made = pb.PolicyUpdate(
            **{"version": 1, "policy_id": f"update of {payload}", "tamiyo_policy_version": payload.split(maxsplit=1)[0]}
            | changed,
            payload=payload.encode(),
        )
        made.issued_at.FromNanoseconds(issued_ns)
        return made

    def ingest(self, payload: str, **changed: Any) -> UpdateVerdict:
        made = self.update(payload, **changed)
        return self.service.ingest_policy_update(made, sign_update(made, SECRET))

    def step(self) -> str:
        """Which policy answered."""
        return self.service.evaluate_step(packet()).annotations["policy_version"]

    def events(self, *kinds: type[Event]) -> list[Any]:
        self.service.flush()
        found = [decode(entry.kind, entry.payload) for entry in self.service.log.read()]
        return [event for event in found if isinstance(event, kinds)]

    def prove(self) -> None:
        for _ in range(PROBATION_PROPOSALS):
            self.step()

    def reopen(self, policy: Any = None) -> None:
        self.service.close()
        self.service = self.open(policy)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.service.flush()
    found = replay(made.service.log.read())
    made.service.close()
    assert found.divergence is None, str(found.divergence)


def test_an_update_speaks_from_the_next_step_on_and_the_log_says_so_first(run: Run) -> None:
    assert run.step() == BASELINE
    verdict = run.ingest("one", training_run_id="run-7")
    assert verdict == UpdateVerdict(installed=True, version="one")
    assert run.step() == "one"
    (event,) = run.events(journal.PolicyInstalled)
    assert (event.version, event.architecture, event.policy_id) == ("one", "words", "update of one")
    assert (event.training_run_id, event.checkpoint_digest) == ("run-7", sha256(b"one").hexdigest())
    told = run.events(journal.PolicyInstalled, journal.InferenceObserved)
    assert [type(event).__name__ for event in told] == ["InferenceObserved", "PolicyInstalled", "InferenceObserved"]


def test_a_step_under_way_keeps_the_policy_that_it_arrived_under(run: Run) -> None:
    run.ingest("slow")
    run.prove()
    gate = run.loaded["slow"].gate = threading.Event()
    answers: list[str] = []
    stepping = threading.Thread(target=lambda: answers.append(run.step()))
    arrived = run.service.state.steps_received
    stepping.start()
    while run.service.state.steps_received == arrived:
        pass
    assert run.ingest("next").installed
    assert run.service.state.policy_version == "next"
    gate.set()
    stepping.join()
    assert answers == ["slow"]
    assert run.step() == "next"


def refused(run: Run, verdict: UpdateVerdict, reason: str, words: str) -> None:
    """Refused for that reason, journaled, and whoever spoke still speaks."""
    assert (verdict.installed, verdict.reason) == (False, reason)
    assert words in verdict.detail
    *_, event = run.events(journal.PolicyRejected)
    assert (event.reason, event.detail) == (reason, verdict.detail)
    assert run.service.state.policies.current is None
    assert run.step() == BASELINE


def test_an_update_without_the_key_s_signature_is_refused(run: Run) -> None:
    made = run.update("one")
    signatures: list[Any] = ["", "x", "\ud800", sign_update(made, b"0123456789abcdef-other"), None, b"x"]
    for signature in signatures:
        verdict = run.service.ingest_policy_update(made, signature)
        refused(run, verdict, "invalid_signature", "not signed with the key")


def test_without_a_key_no_signature_will_do() -> None:
    data = b"an update"
    require_signature(data, update_signature(data, b"a key"), b"a key")
    with pytest.raises(Refused, match="not signed with the key"):
        require_signature(data, update_signature(data, b""), b"")


def test_an_update_is_fresh_until_its_time_is_over(run: Run) -> None:
    update = run.update("late", issued_ns=10**18)
    require_fresh(update, wall_ns=10**18 + 60 * 10**9, freshness_ns=60 * 10**9)
    with pytest.raises(Refused, match="it is 60 s old, and TAMIYO_UPDATE_FRESHNESS_SEC is 60") as refused:
        require_fresh(update, wall_ns=10**18 + 60 * 10**9 + 1, freshness_ns=60 * 10**9)
    assert refused.value.reason == "stale_update"


def test_a_signature_covers_every_byte(run: Run) -> None:
    made = run.update("one")
    signature = sign_update(made, SECRET)
    made.payload = b"two"
    refused(run, run.service.ingest_policy_update(made, signature), "invalid_signature", "not signed")


@pytest.mark.parametrize(
    ("changed", "reason", "words"),
    [
        ({"version": 2}, "version_mismatch", "it is of version 2, not 1"),
        ({"tamiyo_policy_version": "another"}, "version_mismatch", "it says 'another' and carries 'one'"),
        ({"policy_id": ""}, "invalid_payload", "no policy_id"),
        ({"issued_ns": ManualClock().wall - 3_601 * 10**9}, "stale_update", "TAMIYO_UPDATE_FRESHNESS_SEC is 3600"),
        ({"issued_ns": ManualClock().wall + 6 * 10**9}, "stale_update", "in the future"),
    ],
)
def test_what_an_update_says_of_itself_is_held_against_it(
    run: Run, changed: dict[str, Any], reason: str, words: str
) -> None:
    refused(run, run.ingest("one", **changed), reason, words)


def test_an_update_that_was_never_issued_is_stale(run: Run) -> None:
    made = run.update("one")
    made.ClearField("issued_at")
    verdict = run.service.ingest_policy_update(made, sign_update(made, SECRET))
    refused(run, verdict, "stale_update", "does not say when")


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason != "invalid_signature"])
def test_the_reason_of_a_checkpoint_is_that_of_its_update(run: Run, reason: str) -> None:
    refused(run, run.ingest(reason), reason, "is no checkpoint")


def test_what_is_no_update_is_refused(run: Run) -> None:
    from tamiyo.signing import update_signature

    for data in (b"\xff\xff", b"\x0a"):
        verdict = run.service.ingest_policy_update(data, update_signature(data, SECRET))
        refused(run, verdict, "invalid_payload", "are no PolicyUpdate")
    strange: Any = 3
    refused(run, run.service.ingest_policy_update(strange, ""), "invalid_payload", "a int is no PolicyUpdate")
    let_go = memoryview(b"taken back")
    let_go.release()
    refused(run, run.service.ingest_policy_update(let_go, ""), "invalid_payload", "a memoryview gives no bytes")
    refused(run, run.service.ingest_policy_update(bytes(UPDATE_MAX_BYTES + 1), ""), "invalid_payload", "more than")


def test_an_update_is_taken_once_and_none_before_it(run: Run) -> None:
    first = run.update("one")
    signature = sign_update(first, SECRET)
    assert run.service.ingest_policy_update(first, signature).installed
    late = run.update("late", issued_ns=first.issued_at.ToNanoseconds() - 1)
    for update in (first, late):
        verdict = run.service.ingest_policy_update(update, sign_update(update, SECRET))
        assert (verdict.reason, "installed before" in verdict.detail) == ("stale_update", True)
    assert run.step() == "one"


YEARS_NS = 5 * 365 * 86_400 * 10**9


def taken_by_a_clock_ahead(run: Run) -> None:
    """Two updates were taken while the clock stood years ahead; now it is right."""
    run.clock.wall += YEARS_NS
    assert run.ingest("one").installed
    run.prove()
    assert run.ingest("two").installed
    run.clock.wall -= YEARS_NS
    verdict = run.ingest("three")
    assert verdict.reason == "stale_update"
    assert "157680000 s ahead of this clock" in verdict.detail


@pytest.mark.parametrize("how", ["install", "roll back"])
@pytest.mark.parametrize("reopened", [False, True])
def test_after_a_clock_that_stood_years_ahead_an_operator_lets_updates_in_again(
    run: Run, how: str, reopened: bool
) -> None:
    taken_by_a_clock_ahead(run)
    if reopened:
        run.reopen()
    before = run.update("of before")
    run.clock.advance(1)
    if how == "install":
        assert run.service._desk.install(b"by hand", "by hand", operator="ada").installed
    else:
        assert run.service.roll_back_policy(operator="ada") == "one"
    late = run.service.ingest_policy_update(before, sign_update(before, SECRET))
    assert late.reason == "stale_update", "what was issued before the operator acted stays stale"
    run.clock.advance(1)
    verdict = run.ingest("three")
    assert verdict.installed, verdict
    assert run.ingest("three", issued_ns=run.clock.wall_ns()).reason == "stale_update"
    run.reopen()
    assert run.step() == "three"


def test_an_operator_sets_nothing_back_where_no_clock_stood_ahead(run: Run) -> None:
    assert run.ingest("one").installed
    newest_ns = run.service.state.policies.issued_unix_ns
    run.clock.advance(10)
    run.service.roll_back_policy(operator="ada")
    assert run.service.state.policies.issued_unix_ns == newest_ns
    assert run.events(journal.PolicyRolledBack)[0].updates_after_unix_ns == 0


def test_a_policy_that_fails_its_probation_sets_nothing_back(run: Run) -> None:
    run.clock.wall += YEARS_NS
    assert run.ingest("weak").installed
    newest_ns = run.service.state.policies.issued_unix_ns
    run.clock.wall -= YEARS_NS
    run.loaded["weak"].failing = True
    run.step()
    run.service._desk.watch()
    assert run.events(journal.PolicyRolledBack)[0].cause == "inference_failed"
    assert run.service.state.policies.issued_unix_ns == newest_ns


@pytest.mark.parametrize("told", [{"operator": "ada"}, {"updates_after_unix_ns": 1}])
def test_what_sets_back_more_than_an_operator_may_is_refused(told: dict[str, Any]) -> None:
    state = State(policies=Policies(issued_unix_ns=5))
    event = journal.PolicyInstalled(version="v", checkpoint_digest="d", **{"updates_after_unix_ns": 5} | told)
    with pytest.raises(InvariantViolation):
        evolve(state, 1, event)


def test_other_registries_are_a_mismatch(run: Run) -> None:
    run.step()  # numbers seed-0
    assert run.ingest("good trained on seed-0").installed
    (event,) = run.events(journal.PolicyInstalled)
    assert [(stamp.kind, stamp.count) for stamp in event.registries] == [("seed_id", 1)]
    verdict = run.ingest("bad trained on seed-9")
    assert (verdict.installed, verdict.reason) == (False, "registry_mismatch")
    assert run.step() == "good"


def test_a_host_s_own_policy_of_other_registries_does_not_open(run: Run) -> None:
    run.step()
    run.service.close()
    other = Loaded(PolicyIdentity("own", "words", "python"), {"seed_id": RegistryStamp(1, digest({"seed-9": 1}))})
    with pytest.raises(CheckpointRejected, match="policy own was trained on other registries"):
        run.open(other)
    run.service = run.open()


def test_a_policy_that_fails_when_it_is_tried_out_is_never_installed(run: Run) -> None:
    refused(run, run.ingest("bad broken"), "invalid_payload", "tried out, it raised RuntimeError: it fell over")


def rolled_back(run: Run) -> journal.PolicyRolledBack:
    """Wait for the upkeep to have rolled back."""
    found: list[journal.PolicyRolledBack] = []
    while not found:
        found = run.events(journal.PolicyRolledBack)
    return found[-1]


def test_a_policy_that_fails_on_probation_gives_way_to_the_last_good_one(run: Run) -> None:
    run.ingest("good")
    run.prove()
    run.ingest("bad")
    run.loaded["bad"].failing = True
    run.step()
    event = rolled_back(run)
    assert (event.from_version, event.version, event.cause) == ("bad", "good", "inference_failed")
    assert run.step() == "good"


def test_a_first_policy_that_fails_on_probation_gives_way_to_the_baseline(run: Run) -> None:
    run.ingest("bad")
    run.loaded["bad"].failing = True
    run.step()
    assert rolled_back(run).version == BASELINE
    assert run.step() == BASELINE
    run.reopen()
    assert run.step() == BASELINE


def test_a_proven_policy_that_fails_is_the_breakers_matter(run: Run) -> None:
    run.ingest("good")
    run.prove()
    run.loaded["good"].failing = True
    run.step()
    run.service._desk.watch()
    assert run.events(journal.PolicyRolledBack) == []
    assert run.service.state.policy_version == "good"


def test_a_policy_that_comes_for_a_failing_one_is_not_blamed_for_the_breaker_that_it_found_open(run: Run) -> None:
    run.ingest("first")
    run.prove()
    run.loaded["first"].failing = True
    for _ in range(4):
        run.step()
    assert run.ingest("second").installed
    run.service.flush()
    run.service.flush()
    assert run.service.state.policy_version == "second"
    run.reopen()
    run.service.flush()
    assert run.service.state.policy_version == "second", "and a restart makes it no worse"
    run.loaded["second"].failing = True
    run.clock.advance(1.5)
    run.step()
    run.service.flush()
    assert [event.cause for event in run.events(journal.PolicyRolledBack)] == ["inference_failed"]


def test_an_update_that_comes_to_nothing_takes_no_blame_from_who_speaks(run: Run) -> None:
    """The breaker opened in the probation of `slow`; that `other` found it open says nothing of that."""
    run.ingest("slow")
    desk = run.service._desk
    with desk._serving:  # nobody looks at the probation yet
        run.loaded["slow"].gate = gate = threading.Event()
        run.service.settings = run.service.settings.model_copy(update={"step_timeout_ms": 1})
        for _ in range(3):
            run.step()
        gate.set()
        assert failed_probation(run.service.state) == "breaker_open"
        other = desk._tried(b"other trained elsewhere", "other")
        with pytest.raises(Refused, match="seed_id"):
            desk._install(other, b"other trained elsewhere", pb.PolicyUpdate())
    assert rolled_back(run).from_version == "slow"


def test_an_operator_goes_back_step_by_step(run: Run) -> None:
    for name in ("one", "two"):
        run.ingest(name)
        run.prove()
    assert run.service.roll_back_policy(operator="ada", reason="a look") == "one"
    assert run.step() == "one"
    assert run.service.roll_back_policy(operator="ada") == BASELINE
    assert run.step() == BASELINE
    with pytest.raises(PolicyUnchanged, match="was not installed here"):
        run.service.roll_back_policy(operator="ada")
    first, _ = run.events(journal.PolicyRolledBack)
    assert (first.operator, first.reason, first.cause) == ("ada", "a look", "operator")


def test_the_installed_policy_speaks_again_after_a_restart_and_so_does_the_one_before_it(run: Run) -> None:
    for name in ("one", "two"):
        run.ingest(name)
        run.prove()
    run.reopen()
    assert run.step() == "two"
    assert run.service.roll_back_policy(operator="ada") == "one"
    run.reopen()
    assert run.step() == "one"


def test_a_checkpoint_that_is_gone_leaves_the_baseline_until_it_is_back(run: Run) -> None:
    run.ingest("one")
    run.prove()
    (kept,) = (run.directory / "policies").iterdir()
    run.service.close()
    kept.rename(run.directory / "aside")
    run.service = run.open()
    assert run.step() == BASELINE
    (event,) = run.events(journal.PolicyRejected)
    assert (event.reason, event.version) == ("checkpoint_missing", "one")
    run.service.close()
    (run.directory / "aside").rename(kept)
    run.service = run.open()
    assert run.step() == "one"
    run.service.close()
    kept.write_bytes(b"two")
    run.service = run.open()
    assert run.step() == BASELINE
    assert "not the one that was kept" in run.events(journal.PolicyRejected)[-1].detail


@pytest.mark.parametrize("error", [RuntimeError("not on the expected device"), MemoryError()], ids=repr)
def test_an_installed_policy_that_cannot_be_loaded_for_whatever_reason_leaves_the_baseline(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run.ingest("one")
    run.service.close()

    def broken(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run, "load", broken)
        run.service = run.open()
    assert run.step() == BASELINE
    (event,) = run.events(journal.PolicyRejected)
    assert (event.reason, event.version) == ("invalid_payload", "one")
    assert f"raised {type(error).__name__}" in event.detail
    run.reopen()
    assert run.step() == "one"


def test_a_policy_that_the_host_gives_goes_before_the_installed_one(run: Run) -> None:
    run.ingest("one")
    run.reopen(FixedPolicy(2))
    assert run.step() == "fixed-v1"
    with pytest.raises(PolicyUnchanged):
        run.service.roll_back_policy(operator="ada")
    run.reopen()
    assert run.step() == "one"


def test_a_log_that_takes_nothing_leaves_everything_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tamiyo.records import JournalUnavailable

    def unavailable(*_: object, **__: object) -> None:
        raise JournalUnavailable("log_failed")

    with monkeypatch.context() as patched:
        patched.setattr(run.service.journal, "record_aside", unavailable)
        with pytest.raises(NotRecorded, match="the policy stays as it is"):
            run.ingest("one")
    assert run.step() == BASELINE
    assert run.ingest("one").installed


def install(run: Run, *names: str) -> None:
    for name in names:
        run.clock.advance(1)
        assert run.ingest(name).installed


def test_nobody_goes_back_to_itself(run: Run) -> None:
    install(run, "good")
    run.prove()
    install(run, "doubtful", "good")
    assert run.service.roll_back_policy(operator="ada") == BASELINE
    assert run.step() == BASELINE


def test_a_policy_that_spoke_before_the_host_s_own_gives_way_when_it_fails(run: Run) -> None:
    install(run, "one")
    run.prove()
    run.reopen(FixedPolicy(2))
    install(run, "one")
    run.loaded["one"].failing = True
    run.step()
    assert rolled_back(run).version == "fixed-v1"


def test_who_speaks_stays_loaded_whatever_else_is_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tamiyo.records import JournalUnavailable

    def unavailable(*_: object, **__: object) -> None:
        raise JournalUnavailable("log_failed")

    install(run, "one")
    with monkeypatch.context() as patched:
        patched.setattr(run.service.journal, "record_aside", unavailable)
        for number in range(8):
            with pytest.raises(NotRecorded):
                install(run, f"other-{number}")
    run.prove()
    assert run.events(journal.InferenceFailed) == []
    assert len(run.events(journal.InferenceObserved)) == PROBATION_PROPOSALS


def test_who_speaks_and_is_not_loaded_is_loaded_from_what_was_kept(run: Run) -> None:
    install(run, "one")
    speakers = run.service._desk._speakers
    speakers._held = {BASELINE: speakers.own}
    while speakers.of("one") is None:  # the upkeep does it
        run.service._desk.watch()
    assert run.step() == "one"
    assert run.events(journal.InferenceFailed) == []


@pytest.mark.parametrize("own", [FixedPolicy(2), FailingPolicy()])
def test_what_another_policy_does_is_no_part_of_a_probation(run: Run, own: Any) -> None:
    install(run, "one")
    run.reopen(own)
    run.prove()
    held = run.service.state.policies
    assert (held.proposals_left, held.failures) == (PROBATION_PROPOSALS, 0)
    run.reopen()


def test_a_policy_that_came_meanwhile_is_not_rolled_back_for_the_one_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(run, "bad")
    desk, before = run.service._desk, run.service._desk._before
    monkeypatch.setattr(desk, "watch", lambda: None)  # of the upkeep
    run.loaded["bad"].failing = True
    run.step()

    def late(state: Any) -> Any:
        found = before(state)
        desk._serving.release()
        install(run, "next")
        desk._serving.acquire()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(desk, "_before", late)
        type(desk).watch(desk)
    assert run.events(journal.PolicyRolledBack) == []
    assert run.step() == "next"


def test_what_speaks_after_going_back_speaks_after_a_restart(run: Run) -> None:
    install(run, "one")
    run.prove()
    run.reopen()
    for name in ("two", "three"):
        install(run, name)
        run.prove()
    assert run.service.roll_back_policy(operator="ada") == "two"
    spoke = run.service.roll_back_policy(operator="ada")
    run.reopen()
    assert run.step() == spoke == BASELINE


def test_a_checkpoint_whose_loading_raises_anything_is_refused(run: Run) -> None:
    made = run.update("one")
    made.payload = b"\xff"
    verdict = run.service.ingest_policy_update(made, sign_update(made, SECRET))
    refused(run, verdict, "invalid_payload", "loading it raised UnicodeDecodeError")


def test_telemetry_tells_of_each(run: Run) -> None:
    from tamiyo.core.telemetry import TelemetryReader

    run.ingest("one")
    run.ingest("one")
    run.service.roll_back_policy(operator="ada")
    run.service.flush()
    reader, told = TelemetryReader(), []
    for entry in run.service.log.read():
        made = reader.take(entry.lsn, decode(entry.kind, entry.payload))
        told += [] if made is None else [event.description for event in made.events]
    assert sorted(told) == ["policy_rolled_back", "policy_update_applied", "policy_update_rejected"]
