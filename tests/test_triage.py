"""The task: pools, phrasings, the policy, the format, the rubric, the imperfect writers."""

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest

from coursekit.common.profile import load_profile
from coursekit.tasks.triage import (
    FIELDS,
    METRICS,
    POOLS,
    Alert,
    build_prompt,
    fact_accuracy,
    parse_report,
    report_faults,
    sample_alerts,
    sample_demonstrations,
    score_report,
    severity_policy,
)
from coursekit.tasks.triage.alerts import services_in
from coursekit.tasks.triage.corpus import corpus
from coursekit.tasks.triage.demonstrations import Vices, write_imperfectly
from coursekit.tasks.triage.reports import expected_values, write_report

ALERT = Alert("checkout-api", "error rate", "7.3%", "eu-west-2", "14:05", 12, "deploy 412")
CALM = replace(ALERT, change=None)
REPORT = """service: checkout-api
region: eu-west-2
time: 14:05
metric: error rate 7.3%
users: 12%
severity: sev2
cause: suspected deploy 412
next: roll back deploy 412"""


def test_pools_share_no_service_whatever_the_seed():
    services = {pool: set(services_in(pool)) for pool in POOLS}
    for one, other in itertools.combinations(POOLS, 2):
        assert not services[one] & services[other]
    for pool in POOLS:
        for seed in range(3):
            assert {alert.service for alert in sample_alerts(pool, 200, seed)} <= services[pool]


def test_pools_share_no_prompt():
    prompts = {pool: {build_prompt(alert) for alert in sample_alerts(pool, 500)} for pool in POOLS}
    for one, other in itertools.combinations(POOLS, 2):
        assert not prompts[one] & prompts[other]


def test_evaluation_services_are_in_no_training_text():
    unseen = services_in("evaluation")
    for document in itertools.islice(corpus(), 2000):
        # Followed by a letter it would be another service (`user-db` in `superuser-db`).
        assert not any(f" {service} " in f" {document.prompt} " for service in unseen)


def test_there_is_too_much_to_memorise():
    assert sum(len(services_in(pool)) for pool in POOLS) > 1500
    alerts = sample_alerts("pretraining", 5000)
    assert len({alert.text for alert in alerts}) == 5000
    assert len({(alert.service, alert.metric, alert.region) for alert in alerts}) > 4900
    openings = Counter(replace(ALERT, wording=number).text for number in range(2000))
    assert len(openings) > 500


def test_sampling_is_seeded_and_extends():
    assert sample_alerts("validation", 5, seed=3) == sample_alerts("validation", 9, seed=3)[:5]
    assert sample_alerts("validation", 5, seed=3) != sample_alerts("validation", 5, seed=4)
    with pytest.raises(ValueError, match="unknown pool 'test': choose one of pretraining"):
        sample_alerts("test", 1)


def test_every_wording_tells_every_fact():
    for wording in range(300):
        text = replace(ALERT, wording=wording).text
        for fact in ("checkout-api", "error rate 7.3%", "eu-west-2", "14:05", "12%", "deploy 412"):
            assert fact in text
        assert "deploy" not in replace(CALM, wording=wording).text


@pytest.mark.parametrize(
    ("metric", "users", "severity"),
    [
        ("error rate", 30, "sev1"),
        ("error rate", 29, "sev2"),
        ("error rate", 5, "sev2"),
        ("error rate", 4, "sev3"),
        ("disk use", 30, "sev1"),
        ("disk use", 5, "sev1"),
        ("disk use", 4, "sev2"),
    ],
)
def test_severity_policy(metric, users, severity):
    assert severity_policy(replace(ALERT, metric=metric, users=users)) == severity


def test_a_faultless_report_scores_one_everywhere():
    assert write_report(expected_values(ALERT)) == REPORT
    assert set(score_report(ALERT, REPORT).to_dict().values()) == {1.0}
    assert not report_faults(ALERT, REPORT)
    assert all(fact_accuracy(ALERT, REPORT).values())


