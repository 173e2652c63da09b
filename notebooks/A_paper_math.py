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
# # Session A · The paper's mathematics, every step executed
#
# [Open in Colab](https://colab.research.google.com/github/OWNER/dpo-course/blob/main/notebooks/A_paper_math.ipynb)
#
# Direct Preference Optimization (Rafailov et al. 2023,
# [arXiv:2305.18290](https://arxiv.org/abs/2305.18290)) replaces reinforcement learning with one
# line of loss. A derivation in seven steps shows why that is allowed. Here each step is a cell that
# checks itself: change a sign and see it break.
#
# **You will**
# 1. see a model that is capable and still wrong, which is the reason for all that follows,
# 2. fit a reward model, and watch what happens when one optimises it too hard,
# 3. derive the DPO loss, checking each step on a world in which everything can be enumerated,
# 4. understand beta from both sides,
# 5. turn the formula into code on a real model, and meet the bugs that most code has,
# 6. compare DPO with [RLHF](GLOSSARY.md#rlhf) where the truth is known,
# 7. meet the family (IPO, KTO, ORPO, SimPO, ...) and learn when to use each.
#
# **Your time.** The core takes about three hours. It leaves out what is marked *optional*, and the
# exercises that have less than full importance (●●●●●). Run the cells of what you skip all the
# same, because later cells use their results; they compute for about a minute on two CPU cores.
# Estimates in minutes, exercises included:
#
# | section | core | optional |
# |---|---|---|
# | 1 · Why preferences? | 10 | |
# | 2 · RLHF in three stages | 25 | 10 |
# | 3 · The derivation | 50 | 10 |
# | 4 · Beta from both sides | 10 | |
# | 5 · From formula to code | 35 | 15 |
# | 6 · DPO against RLHF, where the truth is known | | 25 |
# | 7 · The family | 10 | 45 |
# | 8 · The landscape | | 25 |
# | 9 · Notes, quiz, reading | 40 | 30 |
# | together | 180 | 160 |
#
# The reading list at the end has minutes of its own, and all of it is optional.
#
# **Words** that are used before they are explained link to the [glossary](GLOSSARY.md).
#
# **How exercises work.** Each has a card with a folded hint and solution, a stub to fill in, and a
# check. A stub that you leave as it is counts as *not attempted*, and the notebook goes on with the
# course's own function. **Predictions**: before some results you are asked what you expect. Commit
# to an answer by clicking it, or pass `choice="..."` to `predict`. **Folded cells** compare results
# with your prediction or say what they show, and do nothing else: unfold one to see how.

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
import torch
import torch.nn.functional as F

from coursekit.lm.loading import load_tokenizer
from coursekit.week.exercises import session_a as exercises
from coursekit.week.needs import heed_needs
from coursekit.week.outcomes import session_a as outcomes
from coursekit.week.widgets import claim, claims, held, predict
from coursekit.workspace import Workspace

workspace = Workspace()
profile, task = workspace.profile, workspace.task
heed_needs(workspace)
tokenizer = load_tokenizer(profile.base_model)

# %% [markdown]
# ## 1 · Why preferences?
#
# In the course's own task an alert comes in and a triage report goes out. (`COURSE_TASK` sets
# another task, your own for instance; the README says how. A cell that begins with `%%needs` names
# what a task must have for the cell to run. Where a task lacks it, the cell says so and is left
# out.)
#
# We fine-tune the base model on at most 400 demonstrations. This is supervised fine-tuning, SFT;
# the demonstrations are reports that a tired team wrote. (Session B trains a better SFT model.)
# Then we give both models prompts that no training text contains.

# %%
from coursekit.lm.loading import load_model

base, sft = load_model(profile.base_model), load_model(workspace.quick_sft(400))

# %%
from coursekit.lm.generation import generate

rows = task.rows("validation", 60, profile)
prompts = [row["prompt"] for row in rows]
sizes = {"max_new_tokens": profile.max_new_tokens, "batch_size": profile.generation_batch}
responses = {
    name: generate(model, tokenizer, prompts, temperature=0.7, label=name, **sizes)
    for name, model in (("base", base), ("SFT", sft))
}

# %%
from coursekit.week.widgets import side_by_side

side_by_side(task, rows[:4], {name: texts[:4] for name, texts in responses.items()})

# %% [markdown]
# The marks come from a program that knows each alert's facts and stands in for a strong judge. Most
# faults are those of the demonstrations: a cause that the alert does not name, a wrong severity, a
# padded next step. A fact that is copied wrongly, such as the service's name, is another matter.
# This model was trained only briefly and is not always sure of a name, and sampling at temperature
# 0.7 sometimes takes the less likely one. Session B measures how often that happens.
#
# Before you see the scores of all answers (brackets hold a 95 % [interval](GLOSSARY.md#interval)):

# %%
# %%needs truth
without_fault = predict(
    "Of the SFT model's answers, how many are without any fault?",
    ["nearly all", "between a fifth and four fifths", "hardly any"],
)

# %%
from coursekit.evaluation import score_responses

scores = score_responses(task, rows, responses)
scores.groupby("model").mean().drop(columns="row").round(2)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# %%needs truth
# @title What came out, and what SFT has taught
held(without_fault, *outcomes.without_fault(scores))
claim(*outcomes.sft_taught_the_task(scores))

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# %%needs own
# @title What SFT has not taught
claim(*outcomes.sft_invents_causes(scores))

# %% [markdown]
# The model knows the task and still answers badly, because it does what its demonstrations did.
# More demonstrations of the same kind would teach the same vices. What we *can* say cheaply is
# which of two answers is better. How can a model learn from that?

# %% [markdown]
# ## 2 · RLHF in three stages
#
# This is the recipe of InstructGPT (Ouyang et al. 2022,
# [2203.02155](https://arxiv.org/abs/2203.02155)). The idea of learning a reward from comparisons is
# older: Christiano et al. 2017, [1706.03741](https://arxiv.org/abs/1706.03741), used it for agents
# in games and simulated robots, Ziegler et al. 2019,
# [1909.08593](https://arxiv.org/abs/1909.08593), for language models.

# %%
from coursekit.week.figures import theory as figures

figures.plot_pipeline()

# %% [markdown]
# *The figure: SFT leads to a reward model, which leads to reinforcement learning with a
# [KL](GLOSSARY.md#kl) term. DPO goes from SFT to the end in one supervised stage on the same
# pairs.*
#
# ### From comparisons to rewards: Bradley and Terry
#
# Each response has a reward $r$. The probability that $y_w$ is preferred to $y_l$ is
#
# $$p(y_w \succ y_l \mid x) = \frac{e^{r(x, y_w)}}{e^{r(x, y_w)} + e^{r(x, y_l)}}
# = \sigma\big(r(x, y_w) - r(x, y_l)\big)$$

