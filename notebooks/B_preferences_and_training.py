# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Session B · Preference data and DPO training
#
# You have a model that was fine-tuned on demonstrations (SFT). It knows the format and the facts,
# and it has copied its teachers' bad habits. In this session you turn "this answer is better than
# that one" into training data, find out what is wrong with the data, and train with it.
#
# **You will**
# 1. write a clause of the rubric by which reports are judged,
# 2. train an SFT model on imperfect demonstrations (or bring yours) and measure its vices,
# 3. sample pairs of responses, have a judge pick, and save at least 500 preference triples,
# 4. audit them: doubles, leaks, confounds; read and write the formats that others use,
# 5. run the checklist, and train with DPO while you watch what matters,
# 6. see how far the policy has moved (KL) and what it says now,
# 7. choose beta and learning rate from evidence, and measure what a careless judge costs.
#
# On the `tiny` profile all of it computes for about three minutes on two quiet CPU cores, more than half
# of them in the last two sections. The same cells train a real model with `COURSE_PROFILE=gpu`.
#
# Exercises never stop the notebook: an untouched stub is *not attempted*, and later cells use the
# course's own function.

# %%
import math
import random
from dataclasses import replace
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display

from coursekit.common.markup import styled
from coursekit.common.parallel import warm_up
from coursekit.common.statistics import bootstrap_mean
from coursekit.evaluation import copy_accuracy, score_responses, win_rate, with_faults
from coursekit.evaluation.judges import FlawedJudge, compare_judges
from coursekit.evaluation.judges.person import Labelling
from coursekit.lm.generation import generate
from coursekit.lm.kl import estimate_kl, sample_responses
from coursekit.lm.loading import load_tokenizer
from coursekit.lm.logprobs import score_tokens, token_logps
from coursekit.lm.verify import verify_saved
from coursekit.preferences import (
    audit,
    data_card,
    design_table,
    load_triples,
    make_triples,
    parse_rows,
    ranked_samples,
    reference_against_sample,
    sample_candidates,
    save_card,
    split_by_prompt,
    two_system_prompts,
    write_triples,
)
from coursekit.tasks import load_rubric, with_references
from coursekit.training import (
    KL_A_TOKEN,
    Monitor,
    load_metrics,
    preflight,
    red_flags,
    train_dpo,
)
from coursekit.training.sweep import SHORT_TRIPLES, beta_sweep, short_settings
from coursekit.week.exercises import session_b as exercises
from coursekit.week.figures.results import (
    plot_audit,
    plot_cases,
    plot_frontier,
    plot_label_noise,
    plot_monitor,
)
from coursekit.week.gallery import TUNED_SEEDS, detection_table, load_recorded, mystery_cases
from coursekit.week.label_noise import label_noise_sweep, noise_table
from coursekit.week.needs import heed_needs
from coursekit.week.widgets import (
    checklist,
    claim,
    file_link,
    findings,
    flags,
    held,
    label_pairs,
    live,
    pager,
    predict,
    side_by_side,
)
from coursekit.workspace import Workspace

workspace = Workspace()
profile, task, runs = workspace.profile, workspace.task, workspace.folder
heed_needs(workspace)
tokenizer = load_tokenizer(profile.base_model)
print(f"task {task.name}, profile {profile.name}, base model {profile.base_model.split('/')[-1]}")

# %% [markdown]
# ## 1 · The task, and what a good report is
#
# In the course's own task an alert comes in, and a report of eight lines goes out. A report is good if
# it keeps the **format**, gives the **severity** of the written policy, is **faithful** to the alert (it
# says the cause is unknown where the alert names none), and names a **useful** next step without padding.
#
# The facts of each alert are known here, so a program can score a report. That program is a
# stand-in for a strong judge: on your own task no program may know the truth.
#
# (With `COURSE_TASK=my_task` all below runs on the prompts and the rubric in that folder; `python -m
# coursekit new my_task` makes one to fill. A cell that begins with `%%needs` runs where the task has what
# that names; elsewhere it says why not.)
#
# A rubric is made of clauses, and each pays for something. Write the one on causes.

# %%
# %%needs own
exercises.cause_clause.card()


# %%
# %%needs own
def cause_clause(change: str | None, cause: str) -> float:
    """1, 0.5 or 0 for what a report says about the cause."""
    raise NotImplementedError


cause_clause = exercises.cause_clause.check(cause_clause)

# %% [markdown]
# What does such a clause make of honesty? An alert names no change. A policy that says *unknown*
# earns 1 each time; one that guesses earns nothing, unless it happens upon a change that is named.

# %%
# %%needs own
print("says unknown:", cause_clause(None, "unknown"))
print("guesses:     ", cause_clause(None, "suspected deploy 412"))

# %% [markdown]
# Here are three demonstrations as the team wrote them. They are what SFT will learn from.

# %%
# %%needs demonstrations
demonstrations = workspace.rows("demonstrations")
side_by_side(
    task, demonstrations[:3], {"demonstration": [row["response"] for row in demonstrations[:3]]}
)

# %% [markdown]
# How good are the demonstrations on average? Each score but the length runs from 0 to 1.

# %%
# %%needs demonstrations
written = score_responses(
    task, demonstrations, {"demonstrations": [row["response"] for row in demonstrations]}
)
written.groupby("model").mean().drop(columns="row").round(2)

# %% [markdown]
# ## 2 · The SFT model
#
# One LoRA adapter, trained on the demonstrations with TRL's `SFTTrainer`; the loss counts the
# response's tokens only. The workspace makes it, keeps it with a record of what it was made from, and
# makes it anew if any of that changes. If you have an SFT model from an earlier week, put its folder in
# the first line: a whole model, or an adapter that knows its base. Session C will evaluate that one too.

# %%
my_sft = None  # or "path/to/your/sft"
sft_folder = workspace.use_sft(my_sft)
tokenizer = load_tokenizer(sft_folder)

