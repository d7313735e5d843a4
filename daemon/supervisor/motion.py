"""Motion commands on their way to the arm processes, and what those last said of themselves.

The motion machine lives in each follower's process; nothing here decides about movement.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from recd.config.errors import RecdError
from recd.daemon.supervisor.takes import Post
from recd.shm.clock import NS_PER_MS

REPLY_AFTER_NS = 500 * NS_PER_MS
"""A command is answered with the state known then, when the arm has not answered before."""

MOVING = ("arm", "teleop", "resume", "policy attach", "policy takeover")
"""Commands that set an arm in motion. Those that stop one are sent at once, whatever it is at."""


class Motion:
    """Sends commands to followers, keeps their last `motion` message.

    arms: names of all arm processes. unready: why a process cannot take a command, None if it can.
    resolve: answers the requests that wait under a key.
    """

    def __init__(
        self,
        arms: Iterable[str],
        post: Post,
        unready: Callable[[str, int], RecdError | None],
        resolve: Callable[[str, Mapping[str, Any] | RecdError], None],
    ) -> None:
        self._followers = {_pair_of(arm): arm for arm in arms if arm.endswith(".follower")}
        self._post = post
        self._unready = unready
        self._resolve = resolve
        self._said: dict[str, Mapping[str, Any]] = {}
        self._waiting: dict[str, tuple[set[str], int]] = {}
        self._commands = 0

    def command(self, ty: str, now: int, *, pair: str | None = None, **fields: Any) -> str:
        """Send `ty` to one follower or all. Returns the key under which the outcome is told.

        Raises RecdError for an unknown pair, when no arm is there to do it, and for a command that
        moves an arm which is still starting: it must not move later, when nobody expects it.
        """
        pairs = [pair] if pair else list(self._followers)
        unknown = [name for name in pairs if name not in self._followers]
        if unknown:
            raise RecdError(
                f"{ty}: no pair of arms {unknown[0]!r}",
                mend=f"pairs of this robot: {', '.join(self._followers)}",
                code="argument",
            )
        unready = {
            name: why for name in pairs if (why := self._unready(self._followers[name], now))
        }
        starting = [name for name, why in unready.items() if why.code == "starting"]
        if unready and (len(unready) == len(pairs) or (starting and ty in MOVING)):
            why = unready[(starting or list(unready))[0]]
            if ty in MOVING or why.code != "starting":
                raise RecdError(f"{ty}: {why.message}", mend=why.mend, code=why.code)
        number = self._commands + 1
        told = {**fields, "number": number}
        away = [name for name in pairs if not self._post.send(self._followers[name], ty, **told)]
        if len(away) == len(pairs):
            raise RecdError(f"{ty}: {', '.join(away)} did not take the command",
                            mend="Try again; recctl status tells more.", code="device")  # fmt: skip
        self._commands, key = number, _key(number)
        self._waiting[key] = (set(pairs) - set(away), now + REPLY_AFTER_NS)
        return key

    def hear(self, process: str, ty: str, fields: Mapping[str, Any]) -> None:
        """A `motion` message; or the answer to a command, by its number: `obeyed`, or `refused_op`
        when the arm's machine says no.

        A `motion` message answers nothing: an arm also tells by itself where it is, and would take
        the place of a refusal that is still on its way.
        """
        pair = _pair_of(process)
        if ty == "motion":
            self._said[pair] = dict(fields)
            return
        key = _key(fields.get("number"))
        pairs, _ = self._waiting.get(key, (set(), 0))
        if pair not in pairs:
            return
        if ty == "refused_op":
            del self._waiting[key]
            self._resolve(key, _refusal(pair, fields))
            return
        pairs.discard(pair)
        if not pairs:
            self._finish(key)

    def watch(self, now: int) -> None:
        """Answer what an arm has not spoken to in time, with what is known."""
        for key, (_, until_ns) in list(self._waiting.items()):
            if now >= until_ns:
                self._finish(key)

    def next_deadline_ns(self) -> int | None:
        """When `watch` has something to do."""
        return min((until for _, until in self._waiting.values()), default=None)

    def _finish(self, key: str) -> None:
        del self._waiting[key]
        self._resolve(key, {"motion": self.describe()})

    def describe(self) -> dict[str, Any]:
        """pair -> {state, cause, since_ns, waiting_joints, ...} as each follower last said."""
        return {pair: dict(self._said.get(pair, {})) for pair in self._followers}

    def cause(self, process: str) -> str:
        """Why the arm of `process` is as it is, in its own words."""
        return str(self._said.get(_pair_of(process), {}).get("cause", "unknown")).replace("_", " ")

    def forget(self, process: str) -> None:
        """The process ended: what it said is no longer true."""
        self._said.pop(_pair_of(process), None)


def _key(number: object) -> str:
    return f"motion:{number}"


def _pair_of(process: str) -> str:
    return process.partition(":")[2].partition(".")[0]


def _refusal(pair: str, fields: Mapping[str, Any]) -> RecdError:
    return RecdError(
        f"{pair}: {fields.get('reason', 'refused')}",
        mend=str(fields.get("mend", "")),
        code=str(fields.get("code", "state")),
    )
