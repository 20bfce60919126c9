"""Sentences that name the command line's options and commands, as the page says them."""

import re
from collections.abc import Callable

_FIELDS = {"normal": "“Normal scans”", "encoder": "“Encoder”", "scorer": "“Scorer”"}
"""The options that the form has, by what stands before their fields there."""

_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    # Ways out that the page does not have are left out where it has another.
    (r" or --labels FILE\.csv", ""),
    (r"--weights FILE, or ", ""),
    (r",? or (?:give )?--weights FILE", ""),
    (r"with --normal GLOB-OR-SUBFOLDER", "in “Normal scans”"),
    (r"--labels and --normal/--anomaly", "a file of labels and patterns for them"),
    (r"by --normal and an anomaly by --anomaly", "by one pattern and an anomaly by another"),
    (r"--encoder ([^\s-][^\s,;:)]*)", r"the encoder \1"),
    (r"another --(encoder|scorer)\b", r"another \1"),
    (r"`scanomaly jobs` lists them", "the list of jobs has them"),
    (r"`scanomaly (cancel|pause|resume|retry)(?: [^`]*)?`", lambda found: f"“{found[1].capitalize()}”"),
)
_REPLACEMENTS = [(re.compile(pattern), words) for pattern, words in _RULES]
_OPTION = re.compile(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)\b")


def page_words(text: str) -> str:
    """A sentence for someone who looks at the page: fields and buttons instead of options and commands.

    Commands that only the operator types, such as `scanomaly worker`, stay.
    """
    for pattern, words in _REPLACEMENTS:
        text = pattern.sub(words, text)
    return _OPTION.sub(lambda found: _FIELDS.get(found[1], found[1].replace("-", " ")), text)
