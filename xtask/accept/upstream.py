"""The stock Anthropic SDK through the gateway to npm's aimock, which demands its own key and keeps a journal."""

import json
import urllib.request

import anthropic
from steps import Steps, refused, setting

given = setting()
step = Steps("anthropic through the gateway to aimock")
client = anthropic.Anthropic(base_url=given["url"], api_key=given["user_token"], max_retries=0)
MODEL = "mock-model"


def journal():
    """The requests that reached the upstream."""
    request = urllib.request.Request(given["upstream"] + "/__aimock/journal", headers={"x-api-key": given["upstream_key"]})
    with urllib.request.urlopen(request) as answer:
        return [entry for entry in json.load(answer) if entry["path"].startswith("/v1/messages")]


def ask(text):
    return [{"role": "user", "content": text}]


with step("create: the upstream's words arrive, under our key and not the client's"):
    message = client.messages.create(model=MODEL, max_tokens=64, messages=ask("hello there"))
    assert message.content[0].text == given["answer"], message
    entry = journal()[-1]
    assert entry["response"]["status"] == 200, entry
    assert entry["headers"]["anthropic-version"], entry
    assert "authorization" not in entry["headers"], entry

with step("stream: chunk by chunk, the same text"):
    with client.messages.stream(model=MODEL, max_tokens=64, messages=ask("hello again")) as stream:
        pieces = list(stream.text_stream)
    assert len(pieces) > 1 and "".join(pieces) == given["answer"], pieces

with step("a tool call of the upstream arrives whole"):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"name": "get_weather", "description": "Weather", "input_schema": schema}]
    message = client.messages.create(model=MODEL, max_tokens=64, tools=tools, messages=ask("use the tool"))
    use = [block for block in message.content if block.type == "tool_use"][0]
    assert use.name == "get_weather" and use.input == {"city": "Vienna"}, use

with step("members that the gateway does not read pass unchanged"):
    before = len(journal())
    extra = {"temperature": 0.25, "metadata": {"user_id": "u-1"}, "x_unknown": [1, 2.5, None]}
    client.messages.create(model=MODEL, max_tokens=64, messages=ask("hello extra"), extra_body=extra)
    body = journal()[-1]["body"]
    assert len(journal()) == before + 1
    assert body["messages"] == ask("hello extra") and body["max_tokens"] == 64, body

with step("an error of the upstream passes with its status"):
    error = refused(
        anthropic.APIStatusError,
        lambda: client.messages.create(model=MODEL, max_tokens=64, messages=ask("fail on purpose")),
    )
    assert error.status_code == 529, error

with step("a secret does not reach the upstream"):
    before = len(journal())
    told = ask("store AKIA" + "Z7QK4N2MVXWB5TCD and ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a")
    refused(anthropic.BadRequestError, lambda: client.messages.create(model=MODEL, max_tokens=64, messages=told))
    assert len(journal()) == before, journal()[-1]

step.finish()
