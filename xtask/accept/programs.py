"""Stock SDKs from outside: whoever shows a token is judged neither by its agent nor by how fast it calls (case 10)."""

import anthropic
import openai
from steps import Steps, setting

given = setting()
step = Steps(f"anthropic {anthropic.__version__}, openai {openai.__version__}")
# Far more within a minute than a person reads pages.
CALLS = 60
HELLO = [{"role": "user", "content": "Say hello."}]
# The runner is the server's trusted proxy; the client is not on loopback.
OUTSIDE = {"x-forwarded-for": "203.0.113.10"}

claude = anthropic.Anthropic(base_url=given["url"], api_key=given["user_token"], max_retries=0, default_headers=OUTSIDE)
gpt = openai.OpenAI(base_url=given["url"] + "/v1", api_key=given["user_token"], max_retries=0, default_headers=OUTSIDE)

with step(f"anthropic: {CALLS} models, counts, messages and streams in a row"):
    for _ in range(CALLS):
        assert claude.models.list().data
        assert claude.messages.count_tokens(model="claude-demo", messages=HELLO).input_tokens
        assert claude.messages.create(model="claude-demo", max_tokens=8, messages=HELLO).content
        with claude.messages.stream(model="claude-demo", max_tokens=8, messages=HELLO) as stream:
            assert stream.get_final_text()

with step(f"openai: {CALLS} lists of models in a row"):
    for _ in range(CALLS):
        assert "claude-demo" in [model.id for model in gpt.models.list()]
        assert gpt.models.retrieve("claude-demo").id == "claude-demo"

with step(f"openai: what is not served is not found, {CALLS} times, and nobody is taken for a scanner"):
    asks = [
        lambda: gpt.chat.completions.create(model="claude-demo", messages=HELLO),
        lambda: gpt.responses.create(model="claude-demo", input="Say hello."),
    ]
    for _ in range(CALLS):
        for ask in asks:
            try:
                ask()
            except openai.NotFoundError as error:
                assert "x-blocked-reason" not in error.response.headers, error.response.headers
            except openai.APIStatusError as error:
                # Served some day, and then refused for what it is.
                assert error.status_code not in (403, 429), error

with step("without a token they are told to show one, and not that they are scanners"):
    for _ in range(3):
        for of, kind in ((claude, anthropic.AuthenticationError), (gpt, openai.AuthenticationError)):
            try:
                of.with_options(api_key="sp-live-none").models.list()
                raise AssertionError("let in")
            except kind as error:
                assert "x-blocked-reason" not in error.response.headers, error.response.headers

step.finish()
