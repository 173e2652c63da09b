"""Seven kinds of file are read as what they are; broken ones are told by row, column and fix."""

import csv
import json
import struct

import pytest
from conftest import ROOT

from coursekit.common.files import save_jsonl
from coursekit.preferences import load_triples, parse_rows, save_dataset, to_trl, write_triples

SHARED = ROOT.parent / "shared" / "data" / "instruction-preferences.json"


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


PLAIN = {"prompt": "Say hi.", "chosen": "Hi.", "rejected": "No."}


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# The seven readers.


def test_trl_plain(tmp_path):
    assert load_triples(lines(tmp_path / "a.jsonl", PLAIN)) == [PLAIN]


def test_trl_conversational(tmp_path):
    explicit = {
        "prompt": [user("Say hi.")],
        "chosen": [assistant("Hi.")],
        "rejected": [assistant("No.")],
    }
    implicit = {
        "chosen": [user("Say hi."), assistant("Hi.")],
        "rejected": [user("Say hi."), assistant("No.")],
    }
    for row in (explicit, implicit):
        assert load_triples(lines(tmp_path / "a.jsonl", row)) == [PLAIN]
    turns = [{"role": "system", "content": "Be kind."}, user("a"), assistant("b"), user("c")]
    long = {"prompt": turns, "chosen": [assistant("d")], "rejected": [assistant("e")]}
    (triple,) = load_triples(lines(tmp_path / "a.jsonl", long))
    assert triple == {"prompt": turns, "chosen": "d", "rejected": "e"}


def test_ultrafeedback_as_published(tmp_path):
    """Its prompt is a text beside whole conversations: TRL's trainer fails on such rows."""
    row = {
        "prompt": "Say hi.",
        "prompt_id": "f00",
        "chosen": [user("Say hi."), assistant("Hi.")],
        "rejected": [user("Say hi."), assistant("No.")],
        "messages": [user("Say hi."), assistant("Hi.")],
        "score_chosen": 8.5,
        "score_rejected": 4.0,
    }
    (triple,) = load_triples(lines(tmp_path / "uf.jsonl", row))
    assert triple == PLAIN | {"prompt_id": "f00", "score_chosen": 8.5, "score_rejected": 4.0}
    assert to_trl([triple], chat=True)[0]["prompt"] == [user("Say hi.")]


def test_hh_transcripts_are_split_at_the_last_answer(tmp_path):
    start = "\n\nHuman: Hi, I say.\n\nAssistant: Hello: what is it?\n\nHuman: A joke\n\nplease."
    row = {"chosen": start + "\n\nAssistant: Knock.", "rejected": start + "\n\nAssistant: No."}
    (triple,) = load_triples(lines(tmp_path / "hh.jsonl", row))
    assert triple == {
        "prompt": [
            user("Hi, I say."),
            assistant("Hello: what is it?"),
            user("A joke\n\nplease."),
        ],
        "chosen": "Knock.",
        "rejected": "No.",
    }
    short = {name: "\n\nHuman: Say hi.\n\nAssistant: " + PLAIN[name] for name in row}
    assert load_triples(lines(tmp_path / "hh.jsonl", short)) == [PLAIN]


def test_instruction_json(tmp_path):
    path = tmp_path / "rows.json"
    row = {"instruction": "Do.", "input": "This", "output": "-", "chosen": "a", "rejected": "b"}
    path.write_text(
        json.dumps([row, {**row, "input": ""}, {**row, "input": None}]), encoding="utf-8"
    )
    assert [row["prompt"] for row in load_triples(path)] == ["Do.\n\nThis", "Do.", "Do."]


