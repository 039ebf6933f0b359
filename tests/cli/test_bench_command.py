"""`tamiyo bench`: what it says is what it measured. How fast that was is never asserted."""

import errno
import gzip
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from click.testing import CliRunner, Result

from tamiyo.bench import network, run, step
from tamiyo.bench.chance import random_graph
from tamiyo.bench.machine import doubt
from tamiyo.bench.profile import PREFIX, STEPS, profiled
from tamiyo.bench.table import table
from tamiyo.bench.timing import NOT_YET_HOT, Times, Turn, in_turns, quantiles_ms
from tamiyo.cli import bench as bench_command
from tamiyo.cli import main
from tamiyo.cli.bench import command
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.checkpoint import init_checkpoint

PAGE = Path(__file__).resolve().parents[2] / "docs/network.md"
LITTLE = run.Effort(builder=1, network=1, agreement=2, step=1)


@pytest.fixture(scope="module", autouse=True)
def little() -> Iterator[None]:
    """One round of each, and a large graph of 300 nodes: the figures mean nothing, but all of them are made."""
    counts = dict(zip(NODE_TYPES, (1, 4, 1, 200, 54, 40), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "QUICK", LITTLE)
        patch.setattr(network, "large_graph", lambda seed: random_graph(counts, seed, density=0.1))
        patch.setattr(network, "LARGE_THREADS", 1)  # two wait for each other where tests run beside each other
        patch.setattr(step, "WARM_UP_STEPS", 3)
        patch.setattr(step, "TURN_STEPS", 4)
        yield


def bench(*options: object) -> Result:
    return CliRunner().invoke(main, ["bench", "--quick", *map(str, options)], catch_exceptions=False)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, dict[str, Any], Path]:
    """One run: what it printed, what it kept, the folder it worked in."""
    folder = tmp_path_factory.mktemp("bench")
    result = bench("--json", folder / "figures.json", "--folder", folder)
    assert result.exit_code == 0
    return result, json.loads((folder / "figures.json").read_text()), folder


def rows(figures: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Every set of quantiles in there."""
    for value in figures.values():
        if isinstance(value, dict):
            if value.keys() == {"p50", "p95", "p99"}:
                yield value
            else:
                yield from rows(value)


def test_everything_is_measured_and_printed(everything: tuple[Result, dict[str, Any], Path]) -> None:
    result, figures, folder = everything
    assert {"builder", "network", "step", "machine", "load_before", "load_after", "doubt"} < figures.keys()
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in rows(figures))
    assert result.stdout == table(figures)
    assert "measuring: builder, small graph" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["figures.json"]


def test_the_network_really_runs_and_the_log_is_really_written(
    everything: tuple[Result, dict[str, Any], Path],
) -> None:
    measured = everything[1]["step"]
    steps = 3 + NOT_YET_HOT + 4  # to warm up, once and in the turn, then those that count
    assert measured["network"]["answers"] == {"InferenceObserved": steps}
    assert measured["network"]["policy"] == "gnn-untrained-1"
    assert measured["network"]["calls"] == measured["bare_sync"]["calls"] == 4
    assert measured["baseline"]["policy"].startswith("baseline")
    assert measured["bare_sync"]["size_bytes"] > 1_000
    stages = measured["network"]["stages_ms"]
    assert stages["total"]["p99"] >= max(row["p50"] for row in stages.values())


def test_the_engine_is_held_against_the_reference_of_the_same_weights(
    everything: tuple[Result, dict[str, Any], Path],
) -> None:
    figures = everything[1]["network"]
    assert figures["compiled"]
    assert figures["fallbacks"] == 0
    assert "openvino" in figures["engine"]
    for name, row in figures["agreement"].items():
        assert row["graphs"] == LITTLE.agreement
        assert row["equal"] == row["graphs"] or name == "large_bf16"
    assert 0 < figures["agreement"]["small_fp32"]["largest_error"] < 1e-4
    assert figures["large"]["nodes"] == 300


def test_an_own_checkpoint_is_measured_under_its_name(tmp_path: Path) -> None:
    mine = init_checkpoint(tmp_path / "mine.safetensors", 7)
    result = bench("--only", "step", "--policy", mine.path, "--json", "-", "--folder", tmp_path)
    figures = json.loads(result.stdout)
    assert figures["step"]["network"]["policy"] == mine.version
    assert "builder" not in figures


def test_the_commands_of_the_page_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    found = re.findall(r"^tamiyo bench.*$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(found) >= 5
    for line in found:
        command.make_context("bench", shlex.split(line, comments=True)[2:])  # an option that is none is an error


def test_a_trace_has_every_stage_of_every_step_and_opens_as_one(tmp_path: Path) -> None:
    result = bench("--only", "step", "--profile", tmp_path / "trace.json", "--folder", tmp_path)
    assert result.exit_code == 0, result.output
    assert "ui.perfetto.dev" in result.stdout
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event.get("name", "").startswith(PREFIX)]
    assert all(span["ph"] == "X" and span["dur"] > 0 and span["ts"] > 0 for span in spans)
    named = Counter(span["name"].removeprefix(PREFIX) for span in spans)
    stages = [name for name in step.STAGES if name != "total"]
    assert named == dict.fromkeys([*stages, "propose", "evaluate_step"], STEPS)
    threads = {span["name"].removeprefix(PREFIX): span["tid"] for span in spans}
    assert threads["propose"] != threads["inference"] == threads["commit"]


def test_a_trace_that_cannot_be_written_is_no_success_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch writes what fits on a full disk, and says nothing."""
    trace = tmp_path / "trace.json"
    trace.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.profiler.profile, "export_chrome_trace", lambda _, to: Path(to).write_text('{"traceEvents": [')
        )
        result = bench("--only", "builder", "--profile", trace)
    assert (result.exit_code, "no trace" in result.output) == (1, True)
    assert trace.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_a_trace_is_packed_where_its_name_says_so(tmp_path: Path) -> None:
    packed = tmp_path / "trace.json.gz"
    assert bench("--only", "builder", "--profile", packed).exit_code == 0
    assert json.loads(gzip.decompress(packed.read_bytes()))["traceEvents"]


