"""The one way into S3 and stores that speak its protocol."""

from engine.s3.client import Client, Refused, open_client
from engine.s3.keys import region_of

__all__ = ["Client", "Refused", "open_client", "region_of"]