def test_thumbs_are_paired(tmp_path, capsys):
    def thumb(prompt, completion, label):
        return {"prompt": prompt, "completion": completion, "label": label}

    rows = [
        thumb("p", "good", True),
        thumb("q", "alone", True),
        thumb("p", "bad", False),
        thumb("p", "worse", False),
    ]
    found = load_triples(lines(tmp_path / "kto.jsonl", *rows))
    assert found == [
        {"prompt": "p", "chosen": "good", "rejected": "bad"},
        {"prompt": "p", "chosen": "good", "rejected": "worse"},
    ]
    assert "1 of 2 prompts have thumbs of one kind only" in capsys.readouterr().out
    chat = [thumb([user("p")], [assistant("x")], 1), thumb([user("p")], [assistant("y")], 0)]
    assert parse_rows(chat) == [{"prompt": "p", "chosen": "x", "rejected": "y"}]


def test_of_thumbs_with_several_turns_the_assistants_last_is_the_response():
    def thumb(completion, label, prompt="p"):
        return {"prompt": prompt, "completion": completion, "label": label}

    start = [assistant("what?"), user("q")]
    expected = {"prompt": [user("p"), *start], "chosen": "x", "rejected": "y"}
    rows = [thumb([*start, assistant(text)], text == "x") for text in "xy"]
    assert parse_rows(rows) == [expected]
    repeated = [thumb([user("p"), *start, assistant(text)], text == "x") for text in "xy"]
    assert parse_rows(repeated) == [expected]
    with pytest.raises(ValueError, match="row 1, column 'completion' ends with a turn of 'user'"):
        parse_rows([thumb([assistant("x"), user("thanks")], True), rows[1]])


def test_transcripts_beside_a_prompt_are_transcripts_still(tmp_path):
    """The answer alone is the response, whatever says what was asked once more."""
    start = "\n\nHuman: Say hi.\n\nAssistant: Hm?\n\nHuman: Please.\n\nAssistant:"
    row = {"chosen": start + " Hi.", "rejected": start + " No."}
    expected = {
        "prompt": [user("Say hi."), assistant("Hm?"), user("Please.")],
        "chosen": "Hi.",
        "rejected": "No.",
    }
    for prompt in ("Say hi.", "Please.", start, None):
        found = load_triples(lines(tmp_path / "a.jsonl", row | {"prompt": prompt}))
        assert found == [expected]
    with pytest.raises(ValueError, match="row 1, column 'prompt' is not the conversation"):
        parse_rows([row | {"prompt": "Another question."}])
    thumbs = {"prompt": "Say hi.", "completion": row["chosen"], "label": True}
    instruction = {"instruction": "a", "chosen": "b", "rejected": "c"}
    for rows in ([PLAIN, PLAIN | row], [instruction, instruction | row]):
        with pytest.raises(ValueError, match="row 2, column 'chosen' is a transcript"):
            parse_rows(rows)
    with pytest.raises(ValueError, match="row 1, column 'completion' is a transcript"):
        parse_rows([thumbs])
    asked = {"prompt": "Write a dialogue."} | {name: text.strip() for name, text in row.items()}
    for rows in ([asked, PLAIN], [PLAIN, asked]):
        assert parse_rows(rows) == rows  # the dialogue is the response


def test_a_speaker_who_goes_on_is_one_turn():
    start = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant: "
    (triple,) = parse_rows([{"chosen": start + "e", "rejected": start + "f"}])
    assert triple["prompt"] == [user("a"), assistant("b\n\nc"), user("d")]


def test_a_prompt_beside_conversations_is_part_of_them_or_refused():
    turns = [user("a"), assistant("b"), user("c")]
    row = {"chosen": [*turns, assistant("d")], "rejected": [*turns, assistant("e")]}
    expected = {"prompt": turns, "chosen": "d", "rejected": "e"}
    for prompt in (turns, turns[:1], turns[2:], [{**turns[0], "name": "x"}], "a", "C!", ""):
        assert parse_rows([row | {"prompt": prompt}]) == [expected]
    system = [{"role": "system", "content": "Be kind."}, user("z")]
    goes_on = {name: [assistant("b"), user("c"), answers[-1]] for name, answers in row.items()}
    (triple,) = parse_rows([goes_on | {"prompt": system}])
    assert triple["prompt"] == [*system, *turns[1:]]
    for prompt in ([user("x")], "another question", 3):
        with pytest.raises(ValueError, match="row 1, column 'prompt' is"):
            parse_rows([row | {"prompt": prompt}])


