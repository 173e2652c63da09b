"""Wrong answers to the exercises, as learners write them, and what each has to be told.

By exercise: pairs of a source and a fragment of the message. A source is what stands in the stub
in place of its `raise`: an expression, or a body with a `return` of its own. No test itself.
"""

# The reward of the lab as a learner may write it; below, with one piece in another way each.
_REWARD = """
fields = "service region time metric users severity cause next".split()
names = lambda pairs: [name for name, _ in pairs]
pairs = [line.partition(": ")[::2] for line in report.split("\\n")]
said = dict(pairs)
if names(pairs) != fields or not all(said.values()):
    return 0.0
copied = {
    "service": alert["service"],
    "region": alert["region"],
    "time": alert["time"],
    "metric": alert["metric"] + " " + alert["value"],
    "users": f"{alert['users']}%",
}
right = [said[name] == value for name, value in copied.items()]
facts = sum(right) / 5
wanted = f"suspected {alert['change']}" if alert['change'] else 'unknown'
cause = said['cause'] == wanted
step = len(said['next'].split()) <= 5
return (facts + cause + step) / 3
"""

WRONG = {
    "preference_probability": [
        ("torch.sigmoid(reward_l - reward_w)", "the sign is turned around"),
        ("1 - torch.sigmoid(reward_w - reward_l)", "the sign is turned around"),
        ("reward_w - reward_l", "difference of rewards"),
        ("reward_w / (reward_w + reward_l)", "a ratio of rewards is no probability"),
        (
            "torch.exp(reward_w) / (torch.exp(reward_w) + torch.exp(reward_l))",
            "exp overflows for large ones",
        ),
        ("F.logsigmoid(reward_w - reward_l)", "*log*-probability"),
        ("(reward_w > reward_l).float()", "the better one does not always win"),
        ("torch.sigmoid(reward_w)", "whatever `reward_l` is"),
        ("torch.sigmoid(reward_w - reward_l).mean()", "it returns shape (), expected (3,)"),
        ("100 * torch.sigmoid(reward_w - reward_l)", "in per cent"),
        ("torch.sigmoid((reward_w - reward_l).half())", "half precision"),
        ("torch.sigmoid(reward_w - reward_l).tolist()", "need a torch.Tensor"),
        ("torch.sigmoid(reward_w - reward_l).numpy()", "need a torch.Tensor"),
        ("torch.tanh(reward_w - reward_l)", "got "),
    ],
    "closed_form": [
        ("(log_reference + reward / 0.5).log_softmax(-1)", "whatever `beta` is"),
        ("(log_reference + 2 * reward).log_softmax(-1)", "whatever `beta` is"),
        ("(log_reference + beta * reward).log_softmax(-1)", "multiplied by beta"),
        ("log_reference + reward / beta", "not normalised"),
        ("(reward / beta).log_softmax(-1)", "the reference is missing"),
        ("log_reference.log_softmax(-1)", "whatever `reward` and `beta` are"),
        ("F.softmax(log_reference + reward / beta, dim=-1)", "these are probabilities"),
        ("torch.log(F.softmax(log_reference + reward / beta, dim=-1))", "its logarithm -inf"),
        (
            """
            weights = log_reference.exp() * torch.exp(reward / beta)
            return torch.log(weights / weights.sum(-1, keepdim=True))
            """,
            "inf or nan",
        ),
        ("F.log_softmax(log_reference + reward / beta, dim=0)", "normalised over the prompts"),
        ("F.log_softmax((log_reference + reward) / beta, dim=-1)", "divided by beta as well"),
        ("F.log_softmax(log_reference.exp() + reward / beta, dim=-1)", "a logarithm already"),
        ("F.log_softmax(log_reference + reward, dim=-1)", "beta is missing"),
        ("F.log_softmax(log_reference + reward / beta, dim=-1) / math.log(2)", "in bits"),
    ],
    "implicit_reward": [
        ("0.1 * (policy_logps - reference_logps)", "whatever `beta` is"),
        ("policy_logps - reference_logps", "beta is missing"),
        ("(policy_logps - reference_logps) / beta", "divided by beta"),
        ("beta * (reference_logps - policy_logps)", "the sign is turned around"),
        ("beta * policy_logps", "the reference is forgotten"),
        ("beta * policy_logps - reference_logps", "beta multiplies the whole log-ratio"),
        ("beta * (policy_logps - reference_logps).sum()", "it returns shape ()"),
        ("beta * torch.exp(policy_logps - reference_logps)", "ratio of probabilities"),
        ("beta * torch.log(policy_logps / reference_logps)", "these are logarithms already"),
        ("beta * (policy_logps / reference_logps)", "in logarithms that is a difference"),
        ("beta * (policy_logps - reference_logps) / math.log(2)", "in bits"),
        ("torch.sigmoid(beta * (policy_logps - reference_logps))", "the sigmoid comes later"),
    ],
    "dpo_loss": [
        (
            """
            with torch.no_grad():
                margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
                return -F.logsigmoid(beta * margin)
            """,
            "no gradient reaches `policy_chosen` and `policy_rejected`",
        ),
        (
            """
            chosen = policy_chosen - reference_chosen
            rejected = (policy_rejected - reference_rejected).detach()
            return -F.logsigmoid(beta * (chosen - rejected))
            """,
            "no gradient reaches `policy_rejected`",
        ),
        (
            """
            rejected = policy_rejected - reference_rejected
            return -F.logsigmoid(beta * (policy_chosen.data - reference_chosen - rejected))
            """,
            "no gradient reaches `policy_chosen`",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -torch.log(torch.sigmoid(beta * margin))
            """,
            "F.logsigmoid (or F.softplus) stays finite",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return torch.log(1 + torch.exp(-beta * margin))
            """,
            "F.logsigmoid (or F.softplus) stays finite",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -F.logsigmoid((beta * margin).clamp(-20, 20))
            """,
            "clamped",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return (-F.logsigmoid(beta * margin)).clamp(max=20)
            """,
            "clamped",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -torch.log(torch.sigmoid(beta * margin) + 1e-8)
            """,
            "got ",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -F.logsigmoid(0.1 * margin)
            """,
            "whatever `beta` is",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -F.logsigmoid(margin)
            """,
            "beta is missing",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return F.logsigmoid(beta * margin)
            """,
            "*negative* log-likelihood",
        ),
        (
            """
            margin = (policy_rejected - reference_rejected) - (policy_chosen - reference_chosen)
            return -F.logsigmoid(beta * margin)
            """,
            "swapped roles",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -F.logsigmoid(beta * margin).mean()
            """,
            "averaged over the batch",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -F.logsigmoid(beta * margin).sum()
            """,
            "it returns shape (), expected (3,)",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -torch.log2(torch.sigmoid(beta * margin))
            """,
            "inf or nan",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -F.logsigmoid(beta * margin) / math.log(2)
            """,
            "in bits",
        ),
        ("-F.logsigmoid(beta * (policy_chosen - policy_rejected))", "the reference is missing"),
        (
            "-F.logsigmoid(beta * (policy_chosen - reference_chosen))",
            "rejected response is missing",
        ),
        (
            "-F.logsigmoid(beta * (policy_chosen - reference_chosen - policy_rejected))",
            "whatever `reference_rejected` is",
        ),
        (
            "-F.logsigmoid(beta * (policy_chosen - reference_chosen"
            " - policy_rejected - reference_rejected))",
            "a bracket is missing",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return -beta * F.logsigmoid(margin)
            """,
            "beta stands outside the logarithm",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return torch.tensor([math.log1p(math.exp(-beta * m)) for m in margin])
            """,
            "no gradient reaches",
        ),
        (
            """
            margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
            return torch.tensor([F.softplus(-beta * m).item() for m in margin])
            """,
            "no gradient reaches",
        ),
    ],
    "gradient_weight": [
        ("torch.sigmoid(chosen_reward - rejected_reward)", "probability of the *right* order"),
        ("-torch.sigmoid(rejected_reward - chosen_reward)", "the weight itself is positive"),
        ("rejected_reward - chosen_reward", "the margin with its sign turned"),
        ("torch.exp(rejected_reward - chosen_reward)", "without 1 + exp"),
        ("-F.logsigmoid(chosen_reward - rejected_reward)", "this is the loss itself"),
        (
            """
            p = torch.sigmoid(chosen_reward - rejected_reward)
            return p * (1 - p)
            """,
            "derivative of the sigmoid",
        ),
        ("torch.sigmoid(rejected_reward)", "whatever `chosen_reward` is"),
        ("torch.sigmoid(0.1 * (rejected_reward - chosen_reward))", "a beta is put in once more"),
        ("(rejected_reward > chosen_reward).float()", "pairs that are ranked right count too"),
        ("torch.sigmoid(rejected_reward - chosen_reward).mean()", "it returns shape ()"),
    ],
    "token_logps": [
        (
            "logits[:, 1:].log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)",
            "off by one",
        ),
        (
            "logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, :-1, None]).squeeze(-1)",
            "its own position",
        ),
        ("logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1)", "not shifted"),
        (
            "logits[:, :-1].gather(-1, input_ids[:, 1:].unsqueeze(-1)).squeeze(-1)",
            "these are logits",
        ),
        (
            "torch.log(logits[:, :-1].softmax(-1)).gather(-1, input_ids[:, 1:, None]).squeeze(-1)",
            "its logarithm -inf",
        ),
        (
            "logits[:, :-1].softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)",
            "these are probabilities",
        ),
        (
            "logits[:, :-1].log_softmax(1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)",
            "normalised over the positions",
        ),
        (
            "F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction='none')",
            "cross-entropy is the *negative*",
        ),
        (
            "logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None])",
            "it returns shape (1, 2, 1), expected (1, 2)",
        ),
        (
            """
            with torch.no_grad():
                logps = logits[:, :-1].log_softmax(-1)
            return logps.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
            """,
            "no gradient reaches `logits`",
        ),
        (
            """
            logps = logits[:, :-1].half().log_softmax(-1)
            return logps.gather(-1, input_ids[:, 1:, None]).squeeze(-1).double()
            """,
            "got ",
        ),
        ("logits[:, :-1].log_softmax(-1).max(-1).values", "the most likely tokens"),
        (
            "logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:])",
            "it raises RuntimeError",
        ),
    ],
    "response_logp": [
        ("(per_token * response_mask[:, :-1]).sum(-1)", "the mask is off by one"),
        ("(per_token * response_mask[:, 1:]).mean(-1)", "this is a mean"),
        (
            "(per_token * response_mask[:, 1:]).sum(-1) / response_mask[:, 1:].sum(-1)",
            "the mean over tokens",
        ),
        ("per_token.sum(-1)", "prompt and padding are counted"),
        ("(per_token * response_mask[:, 1:]).sum()", "summed over the batch as well"),
        ("(per_token * response_mask[:, 1:]).sum(0)", "summed over the batch (first axis)"),
        ("per_token[response_mask[:, 1:].bool()].sum()", "summed over the batch as well"),
        ("(per_token * response_mask).sum(-1)", "it raises RuntimeError"),
        ("(per_token * ~response_mask[:, 1:].bool()).sum(-1)", "the wrong way round"),
        ("(per_token * response_mask[:, 1:]).sum(-1).exp()", "this is the probability"),
        ("(per_token.detach() * response_mask[:, 1:]).sum(-1)", "no gradient reaches `per_token`"),
        ("-(per_token * response_mask[:, 1:]).sum(-1)", "negated"),
        (
            """
            rows = [row[mask[1:] == 1][:-1].sum() for row, mask in zip(per_token, response_mask)]
            return torch.stack(rows)
            """,
            "the end token is left out",
        ),
    ],
    "ipo_loss": [
        ("(chosen_log_ratio - rejected_log_ratio - 1 / (2 * 0.1)) ** 2", "whatever `beta` is"),
        ("(chosen_log_ratio - rejected_log_ratio - 5) ** 2", "whatever `beta` is"),
        ("(chosen_log_ratio - rejected_log_ratio - 1 / 2 * beta) ** 2", "without brackets"),
        ("(chosen_log_ratio - rejected_log_ratio - 1 / beta) ** 2", "half of this"),
        ("(rejected_log_ratio - chosen_log_ratio - 1 / (2 * beta)) ** 2", "swapped roles"),
        ("(chosen_log_ratio - rejected_log_ratio + 1 / (2 * beta)) ** 2", "sign of the target"),
        ("(beta * (chosen_log_ratio - rejected_log_ratio) - 0.5) ** 2", "beta squared times"),
        ("chosen_log_ratio - rejected_log_ratio - 1 / (2 * beta)", "the square is missing"),
        ("torch.abs(chosen_log_ratio - rejected_log_ratio - 1 / (2 * beta))", "not squared"),
        ("(chosen_log_ratio - 1 / (2 * beta)) ** 2", "whatever `rejected_log_ratio` is"),
        (
            "(chosen_log_ratio - rejected_log_ratio.detach() - 1 / (2 * beta)) ** 2",
            "no gradient reaches `rejected_log_ratio`",
        ),
        ("((chosen_log_ratio - rejected_log_ratio - 1 / (2 * beta)) ** 2).mean()", "shape ()"),
        (
            "F.relu(1 / (2 * beta) - (chosen_log_ratio - rejected_log_ratio)) ** 2",
            "nothing is lost beyond the target",
        ),
    ],
    "kto_desirable": [
        (
            "1 - torch.sigmoid(beta * (log_ratio - mismatched_log_ratio.mean().clamp(min=0)))",
            "no detach",
        ),
        (
            "1 - torch.sigmoid(beta * (log_ratio - mismatched_log_ratio.mean().detach()))",
            "z must not fall below 0",
        ),
        (
            "1 - torch.sigmoid(beta * (log_ratio - F.relu(mismatched_log_ratio).mean().detach()))",
            "clamped before the mean",
        ),
        (
            "1 - torch.sigmoid(beta * (log_ratio - mismatched_log_ratio.mean().abs().detach()))",
            "the size of a negative mean",
        ),
        (
            "torch.sigmoid(beta * (log_ratio - mismatched_log_ratio.mean().clamp(min=0).detach()))",
            "the *value* that is to grow",
        ),
        (
            "1 - torch.sigmoid(log_ratio - mismatched_log_ratio.mean().clamp(min=0).detach())",
            "beta is missing",
        ),
        (
            "1 - torch.sigmoid(beta * log_ratio"
            " - mismatched_log_ratio.mean().clamp(min=0).detach())",
            "beta multiplies the whole difference",
        ),
        (
            "(1 - torch.sigmoid(beta * (log_ratio"
            " - mismatched_log_ratio.mean().clamp(min=0)))).detach()",
            "no gradient reaches `log_ratio`",
        ),
        (
            "1 - torch.sigmoid(beta * (log_ratio - log_ratio.mean().clamp(min=0).detach()))",
            "whatever `mismatched_log_ratio` is",
        ),
        ("1 - torch.sigmoid(beta * log_ratio)", "whatever `mismatched_log_ratio` is"),
        (
            "-F.logsigmoid(beta * (log_ratio - mismatched_log_ratio.mean().clamp(min=0).detach()))",
            "log-sigmoid of DPO",
        ),
        (
            "1 - torch.sigmoid(beta * (log_ratio - max(0, mismatched_log_ratio).mean()))",
            "it raises RuntimeError",
        ),
    ],
    "log_odds_ratio": [
        (
            """
            p_w, p_l = chosen_mean_logps.exp(), rejected_mean_logps.exp()
            return torch.log(p_w / (1 - p_w)) - torch.log(p_l / (1 - p_l))
            """,
            "where p is near 1",
        ),
        (
            """
            p_w, p_l = chosen_mean_logps.exp(), rejected_mean_logps.exp()
            return torch.logit(p_w) - torch.logit(p_l)
            """,
            "where p is near 1",
        ),
        (
            """
            chosen = chosen_mean_logps - torch.log1p(-torch.exp(chosen_mean_logps))
            rejected = rejected_mean_logps - torch.log1p(-torch.exp(rejected_mean_logps))
            return chosen - rejected
            """,
            "without that loss",
        ),
        (
            """
            chosen = chosen_mean_logps - torch.log(1 - chosen_mean_logps.exp())
            rejected = rejected_mean_logps - torch.log(1 - rejected_mean_logps.exp())
            return chosen - rejected
            """,
            "without that loss",
        ),
        (
            """
            p_w, p_l = chosen_mean_logps.exp(), rejected_mean_logps.exp()
            p_w, p_l = (p.clamp(1e-6, 1 - 1e-6) for p in (p_w, p_l))
            return torch.log(p_w / (1 - p_w)) - torch.log(p_l / (1 - p_l))
            """,
            "got ",
        ),
        ("chosen_mean_logps - rejected_mean_logps", "the log-ratio of probabilities"),
        (
            """
            chosen = rejected_mean_logps - torch.log(-torch.expm1(rejected_mean_logps))
            rejected = chosen_mean_logps - torch.log(-torch.expm1(chosen_mean_logps))
            return chosen - rejected
            """,
            "swapped roles",
        ),
        (
            """
            chosen = chosen_mean_logps - torch.log(-torch.expm1(chosen_mean_logps))
            rejected = rejected_mean_logps - torch.log(-torch.expm1(rejected_mean_logps))
            return (chosen - rejected).exp()
            """,
            "the odds ratio itself",
        ),
        (
            """
            chosen = chosen_mean_logps - torch.log(-torch.expm1(chosen_mean_logps))
            rejected = rejected_mean_logps - torch.log(-torch.expm1(rejected_mean_logps))
            return chosen - rejected.detach()
            """,
            "no gradient reaches `rejected_mean_logps`",
        ),
        (
            "torch.log(chosen_mean_logps / (1 - chosen_mean_logps))"
            " - torch.log(rejected_mean_logps / (1 - rejected_mean_logps))",
            "p is exp of them",
        ),
        (
            """
            chosen = chosen_mean_logps - torch.log(-torch.expm1(chosen_mean_logps))
            return chosen
            """,
            "the rejected response is missing",
        ),
    ],
    "cause_clause": [
        (
            """
            if cause == "unknown":
                return 0.5 if change else 1
            return 1 if change and change in cause else 0
            """,
            "*somewhere* in the cause",
        ),
        (
            """
            if change is None:
                return float(cause == "unknown")
            if f"suspected {change}" in cause:
                return 1.0
            return 0.5 if cause == "unknown" else 0.0
            """,
            "Compare the whole text",
        ),
        (
            """
            if cause == "unknown":
                return 0.5 if change else 1.0
            return float(bool(change) and cause.startswith("suspected " + change))
            """,
            "compares the beginning alone",
        ),
        (
            """
            if "unknown" in cause:
                return 0.5 if change else 1.0
            return float(change is not None and cause == f"suspected {change}")
            """,
            "`unknown host` is another cause",
        ),
        (
            """
            if cause == "unknown":
                return 0.5 if change else 1.0
            return float(change is not None and cause in f"suspected {change}")
            """,
            "*part* of the right text",
        ),
        (
            """
            if cause == f"suspected {change}":
                return 1.0
            return 0.5 if cause == "unknown" else 0.0
            """,
            "it earns 1 there, not 0.5",
        ),
        (
            """
            if cause == f"suspected {change}":
                return 1.0
            if cause == "unknown":
                return 0.5 if change else 1.0
            return 0.0
            """,
            "compared as if None were one",
        ),
        ('1.0 if cause in ("unknown", f"suspected {change}") else 0.0', "paid in full everywhere"),
        (
            """
            if change is None:
                return 1.0 if cause == "unknown" else 0.0
            return 1.0 if cause == f"suspected {change}" else 0.0
            """,
            "withheld, not false",
        ),
        (
            """
            if change is None:
                return 1.0 if cause == "unknown" else 0.0
            if cause.startswith("suspected"):
                return 1.0
            return 0.5 if cause == "unknown" else 0.0
            """,
            "it must be that change",
        ),
        (
            """
            if cause == "unknown":
                return 1.0 if change is None else 0.5
            return 1.0 if cause.split("suspected ")[1] == change else 0.0
            """,
            "cause = 'not suspected",
        ),
        (
            """
            if change is None:
                return 1.0 if cause == "unknown" else 0.0
            if cause == f"suspected {change}":
                return 1.0
            if cause == "unknown":
                return 0.5
            """,
            "it returns None",
        ),
        ('1.0 if cause == "unknown" else 0.0', "whatever `change` is"),
    ],
    "ask_in_both_orders": [
        ("ask(one, other)", "it asks once"),
        ("-ask(other, one)", "in the other order"),
        (
            """
            first, second = ask(one, other), ask(other, one)
            return first if first == second else 0
            """,
            "in terms of the *other* order",
        ),
        ("(ask(one, other) - ask(other, one)) / 2", "A winner must win twice"),
        ("ask(one, other) - ask(other, one)", "the sum of both answers"),
        ("ask(one, other) or -ask(other, one)", "only after a tie"),
        (
            """
            total = ask(one, other) - ask(other, one)
            return 1 if total > 0 else -1 if total < 0 else 0
            """,
            "win in both orders",
        ),
        ("ask(one, other) == -ask(other, one)", "agrees with itself"),
        ("float(ask(one, other) == 1 and ask(other, one) == -1)", "where it lost in both orders"),
        (
            """
            first, second = ask(one, other), -ask(other, one)
            return -first if first == second else 0
            """,
            "the sign is turned around",
        ),
        (
            """
            if ask(one, other) == -ask(other, one):
                return ask(one, other)
            """,
            "it returns None",
        ),
    ],
    "longer_wins": [
        (
            "sum(len(a) > len(b) for a, b in zip(chosen, rejected)) / len(chosen)",
            "as if the shorter had won",
        ),
        (
            "sum(len(a) >= len(b) for a, b in zip(chosen, rejected)) / len(chosen)",
            "as if the longer had won",
        ),
        (
            """
            unequal = sum(len(a) != len(b) for a, b in zip(chosen, rejected))
            return sum(len(a) >= len(b) for a, b in zip(chosen, rejected)) / unequal
            """,
            "count as wins above it: `>`",
        ),
        (
            """
            pairs = [(a, b) for a, b in zip(chosen, rejected) if len(a) != len(b)]
            return sum(len(a) < len(b) for a, b in pairs) / len(pairs)
            """,
            "how often the *shorter* won",
        ),
        (
            """
            pairs = [(a.split(), b.split()) for a, b in zip(chosen, rejected)]
            pairs = [(len(a), len(b)) for a, b in pairs if len(a) != len(b)]
            return sum(a > b for a, b in pairs) / len(pairs)
            """,
            "lengths in words",
        ),
        (
            """
            pairs = [(a, b) for a, b in zip(chosen, rejected) if a != b]
            return sum(a > b for a, b in pairs) / len(pairs)
            """,
            "by the alphabet",
        ),
        ("sum(len(a) > len(b) for a, b in zip(chosen, rejected))", "this is the number"),
        (
            """
            pairs = [(a, b) for a, b in zip(chosen, rejected) if len(a) != len(b)]
            return 100 * sum(len(a) > len(b) for a, b in pairs) / len(pairs)
            """,
            "in per cent",
        ),
        ("len(chosen) > len(rejected)", "got "),
        (
            """
            longer = sum(len(a) > len(b) for a, b in zip(chosen, rejected))
            return longer / sum(len(a) < len(b) for a, b in zip(chosen, rejected))
            """,
            "wins by losses are odds",
        ),
    ],
    "kappa": [
        ("counts.diagonal().sum() / counts.sum()", "the observed agreement"),
        (
            """
            observed = counts.diagonal().sum() / counts.sum()
            return (observed - 1 / len(counts)) / (1 - 1 / len(counts))
            """,
            "chance is taken as 1 / L",
        ),
        (
            """
            p = counts / counts.sum()
            return p.diagonal().sum() - (p.sum(0) * p.sum(1)).sum()
            """,
            "not divided by 1 - expected",
        ),
        (
            """
            p = counts / counts.sum()
            expected = (p.sum(1) ** 2).sum()
            return (p.diagonal().sum() - expected) / (1 - expected)
            """,
            "the rows' shares are taken for both",
        ),
        (
            """
            p = counts / counts.sum()
            mean = (p.sum(0) + p.sum(1)) / 2
            expected = (mean**2).sum()
            return (p.diagonal().sum() - expected) / (1 - expected)
            """,
            "Scott's pi",
        ),
        (
            """
            observed = counts.diagonal().sum()
            expected = (counts.sum(0) * counts.sum(1)).sum()
            return (observed - expected) / (1 - expected)
            """,
            "counts where shares are meant",
        ),
        (
            """
            p = counts / counts.sum()
            expected = (p.sum(0) * p.sum(1)).sum()
            return p.diagonal().sum() - expected / (1 - expected)
            """,
            "a bracket is missing",
        ),
        (
            """
            p = counts / counts.sum()
            expected = p.sum(0) * p.sum(1)
            return (p.diagonal() - expected) / (1 - expected)
            """,
            "it returns shape (2,), expected ()",
        ),
        (
            """
            p = counts / counts.sum()
            expected = (p.sum(0) * p.sum(1)).sum()
            return round(float((p.diagonal().sum() - expected) / (1 - expected)), 4)
            """,
            "is a number rounded",
        ),
    ],
    "leaked": [
        ("len(set(train) & set(held_out)) / len(held_out)", "the intersection"),
        (
            """
            import re
            train, held_out = (
                {" ".join(re.findall(r"\\w+", text.lower())) for text in texts}
                for texts in (train, held_out)
            )
            return len(train & held_out) / len(held_out)
            """,
            "sets on both sides of the line",
        ),
        (
            """
            import re
            plain = lambda text: " ".join(re.findall(r"\\w+", text.lower()))
            both = set(map(plain, train)) & set(map(plain, held_out))
            return len(both) / len(held_out)
            """,
            "counts a prompt once",
        ),
        ("sum(text in train for text in held_out) / len(held_out)", "the texts as they are"),
        (
            """
            known = [text.lower() for text in train]
            return sum(text.lower() in known for text in held_out) / len(held_out)
            """,
            "punctuation and spacing",
        ),
        (
            """
            import re
            words = lambda text: set(re.findall(r"\\w+", text.lower()))
            known = [words(text) for text in train]
            return sum(words(text) in known for text in held_out) / len(held_out)
            """,
            "sets of words",
        ),
        (
            """
            import re
            plain = lambda text: " ".join(re.findall(r"\\w+", text.lower()))
            part = [any(plain(text) in plain(other) for other in train) for text in held_out]
            return sum(part) / len(part)
            """,
            "*part* of a training prompt",
        ),
        (
            """
            import re
            plain = lambda text: " ".join(re.findall(r"\\w+", text.lower()))
            known = {plain(text) for text in held_out}
            return sum(plain(text) in known for text in train) / len(train)
            """,
            "share of the *training* prompts",
        ),
        (
            """
            import re
            plain = lambda text: " ".join(re.findall(r"\\w+", text.lower()))
            known = {plain(text) for text in train}
            return sum(plain(text) in known for text in held_out) / len(train)
            """,
            "divided by the number of *training* prompts",
        ),
        (
            """
            import re
            plain = lambda text: " ".join(re.findall(r"\\w+", text.lower()))
            known = {plain(text) for text in train}
            return sum(plain(text) in known for text in held_out)
            """,
            "this is the number",
        ),
        (
            """
            import re
            plain = lambda text: " ".join(sorted(re.findall(r"\\w+", text.lower())))
            known = {plain(text) for text in train}
            return sum(plain(text) in known for text in held_out) / len(held_out)
            """,
            "`b a` is not `a b`",
        ),
    ],
    "kl_from_samples": [
        ("((policy_logps - reference_logps) * mask)[0].sum()", "only the first response"),
        ("((policy_logps - reference_logps) * mask).sum(-1)[0]", "only the first response"),
        ("((policy_logps - reference_logps) * mask).sum(-1).max()", "the largest log-ratio"),
        ("((policy_logps - reference_logps) * mask).sum(-1).mean().abs()", "size of the mean"),
        ("((policy_logps - reference_logps) * mask).sum(-1).abs().mean()", "responses' log-ratios"),
        ("((policy_logps - reference_logps) * mask).abs().sum(-1).mean()", "absolute values"),
        ("((policy_logps - reference_logps) * mask).sum(-1).mean().clamp(min=0)", "the mean is cl"),
        ("((policy_logps - reference_logps) * mask).sum(-1).clamp(min=0).mean()", "responses are"),
        ("((policy_logps - reference_logps) * mask).clamp(min=0).sum(-1).mean()", "tokens are cla"),
        ("((policy_logps - reference_logps) * mask).sum() / mask.sum()", "nats a *token*"),
        ("((policy_logps - reference_logps) * mask).sum()", "summed over the responses as well"),
        ("((policy_logps - reference_logps) * mask).sum(-1)", "one number for each response"),
        ("(policy_logps - reference_logps).sum(-1).mean()", "padding after the end"),
        ("(policy_logps - reference_logps).mean()", "whatever `mask` is"),
        ("((reference_logps - policy_logps) * mask).sum(-1).mean()", "the ratio is turned around"),
        (
            "(policy_logps.exp() * (policy_logps - reference_logps) * mask).sum(-1).mean()",
            "weighted by the probability once more",
        ),
        (
            """
            ratio = reference_logps - policy_logps
            return ((ratio.exp() - 1 - ratio) * mask).sum(-1).mean()
            """,
            "the estimate k3",
        ),
        ("(0.5 * (policy_logps - reference_logps) ** 2 * mask).sum(-1).mean()", "the estimate k2"),
        (
            "((policy_logps - reference_logps) * mask).sum(-1).mean() / math.log(2)",
            "in bits",
        ),
        ("(policy_logps * mask).sum(-1).mean()", "whatever `reference_logps` is"),
    ],
    "reference_is": [
        (
            """
            if round(first_loss, 2) != 0.69:
                return 0.0
            return 1.0 if round(log_ratio, 1) == 0 else 0.5
            """,
            "Compare the size of the difference",
        ),
        (
            """
            if round(first_loss, 2) != round(math.log(2), 2):
                return 0.0
            return 1.0 if abs(log_ratio) < 0.05 else 0.5
            """,
            "Compare the size of the difference",
        ),
        (
            """
            if round(first_loss, 4) != 0.6931:
                return 0.0
            return 1.0 if abs(log_ratio) < 0.05 else 0.5
            """,
            "compared exactly",
        ),
        (
            """
            if not math.isclose(first_loss, math.log(2), rel_tol=0.01):
                return 0.0
            return 1.0 if abs(log_ratio) < 0.05 else 0.5
            """,
            "first_loss = ",
        ),
        ("1.0 if abs(first_loss - 0.6931) < 0.01 else 0.0", "ln 2 alone"),
        ("1.0 if abs(log_ratio) < 0.05 else 0.0", "the loss is not looked at"),
        (
            """
            if abs(first_loss - 0.6931) < 0.01 and abs(log_ratio) < 0.05:
                return 1.0
            return 0.0
            """,
            "*other* model",
        ),
        (
            """
            if abs(log_ratio) < 0.05:
                return 1.0
            return 0.5 if abs(first_loss - 0.6931) < 0.01 else 0.0
            """,
            "the loss comes first",
        ),
        (
            """
            if abs(first_loss - 0.6931) > 0.01:
                return 0.0
            return 1.0 if log_ratio < 0.05 else 0.5
            """,
            "a log-ratio may be negative",
        ),
        (
            """
            if first_loss - 0.6931 > 0.01:
                return 0.0
            return 1.0 if abs(log_ratio) < 0.05 else 0.5
            """,
            "*below* ln 2",
        ),
        (
            """
            if abs(first_loss - 0.6931) > 0.01:
                return 0.0
            return 1.0 if log_ratio == 0 else 0.5
            """,
            "with 0 exactly",
        ),
        (
            """
            if abs(first_loss - 0.6931) > 0.01:
                return 0.0
            return 0.5 if abs(log_ratio) < 0.05 else 1.0
            """,
            "have changed places",
        ),
    ],
    "choose_setting": [
        ("points.mean(1).argmax().item()", "the highest win rate alone"),
        ("kls.argmin().item()", "the least KL alone"),
        ("kls.argmax().item()", "the most KL"),
        ("(points.mean(1) / kls).argmax().item()", "win rate per nat"),
        (
            """
            best = points[points.mean(1).argmax()]
            low = best.mean() - 1.96 * best.std() / math.sqrt(len(best))
            good = [i for i in range(len(points)) if points[i].mean() >= low]
            return min(good, key=lambda i: kls[i])
            """,
            "*own* interval",
        ),
        (
            """
            behind = points[points.mean(1).argmax()] - points
            good = behind.mean(1) <= 1.96 * behind.std(1)
            return kls.where(good, torch.inf).argmin().item()
            """,
            "square root of N",
        ),
        (
            """
            good = points.mean(1) > 0.5
            return kls.where(good, torch.inf).argmin().item()
            """,
            "those that beat SFT",
        ),
        (
            """
            behind = points[points.mean(1).argmax()] - points
            good = behind.mean(1) <= 1.96 * behind.std(1) / len(points[0]) ** 0.5
            return kls[good].argmin().item()
            """,
            "among the runs that are left",
        ),
        (
            """
            behind = points[points.mean(1).argmax()] - points
            good = behind.mean(1) <= 1.96 * behind.std(1) / len(points[0]) ** 0.5
            return kls[good].min().item()
            """,
            "this is the run's KL",
        ),
    ],
    "bootstrap_interval": [
        (
            "torch.quantile(values[picks].mean(-1), torch.tensor([0.025, 0.975]))",
            "in the dtype of the values",
        ),
        (
            "torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype))",
            "quantiles of the *values*",
        ),
        (
            """
            ends = torch.tensor([0.05, 0.95], dtype=values.dtype)
            return torch.quantile(values[picks].mean(-1), ends)
            """,
            "leave 90 % between them",
        ),
        (
            """
            ends = torch.tensor([0.025, 0.975], dtype=values.dtype)
            return torch.quantile(values[picks].mean(0), ends)
            """,
            "over the resamples (first axis)",
        ),
        (
            """
            ends = torch.tensor([0.025, 0.975], dtype=values.dtype)
            return torch.quantile(values[picks], ends)
            """,
            "quantiles of all values",
        ),
        (
            """
            means = values[picks].mean(-1)
            error = means.std() / len(means) ** 0.5
            return torch.stack([means.mean() - 1.96 * error, means.mean() + 1.96 * error])
            """,
            "*is* the standard error",
        ),
        (
            """
            means = values[picks].mean(-1)
            return torch.stack([means.min(), means.max()])
            """,
            "smallest and the largest",
        ),
        (
            """
            import numpy
            means = values.numpy()[picks.numpy()].mean(-1)
            return torch.tensor(numpy.percentile(means, [0.025, 0.975]))
            """,
            "percentile wants 2.5 and 97.5",
        ),
        (
            """
            ends = torch.tensor([0.975, 0.025], dtype=values.dtype)
            return torch.quantile(values[picks].mean(-1), ends)
            """,
            "reversed order",
        ),
        (
            """
            error = values.std() / len(values) ** 0.5
            return torch.stack([values.mean() - 1.96 * error, values.mean() + 1.96 * error])
            """,
            "picks, are not used",
        ),
        (
            """
            means = values[picks].mean(-1)
            return (torch.quantile(means, 0.025), torch.quantile(means, 0.975))
            """,
            "need a torch.Tensor",
        ),
    ],
    "win_rate_of": [
        (
            """
            points = [0.5 if p == 0 else p - 1 for p in preferences if p]
            return sum(points) / len(points)
            """,
            "`if p` also drops the ties",
        ),
        (
            """
            total = sum(p - 1 for p in preferences if p)
            return total / sum(p is not None for p in preferences)
            """,
            "written as 0 count as losses",
        ),
        (
            """
            decided = [p for p in preferences if p not in (None, 0, 1.5)]
            return sum(p - 1 for p in decided) / len(decided)
            """,
            "ties are left out",
        ),
        (
            """
            points = [0.5 if not p else p - 1 for p in preferences]
            return sum(points) / len(points)
            """,
            "a missing answer is counted as a tie",
        ),
        (
            """
            points = [0.5 if p == 0 else p - 1 for p in preferences if p is not None]
            return sum(points) / len(preferences)
            """,
            "still counted below the line",
        ),
        ("sum(p == 2 for p in preferences) / len(preferences)", "only full wins count"),
        (
            """
            there = [p for p in preferences if p is not None]
            return sum(p - 1 for p in there) / len(there)
            """,
            "a 0 becomes -1 point",
        ),
        (
            """
            points = [0.5 if p == 0 else p - 1 for p in preferences]
            return sum(points) / len(points)
            """,
            "leave missing answers out",
        ),
        (
            """
            there = [p for p in preferences if p is not None]
            points = [1 if p > 1.5 else 0 if 0 < p < 1.5 else 0.5 for p in there]
            return sum(points) / len(points)
            """,
            "counts in full",
        ),
        (
            """
            points = [0.5 if p == 0 else 2 - p for p in preferences if p is not None]
            return sum(points) / len(points)
            """,
            "of the first output",
        ),
        (
            """
            points = [0.5 if p == 0 else p / 2 for p in preferences if p is not None]
            return sum(points) / len(points)
            """,
            "points are p - 1",
        ),
        (
            """
            points = [0.5 if p == 0 else p - 1 for p in preferences if p is not None]
            return 100 * sum(points) / len(points)
            """,
            "in per cent",
        ),
    ],
    "paired_interval": [
        (
            """
            d = (ours - theirs).numpy()
            error = d.std() / len(d) ** 0.5
            return torch.tensor([d.mean() - 1.96 * error, d.mean() + 1.96 * error])
            """,
            "ddof=0",
        ),
        (
            """
            error = (ours.var() / len(ours) + theirs.var() / len(theirs)) ** 0.5
            middle = ours.mean() - theirs.mean()
            return torch.stack([middle - 1.96 * error, middle + 1.96 * error])
            """,
            "two *separate* samples",
        ),
        (
            """
            d = ours - theirs
            return torch.stack([d.mean() - 1.96 * d.std(), d.mean() + 1.96 * d.std()])
            """,
            "how single prompts spread",
        ),
        (
            """
            d = ours - theirs
            error = d.std() / len(d)
            return torch.stack([d.mean() - 1.96 * error, d.mean() + 1.96 * error])
            """,
            "not by N",
        ),
        (
            """
            d = ours - theirs
            error = d.var() / len(d) ** 0.5
            return torch.stack([d.mean() - 1.96 * error, d.mean() + 1.96 * error])
            """,
            "this is the variance",
        ),
        (
            """
            d = ours - theirs
            error = d.std() / len(d) ** 0.5
            return torch.stack([d.mean() - error, d.mean() + error])
            """,
            "covers 68 %",
        ),
        (
            """
            d = theirs - ours
            error = d.std() / len(d) ** 0.5
            return torch.stack([d.mean() - 1.96 * error, d.mean() + 1.96 * error])
            """,
            "ours minus theirs",
        ),
        (
            """
            d = ours - theirs
            error = d.std() / len(d) ** 0.5
            return torch.stack([-1.96 * error, 1.96 * error])
            """,
            "add the mean difference",
        ),
        (
            """
            d = ours - theirs
            error = d.std() / len(d) ** 0.5
            return torch.stack([d.mean() + 1.96 * error, d.mean() - 1.96 * error])
            """,
            "reversed order",
        ),
        (
            """
            d = ours - theirs
            error = d.std() / len(d) ** 0.5
            return d.mean() - 1.96 * error, d.mean() + 1.96 * error
            """,
            "need a torch.Tensor",
        ),
        (
            """
            d = ours - theirs
            error = d.std() / len(d) ** 0.5
            return torch.stack([d.mean() - 2 * error, d.mean() + 2 * error])
            """,
            "a rule of thumb",
        ),
    ],
    "length_bias": [
        (
            """
            kept = [(p, d) for p, d in zip(points, longer) if p != 0.5 and d != 0]
            return sum((p > 0.5) == (d > 0) for p, d in kept) / len(kept)
            """,
            "all pairs are counted",
        ),
        (
            """
            kept = [(p, d) for p, d, t in zip(points, longer, truth) if t == 0.5]
            return sum((p > 0.5) == (d > 0) for p, d in kept) / len(kept)
            """,
            "of equal length, are counted",
        ),
        (
            """
            kept = [(p, d) for p, d, t in zip(points, longer, truth) if t == 0.5 and d != 0]
            return sum((p > 0.5) == (d > 0) for p, d in kept) / len(kept)
            """,
            "the judge's ties are counted",
        ),
        (
            """
            kept = [(p, d) for p, d, t in zip(points, longer, truth) if t == 0.5 and p != 0.5]
            return sum((p > 0.5) == (d > 0) for p, d in kept) / len(kept)
            """,
            "pairs of equal length are counted",
        ),
        (
            """
            kept = [p for p, d, t in zip(points, longer, truth) if t == 0.5 and p != 0.5 and d > 0]
            return sum(kept) / len(kept)
            """,
            "only comparisons are looked at",
        ),
        (
            """
            rows = list(zip(points, longer, truth))
            kept = [(p, d) for p, d, t in rows if t == 0.5 and p != 0.5 and d != 0]
            return sum(p for p, d in kept) / len(kept)
            """,
            "how often the *second* response won",
        ),
        (
            """
            rows = list(zip(points, longer, truth))
            kept = [(p, d) for p, d, t in rows if t == 0.5 and p != 0.5 and d != 0]
            return sum((p > 0.5) == (d < 0) for p, d in kept) / len(kept)
            """,
            "the *shorter* response won",
        ),
        (
            """
            rows = list(zip(points, longer, truth))
            kept = [(p, d) for p, d, t in rows if t != 0.5 and p != 0.5 and d != 0]
            return sum((p > 0.5) == (d > 0) for p, d in kept) / max(1, len(kept))
            """,
            "longer = ",
        ),
        (
            """
            rows = list(zip(points, longer, truth))
            kept = [(p, d) for p, d, t in rows if t == 0.5 and p != 0.5 and d != 0]
            return sum((p > 0.5) == (d > 0) for p, d in kept) / len(points)
            """,
            "divided by the number of all",
        ),
        (
            """
            rows = list(zip(points, longer, truth))
            kept = [(p, d) for p, d, t in rows if t == 0.5 and p != 0.5 and d != 0]
            return sum(p == 1 and d > 0 for p, d in kept) / len(kept)
            """,
            "may also be the *first*",
        ),
    ],
    "gap_lied": [
        ("[g >= gaps[0] and r < 0.5 for g, r in zip(gaps, win_rates)]", "the first run's"),
        ("[g >= 4.0 and r < 0.5 for g, r in zip(gaps, win_rates)]", "whatever `healthy` is"),
        ("[g >= healthy and r < 0.5 for g, r in zip(gaps, win_rates)]", "healthy is an index"),
        ("[g > gaps[healthy] and r < 0.5 for g, r in zip(gaps, win_rates)]", "`>` where `>=`"),
        ("[g >= gaps[healthy] or r < 0.5 for g, r in zip(gaps, win_rates)]", "`or` where both"),
        ("[g >= gaps[healthy] and r <= 0.5 for g, r in zip(gaps, win_rates)]", "exactly one half"),
        (
            "[g >= gaps[healthy] and r < win_rates[healthy] for g, r in zip(gaps, win_rates)]",
            "the line is one half",
        ),
        ("[g >= gaps[healthy] for g in gaps]", "a wide gap alone is no lie"),
        ("[r < 0.5 for r in win_rates]", "was told truly by its gap"),
        ("[g < gaps[healthy] and r < 0.5 for g, r in zip(gaps, win_rates)]", "gap was *small*"),
        ("[g >= gaps[healthy] and r > 0.5 for g, r in zip(gaps, win_rates)]", "it told the truth"),
        ("[g == max(gaps) and r < 0.5 for g, r in zip(gaps, win_rates)]", "whatever `healthy` is"),
        (
            """
            runs = enumerate(zip(gaps, win_rates))
            return [i for i, (g, r) in runs if g >= gaps[healthy] and r < 0.5]
            """,
            "the indices of the runs",
        ),
        (
            "sum(g >= gaps[healthy] and r < 0.5 for g, r in zip(gaps, win_rates))",
            "this is how many",
        ),
    ],
    "prompts_for": [
        ("int((1.96 * sd / half_width) ** 2)", "int cuts off"),
        ("round((1.96 * sd / half_width) ** 2)", "round up"),
        ("(1.96 * sd / half_width) ** 2", "part of a prompt"),
        ("int((1.96 * sd / half_width) ** 2) + 1", "one too many"),
        ("math.ceil(1.96 * sd / half_width)", "the square *root* of n"),
        ("math.ceil((2 * 1.96 * sd / half_width) ** 2)", "for the whole width"),
        ("math.ceil((1.96 * sd / (2 * half_width)) ** 2)", "it is not doubled"),
        ("math.ceil((sd / half_width) ** 2)", "covers 68 %"),
        ("math.ceil((1.645 * sd / half_width) ** 2)", "cover 90 %"),
        ("math.ceil(1.96 * sd**2 / half_width**2)", "1.96 is squared as well"),
        ("math.ceil(1.96**2 * sd / half_width**2)", "sd is squared as well"),
        ("math.ceil((1.96 * 0.35 / half_width) ** 2)", "whatever `sd` is"),
        ("math.ceil((1.96 * sd / 0.05) ** 2)", "whatever `half_width` is"),
        ("math.ceil(0.25 * (1.96 / half_width) ** 2)", "sd is taken as 0.5"),
    ],
    "best_of_n_kl": [
        ("math.log(n)", "log n alone"),
        ("math.log(n) - (n - 1) // n", "`//` would cut that down"),
        ("math.log(n) - 1", "what (n - 1) / n comes to"),
        ("math.log2(n) - (n - 1) / n", "log2 counts in bits"),
        ("(math.log(n) - (n - 1) / n) / math.log(2)", "in bits"),
        ("math.log10(n) - (n - 1) / n", "to base 10"),
        ("math.log(n) + (n - 1) / n", "take it off"),
        ("math.log(n) - n / (n - 1)", "upside down"),
        ("math.log(n) - 1 / n", "(n - 1) / n is 1 - 1 / n"),
        ("math.log(n) - n - 1 / n", "a bracket is missing"),
        ("(math.log(n) - n + 1) / n", "divided by n as well"),
        ("1 - 1 / n", "only what is taken off"),
        ("n - 1 - math.log(n)", "the other way round"),
        ("(n - 1) / n - math.log(n)", "the sign"),
        ("round(math.log(n) - (n - 1) / n, 2)", "expected"),
        ("math.log(16) - 15 / 16", "whatever `n` is"),
        ("math.log(n - 1)", "expected"),
    ],
    "unlikelihood_loss": [
        ("chosen - alpha * rejected", "the signs are turned around"),
        ("-chosen - alpha * rejected", "both responses are made likelier"),
        ("chosen + alpha * rejected", "both responses are made less likely"),
        ("-chosen", "SFT on the chosen responses"),
        ("-chosen + rejected", "whatever `alpha` is"),
        ("-chosen + 0.5 * rejected", "whatever `alpha` is"),
        ("-alpha * (chosen - rejected)", "alpha weighs both terms"),
        ("-alpha * chosen + rejected", "alpha weighs the chosen response"),
        ("-(1 - alpha) * chosen + alpha * rejected", "the chosen response has weight 1"),
        ("-chosen - alpha * torch.log(1 - rejected.exp())", "another loss of the same name"),
        ("-F.logsigmoid(chosen - alpha * rejected)", "the log-sigmoid is DPO's"),
        ("-chosen.exp() + alpha * rejected.exp()", "these are probabilities"),
        ("(-chosen + alpha * rejected).mean()", "averaged over all"),
        ("-chosen + alpha * rejected.detach()", "nothing lowers it"),
        ("(-chosen + alpha * rejected).detach()", "no gradient reaches"),
        ("-chosen.detach() + alpha * rejected", "no gradient reaches `chosen`"),
        ("-chosen + alpha * torch.clamp(rejected, min=-5)", "that is a sound idea"),
        (
            "[-w + alpha * l for w, l in zip(chosen.tolist(), rejected.tolist())]",
            "need a torch.Tensor",
        ),
    ],
    "leave_one_out": [
        ("rewards - rewards.mean(-1, keepdim=True)", "is in its baseline"),
        (
            "(rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)",
            "this is the baseline",
        ),
        ("rewards - (rewards.sum(-1, keepdim=True) - rewards)", "the others' *sum*"),
        (
            "rewards - (rewards.sum(-1, keepdim=True) - rewards) / rewards.shape[-1]",
            "there are n - 1 others",
        ),
        (
            "(rewards - (rewards.sum(-1, keepdim=True) - rewards)) / (rewards.shape[-1] - 1)",
            "a bracket is missing",
        ),
        (
            "rewards - rewards.sum(-1, keepdim=True) / (rewards.shape[-1] - 1)",
            "its own reward included",
        ),
        (
            "rewards - (rewards.sum(-1) - rewards) / (rewards.shape[-1] - 1)",
            "keepdim=True, which gives (G, 1)",
        ),
        (
            "rewards - (rewards.sum(0) - rewards) / (rewards.shape[0] - 1)",
            "those of the other *prompts*",
        ),
        (
            "rewards - (rewards.sum() - rewards) / (rewards.numel() - 1)",
            "the others are those of all prompts",
        ),
        ("rewards - rewards.mean()", "one mean is taken over all prompts"),
        (
            """
            centred = rewards - rewards.mean(-1, keepdim=True)
            return centred / (rewards.std(-1, keepdim=True) + 1e-4)
            """,
            "this is GRPO's",
        ),
        (
            """
            others = (rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)
            return (rewards - others) / (rewards.std(-1, keepdim=True) + 1e-4)
            """,
            "RLOO does not",
        ),
        (
            "(rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1) - rewards",
            "the sign",
        ),
        (
            "rewards - (rewards.sum(-1, keepdim=True) - rewards) / 3",
            "expected",
        ),
        (
            """
            n = rewards.shape[-1]
            return (rewards - (rewards.sum(-1, keepdim=True) - rewards) / (n - 1)).tolist()
            """,
            "need a torch.Tensor",
        ),
        ("rewards - rewards.median(-1, keepdim=True).values", "expected"),
    ],
    "group_advantage": [
        (
            """
            import numpy
            r = rewards.numpy()
            centred = r - r.mean(1, keepdims=True)
            return torch.from_numpy(centred / (r.std(1, keepdims=True) + epsilon))
            """,
            "numpy's wants ddof=1",
        ),
        (
            "(rewards - rewards.mean(-1, keepdim=True)) / rewards.std(-1, keepdim=True)",
            "epsilon is missing",
        ),
        (
            """
            centred = rewards - rewards.mean(-1, keepdim=True)
            return centred / (rewards.std(-1, keepdim=True) + 1e-4)
            """,
            "whatever `epsilon` is",
        ),
        (
            """
            centred = rewards - rewards.mean(-1, keepdim=True)
            return centred / torch.sqrt(rewards.var(-1, keepdim=True) + epsilon)
            """,
            "under the root",
        ),
        (
            """
            centred = rewards - rewards.mean(-1, keepdim=True)
            return centred / (rewards.var(-1, keepdim=True) + epsilon)
            """,
            "divided by the *variance*",
        ),
        (
            """
            centred = rewards - rewards.mean(-1, keepdim=True)
            return centred / torch.clamp(rewards.std(-1, keepdim=True), min=epsilon)
            """,
            "kept above epsilon",
        ),
        (
            """
            centred = rewards - rewards.mean(-1, keepdim=True)
            return centred / rewards.std(-1, keepdim=True) + epsilon
            """,
            "a bracket is missing",
        ),
        ("rewards - rewards.mean(-1, keepdim=True)", "not divided by the deviation"),
        ("rewards / (rewards.std(-1, keepdim=True) + epsilon)", "the mean is not taken off"),
        ("(rewards - rewards.mean()) / (rewards.std() + epsilon)", "of all prompts together"),
        (
            "(rewards - rewards.mean(-1, keepdim=True)) / (rewards.std() + epsilon)",
            "the deviation is that of all prompts",
        ),
        (
            "(rewards - rewards.mean(0)) / (rewards.std(0) + epsilon)",
            "taken over the *prompts*",
        ),
        (
            "(rewards - rewards.mean(-1)) / (rewards.std(-1) + epsilon)",
            "keepdim=True gives (G, 1)",
        ),
        (
            """
            others = (rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)
            return (rewards - others) / (rewards.std(-1, keepdim=True) + epsilon)
            """,
            "as in RLOO",
        ),
        (
            """
            spread = rewards.amax(-1, keepdim=True) - rewards.amin(-1, keepdim=True)
            return (rewards - rewards.mean(-1, keepdim=True)) / (spread + epsilon)
            """,
            "expected",
        ),
        (
            """
            centred = rewards - rewards.mean(-1, keepdim=True)
            return -centred / (rewards.std(-1, keepdim=True) + epsilon)
            """,
            "the sign",
        ),
    ],
    "verifiable_reward": [
        (
            _REWARD.replace("if names(pairs) != fields or not all(said.values()):", "if False:"),
            "got 1, expected 0",
        ),
        (
            _REWARD.replace("if names(pairs) != fields or not all(said.values()):", "if False:")
            .replace("said[name]", "said.get(name)")
            .replace("said['cause']", "said.get('cause')")
            .replace("said['next']", "said.get('next', '')"),
            "the form is not asked for",
        ),
        (
            _REWARD.replace("names(pairs) != fields", "names(pairs)[:8] != fields"),
            "after the eighth",
        ),
        (
            _REWARD.replace("names(pairs) != fields", "not set(fields) <= set(said)"),
            "whether each name is there",
        ),
        (
            _REWARD.replace("names(pairs) != fields", "sorted(names(pairs)) != sorted(fields)"),
            "order of the lines is not looked at",
        ),
        (
            _REWARD.replace("names(pairs) != fields", "len(pairs) != 8").replace(
                "[name]", ".get(name)"
            ),
            "the lines are only counted",
        ),
        (_REWARD.replace(" or not all(said.values())", ""), "an empty value passes"),
        (_REWARD.replace("facts = sum(right) / 5", "facts = all(right)"), "all or nothing"),
        (_REWARD.replace("facts = sum(right) / 5", "facts = sum(right)"), "divide by five"),
        (_REWARD.replace("said[name] == value", "value in report"), "*anywhere* in the report"),
        (_REWARD.replace("said[name] == value", "value in said[name]"), "*contains* the fact"),
        (_REWARD.replace("said[name] == value", "said[name].startswith(value)"), "expected"),
        (
            _REWARD.replace('''f"{alert['users']}%"''', 'alert["users"]'),
            "the users are never right",
        ),
        (
            _REWARD.replace('''f"{alert['users']}%"''', 'str(alert["users"])'),
            "without the per cent sign",
        ),
        (_REWARD.replace(""" + " " + alert["value"]""", ""), "compared without its value"),
        (
            _REWARD.replace("said['cause'] == wanted", "said['cause'] in (wanted, 'unknown')"),
            "`unknown` is paid everywhere",
        ),
        (
            _REWARD.replace(" if alert['change'] else 'unknown'", ""),
            "`suspected None` is paid",
        ),
        (
            _REWARD.replace(
                "said['cause'] == wanted",
                "said['cause'] in ('unknown', f\"suspected {alert['change']}\")",
            ),
            "and where no change is named",
        ),
        (
            _REWARD.replace(
                "said['cause'] == wanted", "(alert['change'] or 'unknown') in said['cause']"
            ),
            "the cause *contains* the change",
        ),
        (_REWARD.replace("suspected {alert", "{alert"), "a change alone is claimed"),
        (_REWARD.replace("<= 5", "< 5"), "*at most* five"),
        (_REWARD.replace(".split()) <= 5", ") <= 5"), "counts characters"),
        (_REWARD.replace("step = len(said['next'].split()) <= 5", "step = True"), "always paid"),
        (_REWARD.replace("(facts + cause + step) / 3", "facts + cause + step"), "a whole point"),
        (
            _REWARD.replace("(facts + cause + step) / 3", "float(facts + cause + step == 3)"),
            "they have no advantage",
        ),
        (_REWARD.replace("(facts + cause + step) / 3", "facts * cause * step"), "expected"),
    ],
    "on_frontier": [
        (
            "[not any(k < kl and r > reward for k, r in points) for kl, reward in points]",
            "better in the other beats as well",
        ),
        (
            "[not any(k <= kl and r > reward for k, r in points) for kl, reward in points]",
            "for less KL is better too",
        ),
        (
            "[not any(k < kl and r >= reward for k, r in points) for kl, reward in points]",
            "for the same KL is better too",
        ),
        (
            "[not any(k <= kl and r >= reward for k, r in points) for kl, reward in points]",
            "beats itself",
        ),
        (
            """
            found = []
            for i, (kl, reward) in enumerate(points):
                others = points[:i] + points[i + 1 :]
                found.append(not any(k <= kl and r >= reward for k, r in others))
            return found
            """,
            "throw each other out",
        ),
        (
            """
            def beats(a, b):
                return a != b and a[0] >= b[0] and a[1] >= b[1]

            return [not any(beats(other, point) for other in points) for point in points]
            """,
            "more KL is taken for better",
        ),
        (
            """
            def beats(a, b):
                return a != b and (a[0] <= b[0] or a[1] >= b[1])

            return [not any(beats(other, point) for other in points) for point in points]
            """,
            "`or` where both must hold",
        ),
        (
            """
            def beats(a, b):
                return a != b and a[0] <= b[0] and a[1] >= b[1]

            return [any(beats(other, point) for other in points) for point in points]
            """,
            "the points that are beaten",
        ),
        (
            """
            def beats(a, b):
                return a != b and a[0] <= b[0] and a[1] >= b[1]

            return [i for i, b in enumerate(points) if not any(beats(a, b) for a in points)]
            """,
            "the places of the points",
        ),
        (
            """
            def beats(a, b):
                return a != b and a[0] <= b[0] and a[1] >= b[1]

            return [b for b in points if not any(beats(a, b) for a in points)]
            """,
            "the points themselves",
        ),
        (
            "[r == max(reward for _, reward in points) for _, r in points]",
            "only the highest reward",
        ),
        (
            "[r == max(reward for kl, reward in points if kl == k) for k, r in points]",
            "of its own KL alone",
        ),
        (
            """
            best, found = -math.inf, []
            for _, reward in points:
                found.append(reward > best)
                best = max(best, reward)
            return found
            """,
            "in the order given",
        ),
        (
            """
            best, found = -math.inf, []
            for _, reward in sorted(points, key=lambda point: (point[0], -point[1])):
                found.append(reward > best)
                best = max(best, reward)
            return found
            """,
            "give them back in that of points",
        ),
        (
            """
            best, kept = -math.inf, []
            for i in sorted(range(len(points)), key=lambda i: points[i]):
                if points[i][1] > best:
                    best = points[i][1]
                    kept.append(i)
            return [i in kept for i in range(len(points))]
            """,
            "expected",
        ),
        ("[True] * len(points)", "expected"),
        ("[reward > 0.5 for _, reward in points]", "expected"),
    ],
}
