"""What each `/` command does to a session, and says it did."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llm_proxy.chat import transcript
from llm_proxy.chat.commands import COMMANDS, Invocation, UnknownCommand, parse_command
from llm_proxy.chat.conversation import Conversation
from llm_proxy.chat.screen import Screen
from llm_proxy.chat.session import Session
from llm_proxy.errors import LLMProxyError

_FORCE: Final = "--force"
_KEYS: Final = (
    ("Enter", "send; Alt-Enter, Ctrl-J or \\ at the end of a line begin another line"),
    ("Ctrl-C", "stop an answer, empty the line; twice on an empty one: leave"),
)


class CommandEffects:
    def __init__(self, session: Session, screen: Screen) -> None:
        self._session = session
        self._screen = screen
        self._own_files: set[Path] = set()  # written or read here, so replaced without a word

    async def take(self, line: str) -> bool:
        """A line that was entered; False when it was the last one."""
        try:
            invocation = parse_command(line)
            if invocation is None:
                if line.strip():
                    await self._session.ask(line.strip())
                return True
            if invocation.name == "exit":
                return False
            await self._run(invocation)
        except (UnknownCommand, LLMProxyError) as exc:
            self._screen.fail(str(exc))
        return True

    async def _run(self, invocation: Invocation) -> None:
        if invocation.name == "retry":
            await self._session.retry()
            return
        effects = {
            "model": self._model,
            "system": self._system,
            "save": self._save,
            "load": self._load,
            "clear": self._clear,
            "usage": self._usage,
            "help": self._help,
        }
        effects[invocation.name](invocation.argument)

    @property
    def _conversation(self) -> Conversation:
        return self._session.conversation

    def _model(self, name: str) -> None:
        if not name:
            self._screen.tell(f"The model is {self._conversation.model}; /model NAME changes it.")
            return
        if len(name.split()) > 1:
            raise LLMProxyError("the name of a model has no blanks; `/model NAME`")
        self._conversation.model = name
        self._screen.tell(f"The next question goes to {name}.")

    def _system(self, text: str) -> None:
        conversation = self._conversation
        if text == "-":
            was_there, conversation.system = conversation.system is not None, None
            self._screen.tell(
                "The system prompt is removed." if was_there else "There was no system prompt."
            )
        elif text:
            conversation.system = text
            self._screen.tell("The system prompt is set, from the next question on.")
        elif conversation.system is None:
            self._screen.tell("There is no system prompt; /system TEXT sets one.")
        else:
            self._screen.tell(f"The system prompt is: {conversation.system}")

    def _save(self, argument: str) -> None:
        forced = argument.split(maxsplit=1)[:1] == [_FORCE]
        path = _path(argument.removeprefix(_FORCE).strip() if forced else argument, "save")
        if not self._conversation.turns:
            raise LLMProxyError("nothing was said yet, so there is nothing to save")
        replaces = forced or path.absolute() in self._own_files
        api = self._session.manner.api
        try:
            existed = transcript.save(path, self._conversation, api, replaces=replaces)
        except FileExistsError as exc:
            raise LLMProxyError(f"{path} exists; `/save {_FORCE} {path}` replaces it") from exc
        self._own_files.add(path.absolute())
        verb = "Replaced" if existed else "Saved to"
        self._screen.tell(f"{verb} {path}: {_count(self._conversation)}.")

    def _load(self, argument: str) -> None:
        path = _path(argument, "load")
        conversation, api = transcript.load(path)
        self._own_files.add(path.absolute())
        model, note = conversation.model, ""
        if api != self._session.manner.api:
            model = self._conversation.model
            note = f" (it was with {conversation.model} of {api}, which isn't asked here)"
        conversation.model = model
        self._session.conversation = conversation
        self._session.forget_unanswered()
        self._screen.tell(f"Loaded {path}: {_count(conversation)}, with {model}{note}.")

    def _clear(self, _: str) -> None:
        count = _count(self._conversation)
        self._conversation.turns.clear()
        self._session.forget_unanswered()
        kept = "" if self._conversation.system is None else "; the system prompt stays"
        self._screen.tell(f"Forgot {count}{kept}.")

    def _usage(self, _: str) -> None:
        self._screen.table(self._session.totals.rows())

    def _help(self, _: str) -> None:
        self._screen.table([*((c.usage, c.summary) for c in COMMANDS), *_KEYS])


def _path(text: str, command: str) -> Path:
    if not text or text == _FORCE:
        raise LLMProxyError(f"`/{command}` needs the name of a file: /{command} FILE")
    try:
        return Path(text).expanduser()
    except RuntimeError as exc:
        raise LLMProxyError(f"{text} can't be found: {exc}") from exc


def _count(conversation: Conversation) -> str:
    turns = len(conversation.turns)
    return f"{turns} question{'' if turns == 1 else 's'}"