# %%
exercises.preference_probability.card()


# %%
def preference_probability(reward_w: torch.Tensor, reward_l: torch.Tensor) -> torch.Tensor:
    """p(y_w is preferred to y_l), (B,), from two rewards, (B,)."""
    raise NotImplementedError


preference_probability = exercises.preference_probability.check(preference_probability)

# %% [markdown]
# Now an **exact world**: 3 prompts with 12 possible responses each. A [policy](GLOSSARY.md#policy)
# is a table of probabilities here, and a reward is a table of numbers. Expectations are sums, so
# nothing needs to be sampled.

# %%
from coursekit.week import bandit

world = bandit.make_world()
print("log pi_ref:", tuple(world.log_reference.shape), " reward:", tuple(world.reward.shape))
wins = preference_probability(world.reward[0, :1], world.reward[0, 1:2]).item()
print(f"at prompt 0, response 0 is preferred to response 1 with probability {wins:.2f}")

# %% [markdown]
# The reward model maximises the likelihood of the pairs. From few pairs its fit is noisy. From many
# pairs it finds the true reward, up to a constant per prompt, which cancels in every difference:

# %%
features = bandit.one_hot_features(3, 12)  # a reward of its own for each response
fits = {
    f"{n:,} pairs": bandit.fit_reward(bandit.sample_pairs(world, n, seed=1), features)
    for n in (100, 2_000, 100_000)
}
figures.plot_reward_fit(fits, world.reward)


# %%
def centred(reward: torch.Tensor) -> torch.Tensor:
    return reward - reward.mean(-1, keepdim=True)


errors = [(centred(fit) - centred(world.reward)).abs().mean().item() for fit in fits.values()]
for error, name in zip(errors, fits, strict=True):
    print(f"mean error with {name}: {error:.3f}")
claim(errors[0] > errors[1] > errors[2], "more pairs, smaller error")

# %% [markdown]
# *The figure: fitted against true reward of all 36 responses. The more pairs, the closer the points
# lie to the diagonal.*
#
# ### The objective
#
# The third stage **maximises** (paper, equation 3)
#
# $$J(\pi) = \mathbb{E}_{x, y \sim \pi}\,[r(x, y)]
# - \beta\,\mathrm{KL}\big(\pi(\cdot|x)\,\|\,\pi_\mathrm{ref}(\cdot|x)\big)$$
#
# [PPO](GLOSSARY.md#ppo) climbs a clipped surrogate of it, with samples and a value model. The KL
# divergence, in [nats](GLOSSARY.md#nats), says how far $\pi$ is from $\pi_\mathrm{ref}$, its
# [reference](GLOSSARY.md#reference). What does that term do? In each of the next 20 worlds a reward
# model was fitted to only 40 pairs. It is a [proxy](GLOSSARY.md#proxy) for the true reward, and
# what looks best to it is a response that the reference hardly ever gives.

# %%
hacking = predict(
    "The policy climbs the fitted reward with the KL term off. What does the TRUE reward do?",
    ["it rises to its maximum and stays", "it rises, then falls", "it falls from the start"],
)

# %%
paths = {beta: bandit.overoptimise(beta) for beta in (0.0, 0.3, 1.0)}
figures.plot_overoptimisation(paths)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(hacking, *outcomes.proxy_climbed(paths))
claims(outcomes.kl_term_holds_back(paths))

# %% [markdown]
# *The figure: means over 20 worlds; thin lines are the true reward in single worlds. With the KL
# term off, the proxy keeps climbing, while the true reward rises, turns and falls below where it
# began. With beta 0.3 it falls less far, and with beta 1 it does not fall.*
#
# This is **reward hacking**, also called over-optimisation (Gao et al. 2022,
# [2210.10760](https://arxiv.org/abs/2210.10760)). So does the KL term protect against it? Draw the
# same climbs over the distance from the reference, and stop the climb without a KL term where the
# others ended:

# %%
figures.plot_frontier(paths)

# %%
for b in (0.3, 1.0):
    ends = paths[b].groupby("seed")[["kl", "true"]].last()
    stopped = bandit.true_at_kl(paths[0.0], ends["kl"])
    claim(*outcomes.same_if_stopped(b, ends["true"], stopped))

# %% [markdown]
# *The figure: true reward over KL, means over worlds. The three lines lie on top of one another.
# Only the dots, which show where each climb ends, are in different places.*
#
# The KL term bought nothing that stopping early would not have bought. With a table of
# probabilities one can see why: each step adds a multiple of the fitted reward $\hat r$ to
# $\log(\pi/\pi_\mathrm{ref})$, and the KL term shrinks that again. Every climb therefore runs
# through the policies $\pi_\mathrm{ref}\,e^{c\hat r}/Z$, and beta only decides how far it goes. Gao
# et al. measured the same with language models: a KL penalty raised the proxy at a given KL but
# gave no better frontier of true reward against KL. It acted like early stopping, and they warn
# that this may depend on the settings. So the KL term says where to stop, before the true reward is
# known. It does not make the reward model right.
#
# DPO has no reward model to hack, yet it over-optimises in much the same way (Rafailov et al. 2024,
# [2406.02900](https://arxiv.org/abs/2406.02900)), because its
# [implicit reward](GLOSSARY.md#implicit-reward) is fitted to pairs too.
#
# ### Who is in memory? · optional
#
# PPO holds four models: policy and value model are trained, reference and reward model are only
# read. DPO holds two, and with [LoRA](GLOSSARY.md#lora) or [QLoRA](GLOSSARY.md#qlora) only one.
# The table counts what must be there when a whole model is trained in mixed
# precision: weights and gradients in bf16, Adam's two moments and a master copy of the weights in
# fp32. QLoRA keeps the frozen weights in 4 bits, but for the embeddings and the head, which stay in 16.
# Activations come on top, and depend on batch and length: `python -m coursekit memory 7B` counts them too,
# and with `--measure` says what a step takes on your machine.

# %%
from coursekit.lm import memory_budget as memory

table = memory.memory_table({"1B": 1e9, "7B": 7e9, "13B": 13e9})
table.round(2)

# %% [markdown]
# How much memory full DPO of a 7B model needs depends on the recipe. A number that is quoted
# without its recipe says little:

# %%
recipes = memory.recipe_table(7e9)
recipes.round(1)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title The recipes compared
claims(outcomes.full_dpo_of_7b(recipes, table))

# %%
small, large = (
    memory.memory_table({"8B": 8e9}, embedding_share=share).loc[("8B", "DPO + QLoRA"), "total"]
    for share in (0.04, 0.13)
)
claim(*outcomes.vocabulary_counts(small, large))
shape = {"hidden": 3072, "layers": 28, "heads": 24, "key_value_heads": 8, "head_dim": 128}
trained = memory.lora_parameters(rank=16, **shape)
claim(trained == 9_175_040, f"LoRA r=16 on q, k, v, o of Llama-3.2-3B trains {trained:,}")