# %% [markdown]
# Now measure before building on it, whoever trained it. We ask 300 prompts (or as many as there are)
# that no training text asks about. Sampled at temperature 0.7, as the team would use it, we score the
# answers; under greedy decoding we count the facts that are copied right.

# %%
evaluation = workspace.rows("evaluation")
prompts = [row["prompt"] for row in evaluation]
base, sft = workspace.load(profile.base_model), workspace.load(sft_folder)


def respond(model, temperature, label, asked=prompts):
    return generate(
        model,
        tokenizer,
        asked,
        max_new_tokens=profile.max_new_tokens,
        temperature=temperature,
        batch_size=profile.generation_batch,
        label=label,
    )


greedy = respond(sft, 0.0, "SFT, greedy")
sampled = {"base": respond(base, 0.7, "base, sampled"), "SFT": respond(sft, 0.7, "SFT, sampled")}

# %%
scores = score_responses(task, evaluation, sampled)
scores.groupby("model").mean().drop(columns="row").round(2)

# %%
# %%needs copied facts
copied = copy_accuracy(task, evaluation, greedy)
display(copied.to_frame("copied right").T.round(3))
claim(
    copied.min() >= 0.95,
    f"SFT copies every fact right at least 95 % of the time (least: {copied.min():.1%})",
)

# %%
# %%needs truth
overall = scores.groupby("model")["overall"].mean()
claim(
    overall["SFT"] > overall["base"] + 0.1,
    f"SFT has learnt the task: overall {overall['base']:.2f} to {overall['SFT']:.2f}",
)
faultless = (scores.loc[scores["model"] == "SFT", "overall"] == 1).mean()
claim(faultless < 0.8, f"and the vices: only {faultless:.0%} of its answers are without fault")

# %%
# %%needs own
means = scores.groupby("model").mean()
claim(
    means.loc["base", "format"] <= 0.6,
    f"the base model rarely keeps the format ({means.loc['base', 'format']:.0%})",
)
claim(
    means.loc["SFT", "format"] >= 0.9,
    f"SFT has learnt the format ({means.loc['SFT', 'format']:.0%})",
)
claim(
    means.loc["SFT", "faithfulness"] < 0.9,
    f"and invents causes: faithfulness is only {means.loc['SFT', 'faithfulness']:.0%}",
)

# %% [markdown]
# Capable, and still wrong. Here are the first three *sampled* SFT answers that have a fault (the first
# three where nobody knows). Most of what is wrong is what the demonstrations got wrong: it does what it
# was shown. If a fact is wrong too, the cell below says how often: sampling slips where greedy decoding
# does not.

# %%
faulty = with_faults(task, evaluation, sampled["SFT"])[:3]
side_by_side(
    task,
    [evaluation[index] for index in faulty],
    {name: [texts[index] for index in faulty] for name, texts in sampled.items()},
)

# %%
# %%needs copied facts
slips = copy_accuracy(task, evaluation, sampled["SFT"])
worst = slips.idxmin()
claim(
    slips[worst] <= copied[worst],
    f"the {worst} is copied right in {copied[worst]:.1%} greedily, sampled in {slips[worst]:.1%}",
)

# %% [markdown]
# ## 3 · Preference triples
#
# A triple is `{prompt, chosen, rejected}`. For each of many new prompts the SFT model answers several
# times, and a judge compares. A judge is asked about every pair **in both orders**, since many
# judges like what stands first. What is a verdict then?

# %%
exercises.ask_in_both_orders.card()


# %%
def ask_in_both_orders(ask, one: str, other: str) -> float:
    """1 if `one` is better than `other`, -1 if it is worse, 0 for a tie or a contradiction."""
    raise NotImplementedError


ask_in_both_orders = exercises.ask_in_both_orders.check(ask_in_both_orders)

# %% [markdown]
# **The design.** Two samples at temperature 0.7 and two at 1.0; all pairs are judged, at most three
# winners a prompt are kept, and a tie makes no triple. Before you see the result:

# %%
cooler = predict(
    "Of the pairs with two temperatures that have a winner, how often does the cooler win?",
    ["about half of the time", "clearly more often, but not nearly always", "nearly always"],
)

# %% [markdown]
# Samples and verdicts are saved as they are made: stop the next cell and run it again, and it goes
# on where it was.

# %%
judge, truth = workspace.judge, workspace.truth
preference_rows = workspace.rows("preferences")
triples, pairs = make_triples(
    sft, tokenizer, preference_rows, profile, judge, seed=1, folder=runs, scorer=truth
)
train, validation = split_by_prompt(triples)
ties = sum(pair["winner"] == "tie" for pair in pairs)
print(
    f"{len(preference_rows)} prompts, {len(pairs)} pairs judged: {ties} ties, {len(triples)} triples"
)
print(f"{len(train)} to train on, {len(validation)} for validation")
file_link(runs / "triples.jsonl", "all of them")

# %%
claim(len(triples) >= 500, f"{len(triples)} triples, at least 500")
shared = {row["prompt"] for row in train} & {row["prompt"] for row in validation}
claim(not shared, "train and validation share no prompt")
claim(not {row["prompt"] for row in triples} & set(prompts), "none is an evaluation prompt")

# %% [markdown]
# What does a triple teach? Chosen and rejected differ in few places: that is what DPO will see.

# %%
side_by_side(
    task, triples[:3], {name: [row[name] for row in triples[:3]] for name in ("chosen", "rejected")}
)

# %% [markdown]
# Each row also says **where it came from**. Without these columns nobody can find out later what is
# wrong with a data set.

# %%
provenance = [name for name in triples[0] if name not in ("prompt", "chosen", "rejected", "facts")]
pd.DataFrame(triples[:4])[provenance].T

# %% [markdown]
# ### Other designs
#
# Two temperatures are one way to get two different answers. The others are as common, and each goes
# wrong in its own way: several samples *ranked*, best against worst (clear labels, many questions);
# *two system prompts* (whatever they change is learnt); a written *reference* against a sample (the
# policy may hardly ever say what is chosen). One function makes them all; here on 60 prompts each.

