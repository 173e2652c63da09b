"""A run at a glance: what is gathered is what is there, nothing is made, and the page is safe."""

import re
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from conftest import ROOT

from coursekit.common.statistics import Estimate
from coursekit.evaluation import comparison_table, score_responses, win_rate
from coursekit.evaluation.judges import ProgramJudge, Question, build_prompt
from coursekit.evaluation.judges.llm_judge import verdict_key
from coursekit.evaluation.judges.store import KeptAnswer, VerdictStore
from coursekit.evaluation.record import ThreeWayRecord, save_three_way
from coursekit.preferences import split_by_prompt, to_triples
from coursekit.tasks import load_task
from coursekit.tasks.rubric import load_rubric
from coursekit.tasks.triage import TRIAGE
from coursekit.training import Flag, Monitor, train_dpo
from coursekit.week.explore import MOST, PAGE, Glance, facts, gather, page_of, write_page
from coursekit.week.explore import __main__ as command
from coursekit.week.explore.answers import CANDIDATE, Answered
from coursekit.week.explore.differences import LONGEST, set_off
from coursekit.week.explore.gather import Sample
from coursekit.week.explore.kept_verdicts import Nobody, Said, memory_of
from coursekit.week.explore.pairs import Pair, pairs_of
from coursekit.workspace import Workspace


@pytest.fixture(scope="module")
def run(quick, tmp_path_factory):
    """A workspace with a whole week in it, as the sessions leave it, only smaller."""
    few = replace(
        quick,
        demonstrations=96,
        preference_prompts=12,
        evaluation_prompts=6,
        artifacts=tmp_path_factory.mktemp("explored"),
    )
    workspace = Workspace(few)
    train, validation = workspace.triples()
    monitor = Monitor([row["prompt"] for row in validation], validation, times=2)
    train_dpo(
        workspace.sft(),
        train,
        workspace.folder / "dpo",
        few,
        validation=validation,
        monitor=monitor,
    )
    rows, models = workspace.rows("evaluation"), workspace.present()
    answers = workspace.answers(models, rows)
    scores = score_responses(TRIAGE, rows, answers, judge=workspace.judge, against="SFT")
    save_three_way(
        workspace.folder,
        comparison_table(scores, task=TRIAGE, candidate="SFT+DPO", baseline="SFT"),
        win_rate(rows, answers["SFT+DPO"], answers["SFT"], workspace.judge),
        made_from=workspace.evaluated(models, rows),
        length_controlled=Estimate(0.5, 0.4, 0.6),
        kl=Estimate(0.1, 0.0, 0.2),
    )
    return workspace


@pytest.fixture(scope="module")
def glance(run):
    return gather(run)


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_is_shown_is_what_is_there(run, glance):
    assert not glance.missing and not glance.outdated
    train, validation = run.triples()
    of = {"train": train, "validation": validation}
    for state, triples in of.items():
        found = [(p.chosen, p.rejected) for p in glance.pairs if p.state == state]
        assert found == [(row["chosen"], row["rejected"]) for row in triples]
    assert len(glance.pairs) == len(run.pairs()[1])
    rows = run.rows("evaluation")
    kept = run.answers(run.models(), rows)
    assert [each.answers for each in glance.answers] == [
        {name: texts[place] for name, texts in kept.items()} for place in range(len(rows))
    ]
    wins = win_rate(rows, kept["SFT+DPO"], kept["SFT"], run.judge)
    outcomes = [each.outcome for each in glance.answers]
    counts = [outcomes.count(name) for name in ("won", "tied", "lost")]
    assert counts == [wins.wins, wins.ties, wins.losses]
    first = glance.answers[0]
    assert first.scores["SFT"] == TRIAGE.score(rows[0], first.answers["SFT"])


def test_training_is_shown_with_samples_and_what_was_asked(run, glance):
    assert glance.curves["SFT"] and glance.curves["SFT+DPO"] and glance.red_flags is not None
    _, validation = run.triples()
    assert [sample.asked for sample in glance.samples] == [row["prompt"] for row in validation][:3]
    steps = set(glance.samples[0].answers)
    assert 0 in steps and len(steps) >= 3
    page = page_of(glance)
    assert all(f'<th scope="col">step {step}</th>' in page for step in steps)
    assert page.count('<svg role="img" aria-label=') == 2