# %% [markdown]
# ## 3 · The derivation
#
# **Step 1. The objective has a maximiser in closed form** (paper, equation 4):
#
# $$\pi^*(y|x) = \frac{1}{Z(x)}\,\pi_\mathrm{ref}(y|x)\,e^{r(x,y)/\beta},\qquad
# Z(x) = \sum_y \pi_\mathrm{ref}(y|x)\,e^{r(x,y)/\beta}$$
#
# *Why:* $J(\pi) = \beta\log Z(x) - \beta\,\mathrm{KL}(\pi\,\|\,\pi^*)$, averaged over prompts. The
# first term does not depend on $\pi$. The second is never above zero, and it is zero exactly where
# $\pi = \pi^*$.

# %%
exercises.closed_form.card()


# %%
def closed_form(log_reference: torch.Tensor, reward: torch.Tensor, beta: float) -> torch.Tensor:
    """log pi*, (X, Y)."""
    raise NotImplementedError


closed_form = exercises.closed_form.check(closed_form)

# %% [markdown]
# Is it the maximiser? We let an optimiser that knows nothing of the formula climb $J$ from the
# uniform policy, and compare the two by their total variation (half the sum of the absolute
# differences of their probabilities):

# %%
beta = 0.5


def objective(log_policy: torch.Tensor) -> torch.Tensor:
    return bandit.objective(log_policy, world.log_reference, world.reward, beta)


uniform = torch.zeros(3, 12)
climbed = bandit.maximise(lambda logits: objective(logits.log_softmax(-1)), start=uniform)
best = closed_form(world.log_reference, world.reward, beta)
apart = bandit.total_variation(climbed.log_softmax(-1), best).max().item()
claim(apart < 1e-6, f"closed form and direct optimisation agree (total variation {apart:.1e})")

# %% [markdown]
# The identity behind it also holds at an arbitrary policy:

# %%
generator = torch.Generator().manual_seed(0)
some = torch.randn(3, 12, generator=generator, dtype=torch.float64).log_softmax(-1)
log_z = bandit.log_partition(world.log_reference, world.reward, beta)  # (X,)
left = objective(some)
right = (beta * log_z - beta * bandit.kl_divergence(some, best)).mean()
claim(abs(left - right) < 1e-12, f"J(pi) = beta log Z - beta KL(pi || pi*): {left:.6f} both ways")

# %% [markdown]
# **Step 2. Solve for the reward** (equation 5). Take logarithms:
#
# $$r(x, y) = \beta\log\frac{\pi^*(y|x)}{\pi_\mathrm{ref}(y|x)} + \beta\log Z(x)$$
#
# So every policy is the optimum for *some* reward, which is known up to a constant per prompt.

# %%
exercises.implicit_reward.card()


# %%
def implicit_reward(
    policy_logps: torch.Tensor, reference_logps: torch.Tensor, beta: float
) -> torch.Tensor:
    """r(x, y) - beta log Z(x)."""
    raise NotImplementedError


implicit_reward = exercises.implicit_reward.check(implicit_reward)

# %%
recovered = implicit_reward(best, world.log_reference, beta)
constant = world.reward - recovered  # the same for every response of a prompt
spread = (constant - constant[:, :1]).abs().max().item()
claim(spread < 1e-12, f"the reward is recovered up to a constant per prompt (spread {spread:.0e})")
claim((constant[:, 0] - beta * log_z).abs().max() < 1e-12, "and that constant is beta log Z(x)")

# %% [markdown]
# **Step 3. The partition function cancels.** $Z(x)$ sums over all possible responses, which no
# language model can do. But Bradley-Terry needs only a *difference* of rewards at the same prompt:
#
# $$\sigma\big(r(x,y_w) - r(x,y_l)\big) = \sigma\Big(\beta\log\frac{\pi^*(y_w|x)}{\pi_\mathrm{ref}(y_w|x)}
# - \beta\log\frac{\pi^*(y_l|x)}{\pi_\mathrm{ref}(y_l|x)}\Big)$$

# %%
with_z = preference_probability(world.reward[:, :-1], world.reward[:, 1:])
without_z = preference_probability(recovered[:, :-1], recovered[:, 1:])
gap = (with_z - without_z).abs().max().item()
claim(gap < 1e-12, f"all preferences are the same without Z (largest difference {gap:.0e})")

# %%
across = preference_probability(world.reward[0], world.reward[1])
across_without = preference_probability(recovered[0], recovered[1])
gap = (across - across_without).abs().max().item()
claim(
    gap > 0.01, "between two different prompts it would not cancel: pairs must share their prompt"
)

# %% [markdown]
# **Step 4. The loss.** Put a policy $\pi_\theta$ where $\pi^*$ stood, and maximise the likelihood
# of the choices (equation 7):
#
# $$\mathcal{L}_\mathrm{DPO} = -\mathbb{E}\,\log\sigma\Big(
# \beta\log\frac{\pi_\theta(y_w|x)}{\pi_\mathrm{ref}(y_w|x)}
# - \beta\log\frac{\pi_\theta(y_l|x)}{\pi_\mathrm{ref}(y_l|x)}\Big)$$
#
# There is no reward model, no sampling and no $Z$. What is left is a classification loss whose
# logit is the [margin](GLOSSARY.md#margin) of two rewards.

# %%
exercises.dpo_loss.card()


# %%
def dpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """The loss of each pair, (B,), from summed log-probabilities, (B,)."""
    raise NotImplementedError


dpo_loss = exercises.dpo_loss.check(dpo_loss)

# %%
import math

pairs = bandit.sample_pairs(world, 100_000, seed=1)
print(f"{len(pairs):,} pairs, judged as the Bradley-Terry model says")


def world_loss(logits: torch.Tensor, beta: float) -> torch.Tensor:
    """The DPO loss on all pairs of a table of logits, (X, Y), averaged."""
    logps, ref = logits.log_softmax(-1), world.log_reference
    chosen, rejected = (pairs.prompts, pairs.chosen), (pairs.prompts, pairs.rejected)
    return dpo_loss(logps[chosen], logps[rejected], ref[chosen], ref[rejected], beta).mean()


start = world_loss(world.log_reference, beta).item()
claim(abs(start - math.log(2)) < 1e-12, f"untrained, the loss is ln 2 = {start:.4f}")
claim(world_loss(best, beta) < start, "at the optimal policy it is lower")

# %% [markdown]
# **Step 5. The gradient** (paper, section 4). With implicit rewards $\hat r$:
#
# $$\nabla\mathcal{L} = -\beta\,\mathbb{E}\Big[\underbrace{\sigma(\hat r_l - \hat r_w)}_{\text{weight}}
# \big(\nabla\log\pi_\theta(y_w|x) - \nabla\log\pi_\theta(y_l|x)\big)\Big]$$

# %%
exercises.gradient_weight.card()


# %%
def gradient_weight(chosen_reward: torch.Tensor, rejected_reward: torch.Tensor) -> torch.Tensor:
    """How much each pair counts in the gradient, (B,)."""
    raise NotImplementedError


gradient_weight = exercises.gradient_weight.check(gradient_weight)

# %% [markdown]
# Does the formula give what autograd gives? For logits $\theta$ the gradient of
# $\log\pi_\theta(y_w|x) - \log\pi_\theta(y_l|x)$ is $+1$ at $y_w$ and $-1$ at $y_l$, because the
# normaliser of the softmax cancels:

# %%
theta = some.clone().requires_grad_(True)
automatic = torch.autograd.grad(world_loss(theta, beta), theta)[0]

rewards = implicit_reward(some, world.log_reference, beta)
at_chosen, at_rejected = (pairs.prompts, pairs.chosen), (pairs.prompts, pairs.rejected)
weight = gradient_weight(rewards[at_chosen], rewards[at_rejected])
analytic = torch.zeros_like(some)
analytic.index_put_(at_chosen, -beta * weight / len(pairs), accumulate=True)
analytic.index_put_(at_rejected, beta * weight / len(pairs), accumulate=True)
difference = (automatic - analytic).abs().max().item()
claim(difference < 1e-12, f"analytic and autograd gradient agree (difference {difference:.0e})")

# %%
wrong_order = preference_probability(rewards[at_rejected], rewards[at_chosen])
so = "pairs that are ranked right with confidence hardly count"
found = "the weight is the probability that the implicit rewards give to the wrong order"
claim((weight - wrong_order).abs().max() < 1e-12, f"{found}, so {so}")

# %% [markdown]
# **Step 6. Training finds the optimum.** With enough pairs, the policy that minimises the loss is
# also the one that maximises $J$ for the true reward, although the loss has never seen that reward:

# %%
trained = bandit.fit_dpo(pairs, world.log_reference, beta=1.0)
optimum = closed_form(world.log_reference, world.reward, 1.0)
off = bandit.total_variation(trained, optimum).max().item()
claim(off < 0.02, f"DPO on {len(pairs):,} pairs is within {off:.4f} of the optimum")

# %% [markdown]
# **Step 7. Your language model is secretly a reward model.** The implicit reward of the trained
# policy orders responses as the true one does:

# %%
implicit = implicit_reward(trained, world.log_reference, 1.0)
both = torch.stack([centred(implicit).flatten(), centred(world.reward).flatten()])
correlation = torch.corrcoef(both)[0, 1].item()
claim(correlation > 0.99, f"implicit and true reward correlate at {correlation:.4f}")

# %% [markdown]
# ## 4 · Beta from both sides
#
# "Low beta is aggressive, high beta does not learn" is half true. Beta acts twice:
#
# - on the **first gradient**: at the start every margin is 0, so each pair's gradient in
#   $h = \log\frac{\pi_\theta(y_w)}{\pi_\mathrm{ref}(y_w)} - \log\frac{\pi_\theta(y_l)}{\pi_\mathrm{ref}(y_l)}$
#   is $-\beta/2$, and a *larger* beta pulls harder;
# - on the **optimum**: since $\pi^* \propto \pi_\mathrm{ref}\,e^{r/\beta}$, a *smaller* beta lets
#   the optimum lie further away. Beta is the temperature of that distribution.

# %%
further = predict(
    "Which beta has the larger first gradient, and which the more distant optimum?",
    ["0.1 both", "0.1 the gradient, 1.0 the optimum", "1.0 the gradient, 0.1 the optimum"],
)

# %%
gradients, kls = {}, {}
for b in (0.1, 1.0):
    theta = world.log_reference.clone().requires_grad_(True)
    gradients[b] = torch.autograd.grad(world_loss(theta, b), theta)[0].norm().item()
    far = bandit.optimal_policy(world.log_reference, world.reward, b)
    kls[b] = bandit.kl_divergence(far, world.log_reference).mean().item()

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(further, *outcomes.sides_of_beta(gradients, kls))

# %%
ratio = gradients[1.0] / gradients[0.1]
claim(abs(ratio - 10) < 1e-9, f"the first gradient is proportional to beta: ratio {ratio:.6f}")

# %%
grid = [round(float(b), 6) for b in torch.logspace(-1.3, 1.3, 53, dtype=torch.float64)]
grid = sorted({*grid, 0.1, 0.3, 1, 3, 10})
figures.plot_beta(world, grid)

# %% [markdown]
# *The figure, from left to right: the first gradient grows with beta; the distance of the optimum
# shrinks with beta; the frontier shows how much expected reward each KL buys, for one beta after
# the other: each further nat buys less.*
#
# Here is the same for one prompt. Grey is the reference, blue is the optimum:

# %%
figures.plot_optima(world, [10, 1, 0.3, 0.1])

# %% [markdown]
# *The figure: at beta 10 the optimum is nearly the reference. At beta 0.1 nearly all the
# probability sits on the few best responses.* Move beta yourself (this needs a running kernel):

# %%
from coursekit.week.widgets import beta_slider

beta_slider(world)

# %% [markdown]
# Which side matters more in practice depends on the optimiser and on when you stop. Adam rescales
# gradients, so that the first side all but vanishes; plain SGD feels it fully. Here is one step of
# each:

# %%
moved = {}
for name, make in (("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)):
    for b in (0.1, 1.0):
        theta = world.log_reference.clone().requires_grad_(True)
        optimizer = make([theta], lr=0.01)
        world_loss(theta, b).backward()
        optimizer.step()
        moved[name, b] = (theta.detach() - world.log_reference).norm().item()
for name in ("SGD", "AdamW"):
    ratio = moved[name, 1.0] / moved[name, 0.1]
    print(f"{name}: a step at beta 1 is {ratio:.2f} times as long as one at beta 0.1")
claim(abs(moved["SGD", 1.0] / moved["SGD", 0.1] - 10) < 1e-6, "SGD's steps grow with beta")
claim(abs(moved["AdamW", 1.0] / moved["AdamW", 0.1] - 1) < 0.05, "AdamW's steps do not")

# %% [markdown]
# Session B tries several betas on the real model.

# %% [markdown]
# ## 5 · From formula to code
#
# The formula needs $\log\pi(y|x)$, a sum over the response's tokens. We build it by hand for a real
# prompt.

# %%
from coursekit.lm.logprobs import encode_pair

prompt, response = prompts[0], responses["SFT"][0]
pair = encode_pair(tokenizer, prompt, response)
input_ids = torch.tensor([pair.prompt_ids + pair.response_ids])  # (1, T)
with torch.no_grad():
    logits = sft(input_ids.to(sft.device)).logits.cpu()  # (1, T, V)
print(f"{len(pair.prompt_ids)} tokens of the prompt, {len(pair.response_ids)} of the response")
print("the last token of the response:", tokenizer.decode(pair.response_ids[-1]))

# %%
exercises.token_logps.card()


# %%
def token_logps(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """log pi of each token given those before it, (B, T - 1)."""
    raise NotImplementedError


token_logps = exercises.token_logps.check(token_logps)

# %%
from coursekit.week.widgets import token_strip

per_token = token_logps(logits.float(), input_ids)  # (1, T - 1)
texts = [tokenizer.decode(token) for token in input_ids[0]]
token_strip(texts, per_token[0].tolist(), skip=len(pair.prompt_ids))

# %% [markdown]
# Where a fact can be copied from the prompt, most tokens are nearly certain. Where the orange is
# stronger, the model might well have written something else. That is where sampling can go wrong,
# and where preferences can act.

# %%
exercises.response_logp.card()


# %%
def response_logp(per_token: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """log pi(y | x), (B,): the sum over the response's tokens."""
    raise NotImplementedError


response_logp = exercises.response_logp.check(response_logp)

# %%
from coursekit.lm.logprobs import sequence_logps

response_mask = torch.tensor([[0] * len(pair.prompt_ids) + [1] * len(pair.response_ids)])
by_hand = response_logp(per_token, response_mask).item()
by_helper = sequence_logps(sft, tokenizer, [prompt], [response]).item()
found = f"log pi(y|x) = {by_hand:.4f} by hand, {by_helper:.4f} by sequence_logps"
claim(abs(by_hand - by_helper) < 1e-4, found)

# %% [markdown]
# ### The bugs that most code has
#
# Each is easy to write and raises no error. How large is the mistake? (BOS is the token with which
# a text begins. Many chat templates write it already, so a tokenizer that adds it makes two.)


# %%
def logp(prompt_ids: list[int], response_ids: list[int], dtype=torch.float32) -> float:
    """log pi(response | prompt) from token ids, with the log-softmax taken in `dtype`."""
    ids = torch.tensor([prompt_ids + response_ids])
    with torch.no_grad():
        scores = sft(ids.to(sft.device)).logits.cpu().to(dtype).log_softmax(-1)
    picked = scores[:, :-1].gather(-1, ids[:, 1:, None])[0, :, 0]
    return picked[len(prompt_ids) - 1 :].float().sum().item()


# %%
import pandas as pd

right = logp(pair.prompt_ids, pair.response_ids)
bos = tokenizer.bos_token_id or tokenizer.eos_token_id  # some have no BOS token
bugs = {
    "end token left out": logp(pair.prompt_ids, pair.response_ids[:-1]),
    "mean for sum": right / len(pair.response_ids),
    "BOS twice": logp([bos, *pair.prompt_ids], pair.response_ids),
    "log-softmax in fp16": logp(pair.prompt_ids, pair.response_ids, torch.float16),
    "log-softmax in bf16": logp(pair.prompt_ids, pair.response_ids, torch.bfloat16),
}
found = pd.DataFrame({"log pi(y|x)": {"right": right, **bugs}})
found["error, nats"] = found["log pi(y|x)"] - right
found.round(4)

# %%
error = found["error, nats"].abs()
claim(bugs["end token left out"] > right, "without the end token a response looks likelier")
claim(
    error["log-softmax in bf16"] > error["log-softmax in fp16"],
    "bf16 has fewer digits than fp16, and the sum shows it",
)

# %% [markdown]
# **The boundary** (optional, as is all up to *DPO in five lines*). Without a chat template, prompt
# and response are plain text, and a token may span both. When the model is *asked*, the prompt is
# tokenised alone, and the answer follows token by token. If it is trained on prompt and response
# tokenised *together*, it sees other tokens than when it is asked. The last of the three lines
# printed first is what [TRL](GLOSSARY.md#trl) does, the library with which session B trains:


# %%
def tokens_of(text: str, start: bool = True) -> list[int]:
    return tokenizer(text, add_special_tokens=start)["input_ids"]


def spelt(ids: list[int]) -> list[str]:
    return [tokenizer.decode(token) for token in ids]


# %%
from trl.data_utils import common_prefix_length  # TRL's own function

asked, answer = tokens_of("cause: "), tokens_of("unknown", start=False)
together = tokens_of("cause: unknown")
cut = common_prefix_length(asked, together)
ways = {
    "asked": (asked, answer),
    "cut by the prompt's length": (together[: len(asked)], together[len(asked) :]),
    "cut as TRL cuts": (together[:cut], together[cut:]),
}
for way, (before, after) in ways.items():
    print(f"{way + ':':28} {spelt(before)} then {spelt(after)}")

# %%
scored = ways["cut by the prompt's length"][1]
claim(scored != answer, "cut by the prompt's length, what is scored is not the answer")
claim(cut < len(asked), f"TRL drops {spelt(asked[cut:])} from the prompt (with a warning)")
as_asked, as_trained = logp(*ways["asked"]), logp(*ways["cut as TRL cuts"])
print(
    f"log pi of the answer: {as_asked:.2f} nats after the prompt as it is asked, "
    f"{as_trained:.2f} as TRL trains it"
)

# %% [markdown]
# TRL tokenises the prompt alone, and the prompt with its completion. For TRL the completion begins
# where the two differ, and the rest of the prompt is dropped, with a warning. So it scores the
# right text, but after a context that the model never sees when it is asked. The remedy is a prompt
# that ends in something no token spans: the marker of a chat template, or a line break where there
# is no template.

# %%
asked, together = tokens_of("cause:\n"), tokens_of("cause:\nunknown")
claim(
    together == asked + answer and common_prefix_length(asked, together) == len(asked),
    f"if the prompt ends in a line break, both ways give the same tokens: {spelt(together)}",
)

# %% [markdown]
# **Taking the mean for the sum can change the answer, and so can leaving out the reference.** Take
# pairs of answers (base against SFT) and ask which of the two "the SFT model prefers": by the sum
# of its log-probabilities, by their mean, or by the implicit reward (the
# [log-ratio](GLOSSARY.md#log-ratio) to the base model):

# %%
tokens = {
    name: sequence_logps(sft, tokenizer, prompts, texts, per_token=True)
    for name, texts in responses.items()
}
total = {name: torch.stack([each.sum() for each in found]) for name, found in tokens.items()}
mean = {name: torch.stack([each.mean() for each in found]) for name, found in tokens.items()}
ratio = {
    name: total[name] - sequence_logps(base, tokenizer, prompts, texts)
    for name, texts in responses.items()
}

# %%
from coursekit.common.statistics import bootstrap_mean

by_sum, by_mean, by_reward = (values["SFT"] > values["base"] for values in (total, mean, ratio))
for name, other in (("mean", by_mean), ("implicit reward", by_reward)):
    differ = bootstrap_mean((by_sum != other).double().tolist(), within=(0, 1))
    claim(differ.value > 0, f"sum and {name} disagree on a share of {differ} of the pairs")

# %% [markdown]
# ### DPO in five lines, and TRL's

# %%
chosen, rejected = responses["SFT"][:16], responses["base"][:16]
triples = [
    {"prompt": p, "chosen": w, "rejected": x}
    for p, w, x in zip(prompts[:16], chosen, rejected, strict=True)
]

policy_w, policy_l = (sequence_logps(sft, tokenizer, prompts[:16], y) for y in (chosen, rejected))
ref_w, ref_l = (sequence_logps(base, tokenizer, prompts[:16], y) for y in (chosen, rejected))
h = (policy_w - ref_w) - (policy_l - ref_l)  # (B,)
loss = -F.logsigmoid(0.1 * h).mean()

# %%
from coursekit.training import trl_loss

theirs = trl_loss(sft, base, tokenizer, triples, beta=0.1)
claim(abs(loss.item() - theirs) < 1e-5, f"ours {loss.item():.6f}, TRL's {theirs:.6f}")

# %% [markdown]
# ## 6 · DPO against RLHF, where the truth is known · optional
#
# "DPO is RLHF without the reward model": when is that so? We begin with the case in which it is
# *exactly* so. If the reward model may give each response a reward of its own, its fit and DPO's
# fit are the same problem in other words, even with few pairs and wrong labels. Both fits maximise
# the log-likelihood of the pairs minus a **ridge**: 0.1 times the sum of squared weights in one
# case, of squared implicit rewards in the other. Without a ridge, pairs of which the same
# response always wins would send both fits to infinity. It has to be the same in both:

# %%
few = bandit.sample_pairs(world, 300, seed=3, flipped=0.2)
dpo_policy = bandit.fit_dpo(few, world.log_reference, beta=0.5)
reward = bandit.fit_reward(few, features)
rlhf_policy = bandit.policy_gradient(world.log_reference, reward, 0.5, steps=300, step_size=0.5)[-1]

# %%
same = bandit.total_variation(dpo_policy, rlhf_policy).max().item()
claim(same < 1e-4, f"the two policies are the same (total variation {same:.0e})")
stiffer = bandit.fit_dpo(few, world.log_reference, beta=0.5, ridge=1.0)
apart = bandit.total_variation(stiffer, rlhf_policy).max().item()
claim(apart > 0.1, f"with ten times the ridge in DPO's fit alone they differ ({apart:.2f})")

# %% [markdown]
# The two differ as soon as one of them *generalises* in another way than the other. Below, the
# reward model is linear in three features that do explain the true reward, while DPO has a free
# logit for each response. The ridge is 0.1 for both: on three weights for the reward model, on 36
# implicit rewards for DPO. **Regret** is how far $J$ falls short of its maximum.

# %%
parting = predict(
    "Half of the responses never occur in any pair. Which method is nearer to the optimum?",
    ["DPO", "reward model + policy gradient", "both alike"],
)

# %%
results = bandit.compare_estimators(bandit.CONDITIONS)
figures.plot_estimators(results)

# %%
regrets = results.pivot_table(index="condition", columns="method", values="regret", sort=False)
regrets.round(4)

# %% tags=["hide-input"] cellView="form" jupyter={"source_hidden": true}
# @title What came out
held(parting, *outcomes.where_half_is_unseen(results))
claims(outcomes.who_is_nearer(results))

# %% [markdown]
# *The figure: regret with 95 % intervals over worlds. With plenty of pairs both are near 0. With
# few pairs, with flipped labels, or with half of the responses unseen, the reward model is nearer,
# because it generalises by its features. If it sees only one of the three features, DPO is nearer.*
#
# How much of this does the ridge decide? With few pairs it decides a good deal, but not which
# method is nearer:

# %%
little = {"few pairs": bandit.CONDITIONS["few pairs"]}
by_ridge = {}
for ridge in (0.01, 0.1, 1.0, 10.0):
    fitted = bandit.compare_estimators(little, ridge=ridge)
    by_ridge[ridge] = bootstrap_mean(bandit.excess_regret(fitted))
    print(f"ridge {ridge:g}: DPO's regret minus the other's {by_ridge[ridge]}")
claims(outcomes.ridge_decides_little(by_ridge))

# %% [markdown]
# Neither is better as such. DPO learns about a response from the pairs in which it occurs, and from
# what the network shares between responses. A reward model can score responses that no pair shows.
# It helps *if* it generalises correctly, and it can be hacked if it does not (section 2).

# %% [markdown]
# ## 7 · The family
#
# There are seven losses in `coursekit.lm.losses`, each a pure function with its paper in the
# docstring.

# %%
figures.plot_loss_family()

# %% [markdown]
# *The figure. Left: DPO's loss keeps falling. That of cDPO (DPO with smoothed labels) turns up
# again where the certainty exceeds the share of right labels. That of robust DPO goes below 0,
# because its mean over flipped labels has to equal DPO's. IPO's is a parabola around 1/(2 beta).
# Middle: KTO's losses of one desirable and one undesirable response; both are flat far from z.
# Right: SimPO's loss, of a difference of means, without a reference.*
#
# ### IPO: preferences that never vary · optional
#
# If one response always wins, the best difference of rewards is infinite: DPO's margin grows for as
# long as you train, and beta does not stop it. IPO (Azar et al. 2023,
# [2310.12036](https://arxiv.org/abs/2310.12036)) replaces the log-sigmoid by a squared distance.

# %%
exercises.ipo_loss.card()


# %%
def ipo_loss(
    chosen_log_ratio: torch.Tensor, rejected_log_ratio: torch.Tensor, beta: float
) -> torch.Tensor:
    """IPO's loss of each pair, (B,)."""
    raise NotImplementedError


ipo_loss = exercises.ipo_loss.check(ipo_loss)

# %%
from coursekit.lm import losses

zero = torch.zeros(1, dtype=torch.float64)
beta_pair, wrong = 0.3, 0.1  # beta, and the share of wrong labels that cDPO is told
loss_of_h = {
    "DPO": lambda h: dpo_loss(h, zero, zero, zero, beta_pair),
    "cDPO": lambda h: losses.cdpo_loss(h, zero, zero, zero, beta_pair, wrong)[0],
    "IPO": lambda h: ipo_loss(h, zero, beta_pair),
}


def descend(loss_of, steps: int = 4000) -> list[float]:
    """h after each step of gradient descent from 0."""
    h, path = zero.clone().requires_grad_(True), []
    for _ in range(steps):
        (slope,) = torch.autograd.grad(loss_of(h).sum(), h)
        h = (h - 0.2 * slope).detach().requires_grad_(True)
        path.append(h.item())
    return path


# %%
margins = {name: descend(loss_of) for name, loss_of in loss_of_h.items()}
targets = {"cDPO": math.log((1 - wrong) / wrong) / beta_pair, "IPO": 1 / (2 * beta_pair)}
figures.plot_margins(margins, targets)

# %%
claim(margins["DPO"][-1] > 1.2 * margins["DPO"][1999], "DPO's margin is still growing at the end")
for name, target in targets.items():
    claim(abs(margins[name][-1] - target) < 0.05, f"{name} has settled at {target:.2f} nats")

# %% [markdown]
# *The figure: h over gradient steps, on a logarithmic axis. DPO's h keeps growing, while those of
# cDPO and IPO bend into the dotted lines.*
#
# **Sums or means?** The paper writes IPO with sums. TRL divides each log-ratio by the length of its
# response. A note in its source says that IPO's authors confirmed this, and that the paper's
# results were obtained in this form. The same beta then asks for another margin: $1/(2\beta)$ *per
# token*.

# %%
length_w, length_l = (
    torch.tensor([len(values) for values in tokens[name][:16]]) for name in ("SFT", "base")
)
ratio_w, ratio_l = policy_w - ref_w, policy_l - ref_l
with_sums = ipo_loss(ratio_w, ratio_l, 0.1).mean().item()
with_means = ipo_loss(ratio_w / length_w, ratio_l / length_l, 0.1).mean().item()
theirs = trl_loss(sft, base, tokenizer, triples, beta=0.1, loss_type="ipo")
claim(
    abs(with_means - theirs) < 1e-3 < abs(with_sums - theirs),
    f"TRL's IPO loss is {theirs:.3f}: ours with means {with_means:.3f}, with sums {with_sums:.3f}",
)

# %% [markdown]
# ### KTO: thumbs without pairs · optional
#
# Products collect thumbs up and down, not pairs. KTO (Ethayarajh et al. 2024,
# [2402.01306](https://arxiv.org/abs/2402.01306)) compares each response with a point of reference
# z.

# %%
exercises.kto_desirable.card()


# %%
def kto_desirable(
    log_ratio: torch.Tensor, mismatched_log_ratio: torch.Tensor, beta: float
) -> torch.Tensor:
    """KTO's loss of desirable responses, (B,)."""
    raise NotImplementedError


kto_desirable = exercises.kto_desirable.check(kto_desirable)

# %%
generator = torch.Generator().manual_seed(0)
asked = torch.randint(3, (2000,), generator=generator)
given = torch.multinomial(world.log_reference.exp()[asked], 1, generator=generator)[:, 0]
thumbs_up = torch.rand(2000, generator=generator) < torch.sigmoid(2 * world.reward[asked, given])

# %%
kto_policy = bandit.fit_kto(asked, given, thumbs_up, world.log_reference, beta=0.5)
before, after = (
    bandit.expected_reward(policy, world.reward).mean().item()
    for policy in (world.log_reference, kto_policy)
)
found = f"thumbs alone raise the expected reward, from {before:.2f} to {after:.2f}"
claim(after > before + 0.5, found)

# %% [markdown]
# ### ORPO and SimPO: no reference · optional
#
# ORPO (Hong et al. 2024, [2403.07691](https://arxiv.org/abs/2403.07691)) adds a penalty on the
# *odds* of the rejected response to the SFT loss, so that one stage takes the place of two. Its p
# is the **length-normalised** likelihood. SimPO (Meng et al. 2024,
# [2405.14734](https://arxiv.org/abs/2405.14734)) drops the reference from DPO, and it also uses
# means.

# %%
exercises.log_odds_ratio.card()


# %%
def log_odds_ratio(
    chosen_mean_logps: torch.Tensor, rejected_mean_logps: torch.Tensor
) -> torch.Tensor:
    """log odds(p_w) - log odds(p_l), (B,)."""
    raise NotImplementedError


log_odds_ratio = exercises.log_odds_ratio.check(log_odds_ratio)

# %% [markdown]
# Why does ORPO not use sums? Take 50 tokens at 0.4 nats each against 50 tokens at 0.6 nats:

# %%
chosen_logp, rejected_logp = torch.tensor([[-0.4], [-0.6]], dtype=torch.float64)
odds = {
    "means": log_odds_ratio(chosen_logp, rejected_logp),
    "sums": log_odds_ratio(50 * chosen_logp, 50 * rejected_logp),
}
penalties = {name: -F.logsigmoid(ratio).item() for name, ratio in odds.items()}
for name, ratio in odds.items():
    print(f"{name}: log odds ratio {ratio.item():.3f}, penalty {penalties[name]:.5f}")

# %%
tiny = abs(odds["sums"].item() - 10) < 1e-6  # 50 times the difference of the log-probabilities
claim(tiny, "with sums p is tiny, so the odds are just the probabilities")
claim(penalties["sums"] < 1e-3 * penalties["means"], "the penalty is then gone before it has acted")

# %% [markdown]
# ### When which?
#
# | You have | Take | Because | Measured |
# |---|---|---|---|
# | pairs, and a good SFT model | DPO | it is simple, has one stage, and has been tried a lot | sessions B and C, lab 1 to 3 |
# | pairs whose outcome never varies, or many epochs | IPO, or DPO stopped early | the margin has a target | above, in the exact world; few epochs in lab 3 |
# | pairs with wrong labels whose share is roughly known | DPO, with robust DPO or cDPO beside it | those two are told the share | session B, lab 3 |
# | thumbs up and down, no pairs | KTO | it needs no pairs | lab 3, on thumbs made of pairs |
# | pairs but no SFT model, and a wish for one stage | ORPO | SFT and preferences are in one loss | lab 3, from the base and from SFT |
# | pairs of unequal length, and no need to stay close to SFT | SimPO | its reward is per token and without a reference | lab 3 |
# | little memory | any of them, with LoRA | one model is in memory; without LoRA, precompute the reference | section 2, by arithmetic |
# | a reward that you can compute, and cheap samples | [GRPO](GLOSSARY.md#grpo) or RLOO | they learn from the policy's own samples | lab 1 and 4 |
# | a reward model that you trust | RLOO, GRPO or PPO | they train online and generalise by the reward model | lab 1, where a few hundred pairs made no model to trust |
#
# "Lab" is the optional [fourth notebook](labs/frontier.ipynb): there the losses train a language model,
# on the course's own task, and it draws the paper's frontier. One task and one small model show what
# *can* happen and not what holds everywhere. TRL 1.16 has trainers for GRPO and RLOO but none for
# PPO. KTO's authors argue (section 4.4 of their paper) that KTO can do better than DPO on
# contradictory pairs, and DPO better where there is little noise; lab 3 compares the two on both.
#
# The conventions differ, and mixing them up raises no error: DPO, cDPO, robust DPO, IPO and KTO
# take **sums** (but TRL's IPO divides by the length), while ORPO and SimPO take **means**.

# %% [markdown]
# ## 8 · The landscape · optional
#
# ### Constitutional AI: labels from principles
#
# Bai et al. 2022 ([2212.08073](https://arxiv.org/abs/2212.08073)) write down principles and use
# them in two stages. First a model criticises and revises its own answers by these principles, and
# is fine-tuned on the revisions (this is SFT; there are no pairs yet). Then that model gives *two
# samples* for a prompt, and a model is asked which of them keeps a principle better. Its answer is
# the preference label (RLAIF, reinforcement learning from AI feedback). Our three principles:

# %%
# %%needs own
from coursekit.tasks.triage.constitution import PRINCIPLES

for principle in PRINCIPLES:
    print(f"- {principle.text}")

# %%
# %%needs own
from coursekit.tasks.triage import alert_of
from coursekit.tasks.triage.constitution import revise

revisions = [revise(alert_of(row), text) for row, text in zip(rows, responses["SFT"], strict=True)]
revised = [index for index, revision in enumerate(revisions) if revision.critiques]
for critique in revisions[revised[0]].critiques:
    print("critique:", critique)

# %%
# %%needs own
first_two = revised[:2]
versions = {
    "first answer": [revisions[index].original for index in first_two],
    "revision (a target for SFT)": [revisions[index].revised for index in first_two],
}
side_by_side(task, [rows[index] for index in first_two], versions)

# %%
# %%needs own
first = scores[scores["model"] == "SFT"].set_index("row")["overall"]
improved = score_responses(task, rows, {"revised": [revision.revised for revision in revisions]})
raised = bootstrap_mean(improved["overall"] - first)
claim(
    raised.low > 0,
    f"stage 1: {len(revised)} of {len(rows)} answers are revised; the mean score rises by {raised}",
)

# %% [markdown]
# In stage 2 each prompt gets two samples. The one that breaks fewer principles is preferred; where
# both break equally many, there is no pair. (We skip the fine-tuning between the stages, so both
# samples come from the SFT model.)

# %%
# %%needs own
second = generate(sft, tokenizer, prompts, temperature=0.7, label="second sample", seed=1, **sizes)
samples = {"first": responses["SFT"], "second": second}
breaches, marks = torch.zeros(2, 2, len(rows), dtype=torch.float64)  # (2 samples, N prompts) each
for index, texts in enumerate(samples.values()):
    for place, (row, text) in enumerate(zip(rows, texts, strict=True)):
        breaches[index, place] = len(revise(alert_of(row), text).critiques)
        marks[index, place] = task.score(row, text)["overall"]

# %%
# %%needs own
decided = breaches[0] != breaches[1]
preferred = breaches[:, decided].argmin(0, keepdim=True)  # (1, pairs): which sample
gap = marks[:, decided].gather(0, preferred) - marks[:, decided].gather(0, 1 - preferred)
better = bootstrap_mean(gap[0].tolist())
claim(
    better.low > 0,
    f"stage 2: {int(decided.sum())} pairs; the preferred sample scores {better} above the other",
)

# %% [markdown]
# **What this shows** is how principles become SFT targets and pairs without a human label. **What
# it does not show** is that a model would criticise as well as this. Here the rules of the rubric
# take the critic's place, and they know the truth. A real critic misses faults, finds faults where
# there are none, and has a taste for length.
#
# ### GRPO in one figure
#
# Sample a group of answers to one prompt and score each. Push up those above the group's mean, and
# push down those below it (Shao et al. 2024, [2402.03300](https://arxiv.org/abs/2402.03300)). This
# needs no pairs and no value model, but a reward that can be computed, and sampling while it
# trains.

# %%
# %%needs truth
overall = scores[scores["model"] == "SFT"].set_index("row")["overall"]
spoiled = int((overall < 1).idxmax())  # the first answer that has a fault
asked_again = [prompts[spoiled]] * 8
group = generate(sft, tokenizer, asked_again, temperature=1.0, label="one group", **sizes)
group_scores = score_responses(task, [rows[spoiled]] * 8, {"SFT": group})["overall"]
figures.plot_group_advantages(group_scores.tolist())

# %% [markdown]
# *The figure: left, the rewards of eight answers to one prompt, with their mean. Right, the
# advantage of each answer: above the mean it is pushed up, below the mean it is pushed down. If all
# eight score alike, nothing is learnt.*
#
# ## 9 · Notes, quiz, reading
#
# Write your notes in two files, which are made from templates in the artifacts folder and never
# overwritten. Those on DPO are core; those on InstructGPT are optional. Run the cell again to see
# how many words you have written.

# %%
from IPython.display import display

from coursekit.week.deliverables import notes

for kind in ("dpo", "instructgpt"):
    display(notes(kind, profile))

# %%
from coursekit.week.widgets import quiz

quiz(exercises.QUIZ)

# %% [markdown]
# **Reading list** · optional. To go on to session B you need none of it. Of all these, read the
# first one first: its sections 3 and 4 are what sections 2 and 3 of this session did in cells.
#
# | paper | sections | minutes |
# |---|---|---|
# | DPO, Rafailov et al., May 2023, [2305.18290](https://arxiv.org/abs/2305.18290) | 3, 4, appendix A.1 and A.2 | 60 |
# | InstructGPT, Ouyang et al., March 2022, [2203.02155](https://arxiv.org/abs/2203.02155) | 3 | 40 |
# | Ziegler et al., September 2019, [1909.08593](https://arxiv.org/abs/1909.08593) | 2 | 20 |
# | IPO, Azar et al., October 2023, [2310.12036](https://arxiv.org/abs/2310.12036) | 4, 5 | 40 |
# | KTO, Ethayarajh et al., February 2024, [2402.01306](https://arxiv.org/abs/2402.01306) | 3, 4 | 30 |
# | ORPO, Hong et al., March 2024, [2403.07691](https://arxiv.org/abs/2403.07691) | 4 | 15 |
# | Constitutional AI, Bai et al., December 2022, [2212.08073](https://arxiv.org/abs/2212.08073) | 1, 3, 4 | 40 |
# | [Likelihood displacement](GLOSSARY.md#likelihood-displacement), Razin et al., October 2024, [2410.08847](https://arxiv.org/abs/2410.08847) | 1 to 3 | 30 |
# | Over-optimisation, Gao et al., October 2022, [2210.10760](https://arxiv.org/abs/2210.10760) | 3 | 30 |
# | Over-optimisation in DPO, Rafailov et al., June 2024, [2406.02900](https://arxiv.org/abs/2406.02900) | 3 | 20 |
#
# Next, session B builds the preference data and trains with it.
