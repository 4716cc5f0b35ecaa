"""The producer SDK: events go into a durable spool, and leave it only when Firehose has acknowledged each of them."""

from producers.client import NewEvent, Producer, ProducerStatus
from producers.options import SendOptions
from producers.spool import DeadLetter, SpoolError, SpoolFullError

__all__ = ["DeadLetter", "NewEvent", "Producer", "ProducerStatus", "SendOptions", "SpoolError", "SpoolFullError"]
