"""What session B draws and shows."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from coursekit.plotting import plot_audit, plot_label_noise
from coursekit.preferences import audit
from coursekit.widgets import findings


@pytest.fixture(scope="module")
def reports(triples):
    rows = [{**row, "prompt_id": index} for index, row in enumerate(triples)]
    faulty = [*rows, {**rows[0], "rejected": rows[0]["chosen"]}, rows[1]]
    return {"clean": audit(rows), "faulty": audit(faulty)}


def test_findings_say_what_to_do(reports):
    html = findings(reports["faulty"]).data
    for check in ("identical pairs", "doubled rows"):
        finding = reports["faulty"][check]
        for text in (check, finding.found.split(":")[0], finding.effect, finding.fix):
            assert text in html
    assert "Passed: " in html and "Not measured: " in html and "18 triples" in html
    assert "identical pairs" not in findings(reports["clean"]).data.split("Passed: ")[0]


def test_texts_of_a_data_set_are_no_html(triples):
    rows = [
        {**row, "chosen": f"<b>x</b> {row['chosen']}", "prompt_id": i}
        for i, row in enumerate(triples * 3)
    ]
    assert "<b>x" not in findings(audit(rows)).data


def test_the_audit_is_drawn(reports):
    faults, shares, lengths, margins = plot_audit(reports["faulty"]).axes
    assert [label.get_text() for label in faults.get_yticklabels()] == [
        item.check for item in reports["faulty"].findings if item.outcome == "fault"
    ]
    widths = [100 * len(item.rows) / 18 for item in reports["faulty"].findings if item.rows]
    assert [bar.get_width() for bar in faults.patches] == pytest.approx(widths)
    assert [label.get_text() for label in shares.get_yticklabels()] == ["the longer won"]
    assert sum(bar.get_height() for bar in lengths.patches) == 18
    assert "not in the data" in [text.get_text() for text in margins.texts]
    clean = plot_audit(reports["clean"]).axes[0]
    assert "none" in [text.get_text() for text in clean.texts] or clean.patches
    assert not plt.get_fignums()


def test_the_noise_is_drawn():
    table = pd.DataFrame(
        [
            {
                "loss": loss,
                "rate": rate,
                "win_rate": 0.7 - rate / 2,
                "low": 0.68 - rate / 2,
                "high": 0.72 - rate / 2,
                "seeds": [0.7, 0.69, 0.71],
            }
            for loss in ("DPO", "robust DPO")
            for rate in (0.0, 0.2, 0.4)
        ]
    )
    left, right = plot_label_noise(table, 0.3).axes
    assert {"DPO", "robust DPO", "single seeds"} <= {
        text.get_text() for text in left.get_legend().get_texts()
    }
    pulls = {line.get_label(): line for line in right.lines}
    for line in pulls.values():  # all pull alike at margin 0
        assert line.get_ydata()[100] == pytest.approx(1)
    assert pulls["DPO"].get_ydata()[-1] < 0.1 < 0.15 < pulls["robust, 10%"].get_ydata()[-1]
    assert not plt.get_fignums()