def test_the_audit_is_that_of_the_training_pairs(run, glance):
    """And what it flags is what is flagged, wherever the pair stands among ties."""
    assert glance.audit.n == len(run.triples()[0])
    _, judged = run.pairs()
    triples = to_triples(judged)
    train, _ = split_by_prompt(triples)
    finding = SimpleNamespace(check="planted", rows=(0, len(train) - 1))
    audit = SimpleNamespace(findings=[finding])
    pairs = pairs_of(TRIAGE, judged, triples, train, audit, Nobody())
    flagged = [pair for pair in pairs if pair.flags]
    assert [(p.chosen, p.flags) for p in flagged] == [
        (train[row]["chosen"], ("planted",)) for row in finding.rows
    ]


def test_held_out_pairs_are_told_wherever_they_stand():
    """A prompt that is held out may come again before the last one."""
    judged = [
        {
            "prompt": prompt,
            "first": {"response": f"good {number}"},
            "second": {"response": "bad"},
            "winner": "first",
            "consistent": True,
            "answers": [],
            "judge": "program",
        }
        for number, prompt in enumerate("abcdefghijkja")
    ]
    triples = to_triples(judged)
    train, validation = split_by_prompt(triples)
    task = SimpleNamespace(shown=lambda row: row["prompt"], faults=lambda row, text: set())
    pairs = pairs_of(task, judged, triples, train, None, Nobody())
    held = [pair.chosen for pair in pairs if pair.state == "validation"]
    assert held == [row["chosen"] for row in validation] and len(held) == 1
    assert [pair.number for pair in pairs] == list(range(1, 14))


def test_nothing_is_made_but_the_page(run, monkeypatch):
    import coursekit.lm.generation as generation
    import coursekit.training as training

    def refuse(*_, **__):
        pytest.fail("something was made")

    for module, name in (
        (training, "train_dpo"),
        (training, "train_sft"),
        (generation, "generate"),
    ):
        monkeypatch.setattr(module, name, refuse)
    before = contents(run.folder)
    path, _ = write_page(run)
    after = contents(run.folder)
    assert path == run.folder / "explore.html" and after.pop(path) == path.stat().st_mtime_ns
    path.unlink()
    assert after == before


def test_an_empty_workspace_says_what_makes_everything(profile, tmp_path):
    glance = gather(Workspace(profile, folder=tmp_path / "nothing"))
    page = page_of(glance)
    for what in ("three-way table", "training of SFT", "training of SFT+DPO", "judged pairs"):
        assert any(what in sentence for sentence in glance.missing), what
    assert "python -m coursekit course" in page and "session B, section 3" in page
    assert not facts(glance) and not (tmp_path / "nothing").exists()


def test_what_is_damaged_is_told_and_the_rest_is_shown(run, tmp_path):
    import shutil

    folder = shutil.copytree(run.folder, tmp_path / "damaged")
    (folder / "three_way.json").write_text("{}", encoding="utf-8")
    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").replace("sev1", "sev9")
    (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
    (folder / "dpo" / "samples.jsonl").unlink()
    (folder / "pairs.made_from.json").write_text("{", encoding="utf-8")
    glance = gather(Workspace(run.profile, folder=folder))
    missing = " ".join(glance.missing)
    assert "three_way.json is damaged" in missing and "judged pairs: " in missing
    assert "samples along training: not there yet" in missing
    assert glance.answers and glance.pairs  # from triples.jsonl
    assert {pair.state for pair in glance.pairs} == {"train", "validation"}
    (folder / "dpo" / "made_from.json").write_text("{", encoding="utf-8")
    assert "training of SFT+DPO: " in " ".join(
        gather(Workspace(run.profile, folder=folder)).missing
    )


def test_a_stale_workspace_says_so(run, tmp_path):
    import shutil

    other = gather(Workspace(run.profile, folder=run.folder, seed=1))
    assert any("seed was 0, now 1" in sentence for sentence in other.outdated)
    assert "Out of date: " in page_of(other)
    assert not other.answers  # those of seed 0 are others'
    folder = shutil.copytree(run.folder, tmp_path / "stale")
    for name in ("pairs.jsonl", "pairs.made_from.json"):
        (folder / name).unlink()
    lines = (folder / "triples.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "triples.jsonl").write_text("".join(lines[1:]), encoding="utf-8")
    (folder / "triples.jsonl.count").unlink()
    stale = gather(Workspace(run.profile, folder=folder))
    assert any("other triples" in sentence for sentence in stale.outdated)


def test_a_task_of_ones_own_that_knows_no_truth(profile, tmp_path, monkeypatch):
    """No program, no judge that is set: what is there is shown, and no judge is asked."""
    from test_own_task import kitchen

    task = load_task(str(kitchen(tmp_path / "kitchen")))
    workspace = Workspace(replace(profile, artifacts=tmp_path), task)
    workspace.folder.mkdir(parents=True)
    rows = [
        {"prompt": "Can I freeze a soup?", "chosen": f"Yes, {n}.", "rejected": "No."}
        for n in range(4)
    ]
    from coursekit.preferences.triples import save_triples

    save_triples(rows, workspace.folder / "triples.jsonl")
    glance = gather(workspace)
    assert len(glance.pairs) == 4 and glance.pairs[0].prompt == "Can I freeze a soup?"
    assert "Yes, 3." in page_of(glance)


# Who says why.


def test_the_programs_reasons_are_the_metrics_that_tell_two_responses_apart(triples):
    row = triples[0]
    identity = ProgramJudge(TRIAGE).identity
    said = memory_of(identity, TRIAGE, ROOT).said(row, row["chosen"], row["rejected"])
    assert said.winner == "first" and len(said.reasons) == 1
    for metric in TRIAGE.metrics:
        differs = metric.score(row, row["chosen"]) != metric.score(row, row["rejected"])
        assert (f"{metric.name} " in said.reasons[0]) == (differs and metric.kind == "truth")


def test_a_language_models_reasons_are_found_without_it(triples, tmp_path):
    """By whichever judge the record names; of one order alone nothing is concluded."""
    row, rubric = triples[0], load_rubric(TRIAGE.rubric)
    store = VerdictStore(tmp_path / "verdicts.sqlite")

    def keep(value, reason, *texts):
        asked = build_prompt(Question("pair", row["prompt"], texts), rubric)
        store.put(verdict_key("its/identity", "pair", *asked), "", KeptAnswer(value, reason))

    keep("first", "It is shorter.", "a", "b")
    memory = memory_of("its/identity", TRIAGE, tmp_path)
    assert memory.said(row, "a", "b").winner == "unknown"
    keep("second", "Still shorter.", "b", "a")
    assert memory.said(row, "a", "b") == Said("first", ("It is shorter.", "Still shorter."))
    keep("second", "Now the other.", "a", "c")
    keep("second", "And the other again.", "c", "a")
    assert memory.said(row, "a", "c").winner == "tie"
    assert not memory.said(row, "a", "c").consistent
    assert memory_of("another", TRIAGE, tmp_path).said(row, "a", "b") == Said()
    assert memory_of("its/identity", TRIAGE, tmp_path / "elsewhere") == Nobody()


def test_the_key_is_that_of_the_judge_itself(triples):
    from coursekit.evaluation.judges.llm_judge import LLMJudge

    class Answers:
        name, model, identity, price = "stub", "stub", ["stub"], (0.0, 0.0)

    judge = LLMJudge(Answers(), load_rubric(TRIAGE.rubric))
    question = Question("pair", triples[0]["prompt"], ("a", "b"))
    key = verdict_key(judge.identity, "pair", *build_prompt(question, judge.rubric))
    assert key == judge._request(question).key


def test_a_reason_is_told_with_what_was_shown_first(run):
    glance = planted(run, "x")
    glance.pairs = [replace(glance.pairs[0], reasons=("one", "two"))]
    glance.answers = [replace(glance.answers[0], said=Said("tie", ("three", "four")))]
    page = page_of(glance)
    for sentence in ("chosen first: one", "rejected first: two", "SFT+DPO first: three"):
        assert sentence in page
    assert "SFT first: four" in page and "x</p>" in page  # a single reason stands by itself


# Differences.


def test_what_the_other_text_lacks_is_set_off():
    assert set_off("cause: deploy 7\nnext: wait", "cause: unknown\nnext: wait") == (
        "cause: <ins>deploy 7</ins>\nnext: wait"
    )
    assert set_off("a b", "a b") == set_off("a b") == "a b"
    assert set_off("", "a") == ""
    assert set_off("a\n\n b", "\n") == "<ins>a</ins>\n\n<ins> b</ins>"
    assert set_off("x < y", "x", {"x < y"}) == '<span class="fault">✗ x<ins> &lt; y</ins></span>'


def test_of_a_long_text_the_beginning_is_shown():
    shown = set_off("word " * LONGEST)
    assert len(shown) < LONGEST + 100 and f"{4 * LONGEST:,} characters more" in shown


# The page.

EVIL = '</pre></td><script>window.hacked=1</script><img src="http://evil.example/x" onerror="x()">'


class Elements(HTMLParser):
    """All elements with their attributes, and what the scripts hold."""

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts, self._in = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self._in = ""


def planted(workspace, text=EVIL, pairs=1):
    """A glance in which `text` stands wherever somebody else's text may stand."""
    answers = dict.fromkeys(("base", "SFT", "SFT+DPO"), text)
    said = Said("second", (text,))
    glance = Glance(workspace, {text: text}, [text], [text], dict.fromkeys(answers, text))
    glance.record = ThreeWayRecord({}, 1, text, text, {text: f"| {text} |\n| --- |\n| {text} |"})
    glance.red_flags = [Flag(text, 1, text, text, text)]
    glance.samples = [Sample(text, {0: text, 1: text + "!"})]
    glance.pairs = [
        Pair(n + 1, text, f"{text} {n}", text, "train", text, (text,), False, (0.5, None), (text,))
        for n in range(pairs)
    ]
    glance.answers = [
        Answered(1, text, answers, {name: {text: 0.5} for name in answers}, said, (text,),
                 dict.fromkeys(answers, frozenset({text})))
    ]  # fmt: skip
    return glance


def asks_for_nothing(page):
    """Whether no element names an address, and the policy would forbid it anyway."""
    elements = Elements(page)
    for tag, attributes in elements.found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert value.startswith("#"), (tag, name, value)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "@import" not in styles
    assert all(url.startswith("data:") for url in re.findall(r"url\(\W*([^)]*)", styles))
    (policy,) = [a["content"] for _, a in elements.found if "http-equiv" in a]
    hashes = [b64encode(sha256(code.encode()).digest()).decode() for code in elements.scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    assert f"default-src 'none'; script-src {allowed};" in policy
    return elements


def test_what_others_wrote_is_text_and_no_more(run):
    page = page_of(planted(run))
    elements = asks_for_nothing(page)
    assert len(elements.scripts) == 2 and "hacked" not in "".join(elements.scripts)
    assert page.count("window.hacked") > 20  # it is all there, as text


def test_no_page_asks_for_anything(glance, profile, tmp_path):
    asks_for_nothing(page_of(glance))
    assert not asks_for_nothing(
        page_of(gather(Workspace(profile, folder=tmp_path / "nothing")))
    ).scripts


def test_every_column_of_every_table_has_a_header(glance):
    headers = [a for tag, a in Elements(page_of(glance)).found if tag == "th"]
    assert headers and sum(a.get("scope") == "col" for a in headers) >= 20


def test_ten_thousand_pairs_stay_below_the_limit_and_what_is_left_out_is_said(run):
    glance = planted(run, "a plain response of some fifty characters, more or less " * 4)
    plain = replace(glance.pairs[0], flags=(), consistent=True)
    glance.pairs = [
        replace(plain, number=n + 1, flags=("doubled rows",) * (n % 1000 == 999))
        for n in range(10_000)
    ]
    page = page_of(glance)
    assert MOST / 2 < len(page.encode()) <= MOST
    shown = len(re.findall('<tr class="row', page.partition('id="pairs"')[2]))
    assert 500 < shown < 10_000 and f"{shown:,} of 10,000 are shown" in page
    assert page.count("⚑ doubled rows</p>") == 10  # what is flagged is shown, all of it
    assert "flagged by the audit (10)" in page
    small = page_of(glance, most=len(page) // 2)
    assert len(small.encode()) <= len(page) // 2


def test_half_a_character_is_no_obstacle(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "coursekit.week.explore.page.gather", lambda workspace: planted(run, "half \ud83d")
    )
    path, _ = write_page(run, tmp_path / "page.html")
    assert "half ?" in path.read_text(encoding="utf-8")


# What to know before believing a number.


def test_the_facts_say_what_the_rows_show(run):
    glance = planted(run, "x")
    glance.outdated = ["dpo's seed was 0, now 1"]
    said = [fact.sentence for fact in facts(glance)]
    assert said[0] == "Out of date: dpo's seed was 0, now 1."
    assert "SFT+DPO against SFT, prompt by prompt: 1 lost; read those that it lost." in said
    assert "Flagged answers: 1 of 1 (x)." in said
    assert any(sentence.startswith("Red flag: x since step 1") for sentence in said)
    assert "In 1 of 1 pairs the judge said otherwise in the other order." in said
    alarming = {fact.sentence for fact in facts(glance) if fact.is_alarming}
    assert len(alarming) == 5
    won = replace(glance.answers[0], said=Said("first"), flags=())
    longer = dict(won.answers) | {CANDIDATE: "x and more"}
    glance.answers = [won, replace(won, answers=longer, said=Said("tie"))]
    sentences = " ".join(fact.sentence for fact in facts(glance))
    assert "longer in 1 of 2; it won 0% of these, and 100% of the others" in sentences
    assert "Flagged answers" not in sentences and "read those" not in sentences


def test_without_a_verdict_that_is_kept_it_is_said(run):
    glance = planted(run, "x")
    glance.answers = [replace(glance.answers[0], said=Said())]
    first = facts(glance)[1]
    assert first.sentence == "Nothing is kept of who won on these 1 prompts." and first.is_alarming


# The command, and the notebook.


def test_the_command_writes_the_page_and_says_what_it_shows(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "Workspace", lambda: run)
    monkeypatch.setattr(sys, "argv", ["explore", "--out", str(tmp_path / "of" / "run.html")])
    command.main()
    said = capsys.readouterr().out
    page = (tmp_path / "of" / "run.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and str(tmp_path / "of" / "run.html") in said
    assert "SFT+DPO against SFT, prompt by prompt" in said

    def refuse():
        raise ValueError("COURSE_PROFILE is 'huge'")

    monkeypatch.setattr(command, "Workspace", refuse)
    with pytest.raises(SystemExit, match="COURSE_PROFILE is 'huge'"):
        command.main()


def test_in_a_notebook_the_page_is_a_widget_and_its_facts_stand_in_for_it(run, monkeypatch):
    from coursekit.week.widgets import explore, page

    shown = []
    monkeypatch.setattr(page, "show_widget", lambda *parts: shown.append(parts))
    explore(run)
    path = run.folder / PAGE
    ((widget, text, html),) = shown
    (frame,) = [a for tag, a in Elements(widget.value).found if tag == "iframe"]
    assert frame["sandbox"] == "allow-scripts"
    assert frame["srcdoc"] == path.read_text(encoding="utf-8")
    assert "explore.html" in text
    assert not {"script", "style", "iframe"} & {tag for tag, _ in Elements(html).found}
    assert "prompt by prompt" in html and "faithfulness" in html
    path.unlink()


def test_the_stand_in_is_shown_where_a_widget_cannot_be(monkeypatch):
    from coursekit.week.widgets import page

    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    page.show_widget(SimpleNamespace(model_id="abc"), "Run this cell.", "<p>facts</p>")
    page.show_widget(SimpleNamespace(model_id="abc"), "Run this cell.")
    assert bundles[0]["text/html"] == "<p>facts</p>" and "text/html" not in bundles[1]