def test_an_interrupt_leaves_no_half_a_trace(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), profiled(tmp_path / "trace.json"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["missing/figures.json", "", "file/figures.json"])
def test_a_place_for_the_figures_that_cannot_be_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    result = bench("--only", "builder", "--json", place)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert ".tmp" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_figures_that_find_no_room_are_printed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full(path: Path) -> Iterator[BinaryIO]:
        yield BytesIO()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(bench_command, "written_to", full)
    result = bench("--only", "builder", "--json", tmp_path / "figures.json")
    assert (result.exit_code, "No space left" in result.stderr) == (1, True)
    assert "graph builder, ms" in result.stdout


def test_a_link_is_followed_and_figures_replace_figures_whole(tmp_path: Path) -> None:
    figures, link = tmp_path / "figures.json", tmp_path / "link.json"
    figures.write_text("before")
    link.symlink_to(figures.name)
    assert bench("--only", "builder", "--json", link).exit_code == 0
    assert link.is_symlink()
    assert "builder" in json.loads(figures.read_text())


def test_a_trace_has_no_figures_to_write(tmp_path: Path) -> None:
    result = bench("--profile", tmp_path / "trace.json", "--json", tmp_path / "figures.json")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])


def test_a_service_tells_nobody_of_its_stages_until_it_is_asked_and_no_more_once_it_is_told(tmp_path: Path) -> None:
    seen: list[str] = []

    @contextmanager
    def watch(name: str) -> Iterator[None]:
        seen.append(name)
        yield
        seen.append(f"/{name}")

    with step.Stepping(tmp_path, None) as stepping:
        assert seen == []
        stepping.service.watch(watch)
        stepping.step(counted=False)
        stepping.service.watch(None)
        told = list(seen)
        stepping.step(counted=False)
    assert seen == told
    assert " ".join(told) == (
        "receive /receive blueprints /blueprints graph /graph inference propose /propose /inference "
        "decide /decide commit /commit sign /sign"
    )


def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"not a checkpoint")
    result = bench("--only", "step", "--policy", wrong)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("wrong", ["folder", "checkpoint"])
def test_what_cannot_be_used_is_told_before_anything_is_measured(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "wrong.safetensors").write_bytes(b"not a checkpoint")
    given = {"folder": ("--folder", "/proc"), "checkpoint": ("--policy", tmp_path / "wrong.safetensors")}
    result = bench(*given[wrong])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "measuring: builder" not in result.stderr


def test_a_busy_machine_makes_the_figures_doubtful_and_an_idle_one_does_not() -> None:
    idle, own, busy = ({"load_1m": load, "cpus": 2} for load in (0.1, 1.3, 3.0))
    assert doubt(idle, own) == ""
    assert "load 3.0 before" in doubt(busy, own)
    assert "3.0 after" in doubt(idle, busy)


def test_quantiles_are_those_of_the_sorted_times() -> None:
    times_ns = [number * 1_000_000 for number in range(200, 0, -1)]
    assert quantiles_ms(times_ns) == {"p50": 101.0, "p95": 191.0, "p99": 199.0}
    assert quantiles_ms([2_000_000]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0}


def test_turns_alternate_and_only_the_counted_calls_count() -> None:
    calls: list[str] = []
    turns = {name: Turn(lambda name=name: calls.append(name), 2, lead=1) for name in ("a", "b")}  # type: ignore[misc]
    found = in_turns(turns, 2)
    assert "".join(calls) == "ab" + "aaabbb" * 2
    assert found["a"]["calls"] == found["b"]["calls"] == 4


def test_times_keep_the_clock_and_the_cpu_apart() -> None:
    times = Times()
    times.call(lambda: sum(range(1000)))
    assert times.figures().keys() == {"calls", "wall_ms", "cpu_ms"}
