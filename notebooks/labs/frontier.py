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
# # Lab · The paper's frontier on your laptop, and every method at work
#
# [Open in Colab](https://colab.research.google.com/github/OWNER/dpo-course/blob/main/notebooks/labs/frontier.ipynb)
#
# The sessions showed that DPO's model beats its SFT model. They left much open. The DPO paper says
# that DPO replaces [RLHF](../GLOSSARY.md#rlhf), and shows it in one figure: how much reward each
# method has at which [KL](../GLOSSARY.md#kl) from SFT. Does that hold on our language model? Would
# more training, or cooler sampling, have done the same? Session A derived a family of
# losses, most of which have trained no model yet. Here they do.
#
# **You will**
# 1. draw the paper's frontier, method by method, and say what lies above what,
# 2. ask what else could explain that DPO's model wins,
# 3. compare the family of losses on right and on wrong labels,
# 4. train on fresh answers with a reward and an advantage that you wrote yourself,
# 5. see from how many pairs on more of them no longer help.
#
# **Your time.** About two hours with the exercises. Nothing later needs any of it. The studies were
# recorded beforehand, because all of them together compute for hours (`python -m coursekit study
# frontier` makes the first one anew, on any machine; the README says how). The cells below draw the
# records, and train two policies live, in less than three minutes, so that you see that the records
# are no tale.
#
# | section | minutes |
# |---|---|
# | 1 · The frontier | 40 |
# | 2 · What else could explain the win? | 15 |
# | 3 · The family, trained | 15 |
# | 4 · Fresh answers | 40 |
# | 5 · How many pairs? | 10 |

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

from coursekit.week.exercises import lab as exercises
from coursekit.week.lab.record import load_record, points_of
from coursekit.week.needs import heed_needs
from coursekit.week.outcomes import lab as outcomes
from coursekit.week.widgets import claim, claims, held, predict
from coursekit.workspace import Workspace

workspace = Workspace()
heed_needs(workspace)

# %% [markdown]
# ## 1 · The frontier
#
# Figure 2 (left) of the [DPO paper](https://arxiv.org/abs/2305.18290) is about film reviews. There
# a classifier of sentiment is the true reward, so that nobody has to ask people. Each method trains
# from the same SFT model, and now and then is stopped and measured: how much reward, at how many
# [nats](../GLOSSARY.md#nats) from SFT? A method whose points lie higher makes better use of the
# same distance. Here the task is the sessions' own, and the true reward is the rubric, as a
# program.
#
# | method | what it is told |
# |---|---|
# | DPO, four betas | the labelled pairs |
# | preferred fine-tuning | the chosen responses, as in SFT |
# | unlikelihood, four alphas | the pairs, without a [reference](../GLOSSARY.md#reference) |
# | RLHF with a learned reward | what a reward model makes of its own answers; that model has learned from the pairs |
# | RLHF with the true reward | what the rubric says of its own answers: no pairs, but knowledge that RLHF never has |
# | best of n | nothing is trained: of n answers the one with the highest reward is given |
# | SFT, cooler | nothing is trained: SFT is sampled at lower temperatures |
#
# The paper ran RLHF by [PPO](../GLOSSARY.md#ppo). [TRL](../GLOSSARY.md#trl) has no trainer for PPO
# any more, so this is RLOO, which does without a value model. All trained methods take as many
# updates.

# %%
frontier = load_record("frontier")
points = points_of(frontier)
made_from = frontier["made_from"]
print(f"{len(frontier['cells'])} runs, {len(points)} checkpoints, {points['seed'].nunique()} seeds")
print(f"{made_from['prompts']} prompts to train on, {made_from['evaluation']} others to measure by")

# %% [markdown]
# Two of the rows have a formula that you can write. How far is the **best of n** from SFT? No
# training, so no checkpoint to ask; but the distance follows from n.

# %%
exercises.best_of_n_kl.card()


# %%
def best_of_n_kl(n: int) -> float:
    """How far the best of n responses is from a single one, at most, in nats."""
    raise NotImplementedError


best_of_n_kl = exercises.best_of_n_kl.check(best_of_n_kl)

# %%
best = points[points["curve"] == "best of n, true reward"].drop_duplicates("n")
apart = max(abs(best_of_n_kl(int(n)) - kl) for n, kl in zip(best["n"], best["kl"], strict=True))
claim(
    apart < 1e-3,
    f"the figure's points for best of n lie at your KL (largest difference {apart:.0e})",
)

# %% [markdown]
# **Unlikelihood** is the plain idea that DPO replaces: raise the chosen response, lower the
# rejected one. What keeps it from lowering for ever?

