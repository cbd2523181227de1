# SPDX-License-Identifier: Apache-2.0
"""Files of genuine agents on their way up from a relay: where each goes, and what becomes of it whatever is above."""

from __future__ import annotations

import base64
import gzip
import io
import logging
import os
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.common import run_logs
from tests.daemon.servers import eventually, free_port
from tests.relaying.upstreams import Asked, Said, Upstream, upstream

from quarterdeck.core.errors import Unavailable
from quarterdeck.daemon import config as settings
from quarterdeck.daemon import genuine_files
from quarterdeck.formats import agent, relay_documents, report_files
from quarterdeck.formats.relay_documents import Refused, Slip, Taken
from quarterdeck.relaying import drop_directory, file_forwarding, pauses
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.drop_directory import DropDirectory
from quarterdeck.relaying.failed_files import FailedFiles

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
STRANGER = "37817c4d-fbf7-4850-a985-50021f4e8f41"
INVENTORY = f"{NODE}_2026-01-31T12:00:00.ocs"
DAY = 86_400.0
DEFAULT, SECRET = "rudder:rudder", "rudder:secret"


class Way:
    """What a relay has on disk, and the server above."""

    def __init__(self, directory: Path, above: Upstream, **told: str) -> None:
        self.above = above
        values = {"relay.report_password": "secret", **{f"relay.{name}": value for name, value in told.items()}}
        self.config = settings.load({"data_dir": str(directory), **values}, {})
        self.ways = {way.name: way for way in genuine_files.ways(self.config)}
        for way in self.ways.values():
            way.incoming.mkdir(parents=True)
        self.counters = Counters()
        self.known = {NODE}
        self.list_is_away = False
        links = [genuine_files.link_to(self.config, above.link(answer_seconds=0.5)) for _ in self.ways]
        self.carriers = genuine_files.carriers(self.config, links, self.counters, self._is_known)

    def _is_known(self, node: str) -> bool:
        if self.list_is_away:
            raise Unavailable("The nodes list is away.")
        return node in self.known

    def drop(self, kind: str, name: str, content: bytes = b"content") -> None:
        temporary = self.ways[kind].incoming / f".{name}.tmp"
        temporary.write_bytes(content)
        temporary.rename(self.ways[kind].incoming / name)

    def left(self, kind: str) -> list[str]:
        return sorted(path.name for path in self.ways[kind].incoming.iterdir())

    def failed(self, kind: str) -> FailedFiles:
        return FailedFiles(self.ways[kind].failed)

    def reasons(self, kind: str) -> dict[str, tuple[str, str]]:
        found = {name: self.failed(kind).reason(name) for name in self.failed(kind).names()}
        return {name: (why.kind, why.reason) for name, why in found.items()}

    def counted(self) -> dict[str, float]:
        return {name: number for name, number in self.counters.snapshot().items() if number and "." in name}

    def asked(self) -> list[tuple[str, str]]:
        """Path and login of each request."""
        return [(unquote(one.target), login(one)) for one in self.above.asked]


def login(asked: Asked) -> str:
    return base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()


def name(number: int = 0, node: str = NODE, ending: str = ".log") -> str:
    return f"2026-01-31T12:{number // 60:02d}:{number % 60:02d}+00:00@{node}{ending}"


@contextmanager
def running(*carriers: DropDirectory) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in carriers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def above() -> Iterator[Upstream]:
    with upstream() as made:
        made.answer = lambda _: Said(201)
        yield made


