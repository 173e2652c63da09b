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
# [Open in Colab](https://colab.research.google.com/github/OWNER/dpo-course/blob/main/notebooks/B_preferences_and_training.ipynb)
#
# You have a model that was fine-tuned on demonstrations (SFT). It knows the format and the facts,
# and it has copied its teachers' bad habits. In this session you turn "this answer is better than
# that one" into training data, find out what is wrong with the data, and train with it.
#
# **You will**
# 1. write a clause of the rubric by which reports are judged,
# 2. train an SFT model on imperfect demonstrations (or bring your own) and measure its vices,
# 3. sample pairs of responses, have a judge pick the better one, and save at least 500 preference
#    [triples](GLOSSARY.md#triple),
# 4. audit them for doubles, leaks and [confounds](GLOSSARY.md#confound), and read and write the
#    formats that others use,
# 5. run the checklist, and train with DPO while you watch more than the
#    [margin](GLOSSARY.md#margin),
# 6. see how far the [policy](GLOSSARY.md#policy) has moved from its
#    [reference](GLOSSARY.md#reference) ([KL](GLOSSARY.md#kl)), and what it says now,
# 7. choose beta and learning rate from evidence, and measure what a careless judge costs.
#
# **Your time.** The core takes about four hours. It leaves out what is marked *optional*, and the
# exercises that have less than full importance (●●●●●). Run the cells of what you skip all the
# same, because later cells use their results. Estimates in minutes, exercises included:
#
# | section | core | optional |
# |---|---|---|
# | 1 · The task, and what a good report is | 10 | 10 |
# | 2 · The SFT model | 20 | |
# | 3 · Preference triples | 35 | 15 |
# | 4 · The audit | 45 | 35 |
# | 5 · Before training: the checklist | 20 | |
# | 6 · DPO, watched | 40 | |
# | 7 · What has changed? | 30 | 10 |
# | 8 · Which beta, which learning rate? | 20 | 15 |
# | 9 · A judge can be wrong | 20 | 25 |
# | together | 240 | 110 |
#
# On the `tiny` profile the cells compute for about three minutes on two quiet CPU cores, more than
# half of that in the last two sections. The same cells train a real model with
# `COURSE_PROFILE=gpu`.
#
# Exercises never stop the notebook: a stub that you leave as it is counts as *not attempted*, and
# later cells use the course's own function.

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title On Colab, run this cell first; elsewhere it does nothing
import sys

keep_results_on_drive = False  # @param {type: "boolean"}
if "google.colab" in sys.modules:
    import os
    import subprocess

    course = "/content/dpo-course"  # put a copy there, or it comes from its address
    if not os.path.isdir(course):
        line = ["git", "clone", "-q", "--depth=1", "https://github.com/OWNER/dpo-course", course]
        if (done := subprocess.run(line, capture_output=True, text=True)).returncode:
            raise RuntimeError(f"{done.stderr}Correct the address, or put a copy in {course}")
    sys.path.insert(0, course)
    from coursekit.common import colab

    colab.set_up(drive=keep_results_on_drive)

# %%
import pandas as pd
import torch

from coursekit.lm.loading import load_tokenizer
from coursekit.week.exercises import session_b as exercises
from coursekit.week.needs import heed_needs
from coursekit.week.outcomes import session_b as outcomes
from coursekit.week.widgets import claim, claims, held, predict
from coursekit.workspace import Workspace

workspace = Workspace()
profile, task, runs = workspace.profile, workspace.task, workspace.folder
heed_needs(workspace)
tokenizer = load_tokenizer(profile.base_model)
print(f"task {task.name}, profile {profile.name}, base model {profile.base_model.split('/')[-1]}")

# %% [markdown]
# ## 1 · The task, and what a good report is
#
# In the course's own task an alert comes in, and a report of eight lines goes out. A report is good
# if it keeps the **format**, gives the **severity** that the team's written rules give, is
# **faithful** to the alert (it says that the cause is unknown where the alert names none), and
# names a **useful** next step without padding.
#
# The facts of each alert are known here, so a program can score a report. That program stands in
# for a strong judge. On your own task there may be no program that knows the truth.
#
# (With `COURSE_TASK=my_task`, everything below runs on the prompts and the rubric in that folder;
# `python -m coursekit new my_task` makes such a folder for you to fill. A cell that begins with
# `%%needs` names what a task must have for the cell to run. Where a task lacks it, the cell says so
# and is left out.)
#
# A rubric is made of clauses, and each of them pays for something. Write the clause on causes.

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
# Does such a clause reward honesty? Take an alert that names no change. A policy that says
# *unknown* earns the full point, and one that guesses earns nothing:

# %%
# %%needs own
print("says unknown:", cause_clause(None, "unknown"))
print("guesses:     ", cause_clause(None, "suspected deploy 412"))

# %% [markdown]
# Here are three demonstrations as the team wrote them. They are what SFT will learn from.

# %%
# %%needs demonstrations
from coursekit.week.widgets import side_by_side

demonstrations = workspace.rows("demonstrations")
written = [row["response"] for row in demonstrations]
side_by_side(task, demonstrations[:3], {"demonstration": written[:3]})

# %% [markdown]
# How good are the demonstrations on average? Every score runs from 0 to 1, except the length, which
# counts characters.

# %%
# %%needs demonstrations
from coursekit.evaluation import score_responses

marks = score_responses(task, demonstrations, {"demonstrations": written})
marks.groupby("model").mean().drop(columns="row").round(2)