# %%
few = with_references(task, workspace.rows("preferences", 60))
designs = [
    ranked_samples(4, pairs="best_worst"),
    ranked_samples(4, pairs="all"),
    two_system_prompts("Say only what you know.", "Never leave anything open."),
]
if all("reference" in row for row in few):
    designs.append(reference_against_sample())
made = {
    design.name: make_triples(sft, tokenizer, few, profile, judge, design, seed=2, scorer=truth)
    for design in designs
}

# %%
table = design_table(made, len(few))
table

# %%
# %%needs truth
best, everything = (table.loc[design.name, "mean margin, points"] for design in designs[:2])
claim(
    best > everything, f"best against worst is the clearer contrast: {best:.2f} to {everything:.2f}"
)

# %%
prompted = audit(made["two system prompts"][0])["source confound"]
print("Do the two system prompts differ?", prompted.found)

# %%
# %%needs references
written_won = audit(made["reference against sample"][0]).shares["'reference' won"]
claim(written_won.value == 1, f"the written reference never loses: it won {written_won}")

# %% [markdown]
# The line on system prompts is worth a thought. The tiny model was never taught to obey a system prompt; what the
# two do to it is whatever such words happen to do. If neither wins more, the design is just *two samples*
# under a grander name; if one wins, look at what else it has changed (the last columns) before you
# call it care. A real model will show other numbers. Measure them.

# %% [markdown]
# ## 4 · The audit
#
# Nobody looks at hundreds of pairs, and training does not complain. So a program looks. One of its checks you
# write yourself: does the longer response win?

# %%
exercises.longer_wins.card()


# %%
def longer_wins(chosen: list[str], rejected: list[str]) -> float:
    """How often the longer one won, among pairs of unequal length."""
    raise NotImplementedError


longer_wins = exercises.longer_wins.check(longer_wins)

# %%
won = longer_wins([row["chosen"] for row in train], [row["rejected"] for row in train])
print(f"the longer one won {won:.0%} of the training triples of unequal length")

# %%
# %%needs own
claim(won < 0.4, "padding is a vice here, so the shorter wins, and rightly")

# %% [markdown]
# LLM judges tend to the other side: they like
# what is long ([2404.04475](https://arxiv.org/abs/2404.04475)). Either way the policy will learn it: know it
# before you train.
#
# Another check: has something leaked?

# %%
exercises.leaked.card()


# %%
def leaked(train: list[str], held_out: list[str]) -> float:
    """The share of held-out prompts that are training prompts, but for case and punctuation."""
    raise NotImplementedError


leaked = exercises.leaked.check(leaked)

# %%
spoilt = leaked([row["prompt"] for row in train], prompts)
claim(spoilt == 0, f"{spoilt:.0%} of the evaluation prompts are training prompts")

# %% [markdown]
# Now all checks in one call. A second judge, who errs in one of ten pairs, is asked about 200 of them.

# %%
second = FlawedJudge(truth, "a second judge", error_rate=0.1, seed=5)
report = audit(train, validation=validation, evaluation=prompts, pairs=pairs, second_judge=second)
findings(report)

# %%
plot_audit(report)

# %% [markdown]
# *The figure: above left, how many rows have a fault; above right, how often the longer, the cooler
# and the first-shown response won, with intervals, diamonds where chance is no explanation; below, how
# far chosen and rejected differ in length and in the judge's score.*

# %%
measured = report.shares["the cooler won"]
options = cooler.options
held(
    cooler,
    options[0] if not measured.sure else options[2 if measured.low > 0.85 else 1],
    f"{measured}",
)

# %% [markdown]
# **The confound.** The cooler sample errs less, so part of what these triples teach is "sound as if
# sampled cool". That sharpens the policy. It is no fault of the rows: no row can be dropped for it.
# Compare samples of *one* temperature if you cannot live with it. And how much would sharpness alone
# win? SFT can be made as sharp as can be without any training: greedy, against its own samples.

# %%
sharper = win_rate(evaluation, greedy, sampled["SFT"], truth)
print("SFT, greedy, against SFT, sampled:", sharper)

# %% [markdown]
# Keep that number beside DPO's win rate in session C: what goes beyond it is not sharpness.
#
# And the rows that look *cut*? They are trained on, for this reason:

# %%
# %%needs own
cut = sorted(set(report["truncated responses"].rows))
whole = sum(train[row]["chosen"].splitlines()[-1].startswith("next: ") for row in cut)
print(f"{len(cut)} triples have a report without its last line; in {whole} the chosen one has it")

# %% [markdown]
# A *rejected* report that lacks its end teaches to write reports to the end. A chosen one that did would
# have to go. (The audit cannot know which it is: it sees that something ends unlike the rest.)
#
# Does the audit find what is wrong? Spoil a copy and see: some rows doubled, some pairs emptied of
# their difference, some labels swapped, some prompts taken from the evaluation.

