"""Owns the server's part of Service Quotas: the quota of active partitions that dynamic partitioning has.

Source: https://docs.aws.amazon.com/servicequotas/2019-06-24/apireference/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from firehose.registry import DEFAULT_PARTITIONS
from firehose.validation import validate
from lake.aws_json import Reply, ServiceError, decode, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from firehose.registry import Registry

__all__ = ["Quotas"]

_SERVICE = "firehose"
_NAME = "Dynamic partitions"
# AWS publishes quotas by name; what its code is there isn't documented, so callers must find it by name, here as there.
_CODE = "L-1A7E4053"
_MOST = 5000
"""AWS grants up to here."""


class Quotas:
    """Answers the calls of Service Quotas that concern the server."""

    def __init__(self, registry: Registry, account: str, region: str, now: Callable[[], float]) -> None:
        self._registry = registry
        self._account = account
        self._region = region
        self._now = now

    def call(self, operation: str, body: bytes) -> Reply:
        """Answer one call.

        Raises:
            ServiceError: an unknown operation, service or quota, or a value that isn't granted.
        """
        operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "ListServiceQuotas": self._list,
            "ListAWSDefaultServiceQuotas": self._list_defaults,
            "GetServiceQuota": self._get,
            "GetAWSDefaultServiceQuota": self._get_default,
            "RequestServiceQuotaIncrease": self._increase,
        }
        if operation not in operations:
            raise ServiceError("UnknownOperationException", f"Service Quotas: {operation} is not supported here")
        request = decode(body)
        validate("service-quotas", operation, request)
        if request["ServiceCode"] != _SERVICE:
            raise ServiceError(
                "NoSuchResourceException", f"ServiceCode: got {request['ServiceCode']!r}, here is only {_SERVICE!r}"
            )
        if request.get("QuotaCode") not in {None, _CODE}:
            raise ServiceError(
                "NoSuchResourceException",
                f"QuotaCode: got {request['QuotaCode']!r}, here is only {_CODE!r} ({_NAME})",
            )
        return json_reply(operations[operation](request))

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - there is one quota, on one page
        return {"Quotas": [self._quota(self._registry.partitions)]}

    def _list_defaults(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - likewise
        return {"Quotas": [self._quota(DEFAULT_PARTITIONS)]}

    def _get(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - likewise
        return {"Quota": self._quota(self._registry.partitions)}

    def _get_default(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - likewise
        return {"Quota": self._quota(DEFAULT_PARTITIONS)}

    def _increase(self, request: dict[str, Any]) -> dict[str, Any]:
        desired = request["DesiredValue"]
        now = self._registry.partitions
        if desired > _MOST:
            raise ServiceError(
                "IllegalArgumentException", f"DesiredValue: got {desired:g} for {_NAME}, at most {_MOST:,} are granted"
            )
        if desired <= now or desired != int(desired):
            raise ServiceError(
                "IllegalArgumentException",
                f"DesiredValue: got {desired:g} for {_NAME}, a whole number above the current {now:,} is needed",
            )
        self._registry.partitions = int(desired)
        moment = self._now()
        return {
            "RequestedQuota": {
                "Id": uuid4().hex,
                "ServiceCode": _SERVICE,
                "ServiceName": "Amazon Data Firehose",
                "QuotaCode": _CODE,
                "QuotaName": _NAME,
                "DesiredValue": float(desired),
                "Status": "APPROVED",
                "Created": moment,
                "LastUpdated": moment,
                "QuotaArn": self._arn,
                "GlobalQuota": False,
                "Unit": "None",
            }
        }

    @property
    def _arn(self) -> str:
        return f"arn:aws:servicequotas:{self._region}:{self._account}:{_SERVICE}/{_CODE}"

    def _quota(self, value: int) -> dict[str, Any]:
        return {
            "ServiceCode": _SERVICE,
            "ServiceName": "Amazon Data Firehose",
            "QuotaArn": self._arn,
            "QuotaCode": _CODE,
            "QuotaName": _NAME,
            "Value": float(value),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }
