from __future__ import annotations

from llm_proxy.benchmark.svg_figure import drawing, figure


def test_a_drawing_is_named_for_screen_readers() -> None:
    chart = drawing("Rate over time", height=44, class_="shares")
    assert (chart.get("role"), chart.get("aria-label")) == ("img", "Rate over time")
    assert chart.findtext("title") == "Rate over time"
    assert (chart.get("viewBox"), chart.get("class")) == ("0 0 460 44", "shares")


def test_a_figure_has_its_note_beside_its_name() -> None:
    chart = drawing("Rate over time")
    whole = figure("Rate", "No errors.", chart)
    caption = whole.find("figcaption")
    assert caption is not None
    assert "".join(caption.itertext()) == "Rate No errors."
    assert list(whole) == [caption, chart]
