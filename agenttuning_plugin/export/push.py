"""`agenttuning push`: upload the files of a model, and no others of a run, to the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_card import CARD_FILE, write_model_card
from agenttuning_plugin.reports.model_record import MODEL_RECORD
from dataset_builders.errors import ConfigError, DownloadError, SourceNotFoundError
from dataset_builders.extras import needs_extra

_FILES = (
    "*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "*.index.json", "config.json",
    "adapter_config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "chat_template*", "*.model", "*.py", CARD_FILE,
)  # fmt: skip
"""Files of a model. Rows, transcripts and checkpoints of a run are data: they stay here."""

_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class Upload:
    """What will be uploaded, and where to.

    Attributes:
        folder: The model's folder.
        repo: Name on the hub, such as "me/agentlm-7b".
        private: Whether a new repository is private.
        files: Files by their size in bytes.
        endpoint: Address of the hub.
    """

    folder: Path
    repo: str
    private: bool
    files: dict[str, int]
    endpoint: str

    def lines(self) -> list[str]:
        """Describe it, a line each."""
        kind = "private if it is new" if self.private else "public if it is new"
        lines = [f"{self.folder} to {self.endpoint}/{self.repo} ({kind})"]
        lines += [f"  {size / 1024**2:10.1f} MiB  {name}" for name, size in self.files.items()]
        return lines


def plan_upload(folder: Path, repo: str, *, private: bool = False) -> Upload:
    """Determine what will be uploaded; nothing is sent.

    A run's folder that has no model card gets one.

    Args:
        folder: Output folder of a run or of `agenttuning merge`.
        repo: Name on the hub.
        private: See `Upload`.

    Raises:
        SourceNotFoundError: The folder holds no model.
        ConfigError: There is no token, the hub is turned off, or the name cannot be one.
        MissingExtraError: huggingface_hub is not installed.
    """
    with needs_extra("eval"):
        from huggingface_hub import constants, get_token, utils
        from huggingface_hub.errors import HFValidationError
    rules: Any = utils
    place = folder.expanduser()
    if not place.is_dir():
        raise SourceNotFoundError(f"{folder}: no such folder")
    try:
        rules.validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"`repo`: {str(error).splitlines()[0]}") from error
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("HF_HUB_OFFLINE is set: unset it to upload")
    if get_token() is None:
        raise ConfigError("found no token of the hub: run `hf auth login`, or set HF_TOKEN")
    if not (place / CARD_FILE).is_file() and (place / MODEL_RECORD).is_file():
        write_model_card(place)
    found = sorted({file for pattern in _FILES for file in place.glob(pattern) if file.is_file()})
    if not any(file.suffix in _WEIGHTS for file in found):
        raise SourceNotFoundError(
            f"{folder}: found no model weights, expected a model or an adapter"
        )
    sizes = {file.name: file.stat().st_size for file in found}
    return Upload(place, repo, private, sizes, str(constants.ENDPOINT))


def push(upload: Upload) -> str:
    """Upload the files in one commit; the repository is created if it does not exist.

    Returns:
        Address of the commit.

    Raises:
        DownloadError: The hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api: Any = HfApi()
    try:
        api.create_repo(upload.repo, private=upload.private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=upload.repo,
            folder_path=upload.folder,
            allow_patterns=list(upload.files),
            commit_message="Upload by agenttuning push",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = " ".join(str(error).split())
        raise DownloadError(f"{upload.endpoint}/{upload.repo}: not uploaded: {line}") from error
    return str(commit.commit_url)