def test_csv_with_commas_quotes_and_line_breaks(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [PLAIN, {"prompt": 'a, "b"\nc', "chosen": "d,\n\ne", "rejected": "ü"}]
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # as spreadsheets save it
        writer = csv.DictWriter(file, list(PLAIN))
        writer.writeheader()
        writer.writerows(rows)
    assert load_triples(path) == rows
    thumbs = tmp_path / "thumbs.csv"
    thumbs.write_text("prompt,completion,label\np,good,True\np,bad,false\n", encoding="utf-8")
    assert load_triples(thumbs) == [{"prompt": "p", "chosen": "good", "rejected": "bad"}]
    odd = {"prompt": "a\u2028b", "chosen": "c\x85d", "rejected": "e\x0bf"}
    path.write_text(",".join(odd) + "\n" + ",".join(odd.values()) + "\n", encoding="utf-8")
    assert load_triples(path) == [odd]


def test_jsonl_with_blank_lines_and_unicode_line_ends(tmp_path):
    """U+2028 is no end of a line of JSON Lines."""
    row = PLAIN | {"prompt": "a\u2028b"}
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps(row, ensure_ascii=False) + "\n\n" + json.dumps(PLAIN), encoding="utf-8"
    )
    assert load_triples(path) == [row, PLAIN]
    assert load_triples(path.rename(tmp_path / "rows.json")) == [row, PLAIN]


def test_parquet_and_saved_datasets(tmp_path, triples):
    from datasets import Dataset

    chat = to_trl(triples, chat=True)
    chat.to_parquet(str(tmp_path / "rows.parquet"))
    expected = [{name: row[name] for name in PLAIN} for row in triples]
    assert load_triples(tmp_path / "rows.parquet") == expected
    assert load_triples(save_dataset(triples, tmp_path / "saved")) == expected
    Dataset.from_list([PLAIN]).to_parquet(str(tmp_path / "plain.parquet"))
    assert load_triples(tmp_path / "plain.parquet") == [PLAIN]


# Files that are wrong. Each error names the row, the column and what to do.

