"""Text that is made up: as long as is asked for, and the same for the same seed."""

from __future__ import annotations

import random
from functools import cache
from typing import Final

# A model counts a plain word and the space before it as one token, as the mock does.
_VOCABULARY: Final = (
    "time year people way day man thing world life hand part child eye place work week case "
    "point company number group problem fact house water room mother area money story month "
    "book job word business issue side kind head service friend father power hour game line "
    "end member law car city name team minute idea body back face level office door health "
    "person art war history party result change morning reason research girl moment air"
)
_OPENING: Final = 16
_SUPPLY: Final = 1 << 16


@cache
def _vocabulary() -> list[str]:
    return _VOCABULARY.split()


@cache
def _supply() -> list[str]:
    return random.Random(0).choices(_vocabulary(), k=_SUPPLY)


def made_text(words: int, seed: str) -> str:
    """Of so many words. Texts of different seeds differ from their beginning on."""
    source = random.Random(seed)
    begin = source.choices(_vocabulary(), k=min(words, _OPENING))
    supplies, rest = divmod(words - len(begin), _SUPPLY)
    start = source.randrange(_SUPPLY - rest)
    supply = _supply()
    return " ".join(begin + supply * supplies + supply[start : start + rest])
