"""The requests that the package ships, for evaluation only."""

from __future__ import annotations

from importlib import resources

import yaml

from dataset_builders.refusals.requests import Request


def shipped_requests() -> list[Request]:
    """Return the requests that the package ships: 44 harmful and 44 harmless, in both settings."""
    file = resources.files(__package__ or "").joinpath("requests.yaml")
    found = yaml.safe_load(file.read_text("utf-8"))
    return [
        Request(f"{form}-{label}-{number:02}", prompt, label, form)
        for form, by_label in found.items()
        for label, prompts in by_label.items()
        for number, prompt in enumerate(prompts, 1)
    ]