THUMB = {"completion": "b", "label": False}
BROKEN = {
    "no rejected": (
        [PLAIN, {"prompt": "a", "chosen": "b"}],
        ("row 2", "'rejected'", "every triple needs"),
    ),
    "other names": (
        [{"question": "a", "better": "b", "worse": "c"}],
        ("row 1", "'chosen'", "rename its columns"),
    ),
    "a number": ([PLAIN | {"rejected": 3}], ("row 1", "'rejected' is 3", "mend it")),
    "empty": ([PLAIN, PLAIN | {"chosen": "  "}], ("row 2", "'chosen' is '  '", "drop the row")),
    "no prompt": (
        [{"chosen": "a", "rejected": "b"}],
        ("row 1", "'prompt'", "rename its columns"),
    ),
    "texts and messages": (
        [PLAIN, PLAIN | {"chosen": [assistant("a")]}],
        ("row 2", "'chosen' is a list", "same way"),
    ),
    "messages and texts": (
        [{"chosen": [user("a"), assistant("b")], "rejected": "c"}],
        ("row 1", "'rejected' is str", "write ["),
    ),
    "a turn without content": (
        [{"chosen": [user("a"), {"role": "assistant"}], "rejected": [user("a"), assistant("c")]}],
        ("row 1", "'chosen'", 'write each turn as {"role"'),
    ),
    "ends with the user": (
        [{"chosen": [user("a")], "rejected": [user("a")]}],
        ("row 1", "'chosen' ends with a turn of 'user'", "last message must be"),
    ),
    "two conversations": (
        [{"chosen": [user("a"), assistant("b")], "rejected": [user("x"), assistant("c")]}],
        ("row 1", "'rejected' answers another conversation", "drop the row"),
    ),
    "no turn before the answer": (
        [{"chosen": [assistant("b")], "rejected": [assistant("c")]}],
        ("row 1", "'prompt'", "add the user's turn"),
    ),
    "no transcript": (
        [
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b",
                "rejected": "b",
            }
        ],
        ("row 1", "'rejected' is no transcript", "should begin with"),
    ),
    "empty instruction": (
        [{"instruction": "", "chosen": "a", "rejected": "b"}],
        ("row 1", "'instruction'", "drop the row"),
    ),
    "a thumb that is none": (
        [{"prompt": "a", "completion": "b", "label": "good"}],
        ("row 1", "'label' is 'good'", "true for a thumb up"),
    ),
    "thumbs of one kind": (
        [{"prompt": "a", "completion": "b", "label": True}],
        ("'label'", "train on these rows with KTO"),
    ),
    "a thumb without a prompt": (
        [{"prompt": "a", "completion": "b", "label": 1}, {"prompt": None} | THUMB],
        ("row 2", "'prompt' is None", "mend it"),
    ),
    "an unknown role": (
        [{"chosen": [{"role": "gpt", "content": "a"}], "rejected": [assistant("b")]}],
        ("row 1", "'chosen' has a turn of 'gpt'", "rename the role"),
    ),
    "a prompt that the assistant ends": (
        [PLAIN, PLAIN | {"prompt": [user("a"), assistant("b")]}],
        ("row 2", "'prompt' ends with a turn of 'assistant'", "the user's"),
    ),
    "the same of messages": (
        [{"chosen": [assistant("a"), assistant("b")], "rejected": [assistant("a")] * 2}],
        ("row 1", "'prompt' ends with a turn of 'assistant'", "drop the row"),
    ),
    "nothing that can be left out": ([PLAIN, "x"], ("row 2", "skip_bad=True")),
    "an empty response": ([PLAIN | {"chosen": ""}], ("row 1", "'chosen'", "skip_bad=True")),
    "a number for a row": ([[1]], ("row 1 is int", "write each row as")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rows_are_told(name, tmp_path):
    rows, expected = BROKEN[name]
    path = lines(tmp_path / "file.jsonl", *rows)
    with pytest.raises(ValueError) as error:
        load_triples(path)
    for part in (str(path), *expected):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b"", ("is empty", "one triple a line")),
        ("a.json", b"[]", ("no rows", "nothing to train on")),
        ("a.json", b'{"data": [{"prompt": "a"}]}', ("one object (data)", "list of rows alone")),
        ("a.jsonl", b'{"chosen": "a"\n{"chosen": ', ("line 1", "is not JSON", "double quotes")),
        ("a.json", b'[{"chosen": "a"}, {"chosen": "b",}]', ("row 2", "is not JSON", "comma")),
        ("a.csv", b"prompt,chosen,rejected\na,b,c,d\n", ("row 1", "4 cells", "double quotes")),
        ("a.csv", b'prompt,chosen,rejected\na,"[{""x}]",c\n', ("row 1", "'chosen'", "CSV library")),
        ("a.csv", "prompt,chosen,rejected\nü,b,c".encode("latin-1"), ("UTF-8", "CSV UTF-8")),
        ("a.csv", b"prompt,chosen,chosen\na,b,c\n", ("2 columns", "'chosen'", "rename")),
        ("a.csv", b'prompt,chosen,rejected\na,"b,c\n', ("line 2", "no table", "double quotes")),
        (
            "a.csv",
            b'prompt,chosen,rejected\na,"[{""a"":1,""a"":2}]",c\n',
            ("'chosen'", "'a' twice"),
        ),
        ("a.csv", b"prompt,chosen,rejected\na,[{'role': 1}],c\n", ("row 1", "'chosen'", "dumps")),
        ("a.jsonl", b'{"prompt": "a", "chosen": "b", "chosen": "c"}', ("line 1", "'chosen' twice")),
        ("a.json", b'[{"a": {"b": 1, "b": 2}}]', ("row 1", "'b' twice", "take the other out")),
        ("a.jsonl", b'{"prompt": ' + b"[" * 10**5, ("line 1", "levels of lists", "flat")),
        ("a.json", b"[" * 99 + b"]" * 99, ("row 1", "levels of lists", "flat")),
        ("a.jsonl", b'{"prompt": ' + b"1" * 5000 + b"}", ("line 1", "5,000 digits", "shorter")),
        ("a.jsonl", b'{"prompt": "\\ud83d", "chosen": "a"}', ("line 1", "half a character")),
        ("a.jsonl", json.dumps(PLAIN).encode("utf-16"), ("UTF-8", "save it as")),
        ("a.jsonl", b"\x1f\x8b\x08", ("compressed", "unpack it")),
        ("a.parquet", b"PAR1", ("cannot be read as a Parquet file", "save it again")),
    ],
)
def test_broken_files_are_told(name, content, expected, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_triples(path)
    for part in (str(path), *expected):
        assert part in str(error.value)


def test_missing_files_and_folders_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="make triples first"):
        load_triples(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="not one that `datasets` saved"):
        load_triples(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe\xff"])
def test_a_damaged_folder_of_datasets_is_told(damage, tmp_path):
    folder = save_dataset([PLAIN], tmp_path / "saved")
    for file in sorted(folder.iterdir()):
        sound = file.read_bytes()
        file.write_bytes(damage)
        with pytest.raises(
            ValueError, match="cannot be read as a folder that `datasets` saved"
        ) as e:
            load_triples(folder)
        assert str(folder) in str(e.value) and "save it again" in str(e.value)
        file.write_bytes(sound)
    assert load_triples(folder) == [PLAIN]


def test_a_damaged_length_in_a_folder_of_datasets_is_told(tmp_path):
    """Arrow itself would read beyond the end of the file, which ends the process."""
    folder = save_dataset([PLAIN | {"prompt": f"Say {n}."} for n in range(3)], tmp_path / "saved")
    file = next(folder.glob("*.arrow"))
    sound, ends = file.read_bytes(), struct.pack("<4i", 0, 6, 12, 18)  # of the three prompts
    assert sound.count(ends) == 1
    file.write_bytes(sound.replace(ends, struct.pack("<4i", 0, 6, 12, 2**30)))
    with pytest.raises(ValueError, match="cannot be read as a folder that `datasets` saved"):
        load_triples(folder)


def test_bad_rows_can_be_left_out_or_kept_for_the_audit(tmp_path, capsys):
    empty = PLAIN | {"chosen": ""}
    path = lines(tmp_path / "a.jsonl", PLAIN, {"prompt": "a"}, empty, "text")
    assert load_triples(path, skip_bad=True) == [PLAIN]
    assert "3 of 4 rows left out. The first:" in capsys.readouterr().out
    path = lines(tmp_path / "a.jsonl", PLAIN, empty)
    assert load_triples(path, allow_empty=True) == [PLAIN, empty]
    path.write_text(
        json.dumps(PLAIN) + '\n{"prompt": "cut\n{"prompt": 1, "prompt": 2}\n', encoding="utf-8"
    )
    assert load_triples(path, skip_bad=True) == [PLAIN]
    assert "2 of 3 rows left out. The first:" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"none of the 1 rows can be read. The first: .*row 1"):
        load_triples(lines(path, empty), skip_bad=True)


