import json
import threading
import time
from contextlib import contextmanager, suppress

import loopback_server
import pytest
from loopback_server import QuietHandler

from slam_hf.judging import endpoint
from slam_hf.judging.arguments import JudgeArguments, load_judge
from slam_hf.judging.endpoint import NO_COMPLETION, REFUSED, EndpointError, EndpointJudge
from slam_hf.judging.judge import NO_RATING, Exchange, Judgement, RatingPrompt


QUESTION = Exchange("a", "b")


def completion(content):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


class Handler(QuietHandler):
    """Answers with the status, the body and possibly the headers that `answer` gives. `requests` has what was asked,
    and `most_at_once` how much of it at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((self.path, dict(self.headers), body))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        status, content, *headers = server.answer(body["messages"][0]["content"])
        with server.lock:
            server.at_once -= 1
        if status is None:  # hang up
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in dict(*headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    def handle(self):
        with suppress(ConnectionError):  # the client has given up
            super().handle()


@contextmanager
def serve(answer):
    """An endpoint on the loopback."""
    counts = {"at_once": 0, "most_at_once": 0}
    with loopback_server.serve(Handler, answer=answer, requests=[], lock=threading.Lock(), **counts) as server:
        server.url += "/v1"
        yield server


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited between tries, none of them in fact."""
    waited = []
    monkeypatch.setattr(endpoint.time, "sleep", waited.append)
    return waited


@pytest.fixture
def prompt(tmp_path):
    (tmp_path / "prompt.txt").write_text("{prompt}|{continuation}")
    return RatingPrompt(tmp_path / "prompt.txt")


def in_turn(*answers):
    remaining = iter(answers)
    return lambda question: next(remaining)


def test_ratings_come_in_the_order_of_the_questions_and_no_more_are_asked_at_once(prompt):
    def answer(question):
        time.sleep(0.02 * (question[-1] == "1"))
        return completion(question[-1])

    with serve(answer) as server:
        judge = EndpointJudge(f"{server.url}/", "the-judge", prompt, key="secret", parallel=3, reply_tokens=7)
        judgements = judge.judge([Exchange("a", str(1 + row % 5)) for row in range(12)] + [Exchange("a", " ")])
    assert [judgement.score for judgement in judgements] == [float(1 + row % 5) for row in range(12)] + [None]
    assert len(server.requests) == 12 and server.most_at_once <= 3
    path, headers, body = min(server.requests, key=lambda request: request[2]["messages"][0]["content"])
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body.pop("messages") == [{"role": "user", "content": "a|1"}]
    assert body == {"model": "the-judge", "max_tokens": 7, "temperature": 0}
    description = json.dumps(judge.description)
    assert "the-judge" in description and prompt.sha256 in description
    assert "127.0.0.1" not in description and "secret" not in description


@pytest.mark.parametrize(
    "trouble",
    [(500, "broken"), (503, ""), (429, "slow down"), (408, ""), (None, "")],
    ids=["500", "503", "429", "408", "hangs up"],
)
def test_a_question_is_asked_again_where_the_server_is_in_trouble(prompt, waits, trouble):
    with serve(in_turn(trouble, trouble, completion("4"))) as server:
        judgements = EndpointJudge(server.url, "judge", prompt).judge([QUESTION])
    assert judgements == [Judgement(4.0, None, "4")]
    assert waits == [1.0, 2.0]


def test_a_server_says_how_long_to_wait(prompt, waits):
    later = [(429, "", {"Retry-After": after}) for after in ("30", "100000", "Fri, 31 Dec 1999 23:59:59 GMT", "0")]
    with serve(in_turn(*later, completion("4"))) as server:
        assert EndpointJudge(server.url, "judge", prompt).judge([QUESTION])[0].score == 4
    assert waits == [30.0, endpoint.MAX_WAIT, 4.0, 8.0]


def test_a_server_that_stays_in_trouble_stops_the_work(prompt, waits):
    with serve(lambda question: (500, '{"error": "out of memory"}')) as server:
        judge = EndpointJudge(server.url, "judge", prompt, key="secret", parallel=1)
        with pytest.raises(
            EndpointError, match=r"gave no reply in 6 tries \(it answers 500: .*out of memory"
        ) as error:
            judge.judge([QUESTION] * 20)
    assert "secret" not in str(error.value)
    # The next question had begun when the first was given up; the other 18 are not asked.
    assert len(server.requests) <= 12 and waits[:5] == list(endpoint.WAITS)


def test_a_slow_server_is_asked_again(prompt, waits):
    slow = threading.Event()

    def answer(question):
        if not slow.is_set():
            slow.set()
            threading.Event().wait(1.0)
        return completion("2")

    with serve(answer) as server:
        assert EndpointJudge(server.url, "judge", prompt, timeout=0.2).judge([QUESTION])[0].score == 2
    assert waits == [1.0]


