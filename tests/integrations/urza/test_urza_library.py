import sqlite3
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.integrations.urza import ExtrasRejected, LibraryUnusable, UrzaLibrary, safety_sheet
from tamiyo.leyline import leyline_pb2 as pb

SAFE, EXPERIMENTAL, HIGH_RISK = pb.BLUEPRINT_TIER_SAFE, pb.BLUEPRINT_TIER_EXPERIMENTAL, pb.BLUEPRINT_TIER_HIGH_RISK
METADATA = {"layers": [{"layer_id": "l0", "depth": 0}], "adjacency": {"layer": [[0, 1, 0.5]]}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "urza.sqlite"


@pytest.fixture
def library(path):
    with UrzaLibrary.open(path) as opened:
        yield opened


def descriptor(blueprint_id="bp-1", tier=SAFE, risk=0.25):
    made = pb.BlueprintDescriptor(blueprint_id=blueprint_id, name="residual", tier=tier, risk=risk, stage=2)
    made.allowed_parameters["alpha"].min_value, made.allowed_parameters["alpha"].max_value = 0.0, 1.0
    return made


def sheet():
    made = pb.BSDS(version=1, blueprint_id="bp-1", risk_score=0.5, hazard_band=pb.HAZARD_BAND_HIGH)
    made.handling_class, made.provenance = pb.HANDLING_CLASS_RESTRICTED, pb.PROVENANCE_URABRASK
    made.issued_at.FromSeconds(1_700_000_000)
    return made


def overwrite(path, column, value):
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE blueprints SET {column} = ?", (value,))
    connection.close()


def test_what_was_saved_comes_back_also_after_opening_again(path):
    with UrzaLibrary.open(path) as library:
        library.save(descriptor(), b"\x00weights", {"graph_metadata": METADATA})
    with UrzaLibrary.open(path) as library:
        record = library.get("bp-1")
    assert record.descriptor == descriptor()
    assert record.artifact == b"\x00weights"
    assert record.extras == {"graph_metadata": METADATA}
    assert record.extras_problem == ""


def test_an_unknown_id_is_none(library):
    assert library.get("bp-1") is None


@pytest.mark.parametrize("blueprint_id", ["", "\ud800", "a\x00b", "🌱" * 600])
def test_an_odd_id_is_unknown_and_no_exception(library, blueprint_id):
    assert library.get(blueprint_id) is None


@pytest.mark.parametrize("blueprint_id", ["a\x00b", "ünï/💥", " ", "'; DROP TABLE blueprints; --"])
def test_an_odd_id_that_leyline_can_carry_is_kept(library, blueprint_id):
    library.save(descriptor(blueprint_id), b"")
    assert library.get(blueprint_id).descriptor.blueprint_id == blueprint_id
    assert library.list() == (blueprint_id,)


def test_saving_again_replaces_the_whole_record(library):
    library.save(descriptor(), b"old", {"guard_spec": {"shape": [1]}})
    library.save(descriptor(risk=0.75), b"new")
    record = library.get("bp-1")
    assert (record.descriptor.risk, record.artifact, record.extras) == (0.75, b"new", {})
    assert library.list() == ("bp-1",)


def test_a_descriptor_without_an_id_is_refused(library):
    with pytest.raises(ExtrasRejected, match="blueprint_id"):
        library.save(descriptor(""), b"")
    assert library.list() == ()


@pytest.mark.parametrize("artifact", [5, "weights", None, [1, 2]])
def test_an_artifact_that_is_no_bytes_is_refused_and_nothing_is_written(library, artifact):
    library.save(descriptor(), b"weights")
    with pytest.raises(ExtrasRejected, match=f"'bp-1' is a {type(artifact).__name__}: give its bytes"):
        library.save(descriptor(), artifact)
    assert library.get("bp-1").artifact == b"weights"


@pytest.mark.parametrize("artifact", [bytearray(b"weights"), memoryview(b"weights")])
def test_an_artifact_in_a_buffer_is_stored(library, artifact):
    library.save(descriptor(), artifact)
    assert library.get("bp-1").artifact == b"weights"


@pytest.mark.parametrize("extras", [{"x": object()}, {"x": {1: "key"}}, {"x": 2**70}, {"x": "\ud800"}, {"x": {b"b"}}])
def test_extras_that_json_cannot_hold_are_refused_and_nothing_is_written(library, extras):
    library.save(descriptor(), b"before", {"kept": True})
    with pytest.raises(ExtrasRejected, match="bp-1"):
        library.save(descriptor(), b"after", extras)
    assert library.get("bp-1").artifact == b"before"


BROKEN_EXTRAS = [None, b"", b"\xff\xfe", b"{", b"[1, 2]", b"null", b"3", '{"text": ', 7, b"[" * 5_000]


@pytest.mark.parametrize("stored", BROKEN_EXTRAS, ids=[repr(stored)[:20] for stored in BROKEN_EXTRAS])
def test_missing_or_damaged_extras_are_empty_and_reported(library, path, caplog, stored):
    library.save(descriptor(), b"artifact", {"graph_metadata": METADATA})
    overwrite(path, "extras", stored)
    record = library.get("bp-1")
    assert record.extras == {}
    assert record.extras_problem
    assert (record.descriptor, record.artifact) == (descriptor(), b"artifact")
    assert library.extras_problems == 1
    assert record.extras_problem in caplog.text


def test_extras_written_as_text_by_hand_are_read(library, path):
    library.save(descriptor(), b"")
    overwrite(path, "extras", '{"graph_metadata": {"layers": []}}')
    assert library.get("bp-1").extras == {"graph_metadata": {"layers": []}}
    assert library.extras_problems == 0


def test_a_damaged_descriptor_is_a_typed_error_that_names_it(library, path):
    library.save(descriptor(), b"")
    overwrite(path, "descriptor", b"\xff\xff\xff")
    with pytest.raises(LibraryUnusable, match="bp-1"):
        library.get("bp-1")


def test_the_list_is_safest_first_and_the_same_however_it_was_filled(tmp_path):
    descriptors = [
        descriptor("unspecified", pb.BLUEPRINT_TIER_UNSPECIFIED, 0.0),
        descriptor("risky", HIGH_RISK, 0.125),
        descriptor("b", SAFE, 0.5),
        descriptor("a", SAFE, 0.5),
        descriptor("calm", SAFE, 0.125),
        descriptor("unknown-risk", SAFE, float("nan")),
        descriptor("tried", EXPERIMENTAL, 0.125),
    ]
    expected = ("calm", "a", "b", "unknown-risk", "tried", "risky", "unspecified")
    for number, order in enumerate((descriptors, descriptors[::-1])):
        with UrzaLibrary.open(tmp_path / f"{number}.sqlite") as library:
            for each in order:
                library.save(each, b"")
            assert library.list() == expected
            assert library.list(tier=SAFE) == expected[:4]
            assert library.list(tier=99) == ()


def test_threads_save_and_read_the_same_library(library):
    failures = []

    def work(number):
        try:
            for version in range(5):
                library.save(descriptor(f"bp-{number}"), b"%d" % version, {"version": version})
                record = library.get(f"bp-{number}")
                assert record.artifact == b"%d" % record.extras["version"]
                assert f"bp-{number}" in library.list()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert library.list() == ("bp-0", "bp-1", "bp-2", "bp-3")


def test_a_closed_library_says_so(path):
    library = UrzaLibrary.open(path)
    library.close()
    library.close()
    for call in (library.list, lambda: library.get("bp-1"), lambda: library.save(descriptor(), b"")):
        with pytest.raises(LibraryUnusable, match="closed"):
            call()


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "", "nosuchdatabase://x/y", "://"])
def test_no_place_for_a_library_is_a_typed_error(address):
    with pytest.raises(LibraryUnusable):
        UrzaLibrary.open(address)


