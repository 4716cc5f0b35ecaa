"""Owns reading stream definitions from a file, in whichever shape a person has them.

Taken are what CreateDeliveryStream takes (so also what `aws firehose create-delivery-stream --cli-input-json` or
`--cli-input-yaml` reads), and CloudFormation's `AWS::KinesisFirehose::DeliveryStream`: its properties, the resource, or
a template with such resources, in JSON or YAML. The members are the same. Source:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-kinesisfirehose-deliverystream.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml
from botocore.model import ListShape, StructureShape

from firehose.validation import input_shape
from lake.errors import TerminalError

if TYPE_CHECKING:
    from botocore.model import Shape

    from firehose.validation import Where

__all__ = ["Definition", "read_definitions"]


_RESOURCE = "AWS::KinesisFirehose::DeliveryStream"
_ACCOUNT = "000000000000"
_PSEUDO = {
    "AWS::AccountId": _ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "stack",
    "AWS::URLSuffix": "amazonaws.com",
}
_STAND_IN = "from-the-template"
_STAND_INS = {
    "RoleARN": f"arn:aws:iam::{_ACCOUNT}:role/{_STAND_IN}",
    "BucketARN": f"arn:aws:s3:::{_STAND_IN}",
    "AWSKMSKeyARN": f"arn:aws:kms:us-east-1:{_ACCOUNT}:key/{_STAND_IN}",
    "KeyARN": f"arn:aws:kms:us-east-1:{_ACCOUNT}:key/{_STAND_IN}",
}
_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Definition:
    """One stream's definition, and where it was read."""

    source: str
    """File, and the resource of a template: `stack.yaml: Events`."""
    request: dict[str, Any]
    """In the shape of CreateDeliveryStream."""
    filled: tuple[Where, ...] = ()
    """Members that CloudFormation gives a value; they hold a stand-in."""
    composed: tuple[Where, ...] = ()
    """Members of which it gives a part; the names of parameters and resources stand in for that."""

    @property
    def name(self) -> str:
        """The stream's name; `(no name)` if it has none."""
        return str(self.request.get("DeliveryStreamName") or "(no name)")


def read_definitions(source: str, text: str) -> list[Definition]:
    """Read all stream definitions of a file.

    Args:
        source: the file's name, for messages.
        text: what is in it.

    Raises:
        TerminalError: it is neither JSON nor YAML, or holds no definition.
    """
    document = _parsed(source, text)
    documents = document if isinstance(document, list) else [document]
    found = [one for each in documents for one in _definitions(source, each)]
    if not found:
        raise TerminalError(f"{source}: got an empty list, at least one definition of a stream is needed")
    return found


def _parsed(source: str, text: str) -> Any:
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError as error:
            raise TerminalError(f"{source}: not JSON: {error}") from None
    try:
        return yaml.load(text, Loader=_Template)  # noqa: S506 - a SafeLoader of ours
    except yaml.YAMLError as error:
        raise TerminalError(f"{source}: neither JSON nor YAML: {error}") from None


def _definitions(source: str, document: Any) -> list[Definition]:
    members = input_shape("firehose", "CreateDeliveryStream").members
    if not isinstance(document, dict):
        raise TerminalError(f"{source}: got {type(document).__name__}, an object with a stream's members is needed")
    if isinstance(document.get("Resources"), dict):
        resources = {
            name: one
            for name, one in document["Resources"].items()
            if isinstance(one, dict) and one.get("Type") == _RESOURCE
        }
        if not resources:
            raise TerminalError(f"{source}: the template has no resource of type {_RESOURCE}")
        return [_of_resource(f"{source}: {name}", name, one) for name, one in resources.items()]
    if document.get("Type") == _RESOURCE:
        return [_of_resource(source, _STAND_IN, document)]
    if not set(document) & set(members):
        given = ", ".join(map(str, document)) or "nothing"
        raise TerminalError(
            f"{source}: got {given}; a CreateDeliveryStream request, or a CloudFormation resource or template of type"
            f" {_RESOURCE} is needed"
        )
    definition = _settled(source, document)
    # only CloudFormation has functions, and it makes up a name where there is none
    return [_named(definition, _STAND_IN) if definition.filled or definition.composed else definition]


