"""List a dataset repository of the Hugging Face hub, with its own client."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from dataset_builders.downloads.sources import HubFiles
from dataset_builders.errors import DownloadError


def hub_files(files: HubFiles, endpoint: str | None) -> list[tuple[str, str, int, str | None]]:
    """Return the files of a repository that match.

    The client takes the endpoint from `HF_ENDPOINT`, where none is given, and the user's token.

    Returns:
        Path, address, size in bytes, and SHA-256 or None where the hub states none.

    Raises:
        DownloadError: The hub cannot be reached, refuses, or has no such files.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    where = f"{files.repo}@{files.revision:.12}"
    try:
        info = HfApi(endpoint=endpoint).dataset_info(
            files.repo, revision=files.revision, files_metadata=True, timeout=30
        )
    except OfflineModeIsEnabled:
        raise DownloadError(f"{where}: HF_HUB_OFFLINE is set") from None
    except HfHubHTTPError as error:
        raise DownloadError(f"{where}: {str(error).strip().splitlines()[-1]}") from error
    except Exception as error:  # The client's transport, which differs by its version.
        raise DownloadError(f"{where}: cannot reach the hub: {error}") from error
    found = []
    for each in info.siblings or ():
        path = PurePosixPath(each.rfilename)
        if path.is_absolute() or ".." in path.parts:
            raise DownloadError(f"{where}: refused: {each.rfilename!r:.80} leads out of its folder")
        if any(fnmatchcase(each.rfilename, pattern) for pattern in files.only):
            url = hf_hub_url(
                files.repo,
                each.rfilename,
                repo_type="dataset",
                revision=info.sha or files.revision,
                endpoint=endpoint,
            )
            sha256 = each.lfs.sha256 if each.lfs else None
            found.append((each.rfilename, url, each.size or 0, sha256))
    if not found:
        raise DownloadError(f"{where}: found no {' or '.join(files.only)}")
    return sorted(found)


def hub_headers() -> dict[str, str]:
    """Return the header with the user's token of the hub, or none without a token."""
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}
