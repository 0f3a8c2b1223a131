from __future__ import annotations

import pytest

from dataset_builders.cleaning.language import LanguageFilter, language_of
from dataset_builders.errors import ConfigError
from dataset_builders.readers.building import RecordDroppedError

ENGLISH = (
    "The committee has decided that the proposal will be discussed with all members at the next "
    "meeting, and you are invited to send your comments by Friday."
)
OTHERS = {
    "de": "Der Ausschuss hat beschlossen, den Vorschlag in der nächsten Sitzung zu besprechen.",
    "es": "El comité ha decidido que la propuesta se discutirá en la próxima reunión del mes.",
    "fr": "Le comité a décidé que la proposition sera discutée lors de la prochaine réunion.",
    "ko": "위원회는 다음 회의에서 모든 위원들과 함께 그 제안을 논의하기로 결정했습니다.",
    "th": "คณะกรรมการได้ตัดสินใจว่าจะหารือเกี่ยวกับข้อเสนอนี้กับสมาชิกทุกคนในการประชุมครั้งหน้า",
}


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_are_refused_by_name(language: str) -> None:
    with pytest.raises(RecordDroppedError) as raised:
        LanguageFilter("en").check([OTHERS[language]])
    assert raised.value.reason == f"language_{language}"
    LanguageFilter(language).check([OTHERS[language]])
    with pytest.raises(RecordDroppedError, match="found language en"):
        LanguageFilter(language).check([ENGLISH])


@pytest.mark.parametrize(
    "texts",
    [
        [ENGLISH],
        [],
        ["ok"],
        ["Danke schön!"],
        ["-0.463 22.455 -31.270 X [m]\n" * 40],
        [f"```\n# {OTHERS['de']}\n```", ENGLISH],
        ["f(x)", ENGLISH[:60]],
    ],
)
def test_english_and_what_cannot_be_told_pass(texts: list[str]) -> None:
    LanguageFilter("en").check(texts)


def test_the_start_decides() -> None:
    LanguageFilter("en").check([ENGLISH * 20, OTHERS["de"] * 50])
    with pytest.raises(RecordDroppedError):
        LanguageFilter("en").check([OTHERS["de"] * 50, ENGLISH * 20])


def test_language_of() -> None:
    assert language_of(ENGLISH) == "en"
    assert language_of("1 2 3") == ""


@pytest.mark.parametrize("code", ["english", "EN", "", "xx"])
def test_an_unknown_code_is_refused(code: str) -> None:
    with pytest.raises(ConfigError, match=rf"language: found '{code}', expected an ISO 639 code"):
        LanguageFilter(code)
