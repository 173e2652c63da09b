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
# # Session C · Did it help? The three-way evaluation
#
# "The loss went down" is no evidence, three hand-picked samples are none either. Here the base
# model, the SFT model and the DPO model answer the **same 300 prompts**, none of which any of them
# was trained on, and every number comes with an interval.
#
# **You will**
# 1. compare the three models metric by metric, with paired intervals,
# 2. measure how often DPO's report beats SFT's,
# 3. see what 30 prompts can show, and what only 300 can.

# %%
from coursekit.evaluation import comparison_table, kl_from_reference, score_responses, win_rate
from coursekit.generation import generate
from coursekit.judging import RubricJudge
from coursekit.models import load_model, load_tokenizer
from coursekit.pipeline import ensure_dpo, ensure_sft
from coursekit.plotting import plot_comparison
from coursekit.preferences import alert_rows
from coursekit.profile import load_profile
from coursekit.widgets import claim, comparison, side_by_side

profile = load_profile()
tokenizer = load_tokenizer(profile.base_model)

# %% [markdown]
# ## 1 · Three models, one set of prompts
#
# The SFT and DPO models are those of session B. If you come without them, they are trained now.

# %%
sft_folder = ensure_sft(profile)
dpo_folder = ensure_dpo(profile)
models = {
    "base": load_model(profile.base_model),
    "SFT": load_model(sft_folder),
    "SFT+DPO": load_model(dpo_folder),
}

# %%
evaluation = alert_rows("evaluation", profile.evaluation_prompts, profile)
prompts = [row["prompt"] for row in evaluation]
responses = {
    name: generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=profile.max_new_tokens,
        temperature=0.7,
        batch_size=profile.generation_batch,
        label=name,
    )
    for name, model in models.items()
}

# %%
side_by_side(evaluation[:2], {name: texts[:2] for name, texts in responses.items()})

# %% [markdown]
# ## 2 · The table
#
# The mean of each score for each model, and the difference of SFT+DPO over SFT. Both models
# answered the same prompts, so the interval is for the **paired** difference: that prompts differ
# in difficulty drops out. Bold: the interval leaves out zero.

# %%
scores = score_responses(evaluation, responses)
table = comparison_table(scores, candidate="SFT+DPO", baseline="SFT")
comparison(table)

# %%
plot_comparison(table, list(models))

# %% [markdown]
# *The figure: for format, severity, faithfulness, usefulness and overall, one bar each for base,
# SFT and SFT+DPO. SFT brings the format; DPO mends what SFT copied from its teachers.*

# %%
for metric in ("severity", "faithfulness"):
    change = table.loc[metric, "difference"]
    claim(change >= 0, f"{metric} is not lower than SFT's ({change:+.2f})")
change = table.loc["overall"]
claim(
    change["low"] > 0,
    f"overall SFT+DPO scores higher ({change['difference']:+.2f}, at least {change['low']:+.2f})",
)

# %% [markdown]
# ## 3 · Report against report
#
# The judge compares the two reports on each prompt, in both orders. Equal reports tie, and a tie
# counts half: a win rate of 50 % means "no better".

# %%
judge = RubricJudge()
result = win_rate(evaluation, responses["SFT+DPO"], responses["SFT"], judge)
print("SFT+DPO against SFT:", result)
claim(result.estimate.value >= 0.6, f"SFT+DPO wins at least 60 % ({result.estimate.value:.1%})")
claim(
    result.estimate.low > 0.5,
    f"and the interval's lower end, {result.estimate.low:.1%}, is above one half",
)

# %% [markdown]
# ## 4 · What can 30 prompts show?
#
# Thirty prompts are what a team begins with. The same comparison on ten different sets of 30, taken
# from our 300:

# %%
for start in range(0, len(evaluation), max(1, len(evaluation) // 10)):
    part = slice(start, start + 30)
    small = win_rate(evaluation[part], responses["SFT+DPO"][part], responses["SFT"][part], judge)
    print(f"prompts {start + 1:3d} to {start + len(evaluation[part]):3d}: {small}")

# %% [markdown]
# All ten ask about the same two models. The spread between them is chance, and each interval says
# so. With 300 prompts the interval is about a third as wide.

# %%
widths = result.estimate.high - result.estimate.low, small.estimate.high - small.estimate.low
claim(
    widths[0] < 0.6 * widths[1],
    f"interval on {len(evaluation)} prompts: {widths[0]:.0%} wide; on the last 30: {widths[1]:.0%}",
)

# %% [markdown]
# ## 5 · At what distance from the SFT model?
#
# A policy that wins by drifting far from its reference has often learnt to please the judge. This
# one has stayed near.

# %%
kl = kl_from_reference(
    models["SFT+DPO"],
    models["SFT"],
    tokenizer,
    prompts,
    max_new_tokens=profile.max_new_tokens,
    batch_size=profile.generation_batch,
)
claim(
    kl.value < 10,
    f"KL from SFT: {kl.value:.2f} nats a response (95 % interval {kl.low:.2f} to {kl.high:.2f})",
)

# %%
report = "\n".join(
    [
        table.round(2).to_string(),
        "",
        f"SFT+DPO against SFT: {result}",
        f"KL from SFT: {kl} nats a response",
    ]
)
(profile.artifacts / profile.name / "three_way.txt").write_text(report + "\n")
print(report)
