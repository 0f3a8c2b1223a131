"""Move system messages into the first user turn for servers that reject them."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from dataset_builders.endpoints.errors import BAD_REQUEST, judge

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# Some servers respond with status 500 if a chat template raises.
_TEMPLATE = re.compile(r"system (?:role|message|prompt)|roles must alternate|chat.?template", re.I)


class SystemFallback:
    """Sends requests, and detects whether the server accepts a system message.

    A rejected request with a system message is sent once more without one, as long as no request
    with one was answered. If that is answered, all further requests are sent this way.
    """

    def __init__(self) -> None:
        self._folds = self._accepted = False

    async def send(
        self, body: Mapping[str, Any], post: Callable[[dict[str, Any]], Awaitable[_T]]
    ) -> _T:
        """Send a request.

        Args:
            body: Its JSON body.
            post: Sends a body; may raise the client's errors.
        """
        if not _has_system(body):
            return await post(dict(body))
        if self._folds:
            return await post(folded(body))
        try:
            reply = await post(dict(body))
        except Exception as error:
            if self._accepted or not _template_may_refuse(error):
                raise
            try:
                reply = await post(folded(body))
            except Exception as other:
                if judge(other, proven=True).verdict == "retry":
                    raise  # A transient fault is unrelated to the system message.
                raise error from None  # It was not the system message.
            if not self._folds:
                self._folds = True
                status = getattr(error, "status_code", None)
                _log.warning(
                    "the server rejects system messages (HTTP %s): they are prepended to the "
                    "first user turn",
                    status,
                )
            return reply
        self._accepted = True
        return reply


def folded(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with the system message prepended to the first user turn."""
    system, *turns = body["messages"]
    first = next((n for n, turn in enumerate(turns) if turn["role"] == "user"), None)
    if first is None:
        turns = [{"role": "user", "content": system["content"]}, *turns]
    else:
        text = f"{system['content']}\n\n{turns[first]['content']}"
        turns = [*turns[:first], turns[first] | {"content": text}, *turns[first + 1 :]]
    return {**body, "messages": turns}


def _has_system(body: Mapping[str, Any]) -> bool:
    messages = body.get("messages") or [{}]
    return bool(messages[0].get("role") == "system")


def _template_may_refuse(error: Exception) -> bool:
    status = getattr(error, "status_code", None)
    if status in (400, 422):
        return judge(error, proven=True).reason == BAD_REQUEST
    return status == 500 and bool(_TEMPLATE.search(str(error)))
