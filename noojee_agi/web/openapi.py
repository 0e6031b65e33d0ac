"""What the API is, as OpenAPI says it; made from the same tables as the API itself."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from noojee_agi.session.session import ACTIONS
from noojee_agi.web import audio, call_management, metadata, recording_api
from noojee_agi.web.arguments import API_KEY, KEY_HEADER, MOST_CHARACTERS

Schema = dict[str, Any]

_DESCRIPTIONS = {
    "extenOrUniqueId": "An extension such as 410 or PJSIP/410, or the uniqueid of a live call.",
    "tag": "External Reference of the call, and the leg's tag.",
    "agentLoginName": "For start, the leg's owner; else who asks, and must be one who may hear the leg.",
    "uniqueId": "The uniqueid of a call, or of one of its channels.",
    "date": "yyyy/MM/dd, in the server's local time.",
    "hour": "0 to 23, in the server's local time.",
    API_KEY: f"The system's key; or the header {KEY_HEADER}.",
}
_STATUSES = {
    "400": "An argument is wrong.",
    "401": "The key is missing or wrong.",
    "403": "This address, or this agentLoginName, may not.",
    "404": "There is no such live call, account or leg.",
    "405": "This address knows other methods.",
    "409": "There is no recording to stop or pause, or none that is paused.",
    "410": "The audio was purged.",
    "413": "The body is too large.",
    "415": "The body is no form.",
    "416": "The file has no such range.",
    "429": "Too many wrong keys came from this address.",
    "500": "Unexpected, or the configuration is wrong: see the log.",
    "503": "Asterisk, the manager interface, the disk or the database does not answer.",
    "507": "Too little free space.",
}
_ANYBODY = ("403", "405", "500")
_WITH_KEY = ("400", "401", "413", "415", "429", *_ANYBODY)


def document() -> Schema:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "noojee-agi",
            "version": importlib.metadata.version("noojee-agi"),
            "description": "Records live calls, and finds their recordings.",
        },
        "paths": {
            **{f"{call_management.PATH}/{name}": _of_calls(name) for name in call_management.PROGRAMS},
            **{f"{recording_api.PATH}/{name}": _of_legs(name) for name in recording_api.QUESTIONS},
            audio.PATH: {"get": _of_audio("getAudio", True), "head": _of_audio("lookAtAudio", False)},
            "/metrics": {"get": _open("metrics", "text/plain", {"type": "string"})},
            "/health": {"get": _open("health", "application/json", {"type": "object"}, ("503",))},
            "/openapi.json": {"get": _open("openapi", "application/json", {"type": "object"})},
        },
        "components": {
            "schemas": {"Answer": _ANSWER, "Error": _ERROR, "Leg": _LEG},
            "securitySchemes": {
                "argument": {"type": "apiKey", "in": "query", "name": API_KEY},
                "header": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
            },
        },
    }


_SECURITY: list[Schema] = [{"argument": []}, {"header": []}]
_ANSWER: Schema = {
    "type": "object",
    "required": ["Code", "Message", "RecordingId", "File"],
    "properties": {
        "Code": {"type": "integer", "description": "0 success, 1 a warning, minus the status an error."},
        "Message": {"type": "string", "minLength": 1},
        "RecordingId": {"type": "string"},
        "File": {"type": "string"},
    },
}
_ERROR: Schema = {
    "type": "object",
    "required": ["Code", "Message"],
    "properties": {
        "Code": {"type": "integer", "maximum": -1},
        "Message": {"type": "string", "minLength": 1},
    },
}
_LEG: Schema = {
    "type": "object",
    "required": list(metadata.FIELDS),
    "properties": {name: {"type": "string"} for name in metadata.FIELDS},
}


def _of_calls(name: str) -> Schema:
    names = ACTIONS[call_management.PROGRAMS[name]][1]
    operation = {
        "operationId": name,
        "security": _SECURITY,
        "requestBody": _form(names),
        "responses": {
            "200": _json("It is done.", {"$ref": "#/components/schemas/Answer"}),
            **_errors((*_WITH_KEY, "404", "409", "503", "507")),
        },
    }
    return {"post": {**operation, "parameters": _parameters(names)}}


def _of_legs(name: str) -> Schema:
    names = recording_api.QUESTIONS[name].names
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Leg"}}
    return {
        "post": {
            "operationId": name,
            "security": _SECURITY,
            "parameters": _parameters(names),
            "requestBody": _form(names),
            "responses": {"200": _json("The legs.", rows), **_errors((*_WITH_KEY, "503"))},
        }
    }


def _of_audio(name: str, has_body: bool) -> Schema:
    kinds = sorted({*audio.TYPES.values(), audio.OTHER_TYPE})
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    whole: Schema = {"description": "The file."}
    part: Schema = {"description": "A range of it."}
    if has_body:
        whole["content"] = content
        part["content"] = content
    leg_id = {
        "name": "leg_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    }
    return {
        "operationId": name,
        "security": _SECURITY,
        "parameters": [leg_id, *_parameters((audio.LOGIN,)), _RANGE],
        "responses": {
            "200": whole,
            "206": part,
            **_errors((*_WITH_KEY, "404", "410", "416", "503")),
        },
    }


_RANGE = {"name": "Range", "in": "header", "schema": {"type": "string"}, "example": "bytes=0-65535"}


def _open(name: str, kind: str, schema: Schema, others: tuple[str, ...] = ()) -> Schema:
    """For every address that is allowed."""
    content = {kind: {"schema": schema}}
    responses = {status: {"description": _STATUSES[status], "content": content} for status in others}
    return {
        "operationId": name,
        "responses": {"200": {"description": "OK", "content": content}, **responses, **_errors(_ANYBODY)},
    }


def _parameters(names: tuple[str, ...]) -> list[Schema]:
    """In the query; in the form they have the same names, and one of the two is enough."""
    return [
        {"name": name, "in": "query", "description": _DESCRIPTIONS[name], "schema": _schema(name)}
        for name in names
    ]


def _form(names: tuple[str, ...]) -> Schema:
    properties = {name: _schema(name) for name in (*names, API_KEY)}
    schema = {"type": "object", "properties": properties}
    return {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}


def _schema(name: str) -> Schema:
    limit = MOST_CHARACTERS.get(name)
    return {"type": "string", **({"maxLength": limit} if limit else {})}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(statuses: tuple[str, ...]) -> Schema:
    error = {"$ref": "#/components/schemas/Error"}
    return {status: _json(_STATUSES[status], error) for status in sorted({*statuses})}
