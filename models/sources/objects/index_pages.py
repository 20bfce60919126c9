"""Index pages of web servers: what they link to, and the walk from page to page."""

import hashlib
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from .answers import Object, listed_object
from .web import origin

if TYPE_CHECKING:
    from .connection import Connection
    from .http import Http

_DEEPEST = 32


class Index(NamedTuple):
    """What an index page links to: paths below it, and whether each is a folder, in order."""

    url: str
    links: list[tuple[str, bool]]

    def loops(self, above: tuple["Index", ...]) -> bool:
        """Whether a folder is one above it once more, as a link to a folder makes it.

        Two folders with nothing but a folder in them may well be alike by chance.
        """
        has_file = any(not is_folder for _, is_folder in self.links)
        return sum(self.links == index.links for index in above) >= (1 if has_file else 2)


class Links(HTMLParser):
    """Gathers the links of a page that lead below it."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.below: set[tuple[str, bool]] = set()
        self._page = url.partition("?")[0].rpartition("/")[0] + "/"
        self._base = url

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if not target or tag not in ("a", "base"):
            return
        try:
            url = urljoin(self._base, target.strip())
            if origin(url) != origin(self._page):
                return
        except ValueError:
            return
        if tag == "base":
            self._base = url
            return
        url, _, _ = url.partition("#")
        path = unquote(urlsplit(url).path, errors="surrogateescape")
        page = unquote(urlsplit(self._page).path, errors="surrogateescape")
        # With a query it is the page itself, in another order.
        if "?" not in url and path.startswith(page) and path != page:
            inner = path.removeprefix(page)
            self.below.add((inner.removesuffix("/"), inner.endswith("/")))


class WebWalk:
    """Walks index pages, depth first; each page once."""

    def __init__(self, connection: "Connection", driver: "Http") -> None:
        self._connection = connection
        self._driver = driver
        self._seen: set[bytes] = set()

    def walk(self) -> Iterator[Object]:
        index = self._index("")
        self._is_new(index.url)
        return self._below("", index, ())

    def _index(self, folder: str) -> Index:
        return self._connection.retry(lambda: self._connection.run(self._driver.index(folder)))

    def _below(self, folder: str, index: Index, above: tuple[Index, ...]) -> Iterator[Object]:
        above = (*above, index)
        for name, is_folder in index.links:
            path = f"{folder}/{name}" if folder else name
            listed = listed_object(path, None, None)
            if listed.reason or not is_folder:
                if self._is_new(f"file {path}"):
                    yield listed
            elif name.startswith("."):
                yield Object(path, None, None, "hidden")
            else:
                yield from self._enter(path, above)

    def _enter(self, path: str, above: tuple[Index, ...]) -> Iterator[Object]:
        if len(above) >= _DEEPEST:
            yield Object(path, None, None, f"a folder deeper than {_DEEPEST} index pages")
            return
        try:
            index = self._index(path)
        except OSError as error:
            yield Object(path, None, None, f"a folder that cannot be read ({error.strerror})")
            return
        if not self._is_new(index.url):
            yield Object(path, None, None, "a folder that was walked already")
        elif index.loops(above):
            yield Object(path, None, None, "a folder with the same links as one above it")
        else:
            yield from self._below(path, index, above)

    def _is_new(self, what: str) -> bool:
        """A digest takes less room than a path."""
        digest = hashlib.blake2b(what.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        new = digest not in self._seen
        self._seen.add(digest)
        return new