# Files that are cut where a line ends, so that each line is whole.


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_file_cut_at_the_end_of_a_line_is_noticed(name, tmp_path):
    rows = [PLAIN | {"prompt": str(number)} for number in range(6)]
    path = write_triples(rows, tmp_path / name)
    whole = path.read_text(encoding="utf-8")
    path.write_text("".join(whole.splitlines(keepends=True)[:3]), encoding="utf-8")
    for options in ({}, {"skip_bad": True}):
        with pytest.raises(ValueError, match=rf"{name} has \d rows, and 6 were saved: it was cut"):
            load_triples(path, **options)
    path.write_text(whole + whole.splitlines(keepends=True)[-1], encoding="utf-8")
    assert len(load_triples(path)) == 7  # more were added: nothing is lost
    assert load_triples(write_triples(rows[:2], path)) == rows[:2]
    assert load_triples(save_jsonl(rows[:1], tmp_path / "a.jsonl")) == rows[:1]


@pytest.mark.parametrize("count", [b"", b"many", b"\xff", b"9" * 5000])
def test_only_a_number_counts(count, tmp_path):
    path = write_triples([PLAIN], tmp_path / "a.jsonl")
    path.with_name("a.jsonl.count").write_bytes(count)
    if count.isdigit():
        with pytest.raises(ValueError, match=r"delete a\.jsonl\.count"):
            load_triples(path)
    else:
        assert load_triples(path) == [PLAIN]


