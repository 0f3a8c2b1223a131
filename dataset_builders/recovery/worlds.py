"""Find the environment of a collection, as it was played."""

from __future__ import annotations

from pathlib import Path

from dataset_builders.collection.attempts import stored_collections
from dataset_builders.environments import HELD_IN, EnvironmentSpec, load_environment
from dataset_builders.environments.prompts import OWN
from dataset_builders.environments.references import portable, resolve
from dataset_builders.errors import ConfigError
from dataset_builders.recovery.episodes import RecordedCollection
from dataset_builders.sources.recovery_settings import RecoverSettings


def environment_of(collection: RecordedCollection, settings: RecoverSettings) -> EnvironmentSpec:
    """Return the environment with the options and prompts that a collection was played with.

    Raises:
        ConfigError: It cannot be replayed here, or what was played is not known; says why.
        SourceNotFoundError: Its data is missing.
    """
    name, path = collection.environment, collection.path
    label = str(collection.settings.get("prompt", OWN))
    given = dict(collection.settings.get("environment options") or {})
    if settings.data is not None:
        given["data"] = settings.data
    kind = label.partition(":")[0]
    spec = load_environment(
        _reference(collection, settings), prompt=kind, agentinstruct=settings.agentinstruct, **given
    )
    if spec.name != name:
        raise ConfigError(f"{path}: environment: found {spec.name!r}, expected {name!r}")
    if spec.dialogue.held_out:
        raise ConfigError(f"{name}: declared held out, expected an environment to train on")
    if spec.dialogue.single_turn:
        raise ConfigError(
            f"{name}: cannot be recovered: the model is shown nothing of its former turns, so a "
            "turn after a failed one is like any other"
        )
    if missing := spec.dialogue.world.missing(spec.options.get("data")):
        raise ConfigError(f"{name}: cannot be replayed here: {missing}")
    if (found := spec.wording().label) != label:
        raise ConfigError(
            f"{path}: prompt: the collection was played with {label}, found {found}: the same "
            "turns would answer another prompt"
        )
    return spec


def own_references(settings: RecoverSettings) -> dict[str, str]:
    """Return the references of a folder's own environments by name, whose code may change.

    Those that are not known are left out: `environment_of` refuses them.

    Raises:
        SourceNotFoundError, DataError: See `stored_collections`.
    """
    found: dict[str, str] = {}
    for stored in stored_collections(Path(settings.collection).expanduser()):
        reference = settings.environment or str(stored.settings.get("reference", ""))
        target = reference.rpartition(":")[0]
        known = settings.environment is not None or not target.endswith(".py")
        if stored.environment not in HELD_IN and target and known:
            found[stored.environment] = reference
    return found


def _reference(collection: RecordedCollection, settings: RecoverSettings) -> str:
    name = collection.environment
    if name in HELD_IN:
        return name
    stored = str(collection.settings.get("reference", name))
    if settings.environment is None:
        target = stored.rpartition(":")[0]
        if target and not target.endswith(".py"):
            return stored
        raise ConfigError(
            f"{name}: found no environment, expected its reference, such as ./{stored} "
            "(`environment`)"
        )
    if (given := portable(resolve(settings.environment))) != stored:
        raise ConfigError(
            f"{collection.path}: environment: the collection was played with {stored}, found "
            f"{given}"
        )
    return settings.environment
