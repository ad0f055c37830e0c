"""The one-line language of codecs.

    line  = chain { ";" pattern ":" chain }
    chain = stage { "|" stage }
    stage = name [ "(" argument { "," argument } ")" ]
    argument = [ key "=" ] value

A pattern is a glob over tensor names, in which ``*`` also matches dots. Spaces count for nothing.
"""

import re
from dataclasses import MISSING, fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import get_args

from tightwire.codecs.chain import Chain, misfit
from tightwire.codecs.registry import stages
from tightwire.codecs.stage import Stage
from tightwire.errors import CodecError

Rule = tuple[str, Chain]
"""A pattern over tensor names, and the chain for the tensors that it matches."""

_TOKEN = re.compile(r"\s*(?P<word>[^\s|;:(),=]+)|\s*(?P<mark>[|;:(),=])|\s*(?P<end>$)")


class _Tokens:
    """The words and marks of a line, with the columns where they stand."""

    def __init__(self, line: str) -> None:
        self.line = line
        self._at = 0
        self.text = ""
        self.is_word = False
        self.column = 1
        self.advance()

    def advance(self) -> str:
        """Step to the next token and return the one left behind."""
        left = self.text
        match = _TOKEN.match(self.line, self._at)
        if match is None or match.lastgroup is None:
            raise CodecError(f"column {self._at + 1}: cannot be read, in {self.line!r}")
        self.is_word = match.lastgroup == "word"
        self.text = match[match.lastgroup]
        self.column = match.start(match.lastgroup) + 1
        self._at = match.end()
        return left

    def fail(self, message: str, column: int | None = None) -> CodecError:
        """The error of this line, at the current token or a column."""
        return CodecError(f"column {column or self.column}: {message}, in {self.line!r}")

    def word(self, what: str) -> str:
        """Step over a word."""
        if not self.is_word:
            raise self.fail(f"expected {what}, got {self.text!r}" if self.text else f"expected {what}, got the end")
        return self.advance()

    def skip(self, mark: str) -> bool:
        """Step over a mark if it is the next token."""
        if self.is_word or self.text != mark:
            return False
        self.advance()
        return True


def parse(line: str) -> tuple[Chain, tuple[Rule, ...]]:
    """The default chain and the rules of a line.

    Raises:
        CodecError: With the column (from 1) of what is wrong, and what would be right.
    """
    if not line.isascii():
        column = next(at for at, letter in enumerate(line, 1) if not letter.isascii())
        raise CodecError(f"column {column}: a codec line is ASCII, got {line[column - 1]!r}, in {line!r}")
    tokens = _Tokens(line)
    default = _chain(tokens)
    rules: list[Rule] = []
    while tokens.skip(";"):
        pattern = tokens.word("a pattern over tensor names")
        if not tokens.skip(":"):
            raise tokens.fail(f"expected ':' behind the pattern {pattern!r}, got {tokens.text or 'the end'!r}")
        rules.append((pattern, _chain(tokens)))
    if tokens.text:
        hint = "; only rules behind a ';' have a pattern" if tokens.text == ":" else ""
        raise tokens.fail(f"expected '|', ';' or the end, got {tokens.text!r}{hint}")
    return default, tuple(rules)


def pattern(text: str) -> str:
    """The pattern that stands before a rule's colon.

    Raises:
        CodecError: None does.
    """
    tokens = _Tokens(text)
    found = tokens.word("a pattern over tensor names")
    if tokens.text or not text.isascii():
        raise tokens.fail(f"expected ':' behind the pattern {found!r}")
    return found


def _chain(tokens: _Tokens) -> Chain:
    found: list[Stage] = []
    while True:
        column = tokens.column
        stage = _stage(tokens)
        if reason := misfit(tuple(found), stage):
            raise tokens.fail(reason, column)
        found.append(stage)
        if not tokens.skip("|"):
            return Chain(tuple(found))


def _stage(tokens: _Tokens) -> Stage:
    column = tokens.column
    name = tokens.word("a stage")
    kind = stages().get(name)
    if kind is None:
        near = get_close_matches(name, stages(), n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else "'tightwire codec list' shows all"
        raise tokens.fail(f"unknown stage '{name}' ({hint})", column)
    arguments: dict[str, int | float | str] = {}
    if tokens.skip("("):
        while not tokens.skip(")"):
            _argument(tokens, kind, arguments)
            if not tokens.skip(",") and tokens.text != ")":
                raise tokens.fail(f"expected ',' or ')', got {tokens.text or 'the end'!r}")
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in arguments]  # type: ignore[arg-type]  # stages are dataclasses
    if missing:
        raise tokens.fail(f"'{name}' needs {' and '.join(missing)}: {signature(kind)}", column)
    try:
        return kind(**arguments)
    except CodecError as error:
        raise tokens.fail(str(error), column) from None


def _argument(tokens: _Tokens, kind: type[Stage], arguments: dict[str, int | float | str]) -> None:
    column = tokens.column
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # as above
    text = tokens.word("an argument")
    keyed = tokens.skip("=")
    if keyed:
        name = text
        if name not in known:
            raise tokens.fail(f"'{kind.name}' has no argument '{name}': {signature(kind)}", column)
    elif len(arguments) < len(known):
        name = list(known)[len(arguments)]
    else:
        raise tokens.fail(f"too many arguments for '{kind.name}': {signature(kind)}", column)
    if name in arguments:
        raise tokens.fail(f"'{kind.name}' got {name} twice", column)
    if keyed:
        column = tokens.column
        text = tokens.word(f"a value for {name}")
    wanted = _plain_type(known[name].type)
    if wanted in (int, float):
        try:
            arguments[name] = int(text) if wanted is int else float(text)
        except ValueError:
            what = "an integer" if wanted is int else "a number"
            raise tokens.fail(f"'{kind.name}' takes {what} for {name}, got {text!r}", column) from None
    else:
        choices = {str(choice): choice for choice in get_args(wanted)}
        if text in choices:
            arguments[name] = choices[text]
            return
        raise tokens.fail(f"'{kind.name}' takes {' or '.join(choices)} for {name}, got {text!r}", column)


def _plain_type(annotation: object) -> object:
    """The type of an argument; `int | None` is an integer that may be left out."""
    if isinstance(annotation, UnionType):
        return next(part for part in get_args(annotation) if part is not NoneType)
    return annotation


def signature(kind: type[Stage]) -> str:
    """How a stage is written, such as ``uniform(bits, rounding=stochastic)``."""
    parts = [f.name if f.default in (MISSING, None) else f"{f.name}={f.default}" for f in fields(kind)]  # type: ignore[arg-type]  # as above
    return f"{kind.name}({', '.join(parts)})" if parts else kind.name


def example(kind: type[Stage]) -> Stage:
    """The stage that `Stage.example` writes."""
    return _stage(_Tokens(kind.example))
