"""What is compared, and where: variations have names, and the world they meet has axes.

Runs that no study named are named by what their configs differ in.
"""

from collections.abc import Mapping, Sequence

Value = bool | int | float | str
"""A value on an axis of a study's grid."""

_MEASURES = ("policy", "wire", "server.lr")
"""Keys and sections of a config that say how a run meets the world; the rest says what the world is like."""
_ASIDE = ("name", "seed", "hosts", "checkpoints", "tracking")
"""Sections that tell no two kinds of run apart."""


def name_runs(configs: Sequence[Mapping[str, str]]) -> list[tuple[str, dict[str, Value]]]:
    """A variation's name and the axes of each run.

    Args:
        configs: The runs' configs, flat: ``{"training.lr": "0.1", ...}``.

    Returns:
        For each run the policy's name, or the codec line of a fixed policy, followed by whatever else of policy, wire
        and server differs between the runs; and the world's keys that differ, with the run's values.
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    differ = [key for key in keys if len({config.get(key) for config in configs}) > 1]
    axes = [key for key in differ if of_world(key) and key.split(".")[0] not in _ASIDE]
    others = [key for key in differ if not of_world(key) and not key.startswith("policy.")]
    named = []
    for config in configs:
        same = [other for other in configs if other.get("policy.name") == config.get("policy.name")]
        policy = config.get("policy.name", "run")
        details = [
            key
            for key in config
            if key.startswith("policy.") and key != "policy.name" and len({other.get(key) for other in same}) > 1
        ]
        if policy == "fixed":
            name = f"fixed {config.get('policy.codec', '')}".strip()
            details = [key for key in details if key != "policy.codec"]
        else:
            name = policy
        words = [f"{key.removeprefix('policy.')}={config[key]}" for key in details]
        words += [f"{key.split('.')[-1]}={config.get(key, 'none')}" for key in others]
        named.append((", ".join([name, *words]), {key: _number(config.get(key, "none")) for key in axes}))
    return named


def of_world(key: str) -> bool:
    """Whether a config's dotted key says what the world is like, and not how a run meets it."""
    return not any(key == measure or key.startswith(f"{measure}.") for measure in _MEASURES)


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
