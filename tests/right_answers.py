"""Right answers to the exercises in other styles than the course's own: each has to pass.

By exercise: sources, written as in `wrong_answers.py`. No test itself.
"""

RIGHT = {
    "preference_probability": [
        "1 / (1 + torch.exp(reward_l - reward_w))",
        "torch.softmax(torch.stack([reward_w, reward_l]), dim=0)[0]",
        "torch.exp(F.logsigmoid(reward_w - reward_l))",
        """
        import numpy
        difference = reward_w.numpy() - reward_l.numpy()
        return torch.from_numpy(0.5 * (1 + numpy.tanh(difference / 2)))
        """,
    ],
    "closed_form": [
        """
        scores = log_reference + reward / beta
        return scores - torch.logsumexp(scores, dim=-1, keepdim=True)
        """,
        "torch.stack([F.log_softmax(p + r / beta, -1) for p, r in zip(log_reference, reward)])",
        """
        rows = []
        for row in (beta * log_reference + reward).tolist():
            top = max(row)
            z = sum(math.exp((score - top) / beta) for score in row)
            rows.append([(score - top) / beta - math.log(z) for score in row])
        return torch.tensor(rows, dtype=reward.dtype)
        """,
    ],
    "implicit_reward": [
        "beta * policy_logps - beta * reference_logps",
        "policy_logps.sub_(reference_logps).mul_(beta)",
        "torch.from_numpy(beta * (policy_logps.numpy() - reference_logps.numpy()))",
    ],
    "dpo_loss": [
        """
        margin = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
        return F.softplus(-beta * margin)
        """,
        """
        with torch.no_grad():
            reference = reference_chosen - reference_rejected
        margin = beta * (policy_chosen - policy_rejected - reference)
        return torch.logaddexp(torch.zeros_like(margin), -margin)
        """,
        """
        losses = []
        for w, l, ref_w, ref_l in zip(
            policy_chosen, policy_rejected, reference_chosen, reference_rejected
        ):
            losses.append(-F.logsigmoid(beta * (w - ref_w) - beta * (l - ref_l)))
        return torch.stack(losses)
        """,
        """
        margin = (policy_chosen - reference_chosen.detach()) - (
            policy_rejected - reference_rejected.detach()
        )
        return F.binary_cross_entropy_with_logits(
            beta * margin, torch.ones_like(margin), reduction="none"
        )
        """,
    ],
    "gradient_weight": [
        "1 - torch.sigmoid(chosen_reward - rejected_reward)",
        """
        margin = (chosen_reward - rejected_reward).detach().requires_grad_()
        (slope,) = torch.autograd.grad(-F.logsigmoid(margin).sum(), margin)
        return -slope
        """,
        """
        pairs = zip(chosen_reward.tolist(), rejected_reward.tolist())
        return torch.tensor([1 / (1 + math.exp(w - l)) for w, l in pairs])
        """,
    ],
    "token_logps": [
        """
        chosen = torch.gather(logits[:, :-1], 2, input_ids[:, 1:].unsqueeze(2)).squeeze(2)
        return chosen - torch.logsumexp(logits[:, :-1], dim=-1)
        """,
        "-F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction='none')",
        """
        logps = F.log_softmax(logits, dim=-1)
        rows, steps = input_ids.shape
        return torch.stack(
            [
                torch.stack([logps[b, t - 1, input_ids[b, t]] for t in range(1, steps)])
                for b in range(rows)
            ]
        )
        """,
    ],
    "response_logp": [
        "torch.where(response_mask[:, 1:] == 1, per_token, 0.0).sum(dim=1)",
        """
        pairs = zip(per_token, response_mask[:, 1:].bool())
        return torch.stack([logps[mask].sum() for logps, mask in pairs])
        """,
        "torch.einsum('bt,bt->b', per_token, response_mask[:, 1:].to(per_token))",
        "per_token.masked_fill(response_mask[:, 1:] == 0, 0).sum(-1)",
    ],
    "ipo_loss": [
        "torch.square(chosen_log_ratio - rejected_log_ratio - 0.5 / beta)",
        """
        margin = chosen_log_ratio - rejected_log_ratio
        return F.mse_loss(margin, torch.full_like(margin, 1 / (2 * beta)), reduction="none")
        """,
        """
        pairs = zip(chosen_log_ratio, rejected_log_ratio)
        return torch.stack([(w - l - 1 / (2 * beta)).pow(2) for w, l in pairs])
        """,
    ],
    "kto_desirable": [
        """
        with torch.no_grad():
            z = max(mismatched_log_ratio.mean(), torch.tensor(0.0))
        return 1 - torch.sigmoid(beta * (log_ratio - z))
        """,
        """
        z = F.relu(mismatched_log_ratio.detach().mean())
        return torch.sigmoid(beta * (z - log_ratio))
        """,
        """
        z = max(0.0, mismatched_log_ratio.mean().item())
        return torch.stack([1 - torch.sigmoid(beta * (ratio - z)) for ratio in log_ratio])
        """,
    ],
    "log_odds_ratio": [
        """
        def log_odds(logp):
            return logp - (-torch.expm1(logp)).log()

        return log_odds(chosen_mean_logps) - log_odds(rejected_mean_logps)
        """,
        """
        def log_of_the_rest(logp):
            near = logp > -math.log(2)
            small = torch.log(-torch.expm1(torch.where(near, logp, -1.0)))
            return torch.where(near, small, torch.log1p(-torch.exp(torch.where(near, -1.0, logp))))

        odds_w = chosen_mean_logps - log_of_the_rest(chosen_mean_logps)
        return odds_w - (rejected_mean_logps - log_of_the_rest(rejected_mean_logps))
        """,
        """
        means = torch.stack([chosen_mean_logps, rejected_mean_logps])
        odds = means - torch.log(-torch.expm1(means))
        return odds[0] - odds[1]
        """,
    ],
    "cause_clause": [
        """
        if cause == "unknown":
            return 0.5 if change else 1
        return int(bool(change) and cause == "suspected " + change)
        """,
        """
        worth = {"unknown": 1.0} if change is None else {f"suspected {change}": 1.0, "unknown": 0.5}
        return worth.get(cause, 0.0)
        """,
        """
        match (change, cause):
            case (None, "unknown"):
                return 1.0
            case (None, _):
                return 0.0
            case (_, "unknown"):
                return 0.5
        return float(cause.removeprefix("suspected ") == change and cause != change)
        """,
    ],
    "ask_in_both_orders": [
        """
        first, second = ask(one, other), ask(other, one)
        return first if first + second == 0 else 0
        """,
        """
        answers = (ask(one, other), ask(other, one))
        return {(1, -1): 1, (-1, 1): -1}.get(answers, 0)
        """,
        """
        there, back = ask(one, other), ask(other, one)
        if there == 1 and back == -1:
            return 1
        if there == -1 and back == 1:
            return -1
        return 0.0
        """,
    ],
    "longer_wins": [
        """
        wins = losses = 0
        for won, lost in zip(chosen, rejected):
            wins += len(won) > len(lost)
            losses += len(won) < len(lost)
        return wins / (wins + losses)
        """,
        """
        import numpy
        difference = numpy.array([len(w) for w in chosen]) - numpy.array([len(r) for r in rejected])
        return (difference[difference != 0] > 0).mean()
        """,
        """
        difference = torch.tensor([float(len(w) - len(r)) for w, r in zip(chosen, rejected)])
        return (difference > 0).sum() / (difference != 0).sum()
        """,
    ],
    "kappa": [
        """
        n = counts.sum()
        observed = counts.trace() / n
        expected = (counts.sum(0) / n) @ (counts.sum(1) / n)
        return (observed - expected) / (1 - expected)
        """,
        """
        rows = counts.tolist()
        n = sum(map(sum, rows))
        labels = range(len(rows))
        observed = sum(rows[i][i] for i in labels) / n
        expected = sum(sum(rows[i]) / n * sum(row[i] for row in rows) / n for i in labels)
        return (observed - expected) / (1 - expected)
        """,
        """
        table = counts.numpy() / counts.numpy().sum()
        expected = (table.sum(axis=0) * table.sum(axis=1)).sum()
        return (table.trace() - expected) / (1 - expected)
        """,
    ],
    "leaked": [
        """
        import re
        plain = lambda text: tuple(re.findall(r"\\w+", text.lower()))
        known = [plain(text) for text in train]
        hits = 0
        for text in held_out:
            if plain(text) in known:
                hits += 1
        return hits / len(held_out)
        """,
        """
        import string
        def plain(text):
            for mark in string.punctuation:
                text = text.replace(mark, " ")
            return text.casefold().split()
        return torch.tensor(
            [float(any(plain(p) == plain(t) for t in train)) for p in held_out]
        ).mean()
        """,
    ],
    "kl_from_samples": [
        """
        ratios = torch.where(mask == 1, policy_logps - reference_logps, 0.0)
        return ratios.sum() / len(ratios)
        """,
        """
        totals = []
        for ours, theirs, keep in zip(policy_logps, reference_logps, mask):
            totals.append(ours[keep == 1].sum() - theirs[keep == 1].sum())
        return torch.stack(totals).mean()
        """,
        """
        ratio = (policy_logps.numpy() - reference_logps.numpy()) * mask.numpy()
        return float(ratio.sum(axis=1).mean())
        """,
    ],
    "reference_is": [
        """
        if not math.isclose(first_loss, math.log(2), abs_tol=0.01, rel_tol=0):
            return 0
        return 1 if -0.05 < log_ratio < 0.05 else 0.5
        """,
        """
        equal = abs(first_loss - math.log(2)) <= 0.01
        same = abs(log_ratio) <= 0.05
        return equal * (0.5 + 0.5 * same)
        """,
    ],
    "choose_setting": [
        """
        best = max(range(len(points)), key=lambda run: points[run].mean())
        as_good = []
        for run in range(len(points)):
            d = points[best] - points[run]
            low = d.mean() - 1.96 * d.std() / math.sqrt(len(d))
            if low <= 0:
                as_good.append(run)
        return min(as_good, key=lambda run: kls[run])
        """,
        """
        import numpy
        p = points.numpy()
        d = p[p.mean(1).argmax()] - p
        low = d.mean(1) - 1.96 * d.std(1, ddof=1) / numpy.sqrt(p.shape[1])
        return int(numpy.where(low > 0, numpy.inf, kls.numpy()).argmin())
        """,
    ],
    "bootstrap_interval": [
        """
        means = values[picks].mean(dim=1)
        return torch.stack([torch.quantile(means, 0.025), torch.quantile(means, 0.975)])
        """,
        """
        import numpy
        means = values.numpy()[picks.numpy()].mean(axis=1)
        return torch.tensor(numpy.percentile(means, [2.5, 97.5]))
        """,
        """
        means = torch.tensor([values[pick].mean().item() for pick in picks])
        return torch.quantile(means, torch.tensor([0.025, 0.975]))
        """,
    ],
    "win_rate_of": [
        """
        total = n = 0
        for p in preferences:
            if p is None:
                continue
            total += 0.5 if p in (0, 1.5) else p - 1
            n += 1
        return total / n
        """,
        """
        series = pd.Series(preferences, dtype=float).dropna()
        return float((series.replace(0, 1.5) - 1).mean())
        """,
        """
        there = torch.tensor([float(p) for p in preferences if p is not None])
        return torch.where(there == 0, 0.5, there - 1).mean()
        """,
    ],
    "paired_interval": [
        """
        d = ours - theirs
        half = 1.96 * d.var().sqrt() / math.sqrt(len(d))
        return torch.tensor([d.mean() - half, d.mean() + half])
        """,
        """
        import numpy
        d = ours.numpy() - theirs.numpy()
        half = 1.96 * d.std(ddof=1) / numpy.sqrt(d.size)
        return torch.from_numpy(d.mean() + numpy.array([-half, half]))
        """,
        """
        import statistics
        d = [a - b for a, b in zip(ours.tolist(), theirs.tolist())]
        middle, half = statistics.mean(d), 1.96 * statistics.stdev(d) / len(d) ** 0.5
        return torch.tensor([middle - half, middle + half])
        """,
    ],
    "length_bias": [
        """
        wins = n = 0
        for p, d, t in zip(points, longer, truth):
            if t != 0.5 or p == 0.5 or d == 0:
                continue
            n += 1
            wins += (p == 1 and d > 0) or (p == 0 and d < 0)
        return wins / n
        """,
        """
        p, d, t = (torch.tensor(each, dtype=torch.float64) for each in (points, longer, truth))
        kept = (t == 0.5) & (p != 0.5) & (d != 0)
        return ((p - 0.5) * d > 0)[kept].double().mean()
        """,
        """
        frame = pd.DataFrame({"p": points, "d": longer, "t": truth})
        frame = frame[(frame.t == 0.5) & (frame.p != 0.5) & (frame.d != 0)]
        return ((frame.p > 0.5) == (frame.d > 0)).mean()
        """,
    ],
    "gap_lied": [
        """
        lied = []
        for i in range(len(gaps)):
            lied.append(not (gaps[i] < gaps[healthy]) and win_rates[i] < 0.5)
        return lied
        """,
        """
        gaps, win_rates = torch.tensor(gaps), torch.tensor(win_rates)
        return ((gaps >= gaps[healthy]) & (win_rates < 0.5)).tolist()
        """,
        """
        import numpy
        return (numpy.array(gaps) >= gaps[healthy]) & (numpy.array(win_rates) < 0.5)
        """,
    ],
    "prompts_for": [
        "math.ceil(1.96**2 * sd**2 / half_width**2)",
        """
        n = 1
        while 1.96 * sd / math.sqrt(n) > half_width:
            n += 1
        return n
        """,
    ],
    "best_of_n_kl": [
        "math.log(n) - 1 + 1 / n",
        "torch.tensor(float(n)).double().log() - (n - 1) / n",
        "math.log(n) + (1 - n) / n",
        "-math.log(1 / n) - (n - 1) / n",
    ],
    "unlikelihood_loss": [
        "alpha * rejected - chosen",
        "torch.lerp(-chosen, rejected - chosen, 1.0) + (alpha - 1) * rejected",
        "torch.stack([alpha * l - w for w, l in zip(chosen, rejected)])",
        "rejected.mul(alpha).sub(chosen)",
    ],
    "leave_one_out": [
        """
        n = rewards.shape[-1]
        return n / (n - 1) * (rewards - rewards.mean(-1, keepdim=True))
        """,
        """
        n = rewards.shape[1]
        others = (1 - torch.eye(n, dtype=rewards.dtype)) / (n - 1)
        return rewards - rewards @ others
        """,
        """
        advantages = torch.zeros_like(rewards)
        for g, group in enumerate(rewards):
            for i in range(len(group)):
                advantages[g, i] = group[i] - torch.cat([group[:i], group[i + 1 :]]).mean()
        return advantages
        """,
        """
        import numpy
        r = rewards.numpy()
        return torch.from_numpy(r - (r.sum(1)[:, None] - r) / (r.shape[1] - 1))
        """,
    ],
    "group_advantage": [
        """
        deviation, mean = torch.std_mean(rewards, dim=1, keepdim=True)
        return (rewards - mean) / (deviation + epsilon)
        """,
        """
        mean = rewards.mean(1)[:, None]
        variance = ((rewards - mean) ** 2).sum(1)[:, None] / (rewards.shape[1] - 1)
        return (rewards - mean) / (epsilon + variance.sqrt())
        """,
        "torch.stack([(g - g.mean()) / (g.std() + epsilon) for g in rewards])",
        """
        import numpy
        r = rewards.numpy()
        centred = r - r.mean(axis=1, keepdims=True)
        return torch.from_numpy(centred / (r.std(axis=1, ddof=1, keepdims=True) + epsilon))
        """,
    ],
    "verifiable_reward": [
        """
        fields = ("service", "region", "time", "metric", "users", "severity", "cause", "next")
        lines = report.split("\\n")
        if len(lines) != len(fields):
            return 0
        for line, field in zip(lines, fields):
            if not line.startswith(field + ": ") or not line[len(field) + 2 :].strip():
                return 0
        change = alert["change"]
        expected = [
            f"service: {alert['service']}",
            f"region: {alert['region']}",
            f"time: {alert['time']}",
            f"metric: {alert['metric']} {alert['value']}",
            f"users: {alert['users']}%",
        ]
        total = sum(line == right for line, right in zip(lines, expected)) / 15
        if lines[6] == ("cause: unknown" if change is None else f"cause: suspected {change}"):
            total += 1 / 3
        if len(lines[7].split()) <= 6:
            total += 1 / 3
        return total
        """,
        """
        import re
        names = "service region time metric users severity cause next".split()
        found = re.fullmatch("\\n".join(f"{name}: (.+)" for name in names), report)
        if found is None:
            return 0.0
        *values, _, cause, step = found.groups()
        service, region, time, metric, users = values
        facts = [
            service == alert["service"],
            region == alert["region"],
            time == alert["time"],
            metric == alert["metric"] + " " + alert["value"],
            users == str(alert["users"]) + "%",
        ]
        right = "suspected " + alert["change"] if alert["change"] else "unknown"
        return (torch.tensor(facts).double().mean() + (cause == right) + (step.count(" ") < 5)) / 3
        """,
    ],
    "on_frontier": [
        """
        found = []
        for kl, reward in points:
            beaten = False
            for k, r in points:
                if k <= kl and r >= reward and (k < kl or r > reward):
                    beaten = True
            found.append(not beaten)
        return found
        """,
        """
        import numpy
        kl, reward = numpy.array(points).T
        beats = (kl[:, None] <= kl) & (reward[:, None] >= reward)
        strictly = (kl[:, None] < kl) | (reward[:, None] > reward)
        return ~(beats & strictly).any(0)
        """,
        """
        best, kept = -math.inf, set()
        for kl, reward in sorted(points, key=lambda point: (point[0], -point[1])):
            if reward > best:
                best = reward
                kept.add((kl, reward))
        return [point in kept for point in points]
        """,
        """
        frame = pd.DataFrame(points, columns=["kl", "reward"])
        best = frame.sort_values(["kl", "reward"], ascending=[True, False]).drop_duplicates("kl")
        best = best[best.reward > best.reward.cummax().shift(fill_value=-math.inf)]
        keys = set(map(tuple, best.to_numpy().tolist()))
        return [tuple(point) in keys for point in points]
        """,
    ],
}
