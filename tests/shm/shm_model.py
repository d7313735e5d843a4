"""The kernels' own source, run step by step under the C++ rules of acquire and release.

Every atomic access is a point where another actor may go on. A load may see any store that the
rules allow, old ones included: what x86 hides and aarch64 shows. Limit: nothing is stored before
an earlier load of the same actor is done (no protocol step relies on that order being broken).
"""

import ast
import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from recd.shm import layout
from recd.shm import ring as ring_module

SOURCE = (Path(ring_module.__file__).parent / "kernels.py").read_text()
ATOMICS = (
    "load_acquire", "load_relaxed", "store_release", "store_relaxed", "fence_acquire",
    "fence_release",
)  # fmt: skip
SHARED = 1 << 20
"""Addresses below are private to an actor (control blocks) and no points of interleaving."""

ENDLESS_TURNS = 20_000

Steps = Generator[tuple[Any, ...], Any, Any]
View = dict[int, int]


class _Stepwise(ast.NodeTransformer):
    """Atomic calls become yields, calls between kernels become `yield from`."""

    def __init__(self, functions: set[str]) -> None:
        self.functions = functions

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list = []
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ATOMICS:
            return ast.Yield(ast.Tuple([ast.Constant(name), *node.args], ast.Load()))
        return ast.YieldFrom(node) if name in self.functions else node


def stepwise(source: str) -> dict[str, Callable[..., Steps]]:
    """The kernel functions of `source` as generators of their atomic accesses."""
    tree = ast.parse(source)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {node.name for node in functions}
    module = ast.Module([_Stepwise(names).visit(node) for node in functions], [])
    space: dict[str, Any] = dict(vars(layout))
    exec(compile(ast.fix_missing_locations(module), "kernels", "exec"), space)
    return {name: space[name] for name in names}


class Memory:
    """All stores to every word in their order, each with what its writer knew."""

    def __init__(self) -> None:
        self.stores: dict[int, list[tuple[int, View]]] = {}

    def history(self, address: int) -> list[tuple[int, View]]:
        return self.stores.setdefault(address, [(0, {})])

    def newest(self, address: int) -> int:
        return self.history(address)[-1][0]


class Actor:
    """One process: its private words and its view (oldest store it may still see, by address)."""

    def __init__(self, memory: Memory, chance: random.Random) -> None:
        self.memory = memory
        self.chance = chance
        self.private: dict[int, int] = {}
        # exec and handed-over descriptors order a new process after all that was before
        self.view: View = {at: len(past) - 1 for at, past in memory.stores.items()}
        self.unfenced: View = {}
        self.fenced: View = {}

    def access(self, name: str, address: int = 0, value: int = 0) -> int:
        if name == "fence_acquire":
            _join(self.view, self.unfenced)
        elif name == "fence_release":
            self.fenced = dict(self.view)
        elif address < SHARED:
            if name.startswith("store"):
                self.private[address] = value
            return self.private.get(address, 0)
        elif name.startswith("load"):
            return self._load(address, acquire=name == "load_acquire")
        else:
            self._store(address, value, release=name == "store_release")
        return 0

    def _load(self, address: int, *, acquire: bool) -> int:
        past = self.memory.history(address)
        oldest = self.view.get(address, 0)
        at = (
            len(past) - 1
            if self.chance.random() < 0.7
            else self.chance.randint(oldest, len(past) - 1)
        )
        value, known = past[at]
        self.view[address] = at
        _join(self.view if acquire else self.unfenced, known)
        return value

    def _store(self, address: int, value: int, *, release: bool) -> None:
        past = self.memory.history(address)
        self.view[address] = len(past)
        known = dict(self.view if release else self.fenced)
        known[address] = len(past)
        past.append((value, known))

    def run(self, steps: Steps) -> Generator[None, None, Any]:
        """Carry out `steps`, giving way before every shared access."""
        answer: Any = None
        while True:
            try:
                name, *arguments = steps.send(answer)
            except StopIteration as end:
                return end.value
            if not arguments or arguments[0] >= SHARED:
                yield
            answer = self.access(name, *arguments)


def _join(view: View, other: View) -> None:
    for address, at in other.items():
        if view.get(address, 0) < at:
            view[address] = at


def interleave(lives: list[list[tuple[Steps, int]]], chance: random.Random) -> list[int]:
    """Run actors in random turns; each is a list of (life, steps until it is killed).

    Returns how many lives of each actor were cut short.
    """
    killed = [0] * len(lives)
    spent = 0
    waiting = [list(reversed(actor)) for actor in lives]
    current: dict[int, tuple[Steps, int]] = {}
    while current or any(waiting):
        actor = chance.choice([i for i, rest in enumerate(waiting) if i in current or rest])
        spent += 1
        assert spent < ENDLESS_TURNS, "an actor waits for another one"
        life, left = current.pop(actor, None) or waiting[actor].pop()
        turns = min(left, chance.choice((1, 1, 2, 5, 30)))
        if any(next(life, "over") == "over" for _ in range(turns)):
            continue
        if left > turns:
            current[actor] = (life, left - turns)
        else:
            life.close()
            killed[actor] += 1
    return killed


def edited(source: str, changes: list[tuple[str, str]]) -> str:
    """`source` with steps broken; AssertionError when a step is no longer found."""
    for old, new in changes:
        assert old in source, f"the kernels changed: {old!r} is not there"
        source = source.replace(old, new)
    return source
