"""The written severity policy."""

from __future__ import annotations

from .alerts import METRICS, Alert

SEVERITIES = ("sev1", "sev2", "sev3")


def severity_policy(alert: Alert) -> str:
    """The severity that the policy gives `alert`: `sev1` (worst), `sev2` or `sev3`.

    1. By the share of users affected: 30 % or more is sev1, 5 % or more is sev2, less is sev3.
    2. Where data is at risk (disk use, replication lag, failed backups, checksum errors) the
       severity is one level higher; sev1 stays sev1.
    """
    level = 0 if alert.users >= 30 else 1 if alert.users >= 5 else 2
    if METRICS[alert.metric].data_at_risk:
        level = max(level - 1, 0)
    return SEVERITIES[level]