# %%
exercises.unlikelihood_loss.card()


# %%
def unlikelihood_loss(chosen: torch.Tensor, rejected: torch.Tensor, alpha: float) -> torch.Tensor:
    """The loss of each pair, (B,), from mean log-probabilities a token, (B,) each."""
    raise NotImplementedError


unlikelihood_loss = exercises.unlikelihood_loss.check(unlikelihood_loss)

# %%
falls = unlikelihood_loss(torch.zeros(3), torch.tensor([-1.0, -10.0, -100.0]), 1.0)
print("chosen as likely as can be, rejected less and less:", falls.tolist())
claim(falls[2] < falls[1] < falls[0], "nothing does: the loss has no lower end, and no reference")

# %%
above = predict(
    "At the same KL, who has more true reward: DPO, or RLHF with the true reward?",
    ["DPO, as in the paper", "RLHF with the true reward", "the curves cross, or lie together"],
)

# %%
from coursekit.week.figures.frontier import plot_frontier
from coursekit.week.lab.record import mean_over_seeds

means = mean_over_seeds(points)
plot_frontier(means, outcomes.sft_reward(points))

# %% [markdown]
# *The figure: a point is a checkpoint, mean of the seeds; its bars reach from the lowest seed to
# the highest. Left, the part where most points lie; right, all of them. The black line is the
# optimum: at its KL no [policy](../GLOSSARY.md#policy) whatever has more reward, by equation 4 of
# the paper.*
#
# To read heights off a cloud of points is an art. So how much reward does each run have at a given
# KL? Between two checkpoints a straight line is drawn; of several passes the highest counts.

# %%
from IPython.display import display

from coursekit.common.markup import styled
from coursekit.week.lab.record import reward_at

levels = [0.25, 0.5, 1.0]
at_level = {kl: reward_at(points, kl).groupby("curve", sort=False)["reward"] for kl in levels}
heights = pd.DataFrame({f"KL {kl:g}": at.mean() for kl, at in at_level.items()})
heights = heights.reindex(points["curve"].unique())
display(styled(heights.rename_axis(None)).format("{:.3f}", na_rep="never so far"))

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(above, *outcomes.dpo_against_rlhf(points))
claims(outcomes.the_frontier(points))

# %% [markdown]
# Which checkpoints would you take? One that no other beats in both respects.

# %%
exercises.on_frontier.card()


# %%
def on_frontier(points: list) -> list:
    """For each (kl, reward), True if no other point is as good in both and better in one."""
    raise NotImplementedError


on_frontier = exercises.on_frontier.check(on_frontier)

# %%
trained = means[~means["curve"].str.startswith(("optimum", "best of n", "SFT"))]
kept = on_frontier(list(zip(trained["kl"], trained["reward"], strict=True)))
trained[kept].sort_values("kl").set_index("curve")[["place", "kl", "reward"]].round(3)

# %% [markdown]
# The height is not all. What has each curve's last checkpoint cost, and how many samples does each
# of its *answers* cost?

# %%
from coursekit.week.lab.record import spent_table

spent_table(points).rename_axis(None).astype(int)

# %% [markdown]
# **What differs from the paper.** The model has fewer than a million weights, and was made for this
# task. The reward is a rubric from 0 to 1 instead of a classifier's probability. Each setting has a
# run for each seed; the paper has 22 runs, most settings once. RLHF is RLOO here, at one learning
# rate and two prices of KL, instead of PPO at four targets. More of RLHF's settings could lie
# higher, as could more of DPO's.
#
# **What would change your mind?** If RLOO were given another learning rate, larger groups or more
# steps, its curve could move; a few lines in `coursekit/week/lab/studies.py` try it. What could not
# change is the black line: a method that lies on it cannot be beaten at that KL.
#
# ## 2 · What else could explain the win?
#
# "DPO's model beats SFT" has other explanations than preferences. It was trained longer. It has
# seen the chosen responses, and SFT on these might do as well. It may only be surer of itself,
# which cooler sampling has for nothing. Each explanation is a run, on the same prompts with as many
# updates, and is measured by its [win rate](../GLOSSARY.md#win-rate) over SFT.

# %%
closest = predict(
    "Which of these comes closest to DPO in win rate over SFT, or passes it?",
    ["SFT on the best of four own answers", "SFT on the chosen responses", "SFT, sampled cooler"],
)

# %%
from coursekit.week.figures.frontier import plot_wins
from coursekit.week.lab.record import win_table

controls = win_table(load_record("controls"), against="DPO")
plot_wins(controls, "What else could explain the win?")

