"""Compares the settings of a job or a run with those that it was begun with."""

from typing import Any


def list_changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each setting that differs."""
    earlier, now = _flatten(earlier), _flatten(now)
    return [
        f"  {key}: was {earlier.get(key)!r}, is now {now.get(key)!r}"
        for key in sorted(earlier.keys() | now.keys())
        if earlier.get(key) != now.get(key)
    ]


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