# %% [markdown]
# ## 2 · The SFT model
#
# The SFT model is one [LoRA](GLOSSARY.md#lora) [adapter](GLOSSARY.md#adapter), trained on the
# demonstrations with `SFTTrainer` of the library [TRL](GLOSSARY.md#trl). The loss counts only the
# tokens of the response. The workspace trains the adapter, keeps it with a record of what it was
# made from, and trains it again if any of that changes. If you have an SFT model from an earlier
# week, put its folder in the first line: a whole model, or an adapter that names its base model.
# Session C then evaluates that one too.

# %%
my_sft = None  # or "path/to/your/sft"
sft_folder = workspace.use_sft(my_sft)
tokenizer = load_tokenizer(sft_folder)

# %% [markdown]
# Measure a model before you build on it, whoever trained it. We give it 300 prompts (or as many as
# there are) that no training text contains, twice. First we use [greedy
# decoding](GLOSSARY.md#greedy-decoding) and count the facts that it copies correctly, which shows
# whether it *can* copy them. Then we sample at temperature 0.7, as the team would use it, and score
# the answers.

# %%
from coursekit.lm.generation import generate

evaluation = workspace.rows("evaluation")
prompts = [row["prompt"] for row in evaluation]
base, sft = workspace.load(profile.base_model), workspace.load(sft_folder)
sizes = {"max_new_tokens": profile.max_new_tokens, "batch_size": profile.generation_batch}


def respond(model, temperature, label, asked=prompts):
    return generate(model, tokenizer, asked, temperature=temperature, label=label, **sizes)


greedy = respond(sft, 0.0, "SFT, greedy")
sampled = {"base": respond(base, 0.7, "base, sampled"), "SFT": respond(sft, 0.7, "SFT, sampled")}

# %%
from coursekit.evaluation import score_responses

scores = score_responses(task, evaluation, sampled)
scores.groupby("model").mean().drop(columns="row").round(2)

# %%
# %%needs copied facts
from IPython.display import display

from coursekit.evaluation import copy_accuracy

copied = copy_accuracy(task, evaluation, greedy)
display(copied.to_frame("copied right").T.round(3))
claim(*outcomes.copies_facts(copied))

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# %%needs truth
# @title What SFT has learnt
claims(outcomes.sft_learnt(scores))

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# %%needs own
# @title What SFT does with the format, and with causes
claims(outcomes.sft_keeps_the_format(scores))

# %% [markdown]
# The model is capable and still wrong. Here are the first three *sampled* SFT answers that have a
# fault (or simply the first three, where no program can tell). Most of what is wrong is what the
# demonstrations got wrong, because the model does what it was shown. A wrong fact, such as another
# service than the alert's, does not contradict the claim above. That claim is about greedy
# decoding, which takes the likeliest token each time, and it is about most answers, not all. A
# sample sometimes takes a less likely token, and in a name one such token is enough. The cell below
# the answers says how often that happens:

# %%
from coursekit.evaluation import with_faults
from coursekit.week.widgets import side_by_side

faulty = with_faults(task, evaluation, sampled["SFT"])[:3]
asked_there = [evaluation[index] for index in faulty]
said_there = {name: [texts[index] for index in faulty] for name, texts in sampled.items()}
side_by_side(task, asked_there, said_there)

# %%
# %%needs copied facts
slips = copy_accuracy(task, evaluation, sampled["SFT"])
claim(*outcomes.slips_when_sampled(copied, slips))

# %% [markdown]
# ## 3 · Preference triples
#
# A triple is `{prompt, chosen, rejected}`. For each of many new prompts the SFT model answers
# several times, and a judge compares the answers. The judge is asked about every pair **in both
# orders**, because many judges like whichever answer stands first. How do two answers make one
# verdict?

# %%
exercises.ask_in_both_orders.card()


# %%
def ask_in_both_orders(ask, one: str, other: str) -> float:
    """1 if `one` is better than `other`, -1 if it is worse, 0 for a tie or a contradiction."""
    raise NotImplementedError


ask_in_both_orders = exercises.ask_in_both_orders.check(ask_in_both_orders)

# %% [markdown]
# **The design.** Each prompt gets two samples at temperature 0.7 and two at 1.0. All pairs of them
# are judged. At most three pairs with a winner are kept for each prompt, and a tie makes no triple.
# Before you see the result:

# %%
cooler = predict(
    "Of the pairs with two temperatures that have a winner, how often does the cooler win?",
    ["about half of the time", "clearly more often, but not nearly always", "nearly always"],
)

# %% [markdown]
# Samples and verdicts are saved as they are made. If you stop the next cell and run it again, it
# goes on where it stopped.

# %%
from coursekit.preferences import split_by_prompt
from coursekit.week.widgets import file_link

judge, truth = workspace.judge, workspace.truth
preference_rows = workspace.rows("preferences")
triples, pairs = workspace.pairs()  # four answers of SFT to each prompt, judged two by two
train, validation = split_by_prompt(triples)
ties = sum(pair["winner"] == "tie" for pair in pairs)
judged = f"{len(preference_rows)} prompts, {len(pairs)} pairs judged"
print(f"{judged}: {ties} ties, {len(triples)} triples")
print(f"{len(train)} to train on, {len(validation)} for validation")
file_link(runs / "triples.jsonl", "all of them")

