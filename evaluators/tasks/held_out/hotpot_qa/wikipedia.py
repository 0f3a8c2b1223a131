"""Live Wikipedia through the MediaWiki API."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from dataset_builders.errors import EnvironmentFailureError, SourceNotFoundError
from evaluators.tasks.held_out.hotpot_qa.pages import SIMILAR, Page

WIKIPEDIA = "https://en.wikipedia.org/w/api.php"
_TIMEOUT = 30.0
_AGENT = "agenttuning-plugin (evaluation of language models)"


class WikipediaStore:
    """Live pages, as they are at the time of the evaluation.

    Args:
        url: Address of the API.
    """

    def __init__(self, url: str = WIKIPEDIA) -> None:
        self.label = f"live Wikipedia ({urllib.parse.urlsplit(url).hostname})"
        self._url = url
        self._reached = False

    def find(self, entity: str) -> Page | list[str]:
        """See `PageStore.find`; a disambiguation page counts as none.

        Raises:
            SourceNotFoundError: The API was never reached.
            EnvironmentFailureError: It was reached before and now fails.
        """
        response = self._ask(
            prop="extracts|pageprops", explaintext="1", redirects="1", titles=entity[:250]
        )
        pages = response.get("query", {}).get("pages", [])
        page = pages[0] if pages else {}
        text = str(page.get("extract") or "")
        if text.strip() and "disambiguation" not in page.get("pageprops", {}):
            return Page(str(page["title"]), text)
        response = self._ask(list="search", srsearch=entity[:250], srlimit=str(SIMILAR))
        return [str(hit["title"]) for hit in response.get("query", {}).get("search", [])]

    def _ask(self, **parameters: str) -> dict[str, Any]:
        asked = {"action": "query", "format": "json", "formatversion": "2", **parameters}
        request = urllib.request.Request(
            f"{self._url}?{urllib.parse.urlencode(asked)}", headers={"User-Agent": _AGENT}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                response = json.load(answer)
        except (OSError, ValueError) as error:
            kind = EnvironmentFailureError if self._reached else SourceNotFoundError
            raise kind(
                f"hotpot_qa: Wikipedia at {self._url} does not answer ({error}); "
                "without network use the store 'local'"
            ) from error
        if not isinstance(response, dict) or "error" in response:
            raise EnvironmentFailureError(f"hotpot_qa: Wikipedia answers {str(response)[:200]}")
        self._reached = True
        return response
