"""OpenAI's own Python client cannot tell the gateway from OpenAI."""

import json
import threading

import openai
import pytest

from conftest import Fleet
from processes import CLIENT_TOKEN, MODEL

MESSAGES = [{"role": "user", "content": "Tell me a story"}]


@pytest.fixture
def client(fleet: Fleet) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.gateway.url}/v1", api_key=CLIENT_TOKEN, max_retries=0, timeout=30)


def test_models_are_listed_once(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == [MODEL]
    assert models[0].object == "model"
    assert isinstance(models[0].created, int) and isinstance(models[0].owned_by, str)
    assert client.models.retrieve(MODEL).id == MODEL


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=12)
    assert len(answer.choices[0].message.content.split()) == 12
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_chat_streamed_with_usage(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=12, stream=True, stream_options=options
    )
    chunks = list(stream)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(words) == 12, "the engine sends one token a chunk"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=5)
    assert len(answer.choices[0].text.split()) == 5
    texts = [c.choices[0].text for c in client.completions.create(model=MODEL, prompt="a", max_tokens=5, stream=True)]
    assert len("".join(texts).split()) == 5


def test_unknown_fields_reach_the_engine(client: openai.OpenAI) -> None:
    # `grammar` is llama.cpp's own; `timings` is its own addition to the answer.
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=16, extra_body={"grammar": 'root ::= "just this"'}
    )
    assert answer.choices[0].message.content == "just this"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model_extra["timings"]["predicted_n"] > 0


def test_structured_output_reaches_the_engine(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=200, response_format=form)
    assert json.loads(answer.choices[0].message.content)["city"] in ("Oslo", "Rome")


def test_tools_reach_the_engine(client: openai.OpenAI) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "description": "Tell it", "parameters": parameters}}]
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    history = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]

    def prompt_tokens(**fields: object) -> int:
        return client.chat.completions.create(model=MODEL, max_tokens=1, **fields).usage.prompt_tokens

    plain = prompt_tokens(messages=MESSAGES)
    assert prompt_tokens(messages=MESSAGES, tools=tools) > plain + 50, "the chat template spells the tools out"
    assert prompt_tokens(messages=history) > plain + 20


def test_logprobs_come_back(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=3, logprobs=True, top_logprobs=4
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == 3
    assert all(len(token.top_logprobs) == 4 and token.logprob <= 0 for token in tokens)


def test_a_wrong_key_is_an_authentication_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="wrong-key-1234").chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"
    assert "wrong-key-1234" not in str(caught.value)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize("by", ["gateway", "engine"])
def test_bad_input_is_a_bad_request(client: openai.OpenAI, by: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        if by == "gateway":
            client.chat.completions.create(model="", messages=MESSAGES)
        else:
            client.chat.completions.create(model=MODEL, messages="not a list")
    assert caught.value.request_id, "every answer names its request"


def test_every_runner_gets_its_share(fleet: Fleet) -> None:
    """As many long answers at once as there are slots: each runner carries as many as it has."""
    used: list[str] = []
    slots = 4 * len(Fleet.RUNNERS)
    all_begun = threading.Barrier(slots)
    client = openai.OpenAI(base_url=f"{fleet.gateway.url}/v1", api_key=CLIENT_TOKEN, max_retries=0, timeout=60)

    def ask() -> None:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=MESSAGES, max_tokens=1500, stream=True
        )
        used.append(raw.headers["x-backend-used"])
        all_begun.wait(60)
        with raw.parse() as stream:
            assert sum(1 for _ in stream) > 100

    threads = [threading.Thread(target=ask) for _ in range(slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: used.count(name) for name in Fleet.RUNNERS} == dict.fromkeys(Fleet.RUNNERS, 4)