# %%
claim(len(triples) >= 500, f"{len(triples)} triples, at least 500")
shared = {row["prompt"] for row in train} & {row["prompt"] for row in validation}
claim(not shared, "train and validation share no prompt")
claim(not {row["prompt"] for row in triples} & set(prompts), "none is an evaluation prompt")

# %% [markdown]
# What does a triple teach? Chosen and rejected differ in only a few places, and these differences
# are what DPO will see.

# %%
sides = {name: [row[name] for row in triples[:3]] for name in ("chosen", "rejected")}
side_by_side(task, triples[:3], sides)

# %% [markdown]
# Each row also says **where it came from**. Without these columns nobody could find out later what
# is wrong with a data set.

# %%
provenance = [name for name in triples[0] if name not in ("prompt", "chosen", "rejected", "facts")]
pd.DataFrame(triples[:4])[provenance].T

# %% [markdown]
# ### Other designs · optional
#
# Two temperatures are one way to get two different answers. The following ways are as common, and
# each has its own price or risk:
#
# - several samples *ranked*, the best against the worst: the labels are clear, but the judge has to
#   be asked many questions;
# - *two system prompts*: whatever the prompts change is learnt;
# - a written *reference* answer against a sample: the chosen answer may be one that the policy
#   hardly ever gives.
#
# One function makes them all, here on 60 prompts each.

# %%
from coursekit.preferences import ranked_samples, reference_against_sample, two_system_prompts
from coursekit.tasks import with_references

few = with_references(task, workspace.rows("preferences", 60))
designs = [
    ranked_samples(4, pairs="best_worst"),
    ranked_samples(4, pairs="all"),
    two_system_prompts("Say only what you know.", "Never leave anything open."),
]
if all("reference" in row for row in few):
    designs.append(reference_against_sample())

# %%
from coursekit.preferences import make_triples

made = {
    design.name: make_triples(sft, tokenizer, few, profile, judge, design, seed=2, scorer=truth)
    for design in designs
}

# %%
from coursekit.preferences import design_table

table = design_table(made, len(few))
table

# %%
# %%needs truth
margins = table["mean margin, points"]
best, everything = (margins[design.name] for design in designs[:2])
found = f"best against worst is the clearer contrast: {best:.2f} points, not {everything:.2f}"
claim(best > everything, found)

# %%
from coursekit.preferences import audit

prompted = audit(made["two system prompts"][0])["source confound"]
print("Do the two system prompts differ?", prompted.found)

# %%
# %%needs references
written_won = audit(made["reference against sample"][0]).shares["'reference' won"]
claim(written_won.value == 1, f"the written reference never loses: it won {written_won}")

# %% [markdown]
# The line on system prompts is worth a thought. The tiny model was never taught to obey a system
# prompt, so the two do to it whatever such words happen to do. If neither wins more often, the
# design is just *two samples* under a grander name. If one wins more often, look at what else it
# has changed (the last columns) before you say that it made the model careful. A real model will
# show other numbers, so measure them.

# %% [markdown]
# ## 4 · The audit
#
# Nobody looks at hundreds of pairs, and training does not complain about bad ones. So a program
# looks. One of its checks you can write yourself: does the longer response win?

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
claim(won < 0.4, "padding is a vice here, so the shorter one wins more often, and rightly")

# %% [markdown]
# LLM judges lean the other way: they like long answers
# ([2404.04475](https://arxiv.org/abs/2404.04475)). In either case the policy will learn it, so you
# should know it before you train.
#
# Another check asks whether something has leaked:

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
# Now all checks run in one call. A second judge, who errs in one of ten pairs, is asked about some
# of the pairs as well.

# %%
from coursekit.evaluation.judges import FlawedJudge
from coursekit.week.widgets import findings

second = FlawedJudge(truth, "a second judge", error_rate=0.1, seed=5)
report = audit(train, validation=validation, evaluation=prompts, pairs=pairs, second_judge=second)
findings(report)

# %%
from coursekit.week.figures.results import plot_audit

plot_audit(report)

# %% [markdown]
# *The figure: above left, how many rows have a fault. Above right, how often the longer, the cooler
# and the first-shown response won, with 95 % [intervals](GLOSSARY.md#interval); a diamond marks a
# share that chance explains poorly. Below, how far chosen and rejected differ in length and in the
# judge's score.*

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(cooler, *outcomes.cooler_won(report))

# %% [markdown]
# **The confound.** The cooler sample makes fewer errors, so part of what these triples teach is
# "sound as if sampled at a low temperature". That sharpens the policy. It is not the fault of
# single rows, so dropping rows cannot mend it. If you cannot live with it, compare samples of *one*
# temperature. But what [win rate](GLOSSARY.md#win-rate) would sharpness alone earn? SFT can be made
# as sharp as possible without any training: let its greedy answers compete with its own samples.

# %%
from coursekit.evaluation import win_rate

sharper = win_rate(evaluation, greedy, sampled["SFT"], truth)
print("SFT, greedy, against SFT, sampled:", sharper)

# %% [markdown]
# Compare this number with DPO's win rate in session C: what goes beyond it is more than sharpness.
#
# **The rows that look truncated.** The audit flags them (✗), so they have to be looked at. It only
# sees that a response ends unlike the others. Whether that hurts depends on which response it is:

# %%
# %%needs own
cut = sorted(set(report["truncated responses"].rows))
whole = sum(train[row]["chosen"].splitlines()[-1].startswith("next: ") for row in cut)
print(f"{len(cut)} triples are flagged; in {whole} of them the chosen report has its last line")

