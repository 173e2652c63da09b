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
# that one" into training data and train with it.
#
# **You will**
# 1. train an SFT model on imperfect demonstrations and measure its vices,
# 2. sample pairs of responses, have a judge pick, and save at least 500 preference triples,
# 3. train with DPO, knowing that the reference is the SFT model,
# 4. see how far the policy has moved (KL) and what it says now.
#
# On the `tiny` profile the cells compute for about a minute on two CPU cores. The same cells
# train a real model with `COURSE_PROFILE=gpu`.

# %%
import math
from collections import Counter

import pandas as pd
from IPython.display import display

from coursekit.evaluation import copy_accuracy, kl_from_reference, score_responses
from coursekit.generation import generate
from coursekit.judging import RubricJudge
from coursekit.models import load_model, load_tokenizer
from coursekit.plotting import plot_training
from coursekit.preferences import (
    alert_rows,
    judge_candidates,
    sample_candidates,
    save_dataset,
    save_jsonl,
    split_by_prompt,
)
from coursekit.profile import load_profile
from coursekit.training import train_dpo, train_sft
from coursekit.triage import sample_demonstrations
from coursekit.widgets import claim, side_by_side

profile = load_profile()
tokenizer = load_tokenizer(profile.base_model)
runs = profile.artifacts / profile.name
print(f"profile {profile.name}, base model {profile.base_model.split('/')[-1]}")

# %% [markdown]
# ## 1 · The task, and what a good report is
#
# An alert comes in; a report of eight lines goes out. A report is good if it keeps the **format**,
# gives the **severity** of the written policy, is **faithful** to the alert (it says the cause is
# unknown where the alert names none), and names a **useful** next step without padding.
#
# The facts of each alert are known here, so a program can score a report. That program is a
# stand-in for a strong judge: on your own task no program knows the truth.
#
# Here are three demonstrations as the team wrote them. They are what SFT will learn from.

# %%
demonstrations = sample_demonstrations(profile.demonstrations)
side_by_side(demonstrations[:3], {"demonstration": [row["response"] for row in demonstrations[:3]]})

# %% [markdown]
# How good are the demonstrations on average? Each score runs from 0 to 1.

# %%
written = score_responses(
    demonstrations, {"demonstrations": [row["response"] for row in demonstrations]}
)
written.groupby("model").mean().drop(columns="row").round(2)

# %% [markdown]
# ## 2 · The SFT model
#
# One LoRA adapter, trained on the demonstrations with TRL's `SFTTrainer`. The loss counts the
# response's tokens only.

# %%
sft_run = train_sft(profile.base_model, demonstrations, runs / "sft", profile)

# %% [markdown]
# Now measure before building on it. We ask about 300 alerts whose services no training text names.
# Under greedy decoding we count the facts that are copied right; sampled at temperature 0.7, as the
# team would use it, we score the reports.

# %%
evaluation = alert_rows("evaluation", profile.evaluation_prompts, profile)
prompts = [row["prompt"] for row in evaluation]
base, sft = load_model(profile.base_model), load_model(sft_run.folder)


def respond(model, temperature, label):
    return generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=profile.max_new_tokens,
        temperature=temperature,
        batch_size=profile.generation_batch,
        label=label,
    )


greedy = respond(sft, 0.0, "SFT, greedy")
sampled = {"base": respond(base, 0.7, "base, sampled"), "SFT": respond(sft, 0.7, "SFT, sampled")}

# %%
copied = copy_accuracy(evaluation, greedy)
scores = score_responses(evaluation, sampled)
display(copied.to_frame("copied right").T.round(3))
scores.groupby("model").mean().drop(columns="row").round(2)

# %%
claim(
    copied.min() >= 0.95,
    f"SFT copies every fact right at least 95 % of the time (least: {copied.min():.1%})",
)
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
    f"and the vices: faithfulness is only {means.loc['SFT', 'faithfulness']:.0%}",
)

# %% [markdown]
# Capable, and still wrong. Here are the first three SFT reports to which the rubric objects. The
# facts are copied right; what is wrong is what the demonstrations got wrong. It does what it was
# shown.

# %%
perfect = scores[scores["model"] == "SFT"].set_index("row")["overall"] == 1
faulty = [index for index in range(len(evaluation)) if not perfect[index]][:3]
side_by_side(
    [evaluation[index] for index in faulty],
    {name: [texts[index] for index in faulty] for name, texts in sampled.items()},
)

# %% [markdown]
# ## 3 · Preference triples
#
# For each of 250 new prompts we sample two responses at each of two temperatures. A judge sees
# every pair of responses **in both orders**; only a response that wins in both is *chosen*. A tie
# makes no triple. The samples are saved as they are made: stop this cell and run it again, and it goes
# on where it was.

