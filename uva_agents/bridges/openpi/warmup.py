"""A first decision before there are clients: what an agent does only once is done before anybody waits for it."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from uva_agents.bridges.openpi.service import Service
from uva_agents.errors import WeightsError

log = logging.getLogger("uva_agents.serve")


def warm_up(service: Service) -> None:
    """One decision about an observation without anything in it. Nothing that clients get depends on it.

    An agent that says what it is shown must be able to decide. One of which that was guessed, a planner for example, may have
    good reasons to refuse an empty picture; it is then served cold, and the metadata say so.

    Raises:
        Exception: whatever the agent raised: clients would get nothing else.
    """
    interface = service.interface
    if interface is None:
        log.info(
            "%s does not say what it is shown: its first decision is its first client's", type(service.agent).__name__
        )
        return
    began = time.perf_counter()
    try:
        with _random_streams_kept(service.agent):
            service.decide(service.begin(0), interface.empty(), seen=(), executed=0, execute=1, deterministic=True)
    except WeightsError:
        raise
    except (TypeError, KeyError, ValueError) as error:
        if interface.own:
            raise
        log.warning("the first decision is the first client's: an empty observation was refused (%s)", error)
        return
    service.warm = True
    log.info("the first decision took %.2f s", time.perf_counter() - began)


@contextlib.contextmanager
def _random_streams_kept(agent: Any) -> Iterator[None]:
    """Whatever draws random numbers in the block, afterwards every stream is where it was."""
    torch = sys.modules.get("torch")
    undo: list[Callable[[], Any]] = []

    def keep(read: Callable[[], Any], write: Callable[[Any], Any]) -> None:
        state = read()
        undo.append(lambda: write(state))

    keep(random.getstate, random.setstate)
    keep(np.random.get_state, np.random.set_state)
    if torch is not None:
        keep(torch.get_rng_state, torch.set_rng_state)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            keep(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    # Agents keep their streams in their states. One that is not of this package may have its own.
    for value in list(getattr(agent, "__dict__", {}).values()):
        if isinstance(value, np.random.Generator):
            bits = value.bit_generator
            keep(functools.partial(getattr, bits, "state"), functools.partial(setattr, bits, "state"))
        elif isinstance(value, np.random.RandomState):
            keep(value.get_state, value.set_state)
        elif isinstance(value, random.Random):
            keep(value.getstate, value.setstate)
        elif torch is not None and isinstance(value, torch.Generator):
            keep(value.get_state, value.set_state)
    try:
        yield
    finally:
        for put_back in undo:
            put_back()
