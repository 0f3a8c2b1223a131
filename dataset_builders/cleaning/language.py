"""Filter conversations by language: the paper trains on English chat only (section 2.2).

py3langid distinguishes 140 languages with a naive Bayes model over byte n-grams. It takes
0.8 ms a conversation, several times all the rest of the cleaning, so a text that is
plainly English by its function words skips the classifier.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, cast

from dataset_builders.cleaning.page_text import without_code
from dataset_builders.errors import ConfigError
from dataset_builders.readers.building import RecordDroppedError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_LOOK_AT = 1500  # characters from the start, code left out
_MIN_LETTERS = 20  # below this, a greeting or a formula, any answer is a guess
_MIN_LETTERS_SHARE = 0.3  # of all characters; below it are tables of numbers
_MIN_CONFIDENCE = 0.5  # of 1; below it are tables, addresses and SQL, in English mostly
_NO_LANGUAGE = "zxx"  # ISO 639-2 for "no linguistic content": numbers, base64

# Plainly English: three words in twenty are of this list, at least eight different ones, and
# there is next to no letter beyond ASCII. Of the 15,842 public ShareGPT conversations that
# are (nine in ten), the classifier takes 5 for German or French; they hold both languages.
_ENGLISH = frozenset(
    "an and are at be by for from has have his how if in is not of our that the their they "  # noqa: SIM905
    "this to was we were what which will with you your".split()
)
_ENGLISH_SHARE = 0.15
_ENGLISH_WORDS = 8
_MAX_EXTRA_BYTES = 0.03  # UTF-8 bytes beyond one a character, as a share


class LanguageFilter:
    """Rejects conversations in other languages than the one wanted.

    A text too short or too odd to classify is accepted: of ShareGPT's conversations that are
    classified with less than half confidence, most are English around data or code.

    Args:
        language: ISO 639-1 code, such as "en".

    Raises:
        ConfigError: The code is not one that py3langid knows.
    """

    def __init__(self, language: str) -> None:
        known = _identifier().labels
        if language not in known:
            raise ConfigError(
                f"clean: language: found {language!r}, expected an ISO 639 code such as en, or "
                f"null for any; known are {', '.join(sorted(known))}"
            )
        self.language = language

    def check(self, texts: Iterable[str]) -> None:
        """Accept or reject a conversation.

        Args:
            texts: Contents of its turns.

        Raises:
            RecordDroppedError: It is in another language (`language_de`, say).
        """
        sample = _sample(texts)
        if self.language == "en" and _plainly_english(sample):
            return
        found = language_of(sample)
        if found not in ("", self.language):
            raise RecordDroppedError(
                f"language_{found}", f"found language {found}, expected {self.language}"
            )


def language_of(text: str) -> str:
    """Return the ISO 639 code of a text's language, "" if it is uncertain."""
    if sum(map(str.isalpha, text)) < max(_MIN_LETTERS, _MIN_LETTERS_SHARE * len(text)):
        return ""
    language, confidence = _identifier().classify(text)
    return "" if language == _NO_LANGUAGE or confidence < _MIN_CONFIDENCE else cast(str, language)


def _sample(texts: Iterable[str]) -> str:
    parts: list[str] = []
    left = _LOOK_AT
    for text in texts:
        part = without_code(text)[:left]
        parts.append(part)
        left -= len(part) + 1
        if left <= 0:
            break
    return "\n".join(parts)


def _plainly_english(text: str) -> bool:
    if not text.isascii() and len(text.encode()) > len(text) * (1 + _MAX_EXTRA_BYTES):
        return False
    words = text.lower().split()
    found = [word for word in words if word in _ENGLISH]
    enough = len(found) >= _ENGLISH_SHARE * len(words)
    return enough and len(set(found)) >= _ENGLISH_WORDS


@cache
def _identifier() -> LanguageIdentifier:
    # Not py3langid.classify: its confidences are not probabilities, and its one global
    # identifier may have been set to other languages by someone else.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
