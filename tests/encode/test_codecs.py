from dataclasses import replace

import pytest

from recd.config.errors import RecdError
from recd.daemon.encode.codecs import (
    CODECS,
    CodecSettings,
    codec_named,
    info_block,
    ladder,
    pinned_settings,
)
from recd.daemon.encode.probe import CodecChoice, probe

OPTIONS = [
    (
        CodecSettings("h264"),
        {"g": "2", "crf": "30", "preset": "veryfast", "bf": "0", "tune": "zerolatency"},
    ),
    (
        CodecSettings("h264", g=30, crf=18, preset="medium", fast_decode=1, threads=2),
        {"g": "30", "crf": "18", "preset": "medium", "tune": "zerolatency,fastdecode",
         "threads": "2"},
    ),
    (
        CodecSettings("av1", threads=2),
        {"g": "2", "crf": "30", "preset": "12",
         "svtav1-params": "rtc=1:aq-mode=0:scm=0:enable-cdef=0:max-tx-size=32"
                          ":fast-decode=0:lp=2:pred-struct=1"},
    ),
    (CodecSettings("h264_nvenc", crf=25), {"rc": "constqp", "qp": "25", "delay": "0", "bf": "0"}),
    (CodecSettings("h264_qsv", crf=25), {"global_quality": "25", "bf": "0"}),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "expected"), OPTIONS, ids=lambda v: getattr(v, "vcodec", ""))
def test_lerobots_names_become_the_encoders_options(settings, expected):
    assert expected.items() <= settings.options().items()


def test_extra_options_add_but_never_override_lerobots_fields_or_zero_delay():
    extra = {"tune": "film", "bf": 3, "g": 50, "crf": 1, "qcomp": 0.5}

    options = CodecSettings("h264", extra_options=extra).options()

    assert options["tune"] == "film,zerolatency"
    assert (options["bf"], options["g"], options["crf"]) == ("0", "2", "30")
    assert options["qcomp"] == "0.5"


def test_auto_tries_hardware_first_and_a_named_codec_alone():
    rungs = ladder(CodecSettings("auto"))

    hardware = [rung.row.hardware for rung in rungs]
    assert hardware == sorted(hardware, reverse=True)
    assert rungs[-1].vcodec == "h264"
    assert [rung.vcodec for rung in ladder(CodecSettings("av1"))] == ["libsvtav1"]


def test_info_block_has_the_keys_and_values_that_lerobot_writes():
    # facts: lerobot_format section 3, observed with lerobot 0.6.1 for a 128x96 AV1 camera
    assert info_block(CodecSettings("libsvtav1"), (128, 96), 30) == {
        "video.height": 96, "video.width": 128, "video.codec": "av1", "video.pix_fmt": "yuv420p",
        "video.fps": 30, "video.channels": 3, "has_audio": False, "video.g": 2, "video.crf": 30,
        "video.preset": 12, "video.fast_decode": 0, "video.video_backend": "pyav",
        "video.extra_options": {}, "is_depth_map": False,
    }  # fmt: skip


@pytest.mark.parametrize("row", CODECS, ids=lambda row: row.vcodec)
def test_a_dataset_pins_what_its_info_block_says(row):
    began = CodecSettings(row.vcodec, g=10, crf=20)

    again = pinned_settings(info_block(began, (640, 480), 30), CodecSettings(row.vcodec, crf=40))

    assert again.row.canonical == row.canonical
    assert (again.g, again.crf) == (10, 20)


def test_hardware_may_continue_what_software_began_but_another_codec_may_not():
    info = info_block(CodecSettings("h264", preset="veryfast"), (640, 480), 30)

    assert pinned_settings(info, CodecSettings("h264_nvenc")).vcodec == "h264_nvenc"
    assert pinned_settings(info, CodecSettings("av1")).vcodec == "h264"
    assert pinned_settings(info, CodecSettings("auto")).preset == "veryfast"


def test_old_info_blocks_without_encoder_keys_take_the_configured_options():
    pinned = pinned_settings({"video.codec": "av1", "video.pix_fmt": "yuv420p"},
                             CodecSettings("auto", g=4, crf=25))  # fmt: skip

    assert (pinned.vcodec, pinned.g, pinned.crf) == ("libsvtav1", 4, 25)


def test_unknown_codecs_are_named_with_the_choice():
    with pytest.raises(RecdError, match=r"expected auto or one of h264.*found 'vp9'"):
        codec_named("vp9")
    with pytest.raises(RecdError, match="its video codec is 'vp9'"):
        pinned_settings({"video.codec": "vp9"}, CodecSettings())


def test_settings_travel_as_a_plain_map():
    settings = CodecSettings("av1", extra_options={"svtav1-params": "tune=0"})

    assert CodecSettings.from_plain(settings.plain() | {"unknown": 1}) == settings


def test_av1_is_probed_at_zero_delay():
    choice = probe([(320, 240)], fps=30, wanted=CodecSettings("av1"))

    assert choice.settings.vcodec == "libsvtav1"


@pytest.mark.parametrize(
    ("wanted", "deadline_s", "reason"),
    [
        (CodecSettings("h264", preset="no-such"), 30, "h264 no-such: "),
        (CodecSettings("h264", extra_options={"x264-params": "bframes=2"}), 30, "holds pict"),
        (CodecSettings("h264"), 0.001, "gave no answer within"),
    ],
    ids=["cannot open", "delays", "hangs"],
)
def test_a_named_codec_that_does_not_do_is_refused_with_the_reason(wanted, deadline_s, reason):
    with pytest.raises(RecdError, match=reason):
        probe([(320, 240)], fps=30, wanted=wanted, deadline_s=deadline_s)


def test_a_codec_that_would_take_the_machine_is_passed_over_with_its_load():
    fast = replace(CodecSettings("auto"), threads=1)

    choice = probe([(320, 240)], fps=100_000, wanted=fast)

    refused = [t.refused for t in choice.trials if t.vcodec == "h264" and t.refused]
    assert "takes" in refused[0]
    assert not choice.comfortable
    told = choice.too_much()
    assert f"{choice.chosen.load:.2f} cores" in told["found"]
    assert "fewer" in told["mend"]
    assert choice.chosen.cpu_ms > 0
    assert all(trial.refused for trial in choice.trials[:-1])
    assert CodecChoice.from_plain(choice.plain()) == choice