# %% [markdown]
# *The figure: how often the judge prefers a run's answer to SFT's, at the sessions' temperature.
# Mean over the seeds, its 95 % [interval](../GLOSSARY.md#interval) over prompts, and the single
# seeds. At 50 % a run is no better than SFT.*

# %%
from coursekit.week.widgets import win_rates

win_rates(controls)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(closest, *outcomes.closest_control(controls))
claims(outcomes.what_explains(controls))

# %% [markdown]
# So the pairs are not the only way to this win: imitating one's own best answers goes as far here.
# It has the same judge as DPO, and nothing to say about what is *wrong* with the others.
#
# **What would change your mind?** A task on which SFT's best of four is still bad: then there is
# nothing good to imitate, while a pair of two bad answers still says which of them is worse. And a
# judge who can compare two answers but not pick out the best.
#
# Does the record tell the truth? Here is one of its runs once more, on this machine, from the
# SFT model of session B: sample, judge, train, measure.

# %%
# %%needs own
from coursekit.week.lab.start import prepare

start = prepare(workspace, seed=0, prompts=250, evaluation=300)
print(f"{start.samples} answers sampled, {start.labels} pairs judged, {len(start.triples)} triples")

# %%
# %%needs own
from coursekit.week.lab.studies import STUDIES, cells_of
from coursekit.week.lab.sweep import run_cells

again = cells_of(STUDIES["controls"].curves()[:1], seeds=[0], times=1)
(live,) = run_cells(again, {0: start}, path=None)
claim(*outcomes.reproduced(live, load_record("controls")))

# %% [markdown]
# ## 3 · The family, trained
#
# Session A derived the losses. Now each of them trains the same model on the same pairs. First at
# three learning rates, on other prompts; then, with several seeds, at the rate that had the most
# reward within one nat of SFT (with one seed a higher rate may have more, and run away with the
# next seed). The labels are as the judge gave them, or 30 % of them are turned around at random.
# KTO gets thumbs in place of pairs. ORPO and SimPO have no reference, so they also start from the
# base model.

# %%
beats = predict(
    "On right labels, does any other loss beat DPO, with the whole interval and in each seed?",
    ["none", "one or two", "more than two"],
)
robust = predict(
    "With 30 % wrong labels, which keeps most of its lead over SFT?",
    ["DPO", "robust DPO", "KTO", "ORPO"],
)

# %%
family = win_table(load_record("family"), against="DPO")
plot_wins(family, "The family")

# %% [markdown]
# *The figure: as above, each loss with right labels and with 30 % wrong ones.*

# %%
win_rates(family)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(beats, *outcomes.who_beats_dpo(family))
held(robust, *outcomes.kept_with_wrong_labels(family))
claims(outcomes.from_the_base(family))

# %% [markdown]
# `chosen` is how far the log-probability of held-out chosen responses has moved from SFT's: below
# 0, the policy has made even the good responses less likely ([likelihood
# displacement](../GLOSSARY.md#likelihood-displacement)).
#
# **What would change your mind?** Three rates are a small search, made on right labels; with wrong
# ones another rate may be better, and the other settings stay at one value each. So a loss that
# came out lower may have been asked with the wrong beta. The intervals are over prompts, and seeds
# differ more than that: two losses whose seeds lie among one another are not told apart, and only a
# difference that every seed shows is bold.
#
# ## 4 · Fresh answers
#
# DPO learns from what SFT has once answered. RLHF asks anew at each step. Between the two lies
# iterative DPO: sample from the *present* policy, judge, train, and again. Whoever asks the policy
# several times can let the answers be each other's measure: that is RLOO's advantage, and
# [GRPO](../GLOSSARY.md#grpo)'s.

# %%
exercises.leave_one_out.card()


# %%
def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """Each reward less the mean of the other responses' to the same prompt: (G, n) to (G, n)."""
    raise NotImplementedError


leave_one_out = exercises.leave_one_out.check(leave_one_out)

# %%
exercises.group_advantage.card()