# %% [markdown]
# If the *rejected* report lacks its last line and the chosen one has it, the judge saw the flaw and
# marked it down. Such a pair teaches the policy to finish its reports, so the course keeps it and
# trains on it. If a *chosen* report lacked its end, the pair would teach the policy to stop early,
# and it would have to go (`report.without_faults(train)` drops every row that is flagged). And if
# responses were cut because `max_new_tokens` was too small, the remedy is to sample again with more
# tokens.
#
# Does the audit find what is wrong? Spoil a copy of the triples and see. Some rows are doubled,
# some pairs get the same text twice, some labels are swapped, and some prompts are taken from the
# evaluation.

# %%
from coursekit.week.spoil import spoil

n = min(12, len(train) // 4)  # rows of each fault
spoilt_rows = spoil(train, prompts, n)
second_report = audit(spoilt_rows, validation=validation, evaluation=prompts, pairs=pairs)
findings(second_report)

# %%
for check in ("identical pairs", "evaluation leak", "labels against scores", "doubled rows"):
    claim(len(second_report[check].rows) >= 0.8 * n, f"{check}: {second_report[check].found}")
clean = second_report.without_faults(spoilt_rows)
again = audit(clean, validation=validation, evaluation=prompts)
claim(*outcomes.faults_are_gone(second_report, again))

# %% [markdown]
# The scores that are kept beside the labels gave the swapped labels away. In a file without scores,
# nothing gives a wrong label away except a second judge.
#
# ### How far do two judges agree?
#
# The share of pairs on which they agree says little: where one label is common, they would agree on
# most pairs by chance. Cohen's [kappa](GLOSSARY.md#kappa) takes that chance out.

# %%
exercises.kappa.card()


# %%
def kappa(counts: torch.Tensor) -> torch.Tensor:
    """(observed - expected) / (1 - expected), from counts (L, L)."""
    raise NotImplementedError


kappa = exercises.kappa.check(kappa)

# %%
from IPython.display import display

agreement = report.agreements["with a second judge"]
display(agreement.table.rename_axis(index="the judge", columns="the second judge"))
counts = torch.tensor(agreement.table.to_numpy())
print(f"kappa {kappa(counts):.2f}; the audit says: {agreement}")

# %% [markdown]
# **And you?** Label some pairs yourself: which of the two reports is better? You can unfold the
# rubric below them. Every label is saved at once, so stop when you like, and run the cell again to
# go on.

# %%
from coursekit.evaluation.judges.person import Labelling
from coursekit.tasks import load_rubric
from coursekit.week.widgets import label_pairs

mine = pairs[:: max(1, len(pairs) // 30)][:30]
to_label = [(pair, pair["first"]["response"], pair["second"]["response"]) for pair in mine]
work = Labelling(to_label, runs / "my_labels.jsonl")
box = label_pairs(work, load_rubric(task.rubric).text)

# %%
if any(work.labels):
    print("you and the judge:", work.agreement_with([pair["winner"] for pair in mine]))
else:
    print("(You have labelled none yet.)")

# %% [markdown]
# ### Files that others have made · optional
#
# Preference data come in many layouts. A reader recognises each layout by its columns and returns
# triples. What it cannot read it refuses, and it names the row, the column and the remedy.


# %%
def turns(*texts: str) -> list[dict]:
    """A conversation that the user begins."""
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


# %%
yes, no = turns("Hi?", "Yes."), turns("Hi?", "No.")
dialogue = "\n\nHuman: Hi?\n\nAssistant: "
layouts = {
    "TRL, conversational": [{"prompt": yes[:1], "chosen": yes[1:], "rejected": no[1:]}],
    "UltraFeedback": [{"prompt": "Hi?", "chosen": yes, "rejected": no, "score_chosen": 9.0}],
    "hh-rlhf": [{"chosen": f"{dialogue}Yes.", "rejected": f"{dialogue}No."}],
    "instructions": [{"instruction": "Hi?", "input": "", "chosen": "Yes.", "rejected": "No."}],
    "thumbs": [
        {"prompt": "Hi?", "completion": "Yes.", "label": True},
        {"prompt": "Hi?", "completion": "No.", "label": False},
    ],
}

# %%
from coursekit.preferences import parse_rows

read = pd.DataFrame({name: parse_rows(rows)[0] for name, rows in layouts.items()}).T
read = read[["prompt", "chosen", "rejected"]]
display(read)
claim(len(read.drop_duplicates()) == 1, "all hold the same triple")

# %%
try:
    parse_rows([{"prompt": "Hi?", "chosen": "Yes.", "rejected": ""}], source="mine.jsonl")
except ValueError as error:
    print(error)

# %% [markdown]
# `load_triples` reads the same layouts from JSON Lines, JSON, CSV, Parquet, a folder that
# `datasets` saved, or the hub: `load_triples("owner/name", split="train", revision="<commit>")`.
# The revision is required, because a result is worth little if its data set can change afterwards.
# `write_triples` writes what TRL reads, for DPO or (as thumbs) for KTO.

# %%
from coursekit.preferences import load_triples, write_triples

for layout in ("plain", "conversational", "thumbs"):
    written = write_triples(train, runs / "exports" / f"{layout}.jsonl", layout)
    back = load_triples(written)
    print(f"{written.name:22} {len(written.read_text().splitlines()):5} rows, {len(back)} triples")
claim(len(back) > len(train), "read back, the thumbs give more triples than there were")

# %% [markdown]
# There are more because each liked answer to a prompt is paired with each disliked one. A response
# that won one pair and lost another has a thumb up and a thumb down. What a layout cannot express
# is lost.
#
# ### The data card
#
# The card is written from the data, so that it cannot contradict them. You add what the data do not
# tell.

# %%
from IPython.display import Markdown

from coursekit.preferences import data_card, save_card

card = data_card(train, validation, report, title=task.title, pairs=pairs, model="the SFT model")
path = save_card(card, runs / "triples")
shown = card.split("## Columns")[0].splitlines()
display(Markdown("\n".join(f"> {line}" for line in shown)))
file_link(path, "the whole card")

# %% [markdown]
# ## 5 · Before training: the checklist
#
# A DPO run that is set up wrongly rarely stops with an error. It trains something else. The
# commonest slip concerns the **reference**, which must be the SFT model. What does the first step
# tell you about it?

# %%
exercises.reference_is.card()


# %%
def reference_is(first_loss: float, log_ratio: float) -> float:
    """1: the SFT model; 0.5: the policy, but another model; 0: not what the policy starts from."""
    raise NotImplementedError


reference_is = exercises.reference_is.check(reference_is)

# %% [markdown]
# The checklist looks at what `train_dpo` will really use: the triples as the tokenizer renders
# them, the trainer with its reference, the layers that the adapter changes, and the machine.

# %%
from coursekit.training import preflight
from coursekit.week.widgets import checklist

ready = preflight(sft_folder, train, profile, validation=validation, evaluation=prompts)
checklist(ready)

# %%
claim(ready.passed, "everything is as it should be")

# %% [markdown]
# A checklist that always passes is worth nothing. So here it gets the spoilt rows of section 4, and
# settings with two slips:

# %%
from dataclasses import replace

two_slips = replace(profile.dpo, learning_rate=5e-3, max_length=110)
not_ready = preflight(
    sft_folder,
    spoilt_rows,
    profile,
    validation=validation,
    evaluation=prompts,
    settings=two_slips,
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
# Each of the two terms is an [implicit reward](GLOSSARY.md#implicit-reward), and their difference
# is the margin.
#
# TRL logs the loss, the rewards and their margin, but no KL. The `Monitor` adds what tells a good
# run from a bad one: every few steps the policy answers some prompts at temperature 1, and both
# policy and reference score the answers. The mean of their [log-ratios](GLOSSARY.md#log-ratio)
# estimates the KL, in [nats](GLOSSARY.md#nats).
#
# **That estimate can come out below zero, though no KL is negative.** A response to which the
# policy gives less probability than the reference does has a negative log-ratio, and the policy
# samples such responses too (section 7 counts them). Only the *expectation* of the log-ratio is the
# KL and never negative. The mean of a few samples scatters around it, so a value just below zero
# means: too near to zero to tell.

# %%
rises = predict(
    "Will the implicit reward of the CHOSEN responses rise?",
    ["yes, clearly", "it stays near zero", "it falls clearly"],
)

# %%
from coursekit.training import Monitor, train_dpo
from coursekit.week.figures.results import plot_monitor
from coursekit.week.widgets import live

watched = task.rows("validation", 24, profile)
watched_prompts = [row["prompt"] for row in watched]
monitor = Monitor(watched_prompts, validation[:16], times=3, show=live(plot_monitor))
dpo_run = train_dpo(
    sft_folder, train, runs / "dpo", profile, validation=validation, monitor=monitor
)

# %% [markdown]
# *The figure, redrawn during training. Above: the margin on training and held-out triples; the
# implicit rewards of chosen and rejected; the KL from the reference by the two estimators
# [k1](GLOSSARY.md#k1) and [k3](GLOSSARY.md#k3). Below: the log-ratio of held-out responses per
# token; the [entropy](GLOSSARY.md#entropy) of the policy; the length of its responses.*

# %%
import math

first = dpo_run.history[0]["loss"]
found = f"the first step's loss is {first:.4f}, which is ln 2: policy and reference start equal"
claim(abs(first - math.log(2)) < 0.01, found)
steps = pd.DataFrame([entry for entry in dpo_run.history if "loss" in entry])
last = steps[["rewards/chosen", "rewards/rejected", "rewards/margins"]].iloc[-10:].mean()
last.to_frame("mean of the last 10 steps").T.round(2)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(rises, *outcomes.chosen_reward(last))
claims(outcomes.margin_has_grown(last, dpo_run.history))

# %% [markdown]
# What did the policy say on the way? Here are three of the watched prompts, answered at each
# measurement. The answers are sampled at temperature 1, so a wrong fact may turn up in one step and
# be gone in the next:

# %%
said = pd.read_json(dpo_run.folder / "samples.jsonl", lines=True).groupby("step")["response"]
side_by_side(task, watched[:3], {f"step {step}": list(texts) for step, texts in said}, changes=True)

# %% [markdown]
# ### Red flags
#
# A [red flag](GLOSSARY.md#red-flag) is raised by a rule that reads the recorded metrics, per token
# and relative to the run's own start, and names what is wrong. Two of the names need a word of
# explanation. *KL running away* means that the policy has moved too far from the reference.
# [Likelihood displacement](GLOSSARY.md#likelihood-displacement) means that the chosen responses,
# too, have become less likely.

# %%
from coursekit.training import load_metrics, red_flags
from coursekit.week.widgets import flags

metrics = load_metrics(dpo_run.folder)
raised = red_flags(metrics, profile.dpo.beta)
flags(raised)

# %%
claim(all(flag.harmless for flag in raised), "no red flag, or only harmless ones")
print(f"watching took {monitor.seconds:.1f} s")

# %% [markdown]
# Now four runs that were recorded beforehand, from the same SFT model. Each was changed in one way,
# which its name tells (*many epochs* also had twice the learning rate). Read the curves before you
# read on. One change may raise several flags: a policy that learns too few triples by heart, or
# that writes longer and longer, also moves away from the reference. So the question is what was
# changed.

# %%
from coursekit.week.figures.results import plot_cases
from coursekit.week.gallery import load_recorded, mystery_cases

recorded = load_recorded()
cases = mystery_cases(recorded)
plot_cases({letter: run.metrics for letter, run in cases.items()})

# %% [markdown]
# *The figure: four runs, a column each. From top to bottom: the margin, and the share of triples
# ranked right, on training triples (line) and held-out triples (dots); the KL from the reference;
# entropy and length of the policy's responses, relative to the start.*

# %%
changes = sorted(run.condition.name for run in cases.values())
guesses = {letter: predict(f"What was changed in {letter}?", changes) for letter in cases}

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What was changed, and which flags it raised
for letter, run in cases.items():
    held(guesses[letter], *outcomes.mystery(run))

# %% [markdown]
# Do the rules hold beyond these four runs? Their thresholds were set on runs with seeds 0 and 1, so
# only runs with other seeds can tell:

# %%
from coursekit.common.markup import styled
from coursekit.week.gallery import TUNED_SEEDS, detection_table

unseen = [run for run in recorded if run.seed not in TUNED_SEEDS]
detection = detection_table(unseen)
styled(detection)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title Do the rules hold?
claims(outcomes.rules_hold(detection))

# %% [markdown]
# Some lines have no disease that a rule could name. Their settings cost wins, or cost nothing,
# while all curves look as they should. The most instructive one is DPO without SFT first. Its KL
# *from the base model* is small, so it stays near the base model, and section 2 measured how seldom
# that keeps the format. Rules read only numbers, so read answers too. Here are these runs on all
# recorded seeds:

# %%
from coursekit.week.gallery import nameless_table

nameless_table(recorded)

# %% [markdown]
# ## 7 · What has changed?
#
# A growing [gap](GLOSSARY.md#gap) between chosen and rejected is necessary, but it proves little.
# Two questions are better: how far has the policy moved, and what does it say? The distance is the
# KL divergence from the SFT model, estimated from the policy's own samples.

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
# We estimate it on the evaluation prompts, with the adapter that was saved: what we look at is what
# we keep.

# %%
from coursekit.lm.kl import estimate_kl, sample_responses
from coursekit.lm.logprobs import score_tokens, token_logps

dpo = workspace.load(dpo_run.folder)
drawn = sample_responses(dpo, tokenizer, prompts, **sizes)
ours, theirs = (score_tokens(model, drawn, token_logps) for model in (dpo, sft))
kl = estimate_kl(ours, theirs)
print(kl)

# %%
from functools import partial

pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
mask = pad([torch.ones(len(row)) for row in ours])  # (N, T)
yours = kl_from_samples(pad(ours), pad(theirs), mask)
claim(abs(float(yours) - kl.k1) < 1e-3, f"by hand: {float(yours):.2f} nats a response")

# %%
from coursekit.training import KL_A_TOKEN

a_token = kl.k1 / float(mask.sum(-1).mean())
limit = f"below the {KL_A_TOKEN} from which the red flags say that it runs away"
claim(a_token < KL_A_TOKEN, f"{a_token:.4f} nats a token: {limit}")
log_ratios = ((pad(ours) - pad(theirs)) * mask).sum(-1)  # (N,), one a response
below = int((log_ratios < 0).sum())
print(
    f"{below} of {len(ours)} single responses have a log-ratio below zero; the mean is {kl.k1:.2f}"
)

# %% [markdown]
# **Two estimators** (optional, down to the check of the saved adapter). Both estimate the same
# number. $k_1$ is the mean log-ratio. With $d$ for the log-ratio of one token, $k_3$ adds $e^{-d} -
# 1$ for each token, a term whose expectation is zero. The term is meant to steady the estimate, and
# it does so where the probabilities of *every* token are nearly those of the reference.
#
# It is large for tokens that the reference would say and the policy hardly ever samples. Most
# samples miss such tokens, and then $k_3$ comes out too low. Now and then a sample has one, and
# then $k_3$ jumps, together with its standard error. A small KL per response does not rule this
# out, because one token on which the models disagree is enough. The standard error of $k_3$ does
# not tell either, because it has not seen what the samples missed. But both estimators are
# unbiased. So where they differ by several standard errors, one of them has missed its tail. Here
# is this policy, and two between it and SFT, which are made by scaling the adapter down:

# %%
from peft.helpers import rescale_adapter_scale


def kl_of(policy):
    drawn = sample_responses(policy, tokenizer, prompts, label=None, **sizes)
    return estimate_kl(*(score_tokens(model, drawn, token_logps) for model in (policy, sft)))


estimates = {}
for part in (0.05, 0.2):
    with rescale_adapter_scale(dpo, part):
        estimates[part] = kl_of(dpo)
estimates[1.0] = kl
parts = pd.Index(estimates, name="adapter times")
both = pd.DataFrame([vars(found) for found in estimates.values()], index=parts)
both.round(4)

# %%
for part, row in both.iterrows():
    steadier = "k3" if row["k3_se"] < row["k1_se"] else "k1"
    apart = (row["k3"] - row["k1"]) / math.hypot(row["k1_se"], row["k3_se"])
    far = f"k3 lies {apart:+.1f} standard errors from k1"
    print(f"adapter times {part:g}: {steadier} has the smaller standard error; {far}")

# %% [markdown]
# Is the adapter on the disk the one that was trained? A process that has never had it in memory
# loads it and answers:

# %%
from coursekit.common.parallel import warm_up
from coursekit.lm.verify import verify_saved

warm_up()  # meanwhile the processes of section 8 get ready
sampled["SFT+DPO"] = respond(dpo, 0.7, "SFT+DPO, sampled")
greedy_dpo = respond(dpo, 0.0, "SFT+DPO, greedy", prompts[:20])
verified = verify_saved(dpo_run.folder, prompts[:20], greedy_dpo, profile)
claim(verified.same == verified.n, str(verified))

# %%
said_there = {name: [texts[index] for index in faulty] for name, texts in sampled.items()}
side_by_side(task, asked_there, said_there, changes=True)

# %% [markdown]
# These three prompts were picked because SFT had failed on them, so they flatter DPO; and three
# prompts should convince nobody anyway. Session C asks all three models the same evaluation prompts
# and says, with intervals, what has changed.

# %% [markdown]
# Until then, page through more answers:

# %%
from coursekit.week.widgets import pager

slider = pager(task, evaluation[:50], {name: texts[:50] for name, texts in sampled.items()})

# %% [markdown]
# ## 8 · Which beta, which learning rate?
#
# We make short runs, each with one setting changed, and judge each against SFT on validation
# prompts. To choose on the evaluation prompts would flatter the choice. (The KL of a run that has
# hardly moved may come out just below zero, because it is the mean of a few log-ratios: see section
# 6.)

# %%
matters = predict(
    "What changes the win rate more: beta from 0.05 to 1, or the learning rate from 2e-4 to 3e-3?",
    ["beta", "the learning rate"],
)

# %%
from coursekit.training.sweep import SHORT_TRIPLES, beta_sweep

asked = task.rows("validation", 160, profile)
sweep = beta_sweep(sft_folder, train, asked, profile, truth, path=runs / "betas.jsonl")
print(f"{len(sweep)} runs on {SHORT_TRIPLES} triples, each answering {len(asked)} prompts")
columns = ["beta", "learning_rate", "margin", "gap", "kl", "win_rate", "low", "high"]
sweep[columns].sort_values(["learning_rate", "beta"]).round(4)

# %%
from coursekit.week.figures.results import plot_frontier

plot_frontier(sweep, (profile.dpo.beta, profile.dpo.learning_rate))

# %% [markdown]
# *The figure: the win rate against SFT, on the left over the KL that was paid for it, on the right
# over the gap that the run showed (its margin without the factor beta). At round marks
# beta was changed, at square ones the learning rate.*

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(matters, *outcomes.beta_or_rate(sweep, profile.dpo))
claims(outcomes.what_a_sweep_shows(sweep, profile.dpo))

# %% [markdown]
# Which run should you take?

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
setting = f"beta {taken['beta']}, learning rate {taken['learning_rate']:g}"
print(f"{setting}: win rate {taken['win_rate']:.1%} for {taken['kl']:.2f} nats")

# %%
from coursekit.training.sweep import short_settings

lengths = {
    "these runs": (SHORT_TRIPLES, short_settings(profile)),
    "the run of section 6": (len(train), profile.dpo),
}
for name, (n, settings) in lengths.items():
    steps = math.ceil(n / (settings.batch_size * settings.accumulation)) * settings.epochs
    moved = settings.learning_rate * steps
    print(f"{name}: {steps:.0f} steps; learning rate times steps: {moved:.3f}")

# %% [markdown]
# Why does section 6 not train with that choice? Because the choice was made for runs as short as
# these. With Adam, a step moves each weight by about the learning rate, so a rate that is best for
# few steps is too much for many. The README tells of a seed on which a slightly higher rate than
# the profile's did much worse. Choose on runs that are as long as the one you mean to make.
#
# The chosen rate may also lie outside the range that the checklist calls usual (section 5). That is
# no contradiction. The checklist does not know how long a run is; it warns whoever carries a rate
# from short runs over to a long one. A rate that it marks is not forbidden, but it needs a reason
# like the one here: what the policy says, and how far it has moved.
#
# And beta? With Adam, which divides gradients by their size, a run as short as these hardly feels
# it. Beta decides where a run ends if it goes on for ever (session A drew both sides).

# %% [markdown]
# ## 9 · A judge can be wrong
#
# So far the judge was the program that knows the truth (or an LLM, if you set `COURSE_JUDGE`). Real
# judges make errors, prefer what stands first, and prefer what is long. Here are four judges on the
# pairs of section 3, beside the truth:

# %%
from coursekit.evaluation.judges import compare_judges

judges = [
    FlawedJudge(truth, "careful"),
    FlawedJudge(truth, "errs in 20 %", error_rate=0.2),
    FlawedJudge(truth, "likes the first", position_bias=0.15),
    FlawedJudge(truth, "likes length", length_bias=1.0),
]
items = [(pair, pair["first"]["response"], pair["second"]["response"]) for pair in pairs]
compared = compare_judges(items, judges, truth=truth)
styled(compared).format("{:.0%}").format("{:.2f}", subset=["kappa", "low", "high"])

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title The judges compared
print(outcomes.asked_in_both_orders(compared))

# %% [markdown]
# The first two lines follow from how these judges are made. The taste of the first judge turns with
# the order, so its wrong verdicts contradict themselves. The errors of the second depend on the
# pair, so asking in the other order does not give them away. Real judges do both. What has to be
# measured is the price, which is the pairs that are lost. Note also that only the *labels* are
# mended. A win rate counts a contradiction as a tie, and is therefore pulled towards one half:

# %%
from coursekit.evaluation import moved_by

contest = partial(win_rate, evaluation, sampled["SFT+DPO"], sampled["SFT"])
true, leaning = contest(truth), contest(judges[2])
print(f"{truth.name}: {true}\n{judges[2].name}: {leaning}")
claim(*outcomes.still_moves(moved_by(leaning, true)))

# %% [markdown]
# Asking in both orders does not mend a wrong opinion or a taste for length either. What do wrong
# labels cost?
#
# The next cells label the same samples with judges who err in 0, 20 and 40 % of the pairs, train on
# each set of labels with several seeds, and compare each run with SFT by the *truth* on the
# validation prompts. Where the share of wrong labels is largest, **robust DPO**
# ([2403.00409](https://arxiv.org/abs/2403.00409)) runs beside DPO. Its loss is told the error rate:
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
    "With 40 % wrong labels, does robust DPO win more often than DPO?",
    ["yes, by more than 2 points", "they differ by less than 2 points", "it wins less often"],
)

# %% [markdown]
# Each run is saved when it ends, so you may stop the cell and go on later.

# %%
# %%needs truth
from coursekit.preferences import sample_candidates
from coursekit.week.label_noise import label_noise_sweep

path = runs / "candidates.jsonl"
candidates = sample_candidates(sft, tokenizer, preference_rows, profile, seed=1, path=path)
path = runs / "label_noise.jsonl"
noisy_runs = label_noise_sweep(sft_folder, candidates, asked, profile, truth, path=path)
trained = noisy_runs[(noisy_runs["rate"] > 0) | (noisy_runs["loss"] == "DPO")]
seeds = trained["seed"].nunique()
print(f"{len(trained)} runs, {seeds} seeds of each, {SHORT_TRIPLES} triples a run")

# %%
# %%needs truth
from coursekit.week.figures.results import plot_label_noise
from coursekit.week.label_noise import noise_table

noise = noise_table(noisy_runs)
plot_label_noise(noise, margin=noisy_runs["margin"].abs().max())

# %% [markdown]
# *The figure. Left: the win rate against SFT falls as more labels are wrong, with 95 % intervals
# over prompts and a grey dot for each seed; robust DPO stands beside it where most labels are
# wrong. Right: how hard each loss pulls at a pair, over the margin that the pair has; the grey band
# shows where these runs were on average.*

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# %%needs truth
# @title What came out
held(forty, *outcomes.remaining_gain(noise))
held(helps, *outcomes.robust_against_plain(noise))
claims(outcomes.what_wrong_labels_cost(noise))

# %% [markdown]
# **What happens in a long training** (optional, to the end). Why do the two losses hardly differ
# *here*? Look at the right-hand picture. Near margin zero, every such loss pulls equally hard at
# all pairs. The losses differ only in scale, by $1/(1-2\varepsilon)$, and Adam divides a gradient
# by its size. Runs as short as these stay near margin zero. What would happen at the end of a long
# training? Take one pair whose order is right with probability 0.9 and whose label is wrong in 30 %
# of the cases, and minimise both losses over its margin:

# %%
import torch.nn.functional as F

right, rate = 0.9, 0.3
said = right * (1 - rate) + (1 - right) * rate  # how often the label says what is mostly right
margin = torch.linspace(-6, 6, 12001)
for_it, against = -F.logsigmoid(margin), -F.logsigmoid(-margin)
robust_for_it = ((1 - rate) * for_it - rate * against) / (1 - 2 * rate)
robust_against = ((1 - rate) * against - rate * for_it) / (1 - 2 * rate)
losses = {
    "DPO, clean labels": right * for_it + (1 - right) * against,
    "DPO": said * for_it + (1 - said) * against,
    "robust DPO": said * robust_for_it + (1 - said) * robust_against,
}
optima = {name: margin[loss.argmin()].item() for name, loss in losses.items()}
pd.Series(optima, name="margin at the optimum, nats times beta").round(2).to_frame()

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title Where a long training ends
claims(outcomes.where_long_training_ends(optima))

# %% [markdown]
# So symmetric errors do not teach DPO the wrong order. They do two things: they make it timid, as a
# larger beta would, and they bury the signal in noise. The robust loss undoes the first but not the
# second. What would more pairs from the same judge do? Label this pair again and again, and fit
# DPO's margin to the labels:

# %%
torch.manual_seed(0)
fits = {}
for n in (100, 10_000, 1_000_000):
    labels = torch.distributions.Binomial(n, torch.tensor(said)).sample((1000,)) / n
    fitted = torch.logit(labels.clamp(1 / n, 1 - 1 / n))
    fits[f"{n:,} labels"] = {"margin": fitted.mean().item(), "spread": fitted.std().item()}
fits = pd.DataFrame(fits).T
fits.round(3)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What more labels do
claim(*outcomes.more_labels(fits, optima))

# %% [markdown]
# More pairs undo the second but not the first. A better judge undoes both.