def _of_resource(source: str, name: str, resource: dict[str, Any]) -> Definition:
    properties = resource.get("Properties")
    if not isinstance(properties, dict):
        raise TerminalError(f"{source}: a resource of type {_RESOURCE} needs Properties")
    definition = _named(_settled(source, properties), name)
    return replace(definition, request=_coerced(input_shape("firehose", "CreateDeliveryStream"), definition.request))


def _coerced(shape: Shape | None, value: Any) -> Any:
    # CloudFormation takes numbers and switches written as strings
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {name: _coerced(shape.members.get(name), one) for name, one in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_coerced(shape.member, one) for one in value]
    if isinstance(value, str) and shape is not None:
        if shape.type_name == "integer" and value.isdecimal():
            return int(value)
        if shape.type_name == "boolean" and value.lower() in {"true", "false"}:
            return value.lower() == "true"
    return value


def _named(definition: Definition, name: str) -> Definition:
    return replace(definition, request={"DeliveryStreamName": name, **definition.request})


def _settled(source: str, properties: dict[str, Any]) -> Definition:
    places = _Places([], [])
    request = _value(input_shape("firehose", "CreateDeliveryStream"), properties, (), places)
    return Definition(source, request, tuple(places.filled), tuple(places.composed))


@dataclass(frozen=True, slots=True)
class _Places:
    filled: list[Where]
    composed: list[Where]


def _value(shape: Shape | None, value: Any, where: Where, places: _Places) -> Any:
    if _is_function(value):
        return _evaluated(shape, value, where, places)
    if isinstance(value, dict):
        members = shape.members if isinstance(shape, StructureShape) else {}
        return {name: _value(members.get(name), one, (*where, name), places) for name, one in value.items()}
    if isinstance(value, list):
        inner = shape.member if isinstance(shape, ListShape) else None
        return [_value(inner, one, (*where, index), places) for index, one in enumerate(value)]
    return value


def _is_function(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    (name,) = value
    return str(name).startswith("Fn::") or name == "Ref"


def _evaluated(shape: Shape | None, function: dict[str, Any], where: Where, places: _Places) -> Any:
    ((name, argument),) = function.items()
    if name == "Ref" and argument in _PSEUDO:
        return _PSEUDO[argument]
    if name == "Fn::Sub":
        text = argument[0] if isinstance(argument, list) and argument else argument
        if isinstance(text, str) and not _PLACEHOLDER.fullmatch(text):
            places.composed.append(where)
            return _PLACEHOLDER.sub(_substitute, text)
    if name == "Fn::Join" and isinstance(argument, list) and len(argument) == 2:  # noqa: PLR2004 - separator and parts
        places.composed.append(where)
        return str(argument[0]).join(_joined(one) for one in argument[1])
    places.filled.append(where)
    return _stand_in(shape, str(where[-1]) if where else "")


def _stand_in(shape: Shape | None, name: str) -> Any:
    kind = "string" if shape is None else shape.type_name
    if kind == "integer" and shape is not None:
        return shape.metadata.get("max", 1)
    if kind == "boolean":
        return True
    if kind == "string":
        allowed = getattr(shape, "enum", None)
        return allowed[0] if allowed else _STAND_INS.get(name, _STAND_IN)
    # a whole structure: as if it weren't there
    return None


def _substitute(match: re.Match[str]) -> str:
    if match[1]:  # ${!literal}
        return f"${{{match[2]}}}"
    return _substitute_name(match[2]).strip("-")


def _joined(part: Any) -> str:
    if not _is_function(part):
        return str(part)
    ((_, argument),) = part.items()
    return _substitute_name(argument)


def _substitute_name(argument: Any) -> str:
    name = ".".join(map(str, argument)) if isinstance(argument, list) else str(argument)
    return _PSEUDO.get(name, re.sub(r"[^A-Za-z0-9-]", "-", name))


class _Template(yaml.SafeLoader):
    """YAML with CloudFormation's short forms of functions, as in `!GetAtt Bucket.Arn`."""


def _short_form(loader: _Template, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        argument: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        argument = loader.construct_sequence(node, deep=True)
    else:
        argument = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]  # the third kind there is
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": argument}


_Template.add_multi_constructor("!", _short_form)