# %%
rng = random.Random(0)
spoilt_rows = [dict(row) for row in train]
n = min(12, len(train) // 4)
scored = ("", "_score") if "chosen_score" in train[0] else ("",)
for row in rng.sample(spoilt_rows, n):
    row["rejected"] = row["chosen"]
for row in rng.sample(spoilt_rows, n):
    row["prompt"] = rng.choice(prompts).upper()
for row in rng.sample(spoilt_rows, n):
    for name in scored:
        chosen, rejected = f"chosen{name}", f"rejected{name}"
        row[chosen], row[rejected] = row[rejected], row[chosen]
spoilt_rows += spoilt_rows[:n]
second_report = audit(spoilt_rows, validation=validation, evaluation=prompts, pairs=pairs)
findings(second_report)

# %%
for check in ("identical pairs", "evaluation leak", "labels against scores", "doubled rows"):
    claim(len(second_report[check].rows) >= 0.8 * n, f"{check}: {second_report[check].found}")
clean = second_report.without_faults(spoilt_rows)
again = audit(clean, validation=validation, evaluation=prompts)
claim(
    all(again[item.check].outcome == "ok" for item in second_report.problems if item.rows),
    f"{len(clean)} of {len(spoilt_rows)} rows remain when the faulty ones are dropped: no fault left",
)

# %% [markdown]
# The swapped labels were betrayed by the scores that are kept beside them. In a file that comes without
# scores nothing betrays a wrong label, except a second judge.
#
# ### How far do two judges agree?
#
# The share on which they agree says little: where one label is common, chance gives most of it.
# Cohen's kappa takes the chance out.

# %%
exercises.kappa.card()


# %%
def kappa(counts: torch.Tensor) -> torch.Tensor:
    """(observed - expected) / (1 - expected), from counts (L, L)."""
    raise NotImplementedError


kappa = exercises.kappa.check(kappa)

# %%
table = report.agreements["with a second judge"]
display(table.table.rename_axis(index="the judge", columns="the second judge"))
print(f"kappa {kappa(torch.tensor(table.table.to_numpy())):.2f}; the audit says: {table}")

# %% [markdown]
# **And you?** Label some pairs yourself: which of two reports is better? The rubric unfolds below them. Every
# label is saved at once; stop when you like and run the cell again to go on.

# %%
mine = pairs[:: max(1, len(pairs) // 30)][:30]
work = Labelling(
    [(pair, pair["first"]["response"], pair["second"]["response"]) for pair in mine],
    runs / "my_labels.jsonl",
)
box = label_pairs(work, load_rubric(task.rubric).text)

# %%
if any(work.labels):
    print("you and the judge:", work.agreement_with([pair["winner"] for pair in mine]))
else:
    print("(You have labelled none yet.)")

# %% [markdown]
# ### Files that others have made
#
# Preference data come in many layouts. A reader recognises each by its columns and gives triples;
# what it cannot read it refuses, with row, column and remedy.


# %%
def turns(*texts: str) -> list[dict]:
    """A conversation that the user begins."""
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


yes, no = turns("Hi?", "Yes."), turns("Hi?", "No.")
layouts = {
    "TRL, conversational": [{"prompt": yes[:1], "chosen": yes[1:], "rejected": no[1:]}],
    "UltraFeedback": [{"prompt": "Hi?", "chosen": yes, "rejected": no, "score_chosen": 9.0}],
    "hh-rlhf": [
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: Yes.",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: No.",
        }
    ],
    "instructions": [{"instruction": "Hi?", "input": "", "chosen": "Yes.", "rejected": "No."}],
    "thumbs": [
        {"prompt": "Hi?", "completion": "Yes.", "label": True},
        {"prompt": "Hi?", "completion": "No.", "label": False},
    ],
}

# %%
read = {name: parse_rows(rows)[0] for name, rows in layouts.items()}
columns = ["prompt", "chosen", "rejected"]
display(pd.DataFrame(read).T[columns])
claim(pd.DataFrame(read).T[columns].drop_duplicates().shape[0] == 1, "all say the same triple")

# %%
try:
    parse_rows([{"prompt": "Hi?", "chosen": "Yes.", "rejected": ""}], source="mine.jsonl")
except ValueError as error:
    print(error)

# %% [markdown]
# `load_triples` reads the same from JSON Lines, JSON, CSV, Parquet, a folder that `datasets` saved, or
# the hub: `load_triples("owner/name", split="train", revision="<commit>")`. The revision is asked for:
# a data set that can change under you is none to cite. `write_triples` writes what TRL reads, for DPO or
# (as thumbs) for KTO.

# %%
for layout in ("plain", "conversational", "thumbs"):
    written = write_triples(train, runs / "exports" / f"{layout}.jsonl", layout)
    back = load_triples(written)
    print(f"{written.name:22} {len(written.read_text().splitlines()):5} rows, {len(back)} triples")
claim(len(back) > len(train), "read back, the thumbs give more triples than there were")

# %% [markdown]
# More, because each liked answer to a prompt stands against each disliked one. A response that won one pair and lost another has both thumbs. What a layout cannot
# say is lost.
#
# ### The data card
#
# Written from the data, so that it cannot contradict them. What the data do not tell, you add.

# %%
card = data_card(train, validation, report, title=task.title, pairs=pairs, model="the SFT model")
path = save_card(card, runs / "triples")
shown = card.split("## Columns")[0].splitlines()
display(Markdown("\n".join(f"> {line}" for line in shown)))
file_link(path, "the whole card")

# %% [markdown]
# ## 5 · Before training: the checklist
#
# A DPO run that is set up wrongly rarely stops with an error; it trains something else. The commonest
# slip concerns the **reference**, which must be the SFT model. What does the first step tell about it?

# %%
exercises.reference_is.card()


# %%
def reference_is(first_loss: float, log_ratio: float) -> float:
    """1: the SFT model; 0.5: the policy, but another model; 0: not what the policy starts from."""
    raise NotImplementedError


reference_is = exercises.reference_is.check(reference_is)

# %% [markdown]
# The checklist looks at what `train_dpo` would really use: the triples as the tokenizer renders them, the
# trainer with its reference, the adapter's targets, the machine.

# %%
ready = preflight(sft_folder, train, profile, validation=validation, evaluation=prompts)
checklist(ready)

# %%
claim(ready.passed, "everything is as it should be")

# %% [markdown]
# A list that always passes is worth nothing. Here are the spoilt rows of section 4, and two slips in the
# settings:

# %%
slips = replace(profile.dpo, learning_rate=5e-3, max_length=110)
not_ready = preflight(
    sft_folder, spoilt_rows, profile, validation=validation, evaluation=prompts, settings=slips
)
checklist(not_ready)

# %%
for name in ("lengths", "splits", "learning rate"):
    claim(not not_ready[name].passed, f"{name}: {not_ready[name].found.split(':')[0]}")

# %% [markdown]
# ## 6 · DPO, watched
#
# DPO raises the log-probability of the chosen response over the rejected one, measured against the
# reference:
#
# $$\mathcal{L} = -\log\sigma\Big(\beta\log\frac{\pi_\theta(y_w|x)}{\pi_\mathrm{ref}(y_w|x)}
# - \beta\log\frac{\pi_\theta(y_l|x)}{\pi_\mathrm{ref}(y_l|x)}\Big)$$
#
# TRL logs the loss, the rewards and their margin, and no KL. The `Monitor` adds what tells a good run
# from a bad one: every few steps the policy answers some prompts at temperature 1, and policy and
# reference score the answers. From so few, the estimate of the KL may come out below zero, where no KL
# can be: single log-ratios can (section 7 counts them), and a mean of few is not their expectation.

# %%
rises = predict(
    "Will the implicit reward of the CHOSEN responses rise?",
    ["yes, clearly", "it stays near zero", "it falls clearly"],
)

# %%
watched = task.rows("validation", 24, profile)
monitor = Monitor(
    [row["prompt"] for row in watched], validation[:16], times=3, show=live(plot_monitor)
)
dpo_run = train_dpo(
    sft_folder, train, runs / "dpo", profile, validation=validation, monitor=monitor
)

# %% [markdown]
# *The figure, redrawn while it trains: above, the margin on training and held-out triples; the implicit
# rewards of chosen and rejected; the KL from the reference by two estimators. Below, the log-ratio of
# held-out responses per token, the entropy of the policy, the length of its responses.*

# %%
first = dpo_run.history[0]["loss"]
claim(
    abs(first - math.log(2)) < 0.01,
    f"the first step's loss is {first:.4f}, which is ln 2: policy and reference start equal",
)
steps = pd.DataFrame([entry for entry in dpo_run.history if "loss" in entry])
last = steps[["rewards/chosen", "rewards/rejected", "rewards/margins"]].iloc[-10:].mean()
display(last.to_frame("mean of the last 10 steps").T.round(2))
share = last["rewards/chosen"] / last["rewards/margins"]
held(
    rises,
    rises.options[0 if share > 0.5 else 2 if share < -0.5 else 1],
    f"{last['rewards/chosen']:+.2f}, where the margin is {last['rewards/margins']:.2f}. The loss asks "
    "for the difference only: a chosen reward that does not rise is no bug",
)
claim(last["rewards/margins"] > 0.1, "the margin has grown on the training triples")
held_out = [entry for entry in dpo_run.history if "eval_loss" in entry][-1]
claim(
    held_out["eval_rewards/accuracies"] > 0.6,
    f"on triples it has not seen, {held_out['eval_rewards/accuracies']:.0%} are ranked right",
)

# %% [markdown]
# What did the policy say on the way? Three of the watched prompts, sampled at each measurement:

# %%
said = pd.read_json(dpo_run.folder / "samples.jsonl", lines=True).groupby("step")["response"]
side_by_side(task, watched[:3], {f"step {step}": list(texts) for step, texts in said}, changes=True)

# %% [markdown]
# ### Red flags
#
# Rules read the recorded metrics and name what is wrong, per token and relative to the run's own start.

# %%
metrics = load_metrics(dpo_run.folder)
raised = red_flags(metrics, profile.dpo.beta)
flags(raised)

# %%
claim(all(flag.harmless for flag in raised), "no red flag that is not harmless")
print(f"watching took {monitor.seconds:.1f} s")

# %% [markdown]
# Now four runs that were recorded beforehand, from the same SFT model. Each was changed in one way (the name
# says in which; *many epochs* came at twice the rate). Read the curves before you read on. One change may
# raise several flags: whoever learns too few triples by heart, or grows longer, moves away as well. So the
# question is what was changed.

# %%
recorded = load_recorded()
cases = mystery_cases(recorded)
plot_cases({letter: run.metrics for letter, run in cases.items()})

# %% [markdown]
# *The figure: four runs, a column each; from above: the margin, and the share of triples ranked right, on
# training (line) and held-out triples (dots); the KL from the reference; entropy and length of the
# policy's responses, relative to the start.*

# %%
changes = sorted(run.condition.name for run in cases.values())
guesses = {letter: predict(f"What was changed in {letter}?", changes) for letter in cases}

# %%
for letter, run in cases.items():
    raised = [flag for flag in red_flags(run.metrics, run.beta) if not flag.harmless]
    evidence = "; ".join(f"{flag.name}: {flag.evidence}" for flag in raised)
    held(guesses[letter], run.condition.name, f"flags: {evidence}")

# %% [markdown]
# Do the rules hold beyond these four? Their thresholds were set on seeds 0 and 1, so only the others
# can tell:

# %%
unseen = [run for run in recorded if run.seed not in TUNED_SEEDS]
detection = detection_table(unseen)
styled(detection)

# %%
ill = detection[~detection["disease"].isin(["healthy", ""])]
well = detection[detection["disease"] == "healthy"]
claim(
    ill["named"].sum() >= 0.9 * ill["runs"].sum(),
    f"of {ill['runs'].sum()} diseased runs {ill['named'].sum()} are named",
)
claim(
    well["false alarms"].sum() <= well["runs"].sum() / 20,
    f"of {well['runs'].sum()} healthy runs {well['false alarms'].sum()} raise a false alarm",
)

# %% [markdown]
# Some lines have no disease that a rule could name: settings that cost wins, or nothing, while all curves
# look as they should. The most instructive one is DPO without SFT first: near to the base model is where
# a small KL *from the base model* leaves it, and section 2 measured how seldom that keeps the format.
# Rules read numbers. Read answers too. On all recorded seeds:

# %%
nameless = [run for run in recorded if not run.condition.disease]
pd.DataFrame(
    [
        {
            "run": f"{run.condition.name}, seed {run.seed}",
            "flags": ", ".join(f.name for f in red_flags(run.metrics, run.beta) if not f.harmless),
            "wins over SFT": f"{run.end.win_rate[0]:.0%}" if run.end else "not compared",
        }
        for run in nameless
    ]
).set_index("run")

# %% [markdown]
# ## 7 · What has changed?
#
# A growing gap is necessary, and proves little. Two better questions: how far has the policy
# moved, and what does it say? The distance is the KL divergence from the SFT model, estimated from
# the policy's own samples.

# %%
exercises.kl_from_samples.card()


# %%
def kl_from_samples(
    policy_logps: torch.Tensor, reference_logps: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """k1 in nats a response, from (N, T) log-probabilities of sampled tokens."""
    raise NotImplementedError


kl_from_samples = exercises.kl_from_samples.check(kl_from_samples)

# %% [markdown]
# On 300 prompts, with the adapter that was saved: what we look at is what we keep.

# %%
dpo = workspace.load(dpo_run.folder)
pairs_sampled = sample_responses(
    dpo,
    tokenizer,
    prompts,
    max_new_tokens=profile.max_new_tokens,
    batch_size=profile.generation_batch,
)
ours, theirs = (score_tokens(model, pairs_sampled, token_logps) for model in (dpo, sft))
kl = estimate_kl(ours, theirs)
pad = torch.nn.utils.rnn.pad_sequence
mask = pad([torch.ones(len(row)) for row in ours], batch_first=True)
yours = kl_from_samples(pad(ours, batch_first=True), pad(theirs, batch_first=True), mask)
print(kl)
claim(abs(float(yours) - kl.k1) < 1e-3, f"by hand: {float(yours):.2f} nats a response")
a_token = kl.k1 / float(mask.sum(-1).mean())
claim(
    a_token < KL_A_TOKEN,
    f"{a_token:.4f} nats a token: below the {KL_A_TOKEN} from which the red flags say that it runs away",
)
below = sum(
    float((mine - reference).sum()) < 0 for mine, reference in zip(ours, theirs, strict=True)
)
print(f"{below} of {len(ours)} single responses have a log-ratio below zero; their mean has not")

# %% [markdown]
# Two estimators of one number. $k_1$ is the mean log-ratio; $k_3$ adds $e^{-d} - 1$ for each token, whose
# mean is zero. That term is meant to steady the estimate, and does where *every* token's probabilities are
# nearly those of the reference. It lives on tokens which the reference would say and the policy hardly
# ever samples: most samples miss them, and $k_3$ comes out too low; now and then one catches such a token,
# and $k_3$ jumps together with its standard error. A small KL a response does not rule that out: one
# token in which the models disagree is enough. Nor does $k_3$'s own standard error tell, since it has not
# seen what it missed. But both estimators are unbiased: where they differ by several standard errors, one
# of them has missed its tail. Here is this policy, and others between it and SFT: the same adapter, scaled
# down.

# %%
from peft.helpers import rescale_adapter_scale

lines = []
for part in (0.05, 0.2):
    with rescale_adapter_scale(dpo, part):
        drawn = sample_responses(
            dpo,
            tokenizer,
            prompts,
            max_new_tokens=profile.max_new_tokens,
            batch_size=profile.generation_batch,
            label=None,
        )
        found = estimate_kl(*(score_tokens(model, drawn, token_logps) for model in (dpo, sft)))
    lines.append({"adapter times": part, **vars(found)})
lines.append({"adapter times": 1.0, **vars(kl)})
both = pd.DataFrame(lines).set_index("adapter times")
both.round(4)

# %%
for part, row in both.iterrows():
    steadier = "k3" if row["k3_se"] < row["k1_se"] else "k1"
    apart = (row["k3"] - row["k1"]) / math.hypot(row["k1_se"], row["k3_se"])
    print(
        f"adapter times {part:g}: {steadier} has the smaller error; k3 lies {apart:+.1f} errors from k1"
    )

# %% [markdown]
# Is the adapter on the disk what was trained? A process that has never seen it in memory loads it and
# answers.

# %%
warm_up()  # meanwhile the processes of section 8 get ready
sampled["SFT+DPO"] = respond(dpo, 0.7, "SFT+DPO, sampled")
greedy_dpo = respond(dpo, 0.0, "SFT+DPO, greedy", prompts[:20])
verified = verify_saved(dpo_run.folder, prompts[:20], greedy_dpo, profile)
claim(verified.same == verified.n, str(verified))

# %%
side_by_side(
    task,
    [evaluation[index] for index in faulty],
    {name: [texts[index] for index in faulty] for name, texts in sampled.items()},
    changes=True,
)

# %% [markdown]
# These three were picked because SFT had failed on them, so they flatter DPO, and three convince
# nobody anyway. Session C asks all three models the same
# 300 prompts and says, with intervals, what has changed.

# %% [markdown]
# Until then, page through more of them:

# %%
slider = pager(task, evaluation[:50], {name: texts[:50] for name, texts in sampled.items()})

# %% [markdown]
# ## 8 · Which beta, which learning rate?
#
# Short runs, one setting changed at a time, each judged against SFT on validation prompts: choosing on the
# prompts that the evaluation asks about would flatter the choice. (A KL just below zero means: near to zero.
# It is estimated on few prompts.)

# %%
matters = predict(
    "What changes the win rate more: beta from 0.05 to 1, or the learning rate from 2e-4 to 3e-3?",
    ["beta", "the learning rate"],
)

# %%
asked = task.rows("validation", 160, profile)
sweep = beta_sweep(sft_folder, train, asked, profile, truth, path=runs / "betas.jsonl")
print(f"{len(sweep)} runs on {SHORT_TRIPLES} triples, each answering {len(asked)} prompts")
columns = ["beta", "learning_rate", "margin", "gap", "kl", "win_rate", "low", "high"]
sweep[columns].sort_values(["learning_rate", "beta"]).round(4)

# %%
plot_frontier(sweep, (profile.dpo.beta, profile.dpo.learning_rate))

# %% [markdown]
# *The figure: win rate against SFT, left by the KL that was paid for it, right by the margin that the
# run showed, without its factor beta; blue, beta changed; red, the learning rate.*

# %%
by_rate = sweep[sweep["beta"] == profile.dpo.beta].sort_values("learning_rate")
by_beta = sweep[sweep["learning_rate"] == profile.dpo.learning_rate].sort_values("beta")
spread = {
    name: rows["win_rate"].max() - rows["win_rate"].min()
    for name, rows in (("beta", by_beta), ("the learning rate", by_rate))
}
held(
    matters,
    max(spread, key=spread.get),
    ", ".join(f"{name} moves it by {points:.1%}" for name, points in spread.items()),
)
best, widest = sweep.loc[sweep["win_rate"].idxmax()], sweep.loc[sweep["gap"].idxmax()]
claim(
    by_rate["kl"].is_monotonic_increasing,
    "the higher the learning rate, the further the policy goes",
)
claim(
    by_beta["margin"].is_monotonic_increasing,
    "the margin grows with beta, because beta is a factor of it",
)
claim(
    by_beta["gap"].max() < 1.5 * by_beta["gap"].min(),
    f"the gap in nats hardly moves: {by_beta['gap'].min():.2f} to {by_beta['gap'].max():.2f}",
)
claim(
    widest["win_rate"] < best["win_rate"],
    f"the widest gap ({widest['gap']:.1f} nats) wins {widest['win_rate']:.1%}, "
    f"the best run {best['win_rate']:.1%} with {best['gap']:.1f} nats",
)

# %% [markdown]
# Which one to take?

# %%
exercises.choose_setting.card()


# %%
def choose_setting(points: torch.Tensor, kls: torch.Tensor) -> int:
    """The index of the run that paid the least KL of those not shown to be worse than the best."""
    raise NotImplementedError


choose_setting = exercises.choose_setting.check(choose_setting)

# %%
points = torch.tensor(sweep["points"].tolist())
taken = sweep.loc[choose_setting(points, torch.tensor(sweep["kl"].tolist()))]
print(f"beta {taken['beta']}, learning rate {taken['learning_rate']:g}: ", end="")
print(f"win rate {taken['win_rate']:.1%} for {taken['kl']:.2f} nats")
for name, n, settings in (
    ("these runs", SHORT_TRIPLES, short_settings(profile)),
    ("the run of section 6", len(train), profile.dpo),
):
    steps = math.ceil(n / (settings.batch_size * settings.accumulation)) * settings.epochs
    print(
        f"{name}: {steps:.0f} steps; learning rate times steps: {settings.learning_rate * steps:.3f}"
    )

# %% [markdown]
# Why does section 6 not train with that choice? Because it was made for runs of this length. A step moves
# the policy by about the learning rate, so a rate that is best for few steps is too much for many: the
# README tells of a seed that a slightly higher rate than the profile's broke. Choose on runs as long as
# the one you mean to make.
#
# And beta? With Adam, which divides gradients by their size, a run as short as these hardly feels it.
# Where a run ends if it goes on for ever is what beta decides (session A drew both sides).

# %% [markdown]
# ## 9 · A judge can be wrong
#
# So far the judge was the program that knows (an LLM or a server of your own, if you set `COURSE_JUDGE`). Real ones err, like what stands first, like what is long. Four
# judges on the pairs of section 3, beside the truth:

# %%
judges = [
    FlawedJudge(truth, "careful"),
    FlawedJudge(truth, "errs in 20 %", error_rate=0.2),
    FlawedJudge(truth, "likes the first", position_bias=0.15),
    FlawedJudge(truth, "likes length", length_bias=1.0),
]
items = [(pair, pair["first"]["response"], pair["second"]["response"]) for pair in pairs]
compared = compare_judges(items, judges, truth=truth)
styled(compared).format("{:.0%}").format("{:.2f}", subset=["kappa", "low", "high"])

# %%
once, kept = "wrong, asked once", "wrong, of those kept"
first, errs = compared.loc["likes the first"], compared.loc["errs in 20 %"]
print(
    f"who likes the first is wrong in {first[once]:.0%} asked once, in {first[kept]:.0%} of those kept"
)
print(
    f"who errs in 20 % is wrong in {errs[once]:.0%} asked once, in {errs[kept]:.0%} of those kept"
)
print(
    f"pairs that are kept: {first['kept']:.0%} and {errs['kept']:.0%}; {compared.loc['careful', 'kept']:.0%} by the careful one"
)

# %% [markdown]
# The first two lines are arithmetic, given how these judges are made: the taste of the first turns with the
# order, so its wrong verdicts contradict themselves; the error of the second hangs on the pair, so no flip
# gives it away. Real judges do both. What is no arithmetic is the price: pairs are lost. And what is
# mended are the *labels*. A win rate counts a contradiction as a tie, and so leans to one half:

# %%
contest = partial(win_rate, evaluation, sampled["SFT+DPO"], sampled["SFT"])
true, leaning = contest(truth), contest(judges[2])
moved = bootstrap_mean(
    [found - right for found, right in zip(leaning.points, true.points, strict=True)],
    within=(-1, 1),
)
print(f"{truth.name}: {true}\n{judges[2].name}: {leaning}")
claim(
    moved.high < 0,
    f"asked in both orders, who likes the first still moves the win rate, by {moved.value:+.1%} "
    f"({moved.low:+.1%} to {moved.high:+.1%})",
)

# %% [markdown]
# Nor do two orders mend a wrong opinion, or a taste for length. What do wrong labels cost?
#
# The next cell labels the same samples with judges who err in 0, 10, 20, 30 and 40 % of the pairs, trains
# on each with several seeds, and compares with SFT by the *truth* on the validation prompts.
# Where most are wrong, **robust DPO** ([2403.00409](https://arxiv.org/abs/2403.00409)) runs beside it: its
# loss is told the error rate:
#
# $$\mathcal{L}_\varepsilon = \frac{(1-\varepsilon)\,\mathcal{L}(y_w, y_l) -
# \varepsilon\,\mathcal{L}(y_l, y_w)}{1 - 2\varepsilon}$$

# %%
# %%needs truth
forty = predict(
    "With 40 % wrong labels, what remains of the gain over SFT that clean labels give?",
    ["nearly all", "about half", "a quarter or less", "less than nothing"],
)
helps = predict(
    "With 40 % wrong labels, does robust DPO win more than DPO?",
    ["yes, by more than 2 points", "no difference of 2 points", "it wins less"],
)

# %% [markdown]
# Each run is kept when it ends, so you may stop and go on.

# %%
# %%needs truth
noisy_runs = label_noise_sweep(
    sft_folder,
    sample_candidates(
        sft, tokenizer, preference_rows, profile, seed=1, path=runs / "candidates.jsonl"
    ),
    asked,
    profile,
    truth,
    path=runs / "label_noise.jsonl",
)
trained = noisy_runs[(noisy_runs["rate"] > 0) | (noisy_runs["loss"] == "DPO")]
print(
    f"{len(trained)} runs, {trained['seed'].nunique()} seeds of each, {SHORT_TRIPLES} triples a run"
)
noise = noise_table(noisy_runs)
plot_label_noise(noise, margin=noisy_runs["margin"].abs().max())

# %% [markdown]
# *The figure: left, the win rate against SFT falls as more labels are wrong, with 95 % intervals over
# prompts and a grey dot for each seed; robust DPO beside it where most are wrong; right, how hard each loss pulls at a pair, by
# the margin that the pair has; the grey band is where these runs were on
# average.*

# %%
# %%needs truth
rates = noise.pivot(index="rate", columns="loss", values="win_rate")
clean, worst = rates.loc[0.0, "DPO"], rates.loc[0.4, "DPO"]
remains = (worst - 0.5) / (clean - 0.5)
last = noise[(noise["loss"] == "DPO") & (noise["rate"] == 0.4)].iloc[0]
held(
    forty,
    forty.options[0 if remains > 0.75 else 1 if remains > 0.25 else 2 if remains > 0 else 3],
    f"{clean:.1%} with clean labels, {worst:.1%} with 40 % wrong "
    f"({last['low']:.1%} to {last['high']:.1%}): {remains:.0%} of the gain",
)
difference = rates.loc[0.4, "robust DPO"] - rates.loc[0.4, "DPO"]
held(
    helps,
    helps.options[0 if difference > 0.02 else 2 if difference < -0.02 else 1],
    f"{rates.loc[0.4, 'robust DPO']:.1%} to {worst:.1%}, {difference:+.1%}",
)

# %%
# %%needs truth
claim(
    rates.loc[0.0, "DPO"] > rates.loc[0.2, "DPO"] > rates.loc[0.4, "DPO"],
    "the more labels are wrong, the less DPO wins",
)
fifth = noise[(noise["loss"] == "DPO") & (noise["rate"] == 0.2)].iloc[0]
claim(
    fifth["low"] > 0.5,
    f"with a fifth of the labels wrong it still wins ({fifth['win_rate']:.1%}, at least "
    f"{fifth['low']:.1%})",
)
claim(
    (noise.loc[noise["rate"] > 0, "wrong"] - noise.loc[noise["rate"] > 0, "rate"]).abs().max()
    < 0.1,
    "the labels were wrong as often as they should be",
)

# %% [markdown]
# Why are the two so close *here*? Look at the right picture. Near margin zero every such loss pulls
# at all pairs alike; the losses differ in scale alone, by $1/(1-2\varepsilon)$, and Adam divides a
# gradient by its size. Runs as short as these stay there. What would happen at the end of a long
# training? Take one pair that is right with probability 0.9 and labelled wrong in 30 % of the cases, and
# minimise both losses over its margin:

# %%
right, rate = 0.9, 0.3
said = right * (1 - rate) + (1 - right) * rate  # how often the label says what is mostly right
margin = torch.linspace(-6, 6, 12001)
for_it, against = -F.logsigmoid(margin), -F.logsigmoid(-margin)
losses = {
    "DPO, clean labels": right * for_it + (1 - right) * against,
    "DPO": said * for_it + (1 - said) * against,
    "robust DPO": (
        said * ((1 - rate) * for_it - rate * against)
        + (1 - said) * ((1 - rate) * against - rate * for_it)
    )
    / (1 - 2 * rate),
}
optima = {name: margin[loss.argmin()].item() for name, loss in losses.items()}
pd.Series(optima, name="margin at the optimum, nats times beta").round(2).to_frame()

# %%
claim(
    abs(optima["robust DPO"] - optima["DPO, clean labels"]) < 0.01,
    "in the end robust DPO reaches the margin of clean labels",
)
claim(
    0 < optima["DPO"] < optima["DPO, clean labels"] / 2,
    "DPO stays nearer to the reference, but ranks the pair the same way",
)

# %% [markdown]
# So symmetric errors do not teach DPO the wrong order; they make it timid, as a larger beta would, and
# they bury the signal in noise. The robust loss undoes the first and not the second. And more pairs from
# the same judge? Label this pair again and again, and fit DPO's margin to the labels:

# %%
torch.manual_seed(0)
fits = {}
for n in (100, 10_000, 1_000_000):
    labels = torch.distributions.Binomial(n, torch.tensor(said)).sample((1000,)) / n
    fitted = torch.logit(labels.clamp(1 / n, 1 - 1 / n))
    fits[f"{n:,} labels"] = {"margin": fitted.mean().item(), "spread": fitted.std().item()}
fits = pd.DataFrame(fits).T
display(fits.round(3))
claim(
    fits["spread"].is_monotonic_decreasing and abs(fits["margin"].iloc[-1] - optima["DPO"]) < 0.01,
    f"more labels take away the noise; what is left is the timid margin, {optima['DPO']:.2f} and not "
    f"{optima['DPO, clean labels']:.2f}",
)

# %% [markdown]
# More pairs undo the second and not the first. A better judge undoes both.
