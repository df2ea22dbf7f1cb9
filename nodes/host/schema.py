"""The base class of all nodes: speaks every dialect of the host's node API, and shows our errors cleanly."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from comfy_api.latest import io

from ...training.interfaces import AttuneError

log = logging.getLogger("attune")

T = TypeVar("T")


def call_known(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Call `function` without the keywords that the running host does not know.

    Hosts add and rename schema keywords; an unknown one is a TypeError that would take the node away. Give the host's
    optional extras (`search_aliases`, `advanced`, …) freely: an older host leaves them out.
    """
    known = _known_keywords(function)
    if known is not None:
        keywords = {name: value for name, value in keywords.items() if name in known}
    return function(*arguments, **keywords)


@functools.cache
def _known_keywords(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names of a function's parameters; None where it takes any. Kept, as the host's start asks 1,500 times."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


class AttuneNode(io.ComfyNode):
    """Base class of the pack's nodes.

    `define_schema` returns `cls.schema(node_id=…, inputs=[cls.input(io.Int, "steps", default=100, advanced=True)], …)`.
    An `AttuneError` raised by `execute` reaches the artist as its message, without the frames it passed through.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        execute = cls.__dict__.get("execute")
        # The host clones the class for every run, which comes through here again.
        if isinstance(execute, classmethod) and not hasattr(execute.__func__, "attune_clean"):
            cls.execute = classmethod(_clean(execute.__func__))

    @classmethod
    def schema(cls, **keywords: Any) -> io.Schema:
        """`io.Schema(**keywords)`, less what the running host does not know."""
        return call_known(io.Schema, **keywords)

    @classmethod
    def input(cls, kind: Any, id: str, **keywords: Any) -> Any:
        """`kind.Input(id, **keywords)`, less what the running host does not know. `kind` is `io.Int`, `io.Model`, …"""
        return call_known(kind.Input, id, **keywords)

    @classmethod
    def output(cls, kind: Any, **keywords: Any) -> Any:
        """`kind.Output(**keywords)`, less what the running host does not know."""
        return call_known(kind.Output, **keywords)


def _clean(execute: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(execute):

        @functools.wraps(execute)
        async def wrapper(cls: type, *arguments: Any, **keywords: Any) -> Any:
            try:
                return await execute(cls, *arguments, **keywords)
            except AttuneError as error:
                raise _without_frames(cls, error) from None
    else:

        @functools.wraps(execute)
        def wrapper(cls: type, *arguments: Any, **keywords: Any) -> Any:
            try:
                return execute(cls, *arguments, **keywords)
            except AttuneError as error:
                raise _without_frames(cls, error) from None

    wrapper.attune_clean = True
    return wrapper


def _without_frames(cls: type, error: AttuneError) -> AttuneError:
    log.debug("Attune: %s failed", cls.__name__, exc_info=error)
    return error.with_traceback(None)