def test_a_file_that_is_no_database_is_a_typed_error(path):
    path.write_bytes(b"not a database at all, but long enough to look at" * 20)
    with pytest.raises(LibraryUnusable, match=r"urza\.sqlite"):
        UrzaLibrary.open(path)


def test_a_missing_folder_is_a_typed_error(tmp_path):
    with pytest.raises(LibraryUnusable, match="unable to open"):
        UrzaLibrary.open(tmp_path / "nowhere" / "urza.sqlite")


def test_an_odd_file_name_is_no_obstacle(tmp_path):
    path = tmp_path / "100% ünï ?x=1#y"
    with UrzaLibrary.open(path) as library:
        library.save(descriptor(), b"a")
    assert path.is_file()


def test_a_url_opens_the_same_library_as_its_path(path):
    with UrzaLibrary.open(path) as library:
        library.save(descriptor(), b"a")
    with UrzaLibrary.open(f"sqlite:///{path}") as library:
        assert library.list() == ("bp-1",)


def test_a_safety_sheet_travels_as_an_object_with_leylines_names(library):
    library.save(descriptor(), b"", {"bsds": sheet()})
    extras = library.get("bp-1").extras
    assert extras["bsds"]["hazard_band"] == "HAZARD_BAND_HIGH"
    assert extras["bsds"]["issued_at"] == "2023-11-14T22:13:20Z"
    assert safety_sheet(extras) == sheet()


@pytest.mark.parametrize("hazard_band", [3, "HAZARD_BAND_HIGH"])
def test_a_safety_sheet_written_by_others_is_read(hazard_band):
    extras = {"bsds": {"risk_score": 0.5, "hazard_band": hazard_band, "unheard_of": [1]}}
    assert safety_sheet(extras) == pb.BSDS(risk_score=0.5, hazard_band=pb.HAZARD_BAND_HIGH)


def test_a_safety_sheet_that_is_a_message_already_is_taken_as_it_is():
    assert safety_sheet({"bsds": sheet()}) == sheet()


def test_no_safety_sheet_is_none_and_unremarkable(caplog):
    assert safety_sheet({}) is None
    assert safety_sheet({"bsds": None}) is None
    assert caplog.text == ""


@pytest.mark.parametrize(
    "value", ["text", 3, [], True, {"risk_score": "much"}, {"hazard_band": "PURPLE"}, {"issued_at": 5}, {"version": -1}]
)
def test_an_ill_typed_safety_sheet_is_none_and_logged(caplog, value):
    assert safety_sheet({"bsds": value}) is None
    assert "bsds" in caplog.text


TEXT = st.sampled_from(["", "1", "NaN", "1e999", "HAZARD_BAND_HIGH", "2023-11-14T22:13:20Z", "\ud800", "@type", "é"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(TEXT, PLAIN, max_size=2)
FIELDS = st.sampled_from([field.name for field in pb.BSDS.DESCRIPTOR.fields])


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_whatever_stands_for_a_safety_sheet_there_is_a_sheet_or_none(value):
    found = safety_sheet({"bsds": value})
    assert found is None or isinstance(found, pb.BSDS)


@given(st.binary(max_size=64))
def test_whatever_bytes_stand_for_extras_there_is_a_mapping(data):
    from tamiyo.integrations.urza.extras import read_extras

    extras, problem = read_extras(data)
    assert isinstance(dict(extras), dict)
    assert not (extras and problem)
