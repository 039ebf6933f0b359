"""Blueprints that change while a step looks at them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from audit.runs import opened, training_packet

from tamiyo import TamiyoService
from tamiyo.audit import audit, graphs
from tamiyo.bench.samples import HOST, OneHost, host, small_host
from tamiyo.blueprints import Blueprints
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blueprint import content_digest
from tamiyo.step import Step
from tamiyo.testing.library import FaultLibrary


def newer(tamiyo: TamiyoService, layer: str = "one") -> str:
    """Journal a further version of the host's blueprint, as a lookup does; its digest."""
    content = journal.BlueprintContent(graph_metadata=b'{"layers": [{"layer_id": "%s"}]}' % layer.encode())
    observed = journal.BlueprintObserved(
        blueprint_id=HOST, digest=content_digest(content), content=content.SerializeToString()
    )

    def timed(_: object, now_ns: int) -> tuple[journal.BlueprintObserved]:
        observed.event_time_ns = now_ns
        return (observed,)

    tamiyo.journal.record_aside(timed)
    return observed.digest


def nothing(_: TamiyoService) -> str:
    """A version that the log does not hold the content of."""
    return ""


@pytest.mark.parametrize("changes", [newer, nothing])
def test_a_version_is_never_used_with_the_metadata_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Callable[[TamiyoService], str]
) -> None:
    with opened(tmp_path, None, OneHost(small_host())) as tamiyo:
        tamiyo.evaluate_step(training_packet(0))
    library = FaultLibrary()
    library.fail()  # else its answer is the metadata
    monkeypatch.setattr(Blueprints, "known", lambda _: [])  # it is not among the last ones, which are looked at here
    with opened(tmp_path, None, library) as tamiyo:
        content = tamiyo.journal.content
        used: list[str] = []

        def overtaken(digest: str) -> bytes | None:
            if not used:
                used.append(changes(tamiyo))
            return content(digest) if digest == used[0] else None

        monkeypatch.setattr(tamiyo.journal, "content", overtaken)
        tamiyo.evaluate_step(training_packet(1))
    report = audit(tmp_path, level=3)
    assert report.passed, report.text


def test_what_is_known_leaves_out_a_version_that_is_there_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, None, OneHost(host(layers=2))) as tamiyo:
        tamiyo.evaluate_step(training_packet(0))
        blueprints = tamiyo._stages._blueprints
        assert [given.blueprint.blueprint_id for given in blueprints.known()] == [HOST]
        blueprints._metadata.clear()
        monkeypatch.setattr(tamiyo.journal, "content", lambda _: None)
        assert blueprints.known() == []


def test_an_audit_knows_what_a_step_used_though_many_versions_came_while_it_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, None, OneHost(small_host())) as tamiyo:
        build = tamiyo._stages.build_graph

        def late(step: Step) -> None:
            for layer in range(5):
                newer(tamiyo, f"{step.lsn}-{layer}")
            build(step)

        monkeypatch.setattr(tamiyo._stages, "build_graph", late)
        for step in range(4):
            tamiyo.evaluate_step(training_packet(step))
    monkeypatch.setattr(graphs, "BLUEPRINTS_MAX", 1)
    report = audit(tmp_path, level=3)
    assert report.passed, report.text
