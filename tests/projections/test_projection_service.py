"""A real service's log, projected: what it holds is what the service's own state says."""

import json

import pytest
from projection_rig import made_new

from tamiyo import TamiyoService, derived, load_settings
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import Projection, ProjectionFollower
from tamiyo.testing import FixedPolicy

SECRET = "for the tests alone, nothing else"
STEPS = 6


def packet(step):
    made = pb.SystemStatePacket(packet_id="bp", training_run_id="run-1", global_step=step, validation_loss=0.5)
    made.training_metrics["loss"] = 0.5 + step / 100
    made.seed_states.add(seed_id=f"s-{step % 2}", stage=pb.SEED_STAGE_DORMANT)
    return made


@pytest.fixture
def service(tmp_path):
    patient = load_settings(step_timeout_ms=60_000, commit_timeout_ms=60_000)  # a busy machine changes no row
    with TamiyoService.open(tmp_path, policy=FixedPolicy(action=0), secret=SECRET, settings=patient) as opened:
        yield opened


def test_closing_a_service_leaves_a_projection_and_files_that_agree_with_its_state(service, tmp_path):
    for step in range(STEPS):
        service.evaluate_step(packet(step))
    service.close()
    state = service.state
    with Projection.open(tmp_path) as projection:
        assert projection.applied_lsn == state.last_lsn
        assert projection.norms() == state.norms
        assert projection.registries() == state.registries
        assert projection.summary().decisions == state.decisions == STEPS
        assert projection.contents() == made_new(tmp_path)
    assert json.loads((tmp_path / "seed_id_registry.json").read_bytes()) == dict(state.registries["seed_id"])
    assert json.loads((tmp_path / "gnn_norms.json").read_bytes())["loss"]["mean"] == state.norms[0].mean


def test_every_command_is_a_row_that_says_the_same(service, tmp_path):
    commands = [service.evaluate_step(packet(step)) for step in range(STEPS)]
    service.close()
    with Projection.open(tmp_path) as projection:
        rows = projection.contents()["decisions"]
    for step, (row, command) in enumerate(zip(rows, commands, strict=True), start=1):
        assert (row[2], row[4]) == (step, command.issued_at.ToNanoseconds())
        assert (row[5], row[6], row[8]) == (
            command.command_id,
            command.command_type,
            command.annotations["risk_reason"],
        )
        assert f"{row[13]:.3f}" == command.annotations["feature_coverage"]
        assert row[18] is None


def test_a_follower_beside_a_service_ends_with_the_same_rows(service, tmp_path):
    following = ProjectionFollower(tmp_path, service.log)
    for step in range(STEPS):
        service.evaluate_step(packet(step))
        following.wake()
    service.close()
    assert following.close(30)
    assert following.failure is None
    with Projection.open(tmp_path) as projection:
        assert projection.applied_lsn == service.state.last_lsn
        assert projection.contents() == made_new(tmp_path)


def test_closing_does_not_wait_for_a_projection_that_is_far_behind(service, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(derived, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(derived, "CATCH_UP_ENTRIES", 4)
    for step in range(STEPS):
        service.evaluate_step(packet(step))
    service.close()
    assert "the projection of" in caplog.text
    with Projection.open(tmp_path) as projection:
        assert projection.applied_lsn == 4
        projection.catch_up(tmp_path / "wal")
        assert projection.contents() == made_new(tmp_path)
