"""Rows that are right, to be spoilt one way each."""

import json

Json = dict[str, object]

USER: Json = {"role": "user", "content": "Capital of France?"}
GOOD: Json = {"role": "assistant", "content": "Paris."}
BAD: Json = {"role": "assistant", "content": "Lyon."}
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Paris"}'}}
CALLING: Json = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL_ANSWER: Json = {"role": "tool", "tool_call_id": "call_1", "content": "2.1 million"}
TOOL: Json = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def encode(row: object) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def openai_row(**changes: object) -> Json:
    return {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]} | changes


def explicit_row(**changes: object) -> Json:
    return {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]} | changes


def text_row(**changes: object) -> Json:
    return {"prompt": "Capital of France?", "chosen": " Paris.", "rejected": " Lyon."} | changes


def implicit_row(**changes: object) -> Json:
    return {"chosen": [USER, GOOD], "rejected": [USER, BAD]} | changes


def hh_row(**changes: object) -> Json:
    start = "\n\nHuman: Capital of France?\n\nAssistant:"
    return {"chosen": f"{start} Paris.", "rejected": f"{start} Lyon."} | changes
