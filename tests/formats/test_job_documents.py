# SPDX-License-Identifier: Apache-2.0
"""Job documents in XML and YAML: golden ones, bad ones, and that a job comes back as it was."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.core import job_checks
from quarterdeck.core.errors import Invalid
from quarterdeck.core.jobs import (
    Dispatch,
    Exec,
    Job,
    JobRef,
    Notification,
    Option,
    Schedule,
    Script,
    ScriptFile,
    ScriptUrl,
    Sequence,
)
from quarterdeck.core.node_filters import NodeFilter, Side
from quarterdeck.formats import job_xml, job_yaml

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

FULL = Job(
    "nightly backup",
    "ops",
    id=7,
    uuid="b7f3c9de-1f7e-4f0b-9c39-0d6f6c1a6f3e",
    group="db/backup",
    description="Backs up <everything>",
    loglevel="WARN",
    options=(
        Option(name="code", value="007", regex="[0-9]+", required=True, description="A number"),
        Option(name="hosts", values=("a", "b"), enforced=True, multivalued=True, delimiter=" "),
        Option(name="pw", secure=True),
        Option(name="version", values_url="https://example.org/v.json?a=1&b=2", enforced=True),
    ),
    node_filter=NodeFilter(
        include=Side(hostname="db.*", tags="sql+blue", os_family="unix"),
        exclude=Side(name="db9"),
        exclude_precedence=False,
    ),
    dispatch=Dispatch(threadcount=4, keepgoing=True, rank_attribute="rank", rank_order="descending"),
    sequence=Sequence(
        keepgoing=True,
        strategy="step-first",
        steps=(
            Exec('echo "hello ${option.code}" && true'),
            Script("#!/bin/sh\nif [ 1 -lt 2 ]; then\n  echo @option.code@\nfi", "-x '${option.code}'"),
            Script("echo ']]>'"),
            ScriptFile("/opt/scripts/a.sh", "1 2"),
            ScriptUrl("https://example.org/a.sh"),
            JobRef("other", "db", "-a ${option.code}"),
            JobRef("plain"),
        ),
    ),
    schedule=Schedule("0 30 6 ? * MON-FRI *", "Europe/Berlin"),
    notification=Notification(
        on_success_emails=("a@example.org", "b@example.org"),
        on_success_urls=("https://example.org/hook",),
        on_failure_emails=("c@example.org",),
    ),
    multiple_executions=True,
    timeout="1h 30m",
)
SMALL = Job("small", "ops", sequence=Sequence(steps=(Exec("uptime"),)), schedule=Schedule("0 0 0 15 * ? *"))


@pytest.mark.parametrize(("document", "name"), [(job_xml, "jobs.xml"), (job_yaml, "jobs.yaml")])
def test_jobs_are_written_as_the_golden_document_and_come_back(document: ModuleType, name: str) -> None:
    golden = (GOLDEN / name).read_bytes()

    assert document.write([FULL, SMALL]) == golden
    drafts = document.read(golden)
    assert [draft.problems for draft in drafts] == [(), ()]
    assert [draft.job for draft in drafts] == [replace(FULL, id=None), SMALL]
    assert all(job_checks.problems(draft, NOW, ZoneInfo("UTC")) == [] for draft in drafts)


def test_no_jobs_are_written_as_an_empty_list() -> None:
    assert b"<joblist/>" in job_xml.write([])
    assert job_yaml.write([]) == b"[]\n"


def test_the_id_stands_unquoted_in_yaml() -> None:
    assert b"id: 7\n" in job_yaml.write([FULL])


def test_attributes_and_elements_mean_the_same() -> None:
    [draft] = job_xml.read(
        b"""<!DOCTYPE joblist SYSTEM "http://nowhere.invalid/j.dtd">
        <joblist>
          <job name="j" description="">
            <context><depot>ops</depot><options>
              <option><name>o</name><value>v</value><required>TRUE</required></option>
              <option name="n" values="b, a,b" enforcedvalues="true"/>
            </options></context>
            <group>/a/b/</group>
            <loglevel>error</loglevel>
            <dispatch threadcount="2"/>
            <nodefilters excludeprecedence="false"><include hostname="h" type="x"/></nodefilters>
            <sequence><command exec=" a  b "/><command jobref="x"/></sequence>
            <schedule crontab="0 0 12 * * ?"/>
          </job>
        </joblist>""",
    )

    assert draft.job == Job(
        "j",
        "ops",
        group="a/b",
        loglevel="ERR",
        options=(Option(name="n", values=("a", "b"), enforced=True), Option(name="o", value="v", required=True)),
        dispatch=Dispatch(threadcount=2),
        node_filter=NodeFilter(include=Side(hostname="h"), exclude_precedence=False),
        sequence=Sequence(steps=(Exec("a  b"),)),
        schedule=Schedule("0 0 12 * * ? *"),
    )
    assert draft.problems == ("Workflow has one or more invalid steps: [2]", "2: Job Name must be specified")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ('<time hour="06" minute="30"/>', "0 30 06 ? * * *"),
        ('<time hour="1"/><weekday day="mon"/>', "0 0 1 ? * MON *"),
        ('<time hour="1"/><month month="*" day="15"/>', "0 0 1 15 * ? *"),
        ('<time hour="1"/><month month="1-3"/><year year="2027"/>', "0 0 1 ? 1-3 * 2027"),
        ('<time hour="1"/><dayofmonth day="L"/>', "0 0 1 L * ? *"),
        ("<crontab>0 0 1 ? * 1 2030</crontab>", "0 0 1 ? * 1 2030"),
    ],
)
def test_all_forms_of_a_schedule_become_an_expression(schedule: str, expected: str) -> None:
    [draft] = job_xml.read(xml(f"<schedule>{schedule}</schedule>"))

    assert draft.job.schedule == Schedule(expected)


def xml(more: str = "", sequence: str = "<command><exec>x</exec></command>") -> bytes:
    context = "<context><project>p</project></context>"
    return (
        f"<joblist><job><name>j</name><description/>{context}<sequence>{sequence}</sequence>{more}</job></joblist>"
    ).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<joblist", "JobXMLException: Unable to parse xml: "),
        (b"<jobs/>", "JobXMLException: Document root tag was not 'joblist': 'jobs'"),
        (b"<joblist/>", "JobXMLException: No 'job' element was found"),
        (b"<joblist><job/></joblist>", "JobXMLException: 'context' element not found"),
        (b"<joblist><job><context/></job></joblist>", "JobXMLException: 'context/project' element not found"),
        (
            b"<joblist><job><context><project>p</project></context></job></joblist>",
            "JobXMLException: 'name' element not found",
        ),
        (
            b"<joblist><job name='j'><context><project>p</project></context></job></joblist>",
            "JobXMLException: 'description' element not found",
        ),
        (
            b"<joblist><job name='j' description=''><context><project>p</project></context></job></joblist>",
            "JobXMLException: 'sequence' element not found",
        ),
        (
            xml("<notification/>"),
            "JobXMLException: notification section had no onsuccess or onfailure element",
        ),
        (
            xml("<notification><onsuccess/></notification>"),
            "JobXMLException: notification 'onsuccess' element had missing 'email' or 'webhook' element",
        ),
        (
            xml("<notification><onfailure><email/></onfailure></notification>"),
            "JobXMLException: onfailure email had blank or missing 'recipients' attribute",
        ),
        (
            xml("<notification><onsuccess><webhook urls=' '/></onsuccess></notification>"),
            "JobXMLException: onsuccess webhook had blank or missing 'urls' attribute",
        ),
        (b"<!DOCTYPE j [<!ENTITY a 'b'>]><joblist><job/></joblist>", "Unable to parse xml: A document may not declare"),
    ],
)
def test_a_bad_xml_document_is_told_in_the_words_clients_know(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        job_xml.read(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"name: j", "JobXMLException: Unexpected data type: map, a sequence was expected"),
        (b"text", "JobXMLException: Unexpected data type: text"),
        (b"- text", "JobXMLException: Unexpected data type: text, a map was expected"),
        (b"- [a", "JobXMLException: Unable to parse yaml: line 2: "),
        (b"- {name: j, sequence: {keepgoing: []}}", "JobXMLException: Unable to create Job: "),
    ],
)
def test_a_bad_yaml_document_is_told_in_the_words_clients_know(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        job_yaml.read(data)


ONE_OF = "Please specify only one of Local script or Remote command or Script file"


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        (xml(sequence=""), ["Workflow must have at least one step"]),
        (
            xml(sequence="<command/><command><exec>x</exec></command><command><jobref/></command>"),
            [
                "Workflow has one or more invalid steps: [1, 3]",
                "1: A Remote command, inline script, or script file must be specified",
                "3: Job Name must be specified",
            ],
        ),
        (
            xml(sequence="<command><exec>x</exec><script>y</script></command>"),
            ["Workflow has one or more invalid steps: [1]", f"1: {ONE_OF}"],
        ),
        (
            xml(sequence="<command><exec>x</exec><errorhandler><exec>y</exec></errorhandler></command>"),
            ["Workflow has one or more invalid steps: [1]", "1: errorhandler is not supported"],
        ),
        (
            xml("<dispatch><threadcount>0</threadcount></dispatch><nodefilters><include/></nodefilters>"),
            [
                "dispatch: The thread count is a whole number of at least 1, not 0",
                "Included or Excluded node pattern is required to do Node Dispatch",
            ],
        ),
        (xml("<schedule crontab='every day'/>"), ["Crontab string format was invalid"]),
        (
            xml("<schedule crontab='0 0 0 30 2 ?'/>"),
            ["The Cron expression will never be triggered in the future"],
        ),
        (
            xml("<schedule><time/></schedule><timeZone>Mars/Olympus</timeZone>"),
            ["Time zone is not known: Mars/Olympus"],
        ),
        (
            xml(
                "<notification><onsuccess><email recipients='a,b@c.d'/><webhook urls='ftp://x'/></onsuccess></notification>"
            ),
            ["Invalid Email address: a", "Invalid URL: ftp://x"],
        ),
        (xml("<loglevel>LOUD</loglevel>"), ["Log level is not one of DEBUG, VERBOSE, INFO, WARN, ERR: LOUD"]),
        (xml("<timeout>soon</timeout>"), ["Timeout is not a time like 90 or 1h 30m: soon"]),
        (
            b"- {description: null}",
            ["Workflow must have at least one step", "Job Name was not entered", "Project was not entered"],
        ),
    ],
)
def test_what_is_wrong_with_one_job_is_told_with_that_job(data: bytes, problems: list[str]) -> None:
    [draft] = (job_yaml if data.startswith(b"-") else job_xml).read(data)

    assert job_checks.problems(draft, NOW, ZoneInfo("UTC")) == problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("commands: [{exec: a}]\n    keepgoing: 'false'", Sequence(steps=(Exec("a"),))),
        (
            "commands: [{exec: a}]\n    keepgoing: true\n    strategy: step-first",
            Sequence(keepgoing=True, strategy="step-first", steps=(Exec("a"),)),
        ),
        (
            "\n  - exec: 007\n  - script: |\n      a\n      b\n    args: yes",
            Sequence(steps=(Exec("007"), Script("a\nb", "yes"))),
        ),
        ("commands: [{jobref: {name: n, group: g, args: -a b}}]", Sequence(steps=(JobRef("n", "g", "-a b"),))),
    ],
)
def test_sequences_in_yaml(text: str, expected: Sequence) -> None:
    [draft] = job_yaml.read(f"- name: j\n  project: p\n  sequence:\n    {text}\n".encode())

    assert (draft.job.sequence, draft.problems) == (expected, ())


def test_yaml_filters_without_dispatch_get_its_defaults() -> None:
    [draft] = job_yaml.read(
        b"- {name: j, project: p, sequence: [{exec: a}], nodefilters: {include: {tags: a+b, os-name: Linux}}}",
    )

    assert draft.job.node_filter == NodeFilter(include=Side(tags="a+b", os_name="Linux"))
    assert draft.job.dispatch == Dispatch()


LINE = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff\ufffe\uffff"),
    max_size=12,
).map(str.strip)
WORD = LINE.filter(bool)
SCRIPT = st.lists(LINE, min_size=1, max_size=4).map("\n".join).map(str.strip).filter(bool)
NAME = st.text("abz_.-09", min_size=1, max_size=6)
ITEMS = st.lists(NAME, max_size=3)
OPTION = st.builds(
    Option,
    name=NAME,
    value=LINE,
    description=SCRIPT | st.just(""),
    values=st.lists(NAME, max_size=3, unique=True).map(sorted).map(tuple),
    values_url=LINE,
    enforced=st.booleans(),
    regex=LINE,
    required=st.booleans(),
    multivalued=st.booleans(),
    delimiter=st.sampled_from(["", ",", " ", "\t", " , ".strip(), "true", "~"]),
    secure=st.booleans(),
    value_exposed=st.booleans(),
)
STEP = st.one_of(
    st.builds(Exec, SCRIPT),
    st.builds(Script, SCRIPT, LINE),
    st.builds(ScriptFile, WORD, LINE),
    st.builds(ScriptUrl, WORD, LINE),
    st.builds(JobRef, WORD, NAME, LINE),
)
SIDE = st.builds(Side, hostname=LINE, tags=LINE, os_name=LINE, os_family=LINE, os_arch=LINE, os_version=LINE, name=LINE)
FILTER = st.builds(NodeFilter, include=SIDE, exclude=SIDE, exclude_precedence=st.booleans())
PEOPLE = st.lists(NAME, max_size=2).map(tuple)
JOBS = st.builds(
    Job,
    WORD,
    WORD,
    uuid=LINE,
    group=NAME | st.just("") | st.just("a/b c"),
    description=SCRIPT | st.just(""),
    loglevel=st.sampled_from(["DEBUG", "INFO", "ERR"]),
    options=st.lists(OPTION, max_size=3, unique_by=lambda option: option.name).map(
        lambda found: tuple(sorted(found, key=lambda option: option.name)),
    ),
    sequence=st.builds(
        Sequence,
        keepgoing=st.booleans(),
        strategy=st.sampled_from(["node-first", "step-first"]),
        steps=st.lists(STEP, min_size=1, max_size=4).map(tuple),
    ),
    schedule=st.sampled_from([None, Schedule("0 0 0 ? JAN 1#2 2030"), Schedule("1 2 3 L-3 * ? *", "Asia/Kolkata")]),
    notification=st.builds(
        Notification,
        on_success_emails=PEOPLE,
        on_success_urls=PEOPLE,
        on_failure_emails=PEOPLE,
        on_failure_urls=PEOPLE,
    ),
    multiple_executions=st.booleans(),
    timeout=st.sampled_from(["", "90", "1h 30m", "${option.t}"]),
)


@settings(deadline=None)
@given(
    job=JOBS,
    wanted=st.none() | FILTER.filter(lambda one: not one.is_blank),
    threads=st.integers(1, 99),
    keepgoing=st.booleans(),
)
def test_import_export_import_is_a_fixed_point(
    job: Job, wanted: NodeFilter | None, threads: int, keepgoing: bool
) -> None:
    if wanted is not None:
        job = replace(job, node_filter=wanted, dispatch=Dispatch(threadcount=threads, keepgoing=keepgoing))

    for document in (job_xml, job_yaml):
        written = document.write([job])
        [draft] = document.read(written)
        assert draft.problems == ()
        assert draft.job == job
        assert document.write([draft.job]) == written