def test_no_server_stops_the_work(prompt, waits):
    with serve(in_turn()) as server:
        pass
    with pytest.raises(EndpointError, match="gave no reply in 6 tries .ConnectError"):
        EndpointJudge(server.url, "judge", prompt).judge([QUESTION])


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404])
def test_a_wrong_address_model_or_key_is_not_asked_again(prompt, waits, status):
    message = f"cannot be asked: it answers {status}: no. Check its URL"
    with (
        serve(lambda question: (status, "no", {"Location": "http://127.0.0.1:1/v1"})) as server,
        pytest.raises(ValueError, match=message),
    ):
        EndpointJudge(server.url, "judge", prompt, parallel=1).judge([QUESTION])
    assert len(server.requests) == 1 and waits == []


@pytest.mark.parametrize(
    ("answer", "judgement"),
    [
        ((400, "too\n long"), Judgement(None, REFUSED, "it answers 400: too long")),
        ((200, "<html>"), Judgement(None, NO_COMPLETION, "<html>")),
        ((200, '{"choices": []}'), Judgement(None, NO_COMPLETION, '{"choices": []}')),
        ((200, "[" * 100_000), Judgement(None, NO_COMPLETION, "[" * 200)),
        ((200, "null"), Judgement(None, NO_COMPLETION, "null")),
        (completion(None), Judgement(None, NO_RATING, "")),
        (completion("It is good."), Judgement(None, NO_RATING, "It is good.")),
    ],
)
def test_a_reply_that_cannot_be_parsed_has_a_reason_and_no_score(prompt, answer, judgement):
    with serve(in_turn(answer, completion("5"))) as server:
        judge = EndpointJudge(server.url, "judge", prompt, parallel=1)
        assert judge.judge([QUESTION, QUESTION]) == [judgement, Judgement(5.0, None, "5")]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1", "'localhost:8000/v1' is not the URL of an endpoint"),
        ("ftp://host/v1", "is not the URL of an endpoint"),
        ("https:///v1", "is not the URL of an endpoint"),
        ("https://host/v1?key=secret", "is not the URL of an endpoint"),
        ("https://host/v1#secret", "is not the URL of an endpoint"),
        ("https://user:secret@host/v1", "has a user or a password: put the key in the environment"),
        ("https://user:secret@host/v1?key=secret", "has a user or a password: put the key in the environment"),
        ("http://host:port/v1", "'http://host:port/v1' is not the URL of an endpoint: Invalid port"),
    ],
)
def test_what_is_not_the_url_of_an_endpoint_is_refused(url, message):
    with pytest.raises(ValueError, match=message) as error:
        EndpointJudge(url, "judge")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("key", ["secret\n", "two secrets", "secrèt"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="The key of the judge has spaces, line breaks or letters") as error:
        EndpointJudge("http://localhost/v1", "judge", key=key)
    assert key.strip() not in str(error.value)


def test_a_key_that_the_server_repeats_is_not_shown(prompt, waits):
    answers = completion("secret: 4"), (400, "secret"), (200, '"secret"'), (401, '{"wrong key": "secret"}')
    with serve(in_turn(*answers)) as server:
        judge = EndpointJudge(server.url, "judge", prompt, "secret", parallel=1)
        assert judge.judge([QUESTION] * 3) == [
            Judgement(4.0, None, "<key>: 4"),
            Judgement(None, REFUSED, "it answers 400: <key>"),
            Judgement(None, NO_COMPLETION, '"<key>"'),
        ]
        with pytest.raises(ValueError, match="it answers 401: .*<key>") as error:
            judge.judge([QUESTION])
    assert "secret" not in str(error.value) + str(judge.description)


def test_an_answer_that_cannot_be_decoded_is_asked_again(prompt, waits):
    with serve(in_turn((*completion("3"), {"Content-Encoding": "gzip"}), completion("5"))) as server:
        assert EndpointJudge(server.url, "judge", prompt).judge([QUESTION])[0].score == 5


def test_the_description_has_no_folder_of_the_server():
    names = ["org/model", "llama3:8b", "/home/someone/models/model"]
    described = [EndpointJudge("http://localhost/v1", name).description["model"]["name"] for name in names]
    assert described == ["org/model", "llama3:8b", "model"]


def test_the_endpoint_is_tried_before_the_work_with_the_key_of_the_environment(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "secret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serve(in_turn(completion("so-so"), (400, "no such model"), (200, "<html>"))) as server:
        arguments = JudgeArguments(judge_url=server.url, judge_model="judge")
        assert load_judge(arguments).judge([]) == []
        assert server.requests[0][1]["Authorization"] == "Bearer secret"
        with pytest.raises(ValueError, match="does not reply to a short question: refused .* no such model"):
            load_judge(arguments)
        with pytest.raises(ValueError, match="does not reply to a short question: not a chat completion"):
            load_judge(arguments)