# %%
preference_rows = alert_rows("preferences", profile.preference_prompts, profile)
candidates = sample_candidates(
    sft, tokenizer, preference_rows, profile, seed=1, path=runs / "candidates.jsonl"
)
triples = judge_candidates(candidates, RubricJudge())
train, validation = split_by_prompt(triples)
path = save_jsonl(triples, runs / "triples.jsonl")
save_dataset(triples, runs / "triples")
print(f"{len(triples)} triples from {len(candidates)} prompts")
print(f"{len(train)} to train on, {len(validation)} for validation")
print(f"saved as {path.name} and as a datasets folder")

# %%
claim(len(triples) >= 500, f"{len(triples)} triples, at least 500")
shared = {row["prompt"] for row in train} & {row["prompt"] for row in validation}
claim(not shared, "train and validation share no prompt")
claim(not {row["prompt"] for row in triples} & set(prompts), "none is an evaluation prompt")

# %% [markdown]
# What does a triple teach? Chosen and rejected differ in few places: that is what DPO will see.

# %%
side_by_side(
    triples[:3], {name: [row[name] for row in triples[:3]] for name in ("chosen", "rejected")}
)

# %% [markdown]
# **A confound to know.** With two temperatures, the cooler response errs less, so it wins more
# often: part of what the triples teach is "sound as if sampled cool". Count it before you train.

# %%
outcome = Counter(
    "the cooler" if row["chosen_temperature"] < row["rejected_temperature"] else "the hotter"
    for row in triples
    if row["chosen_temperature"] != row["rejected_temperature"]
)
lengths = pd.DataFrame(
    {name: [len(row[name]) for row in triples] for name in ("chosen", "rejected")}
)
cooler = outcome["the cooler"] / outcome.total()
print(f"of {outcome.total()} triples with two temperatures, the cooler won {cooler:.0%}")
print(
    f"the longer response won {(lengths['chosen'] > lengths['rejected']).mean():.0%} of all triples"
)

# %% [markdown]
# ## 4 · DPO
#
# DPO raises the log-probability of the chosen response over the rejected one, measured against a
# **reference**, which must be the SFT model:
#
# $$\mathcal{L} = -\log\sigma\Big(\beta\log\frac{\pi_\theta(y_w|x)}{\pi_\mathrm{ref}(y_w|x)}
# - \beta\log\frac{\pi_\theta(y_l|x)}{\pi_\mathrm{ref}(y_l|x)}\Big)$$
#
# `train_dpo` compares the reference's log-probabilities with the SFT model's before the first step
# and after the last, and refuses to go on if they differ.

# %%
dpo_run = train_dpo(sft_run.folder, train, runs / "dpo", profile, validation=validation)
first = dpo_run.history[0]["loss"]
claim(
    abs(first - math.log(2)) < 0.01,
    f"the first step's loss is {first:.4f}, which is ln 2: policy and reference start equal",
)

# %%
plot_training(dpo_run.history)

# %% [markdown]
# *The figure: the loss falls from ln 2; the implicit rewards of chosen and rejected responses, beta
# times the log-ratio to the reference, part; their difference, the margin or reward gap, grows on
# the training and on the validation triples.*
#
# Does the reward of the chosen responses rise? It need not: the loss asks only for the
# **difference**.

# %%
steps = [entry for entry in dpo_run.history if "loss" in entry]
last = pd.DataFrame(steps[-10:])[["rewards/chosen", "rewards/rejected", "rewards/margins"]].mean()
display(last.to_frame("mean of the last 10 steps").T.round(2))
claim(last["rewards/margins"] > 0.1, "the margin has grown on the training triples")
held_out = [entry for entry in dpo_run.history if "eval_loss" in entry][-1]
claim(
    held_out["eval_rewards/accuracies"] > 0.6,
    f"on triples it has not seen, {held_out['eval_rewards/accuracies']:.0%} are ranked right",
)

# %% [markdown]
# ## 5 · What has changed?
#
# A growing gap is necessary, and proves little. Two better questions: how far has the policy
# moved, and what does it say? The distance is the KL divergence from the SFT model, estimated from
# the policy's own samples. We load the adapter that was saved: what we look at is what we keep.

# %%
dpo = load_model(dpo_run.folder)
kl = kl_from_reference(
    dpo,
    sft,
    tokenizer,
    prompts,
    max_new_tokens=profile.max_new_tokens,
    batch_size=profile.generation_batch,
)
claim(
    kl.value < 10,
    f"KL from the SFT model: {kl.value:.2f} nats a response "
    f"(95 % interval {kl.low:.2f} to {kl.high:.2f})",
)

# %%
sampled["SFT+DPO"] = respond(dpo, 0.7, "SFT+DPO, sampled")
side_by_side(
    [evaluation[index] for index in faulty],
    {name: [sampled[name][index] for index in faulty] for name in ("SFT", "SFT+DPO")},
)

# %% [markdown]
# These three were picked because SFT had failed on them, so they flatter DPO, and three convince
# nobody anyway. Session C asks all three models the same
# 300 prompts and says, with intervals, what has changed.
