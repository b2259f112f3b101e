"""The call-control contract as an oracle: what answers, requests and webhooks must look like."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import places
import pytest

from strep.standin._answers import Refusal

CONTRACT = json.loads(places.CONTRACT.read_text())


def errors_of(document: Any, where: str) -> list[str]:
    """What is wrong with a document that should be ``#/components/...``."""
    schema = {"$ref": f"#/components/{where}", "components": CONTRACT["components"]}
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def answer_schema(path: str, method: str, status: int) -> str:
    """Where in components the body of an answer is described. ``path`` as the contract writes it."""
    responses = CONTRACT["paths"][path][method]["responses"]
    name = responses["200" if status == 200 else "default"]["$ref"].rpartition("/")[2]
    content = "/content/application~1json/schema"
    return f"responses/{name}{content}"


def event_schema(event_type: str) -> str:
    """``call.fork.started`` → ``schemas/CallForkStartedEvent``."""
    return "schemas/" + "".join(word.capitalize() for word in event_type.split(".")) + "Event"


def refusal(function: Any, *arguments: Any) -> tuple[int, list[tuple[str, Any]]]:
    """What the stand-in's ``function`` must refuse: the answer's status, the code and the source of each error."""
    with pytest.raises(Refusal) as caught:
        function(*arguments)
    answer = caught.value.answer
    assert errors_of(answer.body, "schemas/Errors") == []
    return answer.status, [(e["code"], e.get("source")) for e in answer.body["errors"]]
