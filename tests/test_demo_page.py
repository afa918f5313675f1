import pytest
from transformers import pipeline


pytest.importorskip("gradio", reason="needs gradio")


@pytest.fixture
def page(checkpoint):
    from slam_hf.demo.page import make_page

    return make_page(
        pipeline("audio-to-audio", model=str(checkpoint / "model"), codec=str(checkpoint / "codec")), "user/<b>"
    )


def test_the_page_bounds_the_work_and_keeps_nothing(page):
    from slam_hf.demo.launch import page_options

    options = page_options()
    assert page._queue.max_size == 20 and page._queue.default_concurrency_limit == 1
    models = [event for event in page.fns.values() if event.concurrency_id == "model"]
    assert len(models) == 2  # both wait in one queue
    assert page.delete_cache == (60, 600) and not page.analytics_enabled
    assert options["max_file_size"] == "25mb"
    assert not any(
        options[name] for name in ("share", "run_history", "enable_monitoring", "mcp_server", "footer_links")
    )
    assert {event.api_visibility for event in page.fns.values()} == {"private"}


def test_names_on_the_page_are_not_markup(page):
    values = [component.value for component in page.blocks.values() if type(component).__name__ == "HTML"]
    [head] = [value for value in values if value and "<h1>" in value]
    assert "<code>user/&lt;b&gt;</code>" in head


def test_a_model_of_speech_alone_does_not_ask_for_text(page):
    shown = {component.label: component.visible for component in page.blocks.values() if hasattr(component, "label")}
    assert shown["Text before the recording"] is False and shown["Continue in"] is False
    assert shown["Recording"] is True
