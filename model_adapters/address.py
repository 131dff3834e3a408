"""Where a server is and what opens it."""

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from isekai.errors import PluginError


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server. Its key is in no text that leaves this object."""

    url: str
    key: str = field(default="", repr=False)
    variable: str = ""
    """The environment variable that the key came from; empty for none."""

    @property
    def is_openai(self) -> bool:
        """True for OpenAI's own servers, also those at Azure."""
        host = urlsplit(self.url).hostname or ""
        return host.endswith((".openai.com", ".openai.azure.com"))

    def quote(self, text: str, most: int = 300) -> str:
        """A stranger's words as a piece of one line: nothing of the key, nothing that controls, and
        at most so many characters.
        """
        words = "".join(c if c.isprintable() else " " for c in text[: 9 * most]).split()
        if self.key:  # servers repeat it, or its beginning
            words = ["[key]" if self.key[:6] in word else word for word in words]
        text = " ".join(words)
        return text if len(text) <= most else text[: most - 3] + "..."


def resolve(base_url: str, api_key_env: str, *, usual: str, variable: str) -> Address:
    """The address, `usual` if none is given, with the key from the environment.

    A server on this machine or in its network gets a key only if `api_key_env` names one: the key
    of a hosted service must not travel to another place unasked.
    """
    url = (base_url or usual).rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here, where it may be none
    except ValueError as error:
        raise PluginError(f"base_url is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PluginError(f"base_url is '{url}'; it takes http:// or https:// and a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise PluginError(
            f"base_url for {parts.hostname} holds more than an address; a key goes into an "
            "environment variable that -o api_key_env=… names"
        )
    name = api_key_env or ("" if is_near(parts.hostname) else variable)
    key = os.environ.get(name, "").strip() if name else ""
    if name and not key:
        raise PluginError(
            f"{url} needs a key: put it into ${name}, or name another environment variable with "
            "-o api_key_env=…"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise PluginError(f"${name} holds what no key is made of; set it to the key alone")
    return Address(url=url, key=key, variable=name)


def is_near(host: str) -> bool:
    """True for this machine, and for names and numbers of a private network."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host
