from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from llm_proxy.chat.markdown import THEME
from llm_proxy.chat.markdown_view import MarkdownView
from tests.chat.screen_emulator import ScreenEmulator

TEXT = """\
# Title

A paragraph that is long enough to be wrapped on a narrow screen, **and** then some more.

- one
- two
  with more

```python
def f():
    return 1


print(f())
```

The end."""


def _view(screen: ScreenEmulator, *, margin: str = "") -> MarkdownView:
    console = Console(
        file=screen,  # type: ignore[arg-type]
        theme=THEME,
        force_terminal=True,
        color_system=None,
        width=screen.width,
        height=screen.height,
    )
    return MarkdownView(console, margin=margin)


async def _show(pieces: Sequence[str], screen: ScreenEmulator) -> str:
    """Drawn after every piece: the loop's timers run between them."""
    with _view(screen) as view:
        view._rest_s = 0.0
        for piece in pieces:
            view.add(piece)
            view._draw_again()
    return screen.text


def _plain(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


async def _at_once(text: str) -> str:
    return await _show([text], ScreenEmulator(height=1000))


@given(st.lists(st.integers(0, len(TEXT)), max_size=30), st.integers(6, 40))
@settings(max_examples=30, deadline=None)
def test_pieces_and_the_height_of_the_screen_change_nothing(cuts: list[int], height: int) -> None:
    bounds = [0, *sorted(cuts), len(TEXT)]
    pieces = [TEXT[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    screen = ScreenEmulator(height=height)
    assert asyncio.run(_show(pieces, screen)) == asyncio.run(_at_once(TEXT))
    assert screen.has_cursor


@given(
    st.lists(st.sampled_from(["word ", "x" * 70, "y" * 200, "\n", "\n\n"]), max_size=25),
    st.integers(3, 12),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_code_is_copied_as_it_came(pieces: list[str], height: int, ends: bool) -> None:
    code = "".join(pieces).strip()
    screen = ScreenEmulator(height=height)
    text = asyncio.run(_show(["```\n", *pieces, "\n```" if ends else ""], screen))
    shown = [line.rstrip() for line in text.split("\n")]
    expected = [line.rstrip() for line in code.split("\n")]
    assert "\n".join(shown[1 : shown.index("─" * 79, 1)]).strip() == "\n".join(expected)


@pytest.mark.anyio
async def test_of_a_line_that_is_higher_than_the_screen_the_end_is_shown() -> None:
    screen = ScreenEmulator(height=6)
    line = "".join(f"{number:04}" for number in range(500))
    with _view(screen) as view:
        view.add(f"```\n{line}")
        view._draw_again()
        assert screen.text.split("\n")[-3].endswith(line[-10:])
        assert line[:40] not in screen.text
    assert f"\n{line}\n" in screen.text


@pytest.mark.anyio
async def test_whole_answer_is_laid_out_with_blank_lines_between_blocks() -> None:
    assert _plain(await _at_once(TEXT)) == "\n".join(
        [
            "Title",
            "",
            "A paragraph that is long enough to be wrapped on a narrow screen, and then some",
            "more.",
            "",
            " • one",
            " • two with more",
            "",
            "── python " + "─" * 69,
            "def f():",
            "    return 1",
            "",
            "",
            "print(f())",
            "─" * 79,
            "",
            "The end.",
            "",
        ]
    )


@pytest.mark.anyio
async def test_text_appears_before_the_answer_ends() -> None:
    screen = ScreenEmulator()
    shown = asyncio.Event()
    write = screen.write

    def watching(text: str) -> int:
        if "half" in text:
            shown.set()
        return write(text)

    screen.write = watching  # type: ignore[method-assign]
    with _view(screen) as view:
        assert _plain(screen.text) == "…\n"
        assert not screen.has_cursor
        view.add("half an ")
        await asyncio.wait_for(shown.wait(), 10)
        assert screen.text == "half an\n"
        view.add("answer")
    assert screen.text == "half an answer\n"


@pytest.mark.anyio
async def test_answer_is_set_off_by_its_margin() -> None:
    screen = ScreenEmulator()
    with _view(screen, margin="\n") as view:
        view.add("text")
    assert screen.text == "\ntext\n\n"


@pytest.mark.anyio
async def test_nothing_said_leaves_nothing_behind() -> None:
    screen = ScreenEmulator()
    with _view(screen):
        pass
    assert screen.text.strip() == ""
    assert screen.has_cursor


@pytest.mark.anyio
async def test_failure_in_the_middle_shows_what_came_and_the_cursor() -> None:
    screen = ScreenEmulator()
    with pytest.raises(KeyError), _view(screen) as view:
        view.add("half \x1b[31mred")
        raise KeyError
    assert screen.text == "half red\n"
    assert screen.has_cursor


@pytest.mark.anyio
async def test_what_is_told_meanwhile_stands_above_what_is_drawn_again() -> None:
    screen = ScreenEmulator(width=40, height=20)
    view = _view(screen, margin="\n")
    with view:
        view.above(lambda: screen.write("request: {\n}\n"))
        view.add("half a paragr")
        view._draw_again()
        view.above(lambda: screen.write("answer: {\n}\n"))
        view.add("aph")
    view.above(lambda: screen.write("afterwards\n"))
    told = ["request: {", "}", "", "answer: {", "}", "", "half a paragraph", "", "afterwards"]
    assert screen.text.strip("\n").split("\n") == told
