import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.daemon.cameras.clockmap import ClockMap, ClockMapSettings

PERIOD_NS = 33_333_333
MS = 1_000_000

DELAYS = {
    "exponential": lambda r: r.expovariate(1 / 2e6),
    "uniform": lambda r: r.uniform(0, 4e6),
    "spikes": lambda r: r.expovariate(1 / 3e5) + (60e6 if r.random() < 0.05 else 0),
    "constant": lambda r: 0.0,
}


class Sender:
    """A camera with a clock of its own behind a network whose fastest way takes `base_ns`."""

    def __init__(self, *, epoch_ns, ppm, base_ns, jitter, seed):
        self.random = random.Random(seed)
        self.epoch_ns, self.ppm, self.base_ns, self.jitter = epoch_ns, ppm, base_ns, jitter
        self.true_ns = self.random.randrange(10**15)
        self.start_ns, self.arrival_ns = self.true_ns, 0

    def send(self):
        self.true_ns += PERIOD_NS
        passed = self.true_ns - self.start_ns
        stamp = self.epoch_ns + passed + int(passed * self.ppm) // 1_000_000
        delay = self.base_ns + int(DELAYS[self.jitter](self.random))
        self.arrival_ns = max(self.true_ns + delay, self.arrival_ns + 1)
        return stamp, self.arrival_ns

    def error_ns(self, mapped):
        return mapped.local_ns - (self.true_ns + self.base_ns)


@settings(max_examples=25, deadline=None)
@given(
    epoch_ns=st.integers(-(2**62), 2**62),
    ppm=st.floats(-100, 100),
    base_ns=st.integers(50_000, 20 * MS),
    jitter=st.sampled_from(sorted(DELAYS)),
    seed=st.integers(0, 2**32),
)
def test_any_clock_and_jitter_is_mapped_to_a_millisecond(epoch_ns, ppm, base_ns, jitter, seed):
    sender = Sender(epoch_ns=epoch_ns, ppm=ppm, base_ns=base_ns, jitter=jitter, seed=seed)
    clock = ClockMap()
    errors = []
    for _ in range(1200):
        stamp, arrival = sender.send()
        mapped = clock.map(stamp, arrival)
        assert mapped.local_ns <= arrival
        assert mapped.residual_ns == (arrival - mapped.local_ns if mapped.trusted else 0)
        if mapped.trusted:
            errors.append(sender.error_ns(mapped))
        else:
            assert mapped.local_ns == arrival
    assert len(errors) > 1000
    assert clock.resets == 0
    assert max(map(abs, errors)) < MS
    assert max(map(abs, errors[600:])) < 0.3 * MS


def test_drift_is_measured():
    sender = Sender(epoch_ns=5, ppm=80.0, base_ns=MS, jitter="exponential", seed=3)
    clock = ClockMap()
    for _ in range(1500):
        clock.map(*sender.send())
    assert clock.drift_ppb == pytest.approx(-80_000, abs=10_000)


@pytest.mark.parametrize(
    ("jitter", "setting"), [("constant", "calm_converge_ns"), ("spikes", "converge_ns")]
)
def test_arrival_is_trusted_until_the_map_has_converged(jitter, setting):
    sender = Sender(epoch_ns=0, ppm=0, base_ns=MS, jitter=jitter, seed=1)
    settings_ = ClockMapSettings()
    clock = ClockMap(settings_)
    trusted = [clock.map(*sender.send()).trusted for _ in range(200)]
    first = trusted.index(True)
    assert first * PERIOD_NS == pytest.approx(getattr(settings_, setting), abs=2 * PERIOD_NS)
    assert all(trusted[first:])


def test_a_sender_that_is_late_for_seconds_now_more_now_less_keeps_its_line():
    sender = Sender(epoch_ns=3, ppm=10, base_ns=MS, jitter="uniform", seed=8)
    clock = ClockMap()
    for _ in range(600):
        clock.map(*sender.send())
    errors = []
    for k in range(450):  # 15 s of an overloaded sender
        stamp, arrival = sender.send()
        late = (20 + 230 * (k // 30 % 2)) * MS
        errors.append(sender.error_ns(clock.map(stamp, arrival + late)))
    assert max(map(abs, errors)) < 2 * MS


def test_a_sender_that_starts_again_is_learned_again():
    sender = Sender(epoch_ns=10**12, ppm=20, base_ns=MS, jitter="uniform", seed=4)
    clock = ClockMap()
    for _ in range(300):
        clock.map(*sender.send())
    sender.epoch_ns -= 10**12
    after = [(clock.map(*sender.send()), sender.true_ns) for _ in range(300)]
    assert clock.resets == 1
    assert not after[0][0].trusted
    assert after[-1][0].trusted
    assert abs(sender.error_ns(after[-1][0])) < MS


@pytest.mark.parametrize("step_ms", [-20, 20, 50, 400, 5000])
def test_a_stepped_clock_is_followed_again_within_seconds(step_ms):
    sender = Sender(epoch_ns=0, ppm=30, base_ns=MS, jitter="uniform", seed=5)
    clock = ClockMap()
    for _ in range(600):
        clock.map(*sender.send())
    sender.epoch_ns += step_ms * MS
    for _ in range(450):
        mapped = clock.map(*sender.send())
    assert mapped.trusted
    assert abs(sender.error_ns(mapped)) < 10 * MS
    for _ in range(900):
        mapped = clock.map(*sender.send())
    assert abs(sender.error_ns(mapped)) < MS


def test_stamps_that_stand_still_are_never_trusted():
    clock = ClockMap()
    mapped = [clock.map(0, 10**9 + k * PERIOD_NS) for k in range(400)]
    assert not any(m.trusted for m in mapped)
    assert [m.local_ns for m in mapped] == [10**9 + k * PERIOD_NS for k in range(400)]


def test_a_pause_of_minutes_keeps_the_map():
    sender = Sender(epoch_ns=7, ppm=-60, base_ns=MS, jitter="exponential", seed=6)
    clock = ClockMap()
    for _ in range(1200):
        clock.map(*sender.send())
    sender.true_ns += 300 * 10**9
    mapped = clock.map(*sender.send())
    assert mapped.trusted
    assert abs(sender.error_ns(mapped)) < 10 * MS
