import pytest

from recd.perf import result
from recd.perf.scenario import Scenario


@pytest.fixture
def camera():
    figures = {"p50": 1.0, "p99": 2.0, "p99_9": 2.5, "max": 3.0, "n": 150}
    return {
        "fresh": 149, "repeated": 1, "expected_repeats": 0, "skipped": 1, "missing": 0, "late": 0,
        "corrupt": 0, "lost": 0, "drift_ppm": 20.0, "allowed_by_drift": 1, "beyond_drift": 0,
        "unflagged": 0,
        "truth": {"pictures": 150, "wrong": 0, "kinds": {}, "findings": []},
        "times": {"from_row_ms": figures, "claim_error_ms": figures, "claim_bias_ms": 0.1,
                  "phase": 0.25},
        "skew": {"true_ms": figures, "error_ms": figures, "joint_error_ms": figures},
    }  # fmt: skip


@pytest.fixture
def run(camera):
    late = {"p50": 10.0, "p99": 100.0, "p99_9": 200.0, "n": 1250}
    return {
        "uid": "0" * 32,
        "rows": {"expected": 150, "stored": 150, "kept": 150, "percent_kept": 100.0,
                 "joints_invalid": 0, "differences": [], "fps": 30},
        "cameras": {"front": camera},
        "waits": {"start_reply_ms": 5.0, "start_to_row_time_ms": 38.0,
                  "start_to_first_row_ms": 80.0, "stop_to_durable_ms": 90.0},
        "cpu": {"span_s": 5.0, "cores": {"camera:front": 0.01, "arm:main.follower": 0.1},
                "total_cores": 0.11, "total_cpu_s": 0.55, "simulator_cores": {"sim": 0.2}},
        "finish": {"cpu_s": 0.1, "span_s": 2.1, "idle_cores": 0.1, "episode_written_bytes": 10**6},
        "memory": {"peak_pss_bytes": 80 * 2**20, "peak_rss_bytes": 120 * 2**20,
                   "peak_simulator_pss_bytes": 2**20,
                   "pss_bytes": {"camera:front": 30 * 2**20, "arm:main.follower": 50 * 2**20}},
        "control": {"arm:main.follower": {"hz": 250.0, "skipped": 0, "lateness_us": late,
                                          "work_us": late, "request_us": late,
                                          "leader_to_goal_us": late}},
        "streams": {"cam.front": 0, "ticks.front": 0},
        "verdict": "good",
        "motion": "TELEOP",
        "codec": {},
        "machine_busy_cores": 0.4,
        "machine_stolen_cores": 0.0,
        "others_cores": 0.05,
    }  # fmt: skip


@pytest.fixture
def document(run):
    return {
        "format": result.RESULT_VERSION,
        "kind": "spine",
        "origin": {"recd": "0.1.0", "commit": "abc", "made_at": "2026-01-01T00:00:00.000+00:00"},
        "machine": {"cpu": "a processor", "cores": 2, "cores_allowed": 2, "virtual": False,
                    "kernel": "6.1", "governor": "performance", "memory_mb": 8192,
                    "python": "3.11.7", "libraries": {"numpy": "2.0"}},
        "scenario": Scenario(seconds=5.0, runs=1).plain(),
        "silence": {"quiet": True, "waited_s": 2.0, "load_average": [0.1, 0.1, 0.1],
                    "load": {"busy_cores": 0.02, "stolen_cores": 0.0}},
        "startup": {"to_ready_s": 3.0, "to_teleop_s": 4.5},
        "realtime": {"arm:main.follower": {"memory lock": "granted"}},
        "runs": [run],
        "floor": None,
        "dataset": {"dataset_bytes": 1000, "with_side_files_bytes": 2000},
        "summary": result.summary([run]),
        "budgets": [],
        "notes": [],
    }  # fmt: skip
