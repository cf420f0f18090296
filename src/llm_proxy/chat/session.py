"""A conversation that goes on: questions, commands, and what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llm_proxy.chat.conversation import Conversation, Turn
from llm_proxy.chat.figures import Totals, figures_of
from llm_proxy.chat.interrupts import Interrupts
from llm_proxy.chat.question import Answer, Api, Question
from llm_proxy.chat.screen import AnswerView, Screen
from llm_proxy.errors import LLMProxyError


class Asks(Protocol):
    """The client, as far as a session needs it."""

    async def ask(self, question: Question, on_text: Callable[[str], None]) -> Answer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How everything in a session is asked."""

    api: Api = "openai"
    temperature: float | None = None
    max_tokens: int | None = None
    streams: bool = True

    def question(self, conversation: Conversation, text: str) -> Question:
        return Question(
            model=conversation.model,
            messages=conversation.messages(text),
            system=conversation.system,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            streams=self.streams,
        )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of one question: an answer, a failure, or neither when it was stopped."""

    said: str
    answer: Answer | None = None
    failure: LLMProxyError | None = None


class Session:
    def __init__(
        self,
        client: Asks,
        conversation: Conversation,
        manner: Manner,
        *,
        screen: Screen,
        interrupts: Interrupts,
    ) -> None:
        self.conversation = conversation
        self.manner = manner
        self.totals = Totals()
        self._client = client
        self._screen = screen
        self._interrupts = interrupts
        self._unanswered: str | None = None  # what was asked last, if nothing is kept of it

    async def ask(self, text: str) -> None:
        """A failed question isn't kept, so that the next one doesn't send it along."""
        outcome = await self._outcome(text)
        self._unanswered = None
        if outcome.said and outcome.failure is None:
            turn = Turn(
                asked=text,
                said=outcome.said,
                model=self.conversation.model,
                was_stopped=outcome.answer is None,
            )
            self.conversation.turns.append(turn)
        else:
            self._unanswered = text
        self._report(outcome)

    async def retry(self) -> None:
        """What failed last, else the last question, whose answer is replaced by the new one."""
        if self._unanswered is not None:
            await self.ask(self._unanswered)
            return
        if not self.conversation.turns:
            self._screen.tell("There is nothing to retry yet.")
            return
        before = self.conversation.turns.pop()
        await self.ask(before.asked)
        if self._unanswered is not None:
            self._unanswered = None
            self.conversation.turns.append(before)
            self._screen.tell("The earlier answer is kept.")

    def forget_unanswered(self) -> None:
        self._unanswered = None

    async def _outcome(self, text: str) -> _Outcome:
        question = self.manner.question(self.conversation, text)
        with self._screen.answer() as view:
            return await self._follow(question, view)

    async def _follow(self, question: Question, view: AnswerView) -> _Outcome:
        said: list[str] = []
        was_stopped = False

        def take(text: str) -> None:
            said.append(text)
            view.add(text)

        def stop() -> None:
            nonlocal was_stopped
            was_stopped = True
            asking.cancel()

        asking = asyncio.ensure_future(self._client.ask(question, take))
        with self._interrupts.stopping(stop):
            try:
                answer = await asking
            except asyncio.CancelledError:
                if not was_stopped:
                    raise
                return _Outcome("".join(said))
            except LLMProxyError as exc:
                return _Outcome("".join(said), failure=exc)
        return _Outcome("".join(said), answer)

    def _report(self, outcome: _Outcome) -> None:
        if outcome.failure is not None:
            self.totals.failures += 1
            self._screen.fail(str(outcome.failure))
        elif outcome.answer is not None:
            self.totals.add(outcome.answer)
            self._screen.figures(figures_of(outcome.answer))
            if not outcome.said:
                self._screen.tell("The answer was empty, so it isn't kept; /retry asks again.")
        else:
            self.totals.stopped += 1
            kept = "what came is kept" if outcome.said else "nothing had come"
            self._screen.tell(f"Stopped: {kept}. /retry asks again.")
