"""The stock Anthropic SDK against the demo provider: no header and no option that the SDK does not send by itself."""

import asyncio

import anthropic
from steps import Steps, refused, setting

given = setting()
step = Steps(f"anthropic {anthropic.__version__}")
HELLO = [{"role": "user", "content": "Say hello to the team in one sentence."}]
GITHUB_TOKEN = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"


def client(**options):
    return anthropic.Anthropic(base_url=given["url"], max_retries=0, **options)


by_key = client(api_key=given["user_token"])
by_bearer = client(auth_token=given["user_token"], api_key=None)


def create(of=by_key, **changes):
    return of.messages.create(**({"model": "claude-demo", "max_tokens": 128, "messages": HELLO} | changes))


def envelope(error):
    body = error.body
    assert body["type"] == "error", body
    return body["error"]["type"], body["error"]["message"]


with step("create with x-api-key"):
    message = create()
    assert message.type == "message" and message.role == "assistant", message
    assert message.model == "claude-demo" and message.stop_reason == "end_turn", message
    assert message.content[0].type == "text" and message.content[0].text, message
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0, message.usage

with step("create with a bearer token"):
    assert create(by_bearer).content[0].text

with step("same body, same answer"):
    assert create().content[0].text == create().content[0].text

with step("stream: the order of events, and the text adds up"):
    with by_key.messages.stream(model="claude-demo", max_tokens=128, messages=HELLO) as stream:
        names, text = [], ""
        for event in stream:
            names.append(event.type)
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                text += event.delta.text
        final = stream.get_final_message()
    assert names[0] == "message_start" and names[-1] == "message_stop", names
    assert "content_block_start" in names and "message_delta" in names, names
    assert final.content[0].text == text and text, (final, text)
    assert final.usage.output_tokens > 0 and final.stop_reason == "end_turn", final

with step("stream with a bearer token and the asynchronous client"):

    async def stream():
        async with anthropic.AsyncAnthropic(
            base_url=given["url"], auth_token=given["user_token"], api_key=None, max_retries=0
        ) as of:
            async with of.messages.stream(model="claude-demo", max_tokens=64, messages=HELLO) as events:
                return await events.get_final_text()

    assert asyncio.run(stream())

with step("system prompt, blocks and characters outside the basic plane"):
    blocks = [{"type": "text", "text": "Grüße 🦀 漢字"}, {"type": "text", "text": "and a second block"}]
    assert create(system="Answer briefly.", messages=[{"role": "user", "content": blocks}]).content[0].text

with step("a tool that the text names is used with input valid for its schema"):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"name": "get_weather", "description": "Weather of a city", "input_schema": schema}]
    ask = [{"role": "user", "content": "Call get_weather for Vienna."}]
    message = create(tools=tools, messages=ask)
    use = [block for block in message.content if block.type == "tool_use"][0]
    assert message.stop_reason == "tool_use" and use.name == "get_weather", message
    assert isinstance(use.input["city"], str), use
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "17 degrees, light rain"}
    after = [*ask, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert create(tools=tools, messages=after).stop_reason == "end_turn"

with step("count_tokens grows with the text"):
    short = by_key.messages.count_tokens(model="claude-demo", messages=HELLO)
    long = by_key.messages.count_tokens(
        model="claude-demo", messages=[{"role": "user", "content": HELLO[0]["content"] * 20}]
    )
    assert 0 < short.input_tokens < long.input_tokens, (short, long)

with step("models: list and one"):
    ids = [model.id for model in by_key.models.list()]
    assert "claude-demo" in ids and "claude-demo-large" in ids, ids
    one = by_key.models.retrieve("claude-demo")
    assert one.id == "claude-demo" and one.type == "model" and one.display_name, one

with step("unknown model: 404 not_found_error"):
    kind, _ = envelope(refused(anthropic.NotFoundError, lambda: create(model="no-such-model")))
    assert kind == "not_found_error", kind
    kind, _ = envelope(refused(anthropic.NotFoundError, lambda: by_key.models.retrieve("no-such-model")))
    assert kind == "not_found_error", kind

with step("a secret in the text: 400 invalid_request_error that names the policy and not the secret"):
    told = [{"role": "user", "content": f"push with {GITHUB_TOKEN} please"}]
    error = refused(anthropic.BadRequestError, lambda: create(messages=told))
    kind, text = envelope(error)
    assert kind == "invalid_request_error" and "secret_scan" in text and "decision" in text, text
    assert GITHUB_TOKEN not in error.response.text
    assert error.response.headers["x-should-retry"] == "false", error.response.headers

with step("the same refusal before a stream begins"):
    told = [{"role": "user", "content": f"again {GITHUB_TOKEN}"}]
    refused(anthropic.BadRequestError, lambda: create(messages=told, stream=True))

with step("wrong, missing and altered credentials: 401 authentication_error"):
    wrong = ["sp-live-wrong", given["user_token"][:-4] + "AAAA"]
    for credential in wrong:
        for of in (client(api_key=credential), client(auth_token=credential, api_key=None)):
            kind, _ = envelope(refused(anthropic.AuthenticationError, lambda: create(of)))
            assert kind == "authentication_error", kind

with step("a body that is no request: 400 with the member's name"):
    error = refused(anthropic.BadRequestError, lambda: create(extra_body={"model": 7}))
    kind, text = envelope(error)
    assert kind == "invalid_request_error" and "model" in text, text

with step("an error of the provider comes through as it is"):
    told = [{"role": "user", "content": "[[demo:error 529]]"}]
    error = refused(anthropic.APIStatusError, lambda: create(messages=told))
    assert error.status_code == 529, error

with step("every answer names its trace and its request"):
    raw = by_key.messages.with_raw_response.create(model="claude-demo", max_tokens=16, messages=HELLO)
    assert raw.headers["x-trace-id"] and raw.headers["x-systemprompt-request-id"], raw.headers
    assert raw.headers["request-id"].startswith("req_"), raw.headers

step.finish()
