"""`tamiyo policy install|rollback|list` and `tamiyo registries import`, beside a live service and without one."""

import json
import logging
import os
import re
import shlex
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from live import PATIENT
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import replay
from tamiyo.cli import main
from tamiyo.core.registries import digest, initial
from tamiyo.errors import CheckpointRejected, RegistryConflict
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.policy.checkpoint import (
    Checkpoint,
    checkpoint_bytes,
    init_checkpoint,
    load_policy,
    parse_checkpoint,
    policy_of,
)
from tamiyo.policy.store import STORE_MAX_BYTES, PolicyStore
from tamiyo.policy.update import policy_update
from tamiyo.projections.exports import import_registry
from tamiyo.requests import RequestBox
from tamiyo.signing import sign_update

BASELINE = BaselinePolicy().identity.version
PATIENT_S = 600


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return init_checkpoint(tmp_path_factory.mktemp("policy") / "untrained.safetensors", 7)


def opened(directory: Path) -> TamiyoService:
    return TamiyoService.open(directory, secret=SECRET, settings=Settings(**PATIENT))


def stepped(directory: Path) -> str:
    """Open, decide once, close: which policy decided."""
    with opened(directory) as service:
        return service.evaluate_step(packet()).annotations["policy_version"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_install_rollback_and_list_without_a_service(checkpoint: Checkpoint, tmp_path: Path) -> None:
    stepped(tmp_path)
    installed = run("policy", "install", tmp_path, checkpoint.path, "--operator", "ada")
    assert (installed.exit_code, installed.output) == (0, f"policy {checkpoint.version} speaks from now on\n")
    assert stepped(tmp_path) == checkpoint.version
    again = run("policy", "install", tmp_path, checkpoint.path)
    assert (again.exit_code, "speaks already" in again.output) == (1, True)
    assert "Invariant" not in again.output
    (tmp_path / "policies" / f"{checkpoint.digest}.checkpoint").unlink()
    mended = run("policy", "install", tmp_path, checkpoint.path)
    assert (mended.exit_code, "is back" in mended.output) == (0, True), mended.output
    assert stepped(tmp_path) == checkpoint.version
    back = run("policy", "rollback", tmp_path, "--operator", "ada")
    assert (back.exit_code, back.output) == (0, f"policy {BASELINE} speaks again\n")
    assert stepped(tmp_path) == BASELINE
    listed = run("policy", "list", tmp_path).output
    assert f"installed    {checkpoint.version}  by ada  sha256 {checkpoint.digest}" in listed
    assert f"rolled back  {checkpoint.version} to {BASELINE}  operator ada" in listed
    assert listed.endswith(f"decides: {BASELINE}\n")
    assert replay(wal.read(tmp_path / "wal")).divergence is None


def test_a_refusal_reads_the_same_beside_a_live_service(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"no checkpoint")
    commands = [("rollback", tmp_path / "run"), ("install", tmp_path / "run", wrong)]
    stepped(tmp_path / "run")
    without = [run("policy", *command).output for command in commands]
    with opened(tmp_path / "run"):
        beside = [run("policy", *command, "--wait", PATIENT_S).output for command in commands]
    assert beside == without
    assert without[0].startswith(f"Error: policy {BASELINE!r} was not installed here")


def test_install_and_rollback_beside_a_live_service(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with opened(tmp_path) as service:
        installed = run("policy", "install", tmp_path, checkpoint.path, "--wait", PATIENT_S)
        assert (installed.exit_code, installed.output) == (0, f"policy {checkpoint.version} speaks from now on\n")
        assert service.evaluate_step(packet()).annotations["policy_version"] == checkpoint.version
        again = run("policy", "install", tmp_path, checkpoint.path, "--wait", PATIENT_S)
        assert (again.exit_code, "speaks already" in again.output) == (1, True)
        assert run("policy", "rollback", tmp_path, "--wait", PATIENT_S).output == f"policy {BASELINE} speaks again\n"
        nothing = run("policy", "rollback", tmp_path, "--wait", PATIENT_S)
        assert (nothing.exit_code, "none to go back to" in nothing.output) == (1, True)


def test_what_nobody_takes_up_is_done_here_once_whoever_had_the_log_has_gone(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    stepped(tmp_path)
    log = wal.Log.open(tmp_path / "wal")  # another such command, or a service that ends

    def leave() -> None:
        while not RequestBox(tmp_path).waiting():
            pass
        log.close()

    leaving = threading.Thread(target=leave)
    leaving.start()
    installed = run("policy", "install", tmp_path, checkpoint.path, "--wait", PATIENT_S)
    leaving.join()
    assert (installed.exit_code, "speaks from now on" in installed.output) == (0, True), installed.output
    assert RequestBox(tmp_path).waiting() == []


def test_what_is_left_for_who_has_the_log_open_says_who_that_is(checkpoint: Checkpoint, tmp_path: Path) -> None:
    stepped(tmp_path)
    with wal.Log.open(tmp_path / "wal"):
        left = run("policy", "install", tmp_path, checkpoint.path, "--wait", 0)
    assert f"process {os.getpid()} has the log open" in left.output
    assert len(RequestBox(tmp_path).waiting()) == 1


def test_a_file_that_is_no_checkpoint_is_refused_in_words_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(b"this is no checkpoint")
    refused = run("policy", "install", tmp_path, path)
    assert (refused.exit_code, "invalid_payload" in refused.output) == (1, True)
    assert "rejected     unnamed  invalid_payload" in run("policy", "list", tmp_path).output
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a shell, where what is logged is printed
    assert run("policy", "install", tmp_path, path).output.count("invalid_payload") == 1
    device = run("policy", "install", tmp_path, "/dev/zero")
    assert (device.exit_code, "no regular file" in device.output) == (1, True)
    assert run("policy", "install", tmp_path / "nowhere", path).exit_code == 2
    assert run("policy", "install", tmp_path, tmp_path / "nothing").exit_code == 2


def test_a_learner_s_update_of_a_real_network_is_taken_over(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with opened(tmp_path) as service:
        service.evaluate_step(packet())
        network = load_policy(checkpoint.path).network
        data = checkpoint_bytes(
            network, label="learned", registries=service.state.registries, norms=service.state.norms
        )
        update = policy_update(data, policy_id="u-1", issued_unix_ns=service.journal.now_ns())
        verdict = service.ingest_policy_update(update, sign_update(update, SECRET))
        assert (verdict.installed, verdict.reason) == (True, "")
        assert service.evaluate_step(packet()).annotations["policy_version"].startswith("gnn-learned-")
    assert replay(wal.read(tmp_path / "wal")).divergence is None


def test_the_commands_of_the_page_run_as_they_stand_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/policies.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    stepped(Path("controller"))
    for line in block.splitlines():
        result = run(*shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"


# Registries.


def names(directory: Path, kind: str) -> dict[str, int]:
    return import_registry(directory / f"{kind}_registry.json")


def test_what_is_exported_is_imported_and_comes_back_the_same(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    stepped(one)
    with opened(other):
        pass
    exported = sorted(one.glob("*_registry.json"))
    taken = run("registries", "import", other, *exported)
    assert taken.exit_code == 0, taken.output
    assert names(one, "seed_id") == names(other, "seed_id") == {"seed-0": 1}
    assert f"seed_id: 1 new names, 1 in all, digest {digest({'seed-0': 1})}" in taken.output
    for path in exported:
        assert (other / path.name).read_bytes() == path.read_bytes()
    again = run("registries", "import", other, *exported)
    assert "seed_id: 0 new names, 1 in all" in again.output
    assert stepped(other) == BASELINE
    found = replay(wal.read(other / "wal"))
    assert (found.divergence, found.state.registries["seed_id"]) == (None, {"seed-0": 1})


def test_a_log_begins_with_the_names_of_another_so_that_a_checkpoint_of_that_one_decides(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (learner := tmp_path / "learner").mkdir()
    held = {"seed_id": {"seed-9": 1, "seed-0": 2}, "layer_type": {"conv2d": 1}}
    for kind, entries in held.items():
        (learner / f"{kind}_registry.json").write_text(json.dumps(entries))
    trained = checkpoint_bytes(
        load_policy(checkpoint.path, reference=True).network,
        label="learned",
        registries={kind: held.get(kind, entries) for kind, entries in initial().items()},
    )
    own = policy_of(parse_checkpoint(trained, Path("it")), reference=True)
    with pytest.raises(
        CheckpointRejected, match=r"layer_type has 1 names there and 0 here; .*`tamiyo registries import`"
    ):
        TamiyoService.open(tmp_path / "unprepared", policy=own, secret=SECRET, settings=Settings(**PATIENT))
    begun = run("registries", "import", "--new", tmp_path / "run", *sorted(learner.iterdir()))
    assert begun.exit_code == 0, begun.output
    assert "seed_id: 2 new names, 2 in all" in begun.output
    assert names(tmp_path / "run", "seed_id") == held["seed_id"]
    (tmp_path / "file").write_bytes(trained)
    assert "speaks from now on" in run("policy", "install", tmp_path / "run", tmp_path / "file").output
    assert stepped(tmp_path / "run").startswith("gnn-learned-")
    found = replay(wal.read(tmp_path / "run" / "wal"))
    assert (found.divergence, found.state.registries["seed_id"]) == (None, held["seed_id"])


def test_a_log_that_is_there_is_not_begun_and_none_is_begun_with_a_conflict(tmp_path: Path) -> None:
    stepped(tmp_path / "run")
    (tmp_path / "seed_id_registry.json").write_text(json.dumps({"seed-0": 1}))
    (tmp_path / "optimizer_family_registry.json").write_text(json.dumps({"adam": 1}))
    files = sorted(tmp_path.glob("*_registry.json"), reverse=True)
    there = run("registries", "import", "--new", tmp_path / "run", *files)
    assert (there.exit_code, "has a log already" in there.output) == (2, True)
    refused = run("registries", "import", "--new", tmp_path / "other", *files)
    assert (refused.exit_code, "optimizer_family 1 is 'adam' in what is given" in refused.output) == (1, True)
    assert f"{files[1]} is not taken over, nor is any other file" in refused.output
    assert not (tmp_path / "other").exists()


def test_a_conflict_is_named_and_nothing_is_taken_over(tmp_path: Path) -> None:
    stepped(tmp_path / "run")
    (tmp_path / "seed_id_registry.json").write_text(json.dumps({"seed-9": 1}))
    (tmp_path / "hazard_class_registry.json").write_text(json.dumps({"low": 1}))
    refused = run("registries", "import", tmp_path / "run", *sorted(tmp_path.glob("*.json"), reverse=True))
    assert refused.exit_code == 1
    assert "seed_id 1 is 'seed-9' in what is given and 'seed-0' here" in refused.output
    assert names(tmp_path / "run", "hazard_class") == {}


def test_a_live_service_numbers_names_itself(tmp_path: Path) -> None:
    (tmp_path / "seed_id_registry.json").write_text(json.dumps({"seed-9": 1}))
    with opened(tmp_path / "run"):
        refused = run("registries", "import", tmp_path / "run", tmp_path / "seed_id_registry.json")
    assert (refused.exit_code, "stop it first" in refused.output) == (1, True)


NO_REGISTRIES = {
    "no json": ("{", "is no registry"),
    "a list": ("[]", "holds a list"),
    "a fraction": ('{"a": 1.5}', "an index is a whole number"),
    "a bool": ('{"a": true}', "an index is a whole number"),
    "twice": ('{"a": 1, "a": 2}', "'a' stands in it twice"),
}


@pytest.mark.parametrize(("text", "words"), NO_REGISTRIES.values(), ids=NO_REGISTRIES)
def test_what_is_no_registry_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "seed_id_registry.json"
    path.write_text(text)
    with pytest.raises(RegistryConflict, match=words):
        import_registry(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("colour_registry.json", {"red": 1}, "there is no registry 'colour'"),
        ("seed_id_registry.json", {"a": 2}, "not numbered from 1 on, one by one: 'a' has number 2 where 1 is wanted"),
        ("seed_id_registry.json", {"a": 1, "b": 1}, "not numbered from 1 on, one by one: 'b' has number 1 where 2"),
        ("seed_id_registry.json", {"": 1}, "not numbered from 1 on, one by one: '' has"),
        ("hazard_class_registry.json", {f"h-{n}": n for n in range(1, 34)}, "holds 32 names and 33 are given"),
        ("seeds.json", {"a": 1}, "its kind is not known"),
    ],
)
def test_what_cannot_be_numbered_is_refused(tmp_path: Path, name: str, content: dict[str, int], words: str) -> None:
    with opened(tmp_path / "run"):
        pass
    (tmp_path / name).write_text(json.dumps(content))
    refused = run("registries", "import", tmp_path / "run", tmp_path / name)
    assert (refused.exit_code, words in refused.output) == (1, True), refused.output


def test_the_store_keeps_what_it_must_and_the_newest_within_its_bound(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    digests = [store.write(bytes([n])) for n in range(4)]
    with store.place(digests[2]).open("r+b") as file:
        file.truncate(STORE_MAX_BYTES)
    for place, kept in enumerate(digests):
        os.utime(store.place(kept), (place, place))
    store.tidy([digests[0]])
    assert {path.stem for path in (tmp_path / "policies").iterdir()} == {digests[0], digests[3]}
    assert store.read(digests[3]) == b"\x03"


@pytest.mark.parametrize("left_bytes", [0, 9_999])
def test_a_log_whose_last_segment_is_cut_is_named_and_stays_as_it_is(tmp_path: Path, left_bytes: int) -> None:
    stepped(tmp_path / "run")
    (segment,) = (tmp_path / "run" / "wal").glob("*.wal")
    os.truncate(segment, left_bytes)
    registry = tmp_path / "seed_id_registry.json"
    registry.write_text('{"seed-0": 1}')
    for command in (
        ("registries", "import", tmp_path / "run", registry),
        ("policy", "install", tmp_path / "run", registry),
        ("conservative", "on", tmp_path / "run"),
    ):
        refused = run(*command)
        assert (refused.exit_code, "segment 1" in refused.output) == (1, True), refused.output
        assert "segment_bytes" not in refused.output
    assert segment.stat().st_size == left_bytes


def test_a_live_service_takes_up_what_is_asked_though_an_old_segment_of_its_log_is_damaged(tmp_path: Path) -> None:
    """Damage that the service does not meet is no reason to turn an operator away."""
    with TamiyoService.open(
        tmp_path, secret=SECRET, settings=Settings(**{**PATIENT, "segment_bytes": 2**16})
    ) as service:
        while len(service.log.segments()) < 2:
            service.evaluate_step(packet())
        oldest = min((tmp_path / "wal").glob("*.wal"))
        whole = oldest.read_bytes()
        oldest.write_bytes(bytes(512) + whole[512:])
        switched = run("conservative", "on", tmp_path, "--wait", PATIENT_S)
        assert (switched.exit_code, switched.output) == (0, "taken up by the live service\n")
        assert service.state.conservative.active
        back = run("policy", "rollback", tmp_path, "--wait", PATIENT_S)
        assert (back.exit_code, "none to go back to" in back.output) == (1, True), back.output
        oldest.write_bytes(whole)
