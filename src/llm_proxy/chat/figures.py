"""What answers cost in tokens and time: of one, and of a session."""

from __future__ import annotations

from llm_proxy.chat.question import Answer

_SEPARATOR = " · "


class Totals:
    """Of a session; what an answer didn't tell isn't counted, and said so."""

    def __init__(self) -> None:
        self.answers = 0
        self.failures = 0
        self.stopped = 0
        self._untold = 0
        self._tokens_in = 0
        self._tokens_out = 0
        self._total_s = 0.0
        self._first_s: list[float] = []

    def add(self, answer: Answer) -> None:
        self.answers += 1
        usage = answer.usage
        if usage.tokens_in is None and usage.tokens_out is None:
            self._untold += 1
        self._tokens_in += usage.tokens_in or 0
        self._tokens_out += usage.tokens_out or 0
        self._total_s += answer.total_s
        if answer.first_text_s is not None:
            self._first_s.append(answer.first_text_s)

    def rows(self) -> list[tuple[str, str]]:
        counts = [f"{self.answers:,}"]
        counts += [f"{self.stopped:,} stopped"] if self.stopped else []
        counts += [f"{self.failures:,} failed"] if self.failures else []
        rows = [("answers", ", ".join(counts))]
        unknown = f", unknown for {self._untold:,}" if self._untold else ""
        tokens = f"{self._tokens_in:,} in, {self._tokens_out:,} out"
        rows.append(
            ("tokens", f"{tokens}, {self._tokens_in + self._tokens_out:,} together{unknown}")
        )
        if self._first_s:
            mean = sum(self._first_s) / len(self._first_s)
            rows.append(
                (
                    "first token",
                    f"{seconds(mean)} on average, {seconds(max(self._first_s))} at most",
                )
            )
        if self.answers:
            rows.append(
                (
                    "time",
                    f"{seconds(self._total_s)}, {seconds(self._total_s / self.answers)} an answer",
                )
            )
        return rows


def figures_of(answer: Answer) -> str:
    """The line below an answer."""
    words = [_tokens(answer)]
    if answer.first_text_s is not None:
        words.append(f"first token {seconds(answer.first_text_s)}")
    words.append(f"total {seconds(answer.total_s)}")
    if (rate := answer.tokens_per_second) is not None:
        words.append(f"{_rounded(rate)} tokens/s")
    if answer.was_cut:
        words.append("cut at the limit of tokens")
    elif answer.finish in ("content_filter", "refusal"):
        words.append("withheld by the provider's filter")
    return _SEPARATOR.join(words)


def _tokens(answer: Answer) -> str:
    usage = answer.usage
    if usage.tokens_in is None and usage.tokens_out is None:
        return "tokens unknown"
    sent = "?" if usage.tokens_in is None else f"{usage.tokens_in:,}"
    came = "?" if usage.tokens_out is None else f"{usage.tokens_out:,}"
    return f"{sent} {'token' if sent == '1' else 'tokens'} in, {came} out"


def _rounded(rate: float) -> str:
    return f"{rate:.1f}" if rate < 10 else f"{rate:,.0f}"


def seconds(value: float) -> str:
    """Three digits at most, in the unit that needs no zeros in front."""
    if value < 0.0995:
        return f"{value * 1000:.1f} ms" if value < 0.00995 else f"{value * 1000:.0f} ms"
    if value < 9.995:
        return f"{value:.2f} s"
    if value < 99.95:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{value / 3600:.1f} h"
