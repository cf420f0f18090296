"""The prompt: editing, history, several lines, and completion of the `/` commands."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_or_none
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, has_completions
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output, create_output
from prompt_toolkit.styles import Style

from llm_proxy.chat.commands import COMMANDS
from llm_proxy.chat.history_file import HistoryFile

_PROMPT = "> "
_STYLE = Style.from_dict(
    {
        "prompt": "bold ansigreen",
        # The terminal's own colours, inverted where the choice is: right on any background.
        "completion-menu": "noinherit",
        "completion-menu.completion": "noinherit",
        "completion-menu.completion.current": "noinherit reverse",
        "completion-menu.meta.completion": "noinherit dim",
        "completion-menu.meta.completion.current": "noinherit reverse dim",
        "scrollbar.background": "noinherit",
        "scrollbar.button": "noinherit reverse",
    }
)


class CtrlC(Exception):
    """At an empty prompt."""


class LineEditor:
    def __init__(
        self,
        history: HistoryFile | None,
        *,
        input: Input | None = None,
        output: Output | None = None,
        has_colours: bool = True,
    ) -> None:
        """Without `output` the terminal is drawn on even when stdout leads elsewhere."""
        self._session: PromptSession[str] = PromptSession(
            message=[("class:prompt", _PROMPT)],
            prompt_continuation=_continuation,
            multiline=True,
            history=KeptHistory(history),
            enable_suspend=True,
            completer=CommandCompleter(),
            complete_while_typing=Condition(_is_at_a_command),
            key_bindings=key_bindings(),
            style=_STYLE,
            color_depth=None if has_colours else ColorDepth.DEPTH_1_BIT,
            reserve_space_for_menu=len(COMMANDS),
            input=input,
            output=output or create_output(always_prefer_tty=True),
        )

    async def read(self) -> str:
        """One entry, which may have several lines. Raises EOFError and CtrlC."""
        return _as_utf_8(await self._session.prompt_async(handle_sigint=False))


class CommandCompleter(Completer):
    """Names of commands, then files where a command takes one."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        word, blank, argument = text[1:].partition(" ")
        if not blank:
            for command in COMMANDS:
                if command.name.startswith(word.lower()):
                    end = " " if command.argument else ""
                    yield Completion(
                        command.name + end,
                        start_position=-len(word),
                        display=command.usage,
                        display_meta=command.summary,
                    )
        elif word in ("save", "load"):
            rest = Document(argument.removeprefix("--force").lstrip())
            yield from self._paths.get_completions(rest, complete_event)


class KeptHistory(History):
    def __init__(self, file: HistoryFile | None) -> None:
        super().__init__()
        self._file = file

    def load_history_strings(self) -> Iterable[str]:
        return [] if self._file is None else reversed(self._file.load())

    def store_string(self, string: str) -> None:
        if self._file is not None:
            self._file.add(_as_utf_8(string))


def key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter", filter=~has_completions | Condition(_nothing_is_chosen))
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=CtrlC)

    return bindings


def _as_utf_8(text: str) -> str:
    """Bytes of another encoding come as surrogates, which can't be sent or stored."""
    return text.encode(errors="replace").decode()


def _continuation(width: int, line_number: int, wrap_count: int) -> AnyFormattedText:
    return " " * width


def _is_at_a_command() -> bool:
    app = get_app_or_none()
    return app is not None and app.current_buffer.text.startswith("/")


def _nothing_is_chosen() -> bool:
    app = get_app_or_none()
    state = None if app is None else app.current_buffer.complete_state
    return state is None or state.current_completion is None
