"""Signed links: what of a URL is a secret, and how the file is called without it."""

import re

_SECRETS = re.compile(
    r"(?<=[?&])(?:X-(?:Amz|Goog)-[\w-]+|AWSAccessKeyId|GoogleAccessId|Key-Pair-Id|Policy|Expires"
    r"|Signature|sig|token|access_token)=[^&#\s]*&?",
    re.IGNORECASE,
)


def without_credentials(name: str) -> str:
    """Return a URL without the parameters that sign it; any other name as it is.

    What else stands in the query may tell which file is meant, so it stays.
    """
    found, count = _SECRETS.subn("", name)
    return found.rstrip("?&") if count else name