@pytest.mark.parametrize(
    ("what", "before", "after", "expected"),
    [
        ("greeting", "service:", "hello\nservice:", {"format": 0}),
        ("capital letter", "region:", "Region:", {"format": 0, "faithfulness": 0.8}),
        ("field missing", "users: 12%\n", "", {"format": 0, "faithfulness": 0.8}),
        ("field twice", "users: 12%", "users: 12%\nusers: 12%", {"format": 0}),
        ("empty value", "users: 12%", "users: ", {"format": 0, "faithfulness": 0.8}),
        ("severity", "sev2", "sev1", {"severity": 0}),
        ("wrong fact", "7.3%", "7.4%", {"faithfulness": 0.8}),
        ("invented cause", "suspected deploy 412", "suspected deploy 413", {"faithfulness": 0}),
        ("no cause", "cause: suspected deploy 412\n", "", {"format": 0, "faithfulness": 0.5}),
        ("cause withheld", "suspected deploy 412", "unknown", {"faithfulness": 0.5}),
        ("padded step", "back deploy 412", "back deploy 412, then wait", {"usefulness": 0.5}),
        ("idle step", "roll back deploy 412", "monitor the situation", {"usefulness": 0}),
    ],
)
def test_each_fault_lowers_its_own_score(what, before, after, expected):
    text = REPORT.replace(before, after)
    assert text != REPORT
    scores = score_report(ALERT, text).to_dict()
    overall = scores.pop("overall")
    assert {name: score for name, score in scores.items() if score < 1} == pytest.approx(expected)
    assert overall == pytest.approx(sum(scores.values()) / 4)
    assert report_faults(ALERT, text) or what in ("field missing", "no cause")


def test_order_counts_and_nonsense_scores_zero():
    lines = REPORT.split("\n")
    assert not parse_report("\n".join(lines[::-1])).conformant
    assert set(score_report(ALERT, "hi team, all is lost").to_dict().values()) == {0.0}
    assert set(score_report(ALERT, "").to_dict().values()) == {0.0}


def test_unknown_cause_is_right_where_no_change_is_named():
    report = write_report(expected_values(CALM))
    assert "cause: unknown\nnext: read the error logs" in report
    assert score_report(CALM, report).overall == 1
    invented = report.replace("unknown", "suspected deploy 9")
    assert score_report(CALM, invented).faithfulness == 0


def test_each_vice_comes_at_its_rate():
    rates = Vices(0.5, 0.3, 0.4, 0.1, 0.2, 0.1)
    rng = random.Random(0)
    calm = [alert for alert in sample_alerts("demonstrations", 6000) if not alert.change]
    texts = [write_imperfectly(alert, rng, rates) for alert in calm]
    said = [parse_report(text) for text in texts]
    expected = [expected_values(alert) for alert in calm]

    def share(hits):
        return sum(hits) / len(calm)

    def differs(name):
        return share(
            name in report.values and report.values[name] != right[name]
            for report, right in zip(said, expected, strict=True)
        )

    assert share(not report.conformant for report in said) == pytest.approx(0.1, abs=0.03)
    assert differs("cause") == pytest.approx(0.5, abs=0.04)
    assert differs("severity") == pytest.approx(0.3, abs=0.04)
    assert differs("next") == pytest.approx(0.1 + 0.9 * 0.4, abs=0.04)
    wrong = sum(differs(name) for name in ("service", "region", "time", "users", "metric"))
    assert wrong == pytest.approx(0.2, abs=0.04)


def test_without_vices_demonstrations_are_faultless():
    rows = sample_demonstrations(50, load_profile("tiny"), vices=Vices(0, 0, 0, 0, 0, 0))
    assert all(score_report(Alert(**row["facts"]), row["response"]).overall == 1 for row in rows)


def test_corpus_rarely_gives_the_asked_format():
    documents = list(itertools.islice(corpus(), 6000))
    asked = [d for d in documents if d.prompt.startswith("Write the triage report.")]
    conformant = sum(parse_report(d.response).conformant for d in asked) / len(asked)
    assert conformant == pytest.approx(0.2, abs=0.03)
    assert {d.kind for d in asked} == {
        "report",
        "loose report",
        "ticket",
        "prose",
        "chat",
        "bullets",
    }


def test_fields_and_metrics_are_what_the_policy_names():
    assert len(FIELDS) == 8
    at_risk = {name for name, metric in METRICS.items() if metric.data_at_risk}
    assert at_risk == {"disk use", "replication lag", "failed backups", "checksum errors"}