@pytest.fixture
def way(tmp_path: Path, above: Upstream) -> Way:
    return Way(tmp_path, above)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once."""
    monkeypatch.setattr(pauses, "LONGEST_SECONDS", 0.02)


# -- where it goes -------------------------------------------------------------------------


def test_statement_57_each_kind_goes_to_its_path_with_its_password_and_its_name_unchanged(way: Way) -> None:
    log = run_logs.file_name(NODE, ending=".log.gz")
    way.drop("run-logs", log, gzip.compress(b"signed"))
    for kind in ("inventories", "inventory-updates"):
        way.drop(kind, f"{INVENTORY}.gz", gzip.compress(kind.encode()))
        way.drop(kind, f"{INVENTORY}.sign", b"signature")

    taken = [carrier.look() for carrier in way.carriers.values()]

    assert taken == [1, 2, 2]
    assert way.asked() == [
        (f"/reports/{log}", SECRET),
        (f"/inventories/{INVENTORY}.sign", DEFAULT),
        (f"/inventories/{INVENTORY}.gz", DEFAULT),
        (f"/inventory-updates/{INVENTORY}.sign", SECRET),
        (f"/inventory-updates/{INVENTORY}.gz", SECRET),
    ]
    bodies = [one.body for one in way.above.asked]
    assert gzip.decompress(bodies[0]) == b"signed"
    assert [gzip.decompress(one) for one in bodies[2::2]] == [b"inventories", b"inventory-updates"]
    assert {one.method for one in way.above.asked} == {"PUT"}
    assert all(agent.HEADER_SIGNATURE.lower() in one.headers for one in way.above.asked)
    assert [way.left(kind) for kind in way.ways] == [[], [], []]
    assert way.counted() == {
        "reports.forward_ok": 1,
        "inventories.forward_ok": 2,
    }


def test_statement_57_a_pair_is_kept_together_until_both_have_arrived(above: Upstream, way: Way, hasty: None) -> None:
    above.answer = lambda asked: Said(201 if asked.target.endswith(".sign") or len(above.asked) > 2 else 503)
    way.drop("inventories", INVENTORY)
    way.drop("inventories", f"{INVENTORY}.sign")

    with pytest.raises(Unavailable, match="503"):
        way.carriers["inventories"].look()
    between = way.left("inventories")
    time.sleep(0.05)
    way.carriers["inventories"].look()

    assert between == [INVENTORY, f"{INVENTORY}.sign"]
    assert [path.rpartition("/")[2] for path, _ in way.asked()] == [f"{INVENTORY}.sign", INVENTORY] * 2
    assert way.left("inventories") == []


def test_statement_57_an_inventory_waits_for_its_signature_and_then_goes_alone(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    way.drop("inventories", INVENTORY)

    assert way.carriers["inventories"].look() == 0
    monkeypatch.setattr(drop_directory, "_TOGETHER_SECONDS", 0.0)
    assert way.carriers["inventories"].look() == 1

    assert way.asked() == [(f"/inventories/{INVENTORY}", DEFAULT)]


def test_a_pair_that_is_refused_is_set_aside_and_tried_again_as_one(above: Upstream, way: Way) -> None:
    above.answer = lambda asked: Said(201 if asked.target.endswith(".sign") else 415, b"not like this")
    way.drop("inventory-updates", INVENTORY)
    way.drop("inventory-updates", f"{INVENTORY}.sign")

    way.carriers["inventory-updates"].look()

    pair = [INVENTORY, f"{INVENTORY}.sign"]
    assert list(way.reasons("inventory-updates")) == pair
    assert set(way.reasons("inventory-updates").values()) == {("error", "The server above answers 415: not like this")}
    assert way.counted() == {"inventories.forward_error": 1}
    above.answer = lambda _: Said(201)
    quarantine = genuine_files.quarantine(way.config)
    quarantine.retry(report_files.queue_id(INVENTORY))
    assert quarantine.entries() == []
    assert way.carriers["inventory-updates"].look() == 2


def test_another_server_gets_files_without_our_signatures_and_knows_its_nodes_itself(
    tmp_path: Path, above: Upstream
) -> None:
    told = {"upstream_url": f"{above.url}/", "upstream_user": "relay", "upstream_password": "theirs"}
    way = Way(tmp_path, above, **told, upstream_default_password="anybody")
    way.drop("run-logs", name(node=STRANGER))
    way.drop("inventories", INVENTORY)
    way.drop("inventories", f"{INVENTORY}.sign")

    for carrier in way.carriers.values():
        carrier.look()

    assert way.asked() == [
        (f"/reports/{name(node=STRANGER)}", "relay:theirs"),
        (f"/inventories/{INVENTORY}.sign", "relay:anybody"),
        (f"/inventories/{INVENTORY}", "relay:anybody"),
    ]
    assert not any(agent.HEADER_SIGNATURE.lower() in one.headers for one in above.asked)


def test_without_a_password_nothing_is_asked_and_nothing_lost(tmp_path: Path, above: Upstream) -> None:
    way = Way(tmp_path, above, report_password="")
    way.drop("run-logs", name())

    with pytest.raises(Unavailable, match="none is set"):
        way.carriers["run-logs"].look()

    assert above.asked == []
    assert way.left("run-logs") == [name()]


# -- what lies there -------------------------------------------------------------------------


def test_statement_42_a_file_that_is_renamed_goes_up_within_a_second_and_its_former_name_never(
    above: Upstream, way: Way
) -> None:
    kind = way.ways["run-logs"].incoming
    with running(way.carriers["run-logs"]):
        (kind / f".{name()}.davfs.tmp1a2b").write_bytes(b"content")
        time.sleep(0.5)
        before = list(above.asked)
        (kind / f".{name()}.davfs.tmp1a2b").rename(kind / name())
        began = time.monotonic()
        assert eventually(lambda: way.left("run-logs") == [], 10)
        took = time.monotonic() - began

    assert before == []
    assert took < 1.0
    assert [one.body for one in above.asked] == [b"content"]


def test_statement_43_what_lies_there_at_the_start_goes_up_fully_whatever_lies_beside_it(
    above: Upstream, tmp_path: Path
) -> None:
    way = Way(tmp_path, above, upstream_url=above.url)
    kind = way.ways["run-logs"].incoming
    files = {name(number) for number in range(120)}
    junk = [f"{number:03d}.junk" for number in range(60)]
    for one in (*files, *junk):
        (kind / one).write_bytes(b"content")
        os.utime(kind / one, (time.time() - 40,) * 2)

    with running(way.carriers["run-logs"]):
        assert eventually(lambda: way.left("run-logs") == junk, 20)

    arrived = [path.rpartition("/")[2] for path, _ in way.asked()]
    assert (set(arrived), len(arrived)) == (files, len(files))


def test_a_directory_that_vanishes_is_made_again(way: Way, hasty: None) -> None:
    kind = way.ways["run-logs"].incoming
    with running(way.carriers["run-logs"]):
        assert eventually(kind.with_name("incoming.lock").exists, 10)
        kind.rmdir()
        assert eventually(kind.exists, 10)
        way.drop("run-logs", name())
        assert eventually(lambda: way.left("run-logs") == [], 10)


# -- whatever is above -----------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["500", "hangs", "refuses connections"])
def test_statement_56_files_stay_and_other_flows_go_on_whatever_is_wrong_above(
    above: Upstream, way: Way, trouble: str, hasty: None
) -> None:
    release = threading.Event()
    tried: list[float] = []

    def answer(asked: Asked) -> Said:
        if not asked.target.startswith("/reports/") or release.is_set():
            return Said(201)
        tried.append(time.monotonic())
        return Said(500) if trouble == "500" else Said(201, wait=release)

    above.answer = answer
    reports = way.carriers["run-logs"]
    sent = way.above.links[0]
    url, refused = sent.url, trouble == "refuses connections"
    if refused:
        sent.url = f"http://127.0.0.1:{free_port()}"
    for number in range(3):
        way.drop("run-logs", name(number), b"%d" % number)

    with running(reports, way.carriers["inventories"]):
        assert eventually(lambda: way.counters.snapshot()["transient_failures"] >= 2, 20)
        way.drop("inventories", INVENTORY)
        way.drop("inventories", f"{INVENTORY}.sign")
        assert eventually(lambda: way.left("inventories") == [], 20)
        assert way.left("run-logs") == [name(number) for number in range(3)]
        assert way.failed("run-logs").names() == []
        release.set()
        sent.url = url
        assert eventually(lambda: way.left("run-logs") == [], 20)

    arrived = {path.rpartition("/")[2] for path, _ in way.asked() if path.startswith("/reports/")}
    assert arrived == {name(number) for number in range(3)}
    assert refused or len(tried) >= 3
    assert way.counted() == {"reports.forward_ok": 3, "inventories.forward_ok": 1}


def test_statement_56_tries_become_rarer_and_do_not_grow_with_what_waits(above: Upstream, way: Way) -> None:
    at: list[float] = []

    def answer(_: Asked) -> Said:
        at.append(time.monotonic())
        return Said(503)

    above.answer = answer
    for number in range(200):
        way.drop("run-logs", name(number))

    began = time.monotonic()
    with running(way.carriers["run-logs"]):
        time.sleep(4.0)

    rounds = [[moment for moment in at if low <= moment - began < low + 2.0] for low in (0.0, 2.0)]
    assert 0 < len(at) <= 5 * file_forwarding.BATCH_FILES
    assert len(rounds[0]) > len(rounds[1])
    assert len(way.left("run-logs")) == 200


@pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 407, 408, 409, 429, 500, 502, 503, 507])
def test_an_answer_that_may_change_leaves_the_file(above: Upstream, way: Way, status: int) -> None:
    above.answer = lambda _: Said(status, b"<p>no</p>")
    way.drop("run-logs", name())

    with pytest.raises(Unavailable, match=f"answers {status}: <p>no</p>"):
        way.carriers["run-logs"].look()

    assert way.left("run-logs") == [name()]
    assert way.reasons("run-logs") == {}


@pytest.mark.parametrize("status", [400, 411, 413, 414, 415, 422])
def test_a_refusal_for_good_is_set_aside_with_the_reason_and_blocks_nobody(
    above: Upstream, way: Way, status: int
) -> None:
    above.answer = lambda asked: Said(status if b"bad" in asked.body else 201, b"It is too bad.")
    way.drop("run-logs", name(0), b"bad")
    way.drop("run-logs", name(1), b"good")

    way.carriers["run-logs"].look()

    assert way.left("run-logs") == []
    assert way.reasons("run-logs") == {name(0): ("error", f"The server above answers {status}: It is too bad.")}
    assert way.counted() == {"reports.forward_ok": 1, "reports.forward_error": 1}
    assert way.counters.snapshot()["quarantined"] == 1


def test_files_that_the_server_above_never_digests_do_not_keep_the_others(
    above: Upstream, way: Way, hasty: None
) -> None:
    poison = {name(number) for number in range(40)}
    above.answer = lambda asked: Said(500 if b"poison" in asked.body else 201)
    for number in range(60):
        way.drop("run-logs", name(number), b"poison" if name(number) in poison else b"good")

    with running(way.carriers["run-logs"]):
        assert eventually(lambda: set(way.left("run-logs")) == poison, 30)

    assert way.counted() == {"reports.forward_ok": 20}


def test_a_new_file_does_not_wait_for_one_that_is_never_digested(
    above: Upstream, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 60.0)
    above.answer = lambda asked: Said(500 if b"poison" in asked.body else 201)
    way.drop("run-logs", name(0), b"poison")

    with running(way.carriers["run-logs"]):
        assert eventually(lambda: len(above.asked) == 1, 10)
        time.sleep(0.3)
        way.drop("run-logs", name(1), b"good")
        began = time.monotonic()
        assert eventually(lambda: way.left("run-logs") == [name(0)], 10)
        took = time.monotonic() - began

    assert took < 1.2
    assert len(above.asked) == 2


def test_what_tells_of_the_way_holds_up_all(above: Upstream, way: Way) -> None:
    for number, status in enumerate((401, 503)):
        above.answer = lambda _, status=status: Said(status)  # type: ignore[misc]  # its default is no argument
        way.drop("run-logs", name(number))
        with pytest.raises(Unavailable) as told:
            way.carriers["run-logs"].look()
        assert not isinstance(told.value, drop_directory.FilesWait)
    way.above.links[0].url = f"http://127.0.0.1:{free_port()}"
    way.drop("run-logs", name(2))
    with pytest.raises(Unavailable) as told:
        way.carriers["run-logs"].look()
    assert not isinstance(told.value, drop_directory.FilesWait)


def test_never_more_than_a_few_go_at_the_same_time(above: Upstream, tmp_path: Path) -> None:
    way = Way(tmp_path, above, upstream_url=above.url)
    lock, now, most = threading.Lock(), 0, 0

    def answer(_: Asked) -> Said:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return Said(201)

    above.answer = answer
    for number in range(40):
        way.drop("run-logs", name(number))

    way.carriers["run-logs"].look()

    assert 1 < most <= file_forwarding.WORKERS
    assert len(above.asked) == 40


# -- many at once ------------------------------------------------------------------------------


def taking(*refused: Refused) -> Callable[[Asked], Said]:
    """A server of our own, which takes all but some."""
    return lambda _: Said(202, relay_documents.encode(Taken(refused)))


def brought(asked: Asked) -> list[tuple[Slip, bytes]]:
    return [relay_documents.unpack_slip(record) for record in relay_documents.unpack_batch(asked.body)]


def test_many_that_wait_go_up_as_they_came_with_one_request(above: Upstream, way: Way) -> None:
    above.answer = taking()
    for number in range(50):
        way.drop("run-logs", name(number), b"content %d" % number)

    assert way.carriers["run-logs"].look() == 50

    (asked,) = above.asked
    assert (asked.method, asked.target) == ("POST", relay_documents.PATH_PARCELS)
    assert agent.HEADER_SIGNATURE.lower() in asked.headers
    assert {slip.file: content for slip, content in brought(asked)} == {
        name(number): b"content %d" % number for number in range(50)
    }
    assert {(slip.kind, slip.node) for slip, _ in brought(asked)} == {("run-log", NODE)}
    assert way.left("run-logs") == []
    assert way.counted() == {"reports.forward_ok": 50}


def test_many_are_as_old_as_the_clock_above_says_when_ours_is_off(above: Upstream, way: Way) -> None:
    hour = 3600

    def answer(asked: Asked) -> Said:
        late = abs(int(asked.headers[agent.HEADER_TIME.lower()]) - time.time() - hour) > 300
        return Said(401, b"", {agent.HEADER_TIME: str(int(time.time()) + hour)}) if late else taking()(asked)

    above.answer = answer
    for part in range(2):  # with the first it hears what time it is
        began = time.time()
        for number in range(20):
            way.drop("run-logs", name(20 * part + number))
        assert way.carriers["run-logs"].look() == 20

    assert all(-5 < slip.at - hour - began < 5 for slip, _ in brought(above.asked[-1]))


def test_of_many_each_is_set_aside_for_its_own_reason(above: Upstream, way: Way) -> None:
    for number in range(25):
        way.drop("run-logs", name(number))
    way.drop("run-logs", name(1, STRANGER))
    above.answer = taking(Refused(3, "It is spoilt."), Refused(4, "Whose is it?", "invalid"))

    assert way.carriers["run-logs"].look() == 23

    slips = [slip.file for slip, _ in brought(above.asked[0])]
    assert way.left("run-logs") == []
    reasons = way.reasons("run-logs")
    assert set(reasons) == {slips[3], slips[4], name(1, STRANGER)}
    assert (reasons[slips[3]], reasons[slips[4]]) == (("error", "It is spoilt."), ("invalid", "Whose is it?"))
    assert way.counted() == {"reports.forward_ok": 23, "reports.forward_error": 1, "reports.invalid": 2}


@pytest.mark.parametrize("status", [400, 404, 413, 500])
def test_many_that_are_not_taken_together_go_alone(above: Upstream, way: Way, status: int) -> None:
    above.answer = lambda asked: Said(201 if asked.method == "PUT" else status)
    for number in range(20):
        way.drop("run-logs", name(number))

    assert way.carriers["run-logs"].look() == 20

    assert [one.method for one in above.asked] == ["POST", *["PUT"] * 20]
    assert way.left("run-logs") == []


def test_many_stay_while_the_server_above_cannot_take_them(above: Upstream, way: Way) -> None:
    above.answer = lambda _: Said(503)
    for number in range(20):
        way.drop("run-logs", name(number))

    with pytest.raises(Unavailable):
        way.carriers["run-logs"].look()

    assert len(way.left("run-logs")) == 20
    assert len(above.asked) == 1


# -- what a relay looks at -------------------------------------------------------------------


def test_statement_46_what_is_of_nobody_or_broken_is_set_aside_counted_and_blocks_nobody(way: Way) -> None:
    stranger, broken, good = name(0, STRANGER), name(1, ending=".log.gz"), name(2)
    way.drop("run-logs", stranger)
    way.drop("run-logs", broken, b"broken")
    way.drop("run-logs", "bad name.log")
    way.drop("run-logs", "junk.txt")
    way.drop("run-logs", good)

    way.carriers["run-logs"].look()

    assert way.asked() == [(f"/reports/{good}", SECRET)]
    assert way.left("run-logs") == ["junk.txt"]
    kinds = {file: kind for file, (kind, _) in way.reasons("run-logs").items()}
    assert kinds == {stranger: "invalid", broken: "error", "bad name.log": "error"}
    assert way.counted() == {"reports.forward_ok": 1, "reports.invalid": 1, "reports.forward_error": 1}
    assert way.counters.snapshot()["quarantined"] == 3


def test_while_nobody_can_tell_whether_a_node_is_known_its_files_wait(way: Way) -> None:
    way.list_is_away = True
    way.drop("run-logs", name(node=STRANGER))

    with pytest.raises(Unavailable, match="list is away"):
        way.carriers["run-logs"].look()

    assert way.left("run-logs") == [name(node=STRANGER)]


def bombs() -> dict[str, bytes]:
    """A gigabyte of nothing in each; name -> content."""
    packed = io.BytesIO()
    piece = b"\0" * (16 * 2**20)
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as stream:
        for _ in range(64):
            stream.write(piece)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle, bundle.open("log", "w") as entry:
        for _ in range(64):
            entry.write(piece)
    return {name(0, ending=".log.gz"): packed.getvalue(), name(1, ending=".log.zip"): archive.getvalue()}


def test_statement_59_a_gigabyte_in_a_small_file_is_refused_with_bounded_memory(way: Way) -> None:
    found = bombs()
    for file, content in found.items():
        way.drop("run-logs", file, content)
    content = found[name(0, ending=".log.gz")]
    way.drop("inventories", f"{INVENTORY}.gz", content)
    way.drop("inventories", f"{INVENTORY}.gz.sign", b"signature")

    tracemalloc.start()
    try:
        way.carriers["run-logs"].look()
        way.carriers["inventories"].look()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 64 * 2**20
    assert {reason for _, reason in way.reasons("run-logs").values()} == {
        f"The report is larger than {report_files.MAX_BYTES} bytes."
    }
    assert len(way.reasons("run-logs")) == 2
    assert list(way.reasons("inventories")) == [f"{INVENTORY}.gz", f"{INVENTORY}.gz.sign"]
    assert [path for path, _ in way.asked() if not path.endswith(".sign")] == []


def test_statement_60_what_is_old_goes_from_all_directories_and_what_is_young_stays(
    above: Upstream, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"run-logs": (name(0), name(1)), "inventories": ("old.ocs", "young.ocs")}
    names["inventory-updates"] = names["inventories"]
    for kind, (old, young) in names.items():
        for number, one in enumerate((old, young)):
            way.drop(kind, one)
            way.failed(kind).put(one, b"x", "reason")
            for path in (way.ways[kind].incoming / one, way.ways[kind].failed / one):
                os.utime(path, (time.time() - (8 - 2 * number) * DAY,) * 2)

    gone = [carrier.expire() for carrier in way.carriers.values()]

    assert gone == [2, 2, 2]
    for kind, (_, young) in names.items():
        assert way.left(kind) == [young]
        assert way.failed(kind).names() == [young]
    assert "too old to be kept" in caplog.text


def test_what_a_killed_upload_left_goes_soon(way: Way) -> None:
    kind = way.ways["run-logs"].incoming
    for file, age in ((".upload-young", 60.0), (".upload-old", 700.0), (".davfs.tmp", 700.0)):
        (kind / file).write_bytes(b"half")
        os.utime(kind / file, (time.time() - age,) * 2)

    assert way.carriers["run-logs"].expire() == 1
    assert way.left("run-logs") == [".davfs.tmp", ".upload-young"]


# -- what is told ---------------------------------------------------------------------------


def test_the_log_names_each_file_by_the_id_that_it_has_everywhere(
    above: Upstream, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "quarterdeck")
    above.answer = lambda asked: Said(413 if b"long" in asked.body else 201)
    way.drop("run-logs", name(0), b"short")
    way.drop("run-logs", name(1), b"long")

    way.carriers["run-logs"].look()

    lines = [record.getMessage() for record in caplog.records]
    for number, word in ((0, "went up"), (1, "set aside")):
        identity = f"[{report_files.queue_id(name(number))}]"
        assert any(line.startswith(identity) and word in line for line in lines)
    assert "secret" not in caplog.text
