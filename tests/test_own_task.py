"""The three sessions on what the course has never seen: another domain, model and judge; and on the
second task that comes with it.
"""

import json
from pathlib import Path

import jupytext
import pytest
from conftest import ROOT
from nbformat import NotebookNode

from coursekit.tasks.new import make_task

SESSIONS = ("A_paper_math", "B_preferences_and_training", "C_three_way_eval")
PROFILE = """
base = "tiny"
name = "small"
max_new_tokens = 24
full_instruction = true

[sft]
epochs = 1

[dpo]
epochs = 1
"""
DISHES = "soup salad pie curry stew pasta risotto omelette chowder dumplings".split()
ASKED = (
    "How long does a {} keep in the fridge?",
    "What can I put into a {} for two small children?",
    "My {} is too salty. What now?",
    "Name a side dish for a {}.",
    "Can I freeze a {}?",
    "Which pot is right for a {}?",
)


def kitchen(folder: Path) -> Path:
    """A task as a learner makes one: the skeleton, with 60 prompts and a rubric of their own."""
    folder = make_task(folder)
    prompts = [asked.format(dish) for dish in DISHES for asked in ASKED]
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "rubric.md").write_text(
        "# Kitchen\n\nShort answers to cooks.\n\n## safe\n\nNobody falls ill. 1 if so, else 0.\n\n"
        "## short\n\nTwo sentences at most. 1 if so, else 0.\n",
        encoding="utf-8",
    )
    (folder / "metrics.py").unlink(missing_ok=True)
    (folder / "task.toml").write_text(
        'name = "kitchen"\ntitle = "Kitchen answers"\ndescription = "It answers cooks."\n'
        "[splits]\npreferences = 50\nvalidation = 20\nevaluation = 30\n",
        encoding="utf-8",
    )
    return folder


def stranger(folder: Path) -> Path:
    """A model of another family with random weights, and a tokenizer without chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=320,  # more than the tokenizer has, as in many models
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        eos_token_id=vocabulary["<end>"],
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


# The sweeps of session B, with fewer runs. As shipped, on the course's own task, all of them run
# when the notebooks themselves are tested.
FEWER = {
    'path=runs / "betas.jsonl"': "betas=(0.1, 1.0), rates=(2.0,)",
    "truth, path=path": "rates=(0.0, 0.2, 0.4), seeds=(0,)",
}


def with_fewer_runs(notebook: NotebookNode) -> NotebookNode:
    """Session B, whose sweeps make three or four runs; every other cell as it was."""
    for argument, fewer in FEWER.items():
        (cell,) = (cell for cell in notebook.cells if argument in cell.source)
        cell.source = cell.source.replace(argument, f"{argument}, {fewer}")
    return notebook


def run(name: str) -> str:
    """Execute a session as it is shipped, but for its sweeps; all that it shows, as text."""
    from nbclient import NotebookClient

    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    if name.startswith("B_"):
        with_fewer_runs(notebook)
    NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        output.get("text", "") + str(output.get("data", {}).get("text/html", ""))
        for output in outputs
    )


@pytest.fixture()
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_the_sessions_run_on_a_learners_prompts_model_and_judge(elsewhere, monkeypatch):
    pytest.importorskip("openai")
    from test_llm_judge import Running

    (elsewhere / "small.toml").write_text(PROFILE, encoding="utf-8")
    server = Running()
    monkeypatch.setenv("COURSE_TASK", str(kitchen(elsewhere / "kitchen")))
    monkeypatch.setenv("COURSE_MODEL", str(stranger(elsewhere / "model")))
    monkeypatch.setenv("COURSE_PROFILE", str(elsewhere / "small.toml"))
    monkeypatch.setenv("COURSE_JUDGE", "openai:local")
    monkeypatch.setenv("COURSE_JUDGE_URL", f"{server.url}/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    try:
        said = {name: run(name) for name in SESSIONS}
    finally:
        server.process.kill()
    a, b, c = said.values()
    assert "the base model stands in" in a
    assert any(asked.split("{}")[0] in a for asked in ASKED)
    assert "Left out: no program knows what is right in this task" in b
    assert "Left out: this is about the course's own task" in b
    assert "openai/local: at most" in b and "KL from SFT" in c
    # The failure gallery is the course's own, and says so; nothing else speaks of its task.
    assert not any(word in text for text in (a, b) for word in ("sev1", "incident", "severity"))


def test_the_sessions_run_on_the_second_task(elsewhere, monkeypatch):
    """It is a folder by the same rules, and DPO beats SFT there too."""
    monkeypatch.setenv("COURSE_TASK", "claims")
    a, b, c = (run(name) for name in SESSIONS)
    assert "order: " in a and "Left out: this is about the course's own task" in b
    folder = elsewhere / "artifacts" / "claims" / "tiny"
    record = json.loads((folder / "three_way.json").read_text(encoding="utf-8"))
    low = float(record["pairwise"].split("[")[1].split("%")[0])
    assert low > 55, record["pairwise"]
    assert "caution is higher than SFT's" in c and "✗ SFT" not in c