# The hub.


def test_the_hub_needs_a_revision_and_a_network(monkeypatch):
    import datasets

    with pytest.raises(ValueError, match="pass revision="):
        load_triples("owner/name")
    asked = {}

    def load_dataset(name, **options):
        asked.update(options, name=name)
        return datasets.Dataset.from_list([PLAIN])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_triples("owner/name", split="train_prefs", revision="abc") == [PLAIN]
    assert asked == {"name": "owner/name", "split": "train_prefs", "revision": "abc"}


def test_without_a_network_the_hub_is_told(monkeypatch):
    """The real call, with the hub switched off."""
    with pytest.raises(ConnectionError, match="download it where there is one and pass the file"):
        load_triples("owner/name", revision="abc")


# Writers.


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("layout", ["plain", "conversational", "thumbs"])
def test_what_is_written_is_read_back(layout, suffix, triples, tmp_path):
    path = write_triples(triples, tmp_path / f"{layout}.{suffix}", layout)
    expected = [{name: row[name] for name in PLAIN} for row in triples]
    assert load_triples(path) == expected


def test_conversations_survive_writing(tmp_path):
    row = {"prompt": [user("a"), assistant("b"), user("c")], "chosen": "d", "rejected": "e"}
    assert load_triples(write_triples([row], tmp_path / "a.csv", "conversational")) == [row]
    (plain,) = load_triples(write_triples([row], tmp_path / "a.jsonl"))
    assert plain["prompt"] == "a\n\nb\n\nc"


def test_thumbs_repeat_no_response(tmp_path):
    rows = [PLAIN, PLAIN | {"rejected": "Never."}]
    text = write_triples(rows, tmp_path / "a.jsonl", "thumbs").read_text(encoding="utf-8")
    assert text.count("Hi.") == 1 and len(text.splitlines()) == 3


def test_writing_says_what_is_wrong(tmp_path, triples):
    with pytest.raises(ValueError, match="unknown layout 'pairs'"):
        write_triples(triples, tmp_path / "a.jsonl", "pairs")
    with pytest.raises(ValueError, match="no rows"):
        write_triples([], tmp_path / "a.jsonl")


@pytest.mark.parametrize("layout", ["plain", "conversational"])
def test_trl_takes_what_is_written(layout, triples, model, tokenizer, tmp_path):
    """TRL's trainer reads the file itself and makes a step of it."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    path = write_triples(triples, tmp_path / "rows.jsonl", layout)
    dataset = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))
    arguments = DPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = DPOTrainer(
        model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer
    )
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared data are not here")
def test_a_real_file_is_read():
    rows = load_triples(SHARED)
    assert len(rows) == 1100
    assert rows[0]["prompt"].startswith("Evaluate the following phrase")
