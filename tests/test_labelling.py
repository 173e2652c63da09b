"""A person's labels: random order, saved at once, undone, resumed; and the widget, by its keys."""

import json

import pytest

from coursekit.evaluation.judges.person import Labelling
from coursekit.week.widgets import label_pairs

ITEMS = [({"prompt": f"Prompt {i}"}, f"good {i}", f"bad {i}") for i in range(40)]


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "labels" / "mine.jsonl"


def choose_good(work):
    return "left" if work.current.left.startswith("good") else "right"


def test_labels_are_of_the_pair_and_not_of_the_place(path):
    work = Labelling(ITEMS, path)
    places = []
    while work.current:
        places.append(choose_good(work))
        work.label(places[-1])
    assert work.labels == ["first"] * 40 and work.done == 40
    assert 10 < places.count("left") < 30  # drawn for each pair
    with pytest.raises(ValueError, match="every pair has its label"):
        work.label("left")


def test_each_label_is_on_the_disk_at_once_and_taken_up_again(path):
    work = Labelling(ITEMS, path)
    for choice in ("left", "tie", "skip", "right"):
        work.label(choice)
        assert len(path.read_text(encoding="utf-8").splitlines()) == work.done
    again = Labelling(ITEMS, path)
    assert again.labels == work.labels and again.done == 4 and again.labels[2] is None
    assert again.current == work.current and again.current.number == 4


def test_undo_goes_back_step_by_step_and_survives_a_restart(path):
    work = Labelling(ITEMS, path)
    before = work.current
    work.label("left")
    work.label("tie")
    assert work.undo() and work.done == 1
    assert Labelling(ITEMS, path).done == 1
    assert work.undo() and work.current == before and not work.undo()
    work.label("right")
    assert Labelling(ITEMS, path).labels[0] == work.labels[0] != "tie"


def test_a_cut_line_loses_one_label_and_no_more(path):
    work = Labelling(ITEMS, path)
    for _ in range(3):
        work.label("tie")
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-10], encoding="utf-8")
    again = Labelling(ITEMS, path)
    assert again.done == 2
    again.label("left")
    assert Labelling(ITEMS, path).done == 3
    path.write_text(
        "no json\n[1]\n" + json.dumps({"pair": 1, "label": "maybe"}) + "\n", encoding="utf-8"
    )
    assert Labelling(ITEMS, path).done == 0


@pytest.mark.parametrize(
    "line",
    [
        '{"pair": [1], "label": "tie"}',
        '{"pair": "x"}',
        '{"pair": "x", "label": ["tie"]}',
        "[" * 10**5,
    ],
)
def test_lines_that_are_no_labels_are_left_out(path, line):
    work = Labelling(ITEMS, path)
    work.label("tie")
    sound = path.read_text(encoding="utf-8")
    path.write_text("\ufeff" + line + "\n" + sound, encoding="utf-8")
    again = Labelling(ITEMS, path)
    assert again.done == 1 and again.undo() and not again.undo()


def test_a_path_that_holds_no_text_is_told(tmp_path):
    (tmp_path / "labels").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="labels is not text in UTF-8"):
        Labelling(ITEMS, tmp_path / "labels")
    with pytest.raises(ValueError, match="is a folder"):
        Labelling(ITEMS, tmp_path)


def test_another_seed_is_another_order(path, tmp_path):
    def sides(seed, name):
        work = Labelling(ITEMS, tmp_path / f"{name}.jsonl", seed=seed)
        found = []
        while work.current:
            found.append(work.current.swapped)
            work.label("skip")
        return found

    first = sides(0, "a")
    assert sides(0, "b") == first != sides(1, "c")


def test_other_pairs_in_the_same_file_do_not_disturb(path):
    Labelling(ITEMS[:5], path).label("tie")
    assert Labelling(ITEMS[5:], path).done == 0
    assert Labelling(ITEMS, path).done == 1


@pytest.mark.parametrize("choice", ["first", "LEFT", "", None])
def test_other_choices_are_refused(path, choice):
    with pytest.raises(ValueError, match="is no choice"):
        Labelling(ITEMS, path).label(choice)


def test_no_pairs(path):
    with pytest.raises(ValueError, match="no pairs"):
        Labelling([], path)


def test_agreement_with_a_judge(path):
    work = Labelling(ITEMS, path)
    for _ in range(20):
        work.label(choose_good(work))
    work.label("skip")
    found = work.agreement_with(["first"] * 15 + ["second"] * 25)
    assert found.observed == pytest.approx(15 / 20)
    with pytest.raises(ValueError, match="needs two labels"):
        Labelling(ITEMS, path.with_name("other.jsonl")).agreement_with(["first"] * 40)


# The widget.


def parts(box):
    head, pair, keys, buttons, *rest = box.children
    return head, pair, keys, {button.description[0]: button for button in buttons.children}, rest


def test_keys_and_buttons_label_and_undo(path, capsys):
    work = Labelling(ITEMS[:4], path)
    head, pair, keys, buttons, rest = parts(label_pairs(work, "# The <rubric>"))
    assert "0 of 4" in head.value and "Prompt 0" in pair.value
    keys.value = "1"
    assert work.done == 1 and "1 of 4" in head.value
    keys.value = "1x"  # no key of ours
    assert work.done == 1
    keys.value = ""  # emptied by hand
    assert work.done == 1
    buttons["3"].click()
    assert work.labels[1] == "tie" and "Prompt 2" in pair.value
    keys.value = "u"
    assert work.done == 1 and "Prompt 1" in pair.value
    keys.value = "uS2t"  # typed faster than drawn
    assert work.done == 4 and "All pairs have a label" in pair.value
    keys.value = "uS2t1"
    assert work.done == 4
    buttons["u"].click()
    assert work.done == 3
    assert "&lt;rubric&gt;" in rest[0].value
    assert Labelling(ITEMS[:4], path).labels == work.labels


def test_texts_are_shown_as_text(path):
    items = [({"prompt": "<script>alert(1)</script>"}, "<b>x</b>", "y")]
    _, pair, *_ = parts(label_pairs(Labelling(items, path)))
    assert "<script>" not in pair.value and "<b>x" not in pair.value
