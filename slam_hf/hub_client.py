"""The client of huggingface_hub for scripts: where there is no network, a mistyped name fails at once."""

import time
from typing import Any

import httpx2
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled


def fail_without_network(pause: float = 1.0) -> None:
    r"""
    Do not wait for a Hub that cannot be reached. huggingface_hub asks seven times for each file, which takes 23
    seconds, also if the name of a folder was mistyped. A Hub that has answered before, or that answers late, is still
    asked as often.

    Args:
        pause (`float`, *optional*, defaults to 1.0):
            Seconds before the process asks a second time. After that, it takes the Hub as offline mode does
            (`HF_HUB_OFFLINE`) until there is an answer.
    """
    hooks = get_session().event_hooks
    pauses, has_answered = [pause], False

    class Client(httpx2.Client):
        def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            nonlocal has_answered
            is_for_hub = str(request.url).startswith(constants.ENDPOINT)
            try:
                response = super().send(request, **options)
            except httpx2.ConnectError as error:
                if has_answered or not is_for_hub or request.method not in ("GET", "HEAD"):
                    raise
                if pauses:
                    time.sleep(pauses.pop())
                    return self.send(request, **options)
                raise OfflineModeIsEnabled(f"{constants.ENDPOINT} cannot be reached ({error})") from None
            has_answered |= is_for_hub
            return response

    set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True, timeout=None))
