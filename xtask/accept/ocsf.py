"""The OCSF export in the models that others build on."""

import json
import urllib.request

from py_ocsf_models.events.findings.detection_finding import DetectionFinding
from steps import Steps, setting

given = setting()
step = Steps("py-ocsf-models")


def post(path, token, body):
    request = urllib.request.Request(
        given["url"] + path,
        json.dumps(body).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def govern(tool, given_input):
    event = {"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": tool, "tool_input": given_input}
    return post("/api/v1/hooks/govern?plugin_id=demo", given["user_token"], event)


def export(**filters):
    text = post("/api/v1/admin/audit/exports", given["admin_token"], {"format": "ocsf", **filters})
    return [json.loads(line) for line in text.rstrip("\n").split("\n")]


with step("calls are allowed and denied"):
    for tool in ("Read", "delete_customer", "mcp__demo__drop_table"):
        govern(tool, {"path": "a | b = c\nd"})

with step("every event names its class and its ledger id"):
    events = export()
    assert len(events) > 5, events
    for event in events:
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"], event
        assert event["metadata"]["uid"].startswith("led_"), event
        assert event["metadata"]["version"] == "1.6.0", event

with step("denials load as Detection Findings and keep what they say"):
    findings = [event for event in export(outcome="deny") if event["class_uid"] == 2004]
    assert len(findings) >= 2, findings
    for event in findings:
        finding = DetectionFinding(**event)
        assert finding.metadata.uid == finding.finding_info.uid == event["metadata"]["uid"], finding
        assert finding.type_uid == 200401 and finding.time == event["time"], finding
        assert finding.severity_id == 3 and finding.finding_info.title, finding

step.finish()