# %%
def group_advantage(rewards: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Each reward less its group's mean, over the group's spread: (G, n) to (G, n)."""
    raise NotImplementedError


group_advantage = exercises.group_advantage.check(group_advantage)

# %%
rewards = torch.tensor([[0.9, 0.9, 0.9, 0.91], [0.0, 0.3, 0.6, 1.0]])  # two prompts
advantages = {"RLOO": leave_one_out(rewards), "GRPO": group_advantage(rewards, 1e-4)}
shown = {name: values.flatten().tolist() for name, values in advantages.items()}
display(pd.DataFrame({"reward": rewards.flatten().tolist(), **shown}).round(2))
nearly_equal, mixed = advantages["GRPO"].abs().sum(-1).tolist()
claim(nearly_equal > 0.8 * mixed, "GRPO makes as much of a hundredth as of a whole point")

# %%
rounds = predict(
    "As many judge calls: three rounds of DPO on fresh answers, against one round on SFT's answers?",
    ["three rounds win, in each seed", "no difference is shown", "one round wins, in each seed"],
)

# %%
on_policy = load_record("on-policy")
fresh = win_table(on_policy, against="one offline round")
plot_wins(fresh, "Fresh answers")

# %% [markdown]
# *The figure: as above. The rounds have asked the judge about as often as the one round on all
# prompts; the last three are given a reward for each answer instead.*

# %%
win_rates(fresh)

# %%
spent_table(points_of(on_policy)).rename_axis(None).astype(int)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(rounds, *outcomes.three_rounds(fresh))
claims(outcomes.fresh_answers(fresh))

# %% [markdown]
# Now you are the judge. Write a reward that a program can check, and let GRPO train on it.

# %%
# %%needs own
exercises.verifiable_reward.card()


# %%
# %%needs own
def verifiable_reward(report: str, alert: dict) -> float:
    """0 for a report of another form, else up to a third each for facts, cause and step."""
    raise NotImplementedError


verifiable_reward = exercises.verifiable_reward.check(verifiable_reward)

# %%
# %%needs own
rises = predict(
    "GRPO on your reward, a few dozen steps: what becomes of the rubric's score, which it never sees?",
    ["it rises too", "it stays", "it falls"],
)

# %%
# %%needs own
from pathlib import Path
from tempfile import TemporaryDirectory

from coursekit.week.lab.online import online
from coursekit.week.lab.points import load_policy, measure
from coursekit.week.lab.start import ANSWERING, responses


def yours(rows: list, reports: list) -> list:
    return [verifiable_reward(one, row["facts"]) for row, one in zip(rows, reports, strict=True)]


grpo = {"algorithm": "GRPO", "reward": yours, "beta": 0.0, "learning_rate": 1e-3}
with TemporaryDirectory() as folder:
    kept = online(start, Path(folder), times=3, steps=36, **grpo)
    course = pd.DataFrame([measure(one, start) for one in kept])
    answers = responses(load_policy(kept[-1], start), start, ANSWERING)
paid = [yours(start.evaluation, texts) for texts in (start.answers, answers)]
before = outcomes.sft_reward(points)
course[["step", "samples", "reward_calls", "reward", "kl", "length"]].round(3)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# %%needs own
# @title What came out
claim(*outcomes.paid_more(*paid))
held(rises, *outcomes.rubric_follows(course, before))

# %% [markdown]
# **What would change your mind?** A reward that a program can check has no judge to deceive, but it
# has holes: whatever it does not look at is free. Leave one of your conditions out, run the cells
# again, and see whether the rubric's score still follows. And whether rounds pay hangs on how long
# one trains: the table has both, as many updates as one round has and thrice as many.
#
# ## 5 · How many pairs?
#
# Labels cost money. With the number of updates as before, more pairs mean that each is seen less
# often. The pairs come from more prompts than above: all of them in their order; those first on
# which the judge sees the widest [margin](../GLOSSARY.md#margin); or only one of each prompt.

# %%
enough = predict(
    "From how many pairs on do more of them help no longer (no more than 2 points)?",
    ["about 100", "about 400", "more than 400"],
)
which = predict(
    "With 100 pairs: which are best?",
    ["those with the widest margins", "one of each prompt", "no difference is shown"],
)

# %%
from coursekit.week.figures.frontier import plot_sizes

sizes = load_record("data")
data, hundred = win_table(sizes, against="all, 2000"), win_table(sizes, against="all, 100")
plot_sizes(data)

# %% [markdown]
# *The figure: win rate over SFT by the number of pairs, on a logarithmic axis; bars are 95 %
# intervals over prompts, dashes the single seeds. The points of the three ways stand a little
# beside one another.*

# %%
win_rates(data)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(enough, *outcomes.where_it_saturates(data))
held(which, *outcomes.which_pairs(hundred))

# %% [markdown]
# **What would change your mind?** The number at which the curve flattens belongs to this task, this
# model and this many updates. On yours, train on a quarter and on half of your pairs before you buy
# more: if the win rate has stopped rising, more of the same will not help.
#
# **Going on.** `python -m coursekit study NAME` repeats a study on your machine, `--seeds 5` with
# more seeds; a method is a function in `coursekit/week/lab/methods.py`, a curve is a line in
# `coursekit/week/lab/studies.py`.
