"""No password is printed, in whatever way a person writes the URL."""

import pytest

from scanomaly.models.database import Database
from scanomaly.models.errors import ScanomalyError
from scanomaly.models.queue import Queue
from scanomaly.models.settings import Settings, hide_password


@pytest.mark.parametrize(
    "url",
    [
        "redis://:se%40cret@host:6379/0",
        "redis://ann:x@se@cret@host/0",
        "redis://:se/cret@host/0",
        "redis://:se:cret@host/0",
        "redis://:#se?cret@host/0",
        "rediss://:secret@host:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ann@host/ca.pem",
        "redis://host/0?password=secret&socket_timeout=5",
        "redis+socket://:secret@/run/redis.sock",
        "sentinel://:secret@one:26379;sentinel://:secret@two:26379",
        "postgresql://ann:se/cret@host/name?sslmode=verify-full",
        "postgresql://ann@host/name?sslmode=require&password=secret",
    ],
)
def test_no_part_of_a_password_is_shown(url: str) -> None:
    shown = hide_password(url)
    assert "se" not in shown.partition("://")[2].replace("sentinel", "").partition("ssl")[0]
    assert "cret" not in shown
    assert shown.startswith(url.partition("://")[0])


@pytest.mark.parametrize(
    "password", ["secr3t", "x@secr3t", "secr3t/x", "secr3t@x", "secr3t:x", "secr3t#x", "secr3t?x", "x/secr3t"]
)
@pytest.mark.parametrize(
    "kind",
    [
        "redis://:{}@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password={}",
        "postgresql://ann:{}@127.0.0.1:1/scans",
        "postgresql://ann@127.0.0.1:1/scans?password={}",
    ],
)
def test_an_error_does_not_quote_a_password(kind: str, password: str) -> None:
    """As it is, and not as a URL wants it: a person who forgets that reads the error."""
    url = kind.format(password)
    settings = Settings(broker_url=url, store_url=url)
    with pytest.raises(ScanomalyError) as caught:
        Database(settings.resolved_store_url) if url.startswith("postgresql") else Queue(settings).check()
    message = str(caught.value)
    assert "secr3t" not in message
    assert "\n" not in message
