import copy

from recd.perf import goals, result

LOOP = "arm:main.follower"


def found(document):
    return {goal.label: (value, limit) for _, goal, value, limit in goals.judged(document)}


def test_every_goal_that_was_measured_stands_beside_its_limit(document):
    loop = document["runs"][0]["control"][LOOP]
    loop |= {"wire_us": 1000.0, "cycle_us": {"p50": 1300.0, "p99": 2000.0}}
    document["summary"] = result.summary(document["runs"])
    document["floor"] = {"processes": {LOOP: {"ratio_p99": 1.4, "ratio_p99_9": None}}}
    told = found(document)
    assert told["lateness p99 / bare loop's"] == (1.4, 1.5)
    assert told["lateness p99.9 / bare loop's"] == (None, 2.0)
    assert told["work p99, without wire time"] == (100.0, 300.0)
    assert told["leader to goal p99, a period + the bus"] == (100.0, 5000.0)
    assert told["cycle p50, 1.2 x frames and adapter"] == (1300.0, 1200.0)


def test_the_whole_has_goals_of_its_own_some_of_them_for_one_load_alone(document):
    document["scenario"] |= {"cameras": 2, "fps": 30}
    document["summary"]["waits.start_to_row_time_ms"] = {"most": 50.0}
    document["summary"]["rows.percent_kept"] = {"least": 99.5}
    document["summary"]["finish.episode_written_bytes"] = {"median": 2100.0}
    told = found(document)
    assert told["start-up to armed"] == (4.5, 2.5)
    assert told["start: first row, frames, worst run"] == (1.5, 2.0)
    assert told["rows not whole, worst run"] == (0.5, 0.0)
    assert told["bytes written / dataset's"] == (1.05, 1.1)
    assert told["memory (PSS), worst run"][1] == 400.0
    assert "CPU" not in told
    document["scenario"] |= {
        "cameras": 3,
        "vcodec": "h264",
        "preset": "ultrafast",
        "pixels": "YUYV",
    }
    told = found(document)
    assert told["CPU"][1] == 0.55
    assert "memory (PSS), worst run" not in told
    document["floor"] = {"processes": {}}  # its legs recorded episodes, too
    assert found(document)["bytes written / dataset's"] == (None, 1.1)


def test_skipped_ticks_are_those_of_the_worst_run_not_averaged_away(document):
    bad = copy.deepcopy(document["runs"][0])
    bad["control"][LOOP]["skipped"] = 3
    document["runs"] = [*document["runs"] * 4, bad]
    document["summary"] = result.summary(document["runs"])
    assert found(document)["ticks skipped, worst run"] == (3.0, 0.0)


def test_a_result_from_before_a_figure_was_known_is_still_told(document):
    assert found(document)["cycle p50, 1.2 x frames and adapter"] == (None, None)
