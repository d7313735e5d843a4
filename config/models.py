"""The configuration of one robot, as typed models. Unknown keys and wrong types are refused.

Units stand in the names. Checks that need several sections or this machine live in `checks.py`;
reading YAML, presets and `--set` in `load.py`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recd.config.migrate import CONFIG_VERSION

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,30}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Positive = Annotated[float, Field(gt=0)]
REPO_ID_PATTERN = r"^[\w.-]+/[\w.-]+$"

SO_JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
"""Joints of SO-100 and SO-101, in servo id order 1..6 (LeRobot's names)."""


class Section(BaseModel):
    """Base of every section: no unknown keys, no silent conversions, no change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True,
        allow_inf_nan=False,
    )  # fmt: skip


class CameraConfig(Section):
    """One camera. The name it has under `cameras:` becomes `observation.images.<name>`."""

    source: Literal["v4l2", "http", "rtsp", "file", "opencv", "pyav", "sim"] = "v4l2"
    """What delivers the frames. `sim` is the built-in simulated camera."""
    device: str = ""
    """V4L2 index, path or by-id link; URL; file name. Not used for `sim`."""

    @field_validator("device", mode="before")
    @classmethod
    def _index_is_a_device(cls, device: object) -> object:
        return str(device) if type(device) is int and device >= 0 else device

    width: int = Field(default=640, ge=16, le=8192)
    """Picture width in pixels, as delivered by the device (before rotation)."""
    height: int = Field(default=480, ge=16, le=8192)
    """Picture height in pixels, before rotation."""
    fps: Annotated[float, Field(gt=0, le=1000)] = 30.0
    """Frames per second asked from the device. May be lower than the dataset's."""
    fourcc: Literal["auto", "mjpeg", "yuyv", "nv12", "grey", "rgb24", "bgr24", "yuv420p",
                    "h264"] = "auto"  # fmt: skip
    """Pixel format. `auto`: MJPEG where the device offers it (stays compressed in memory). `h264`:
    recorded as the camera sends it, without decoding (docs/encoding.md)."""
    rotation: Literal[0, 90, 180, 270] = 0
    """Clockwise turn applied when encoding."""
    latency_ms: float = Field(default=0.0, ge=0, le=1000)
    """Fixed delay between exposure and the stamp that is trusted; subtracted from it."""
    exposure: Literal["auto"] | int | None = None
    """`auto`, or absolute exposure in the device's unit (V4L2: 100 us); none leaves it alone."""
    gain: int | None = None
    """Sensor gain in the device's unit; none leaves it alone."""
    focus: Literal["auto"] | int | None = None
    """`auto`, or absolute focus; none leaves it alone."""
    white_balance: Literal["auto"] | int | None = None
    """`auto`, or colour temperature in kelvin; none leaves it alone."""
    accept_mismatch: bool = False
    """Take the size or rate that the device gives when it is not the one asked for."""
    required: Literal["abort", "mark", "optional"] = "mark"
    """What the loss of this camera does to a running episode."""
    ring_seconds: float = Field(default=2.0, ge=0.2, le=60)
    """How long a consumer may stall before frames are lost; sets the ring's size."""
    alignment: Literal["hysteresis", "previous"] = "hysteresis"
    """Which frame belongs to a row (docs/time.md)."""
    stamp_header: str = "X-Timestamp-Ns"
    """HTTP streams: part header with the sender's stamp (its own clock, nanoseconds)."""
    step: bool = False
    """Video files: a source with its own step clock: one row per frame, no deadline, no repeats."""
    speed: float = Field(default=1.0, gt=0, le=100)
    """Video files: pace relative to real time; of a step source, the most it may have."""
    pattern: Literal["420", "422", "444"] = "420"
    """Simulated camera: chroma sub-sampling of its JPEGs."""


class ArmSideConfig(Section):
    """One serial bus: a leader or a follower."""

    port: str
    """Serial device, best a /dev/serial/by-id link; `sim` for the built-in simulated bus."""
    id: str = ""
    """LeRobot's id of this arm: names its calibration file."""
    calibration: str | None = None
    """Calibration file; none: LeRobot's default place for `id`."""
    baud: int = Field(default=1_000_000, ge=38_400, le=1_000_000)
    """Line rate in baud."""


class LeaderConfig(ArmSideConfig):
    """The arm that a person moves."""


class FollowerConfig(ArmSideConfig):
    """The arm that follows."""

    max_relative_target: Positive | dict[str, Positive] | None = None
    """LeRobot's limit: largest distance of a goal from the present position, per tick."""
    p_coefficient: int = Field(default=16, ge=0, le=254)
    """Position P gain written at attach where it differs."""
    i_coefficient: int = Field(default=0, ge=0, le=254)
    """Position I gain."""
    d_coefficient: int = Field(default=32, ge=0, le=254)
    """Position D gain."""


class LimitsConfig(Section):
    """Limits on the follower's goal, in dataset units (degrees; gripper 0..100) and seconds."""

    velocity_per_s: float = Field(default=360.0, gt=0)
    """Largest speed of a joint's goal."""
    acceleration_per_s2: float = Field(default=4000.0, gt=0)
    """Largest acceleration of a joint's goal."""
    ramp_s: float = Field(default=1.0, ge=0.1, le=10)
    """How long the follower glides to its goal after arm, resume and hand-over."""
    ramp_velocity_per_s: float = Field(default=60.0, gt=0)
    """Largest speed while gliding in."""
    leader_stale_periods: float = Field(default=2.0, ge=1, le=50)
    """After this many periods without a leader sample the follower holds."""
    align_error: float = Field(default=30.0, gt=0)
    """Arming waits, naming the joints, while leader and follower differ by more than this."""
    temperature_warn_c: int = Field(default=60, ge=30, le=90)
    """Warn at this servo temperature (degrees Celsius)."""
    temperature_release_c: int = Field(default=70, ge=30, le=95)
    """Park and release at this servo temperature."""
    load_warn: int = Field(default=800, ge=50, le=1023)
    """Warn at this load (0.1 % of stall torque); a gripper above it is relaxed."""
    voltage_min: float = Field(default=4.5, ge=3, le=14)
    """Warn below this supply voltage (V)."""
    idle_park_s: float = Field(default=300.0, ge=0)
    """Armed but not moving for this long: park and release. 0 never."""


class HandOverConfig(Section):
    """How a person takes the arm from a policy or a replay, and how the two arms meet for it."""

    moved: float = Field(default=0.0, ge=0, le=90)
    """A leader that lay still and is moved by more than this takes over; 0: by command only."""
    rest_s: float = Field(default=0.5, ge=0.1, le=10)
    """How long the leader has to have lain still (within a third of `moved`) before that."""
    leader: Literal["led", "driven"] = "led"
    """`led`: the follower glides to the leader. `driven`: the leader's own servos bring it to the
    follower while the policy is paused, and let go at the take-over: hold it then."""


Latency = Annotated[float, Field(ge=0, le=500)]
JointName = Literal[
    "shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"
]


class ArmPairConfig(Section):
    """A leader and the follower it drives. Either may be left out (a follower alone can replay)."""

    type: Literal["so100", "so101"] = "so101"
    """Model of the arms."""
    leader: LeaderConfig | None = None
    """Bus of the leader arm."""
    follower: FollowerConfig
    """Bus of the follower arm."""
    rate_hz: int = Field(default=250, ge=10, le=1000)
    """Control rate of both buses."""
    telemetry_hz: float = Field(default=5.0, ge=0, le=50)
    """How often load, voltage, temperature and current are read; 0 never."""
    use_degrees: bool = True
    """Body joints in degrees (LeRobot's default); false: -100..100."""
    limits: LimitsConfig = LimitsConfig()
    """Limits and protection of this pair."""
    hand_over: HandOverConfig = HandOverConfig()
    """Take-over from a policy."""
    action_latency_ms: Latency | dict[JointName, Latency] | None = None
    """How much earlier than due a policy's goals are sent to this pair, or to some of its joints;
    none: as `policy` says."""
    torque_on_exit: Literal["hold", "park", "release"] = "hold"
    """What happens to the follower's torque when the daemon ends on purpose."""
    park: dict[str, float] | None = None
    """Resting pose for park, per joint in dataset units; none: stay where it is."""


class EncoderConfig(Section):
    """Video encoding, with LeRobot's option names."""

    vcodec: Literal["auto", "h264", "hevc", "av1", "libsvtav1", "h264_nvenc", "h264_vaapi",
                    "h264_qsv", "h264_v4l2m2m", "hevc_nvenc"] = "auto"  # fmt: skip
    """Codec; `auto` probes this machine for a new dataset, then the dataset pins it."""
    pix_fmt: Literal["yuv420p"] = "yuv420p"
    """Pixel format in the file."""
    g: int = Field(default=2, ge=1, le=600)
    """Distance of key frames. Small is fast to read at random, large is small on disk."""
    crf: int = Field(default=30, ge=0, le=63)
    """Constant quality; lower is better and larger."""
    preset: str | int | None = None
    """Encoder preset; none: veryfast for h264, 12 for AV1."""
    fast_decode: int = Field(default=0, ge=0, le=2)
    """SVT-AV1's fast-decode level."""
    threads: int = Field(default=1, ge=1, le=16)
    """Threads of each encoder process."""
    extra_options: dict[str, str | int | float] = Field(default_factory=dict)
    """Further options of the codec; never override the ones above."""


class DatasetConfig(Section):
    """Where and how episodes are stored."""

    root: str = Field(min_length=1)
    """The dataset folder itself. `~` is expanded."""
    repo_id: str = Field(default="local/recd", pattern=REPO_ID_PATTERN)
    """LeRobot's name of the dataset."""
    fps: int = Field(default=30, ge=1, le=240)
    """Rows per second."""
    task: str = "Pick the cube and place it in the bowl."
    """Default task of an episode."""
    columns: Literal["plain", "full"] = "plain"
    """`plain`: exactly LeRobot's columns. `full`: adds time errors, validity, control source."""
    action: Literal["requested", "sent"] = "requested"
    """What the action column holds: what the leader asked (LeRobot's meaning) or what was sent."""
    video: bool = True
    """False: pictures are stored as LeRobot `image` features."""
    encoder: EncoderConfig = EncoderConfig()
    """Video encoding."""
    reserve_mb: int = Field(default=500, ge=0)
    """Free space that is never used; recording is refused or ended before."""
    trash_keep_days: int = Field(default=0, ge=0)
    """Discarded, undone and deleted episodes are removed after so many days; 0: never."""
    trash_keep_mb: int = Field(default=0, ge=0)
    """The trash may be so large, then its oldest episodes are removed; 0: any size."""
    accept_calibration: bool = False
    """True: record although an arm's calibration is not that of the dataset's earlier episodes."""
    durability: Literal["resilient", "fast"] = "resilient"
    """`resilient`: fdatasync every second while recording. `fast`: only at stop."""


class RealtimeConfig(Section):
    """Real-time settings asked for; what was granted is reported."""

    enabled: bool = True
    """False: no priorities, no memory locking, no affinity."""
    arm_priority: int = Field(default=70, ge=0, le=98)
    """SCHED_FIFO priority of arm processes; 0 none."""
    camera_priority: int = Field(default=50, ge=0, le=98)
    """SCHED_FIFO priority of camera processes; 0 none."""
    arm_cpus: list[int] = Field(default_factory=list)
    """Cores of arm processes; empty: any."""
    lock_memory: bool = True
    """Keep the arm processes' memory resident."""
    spin_us: int = Field(default=50, ge=0, le=500)
    """How long an arm process spins before its deadline instead of sleeping."""
    encoder_nice: int = Field(default=5, ge=-20, le=19)
    """Niceness of encoders and writer, and of their sessions where the kernel groups by session."""
    gateway_priority: int = Field(default=1, ge=0, le=48)
    """SCHED_FIFO priority of the gateway's loop, below `serial_priority`; 0 none."""
    serial_priority: int = Field(default=2, ge=0, le=49)
    """SCHED_FIFO priority of the kernel workers that deliver serial input, while the daemon runs;
    0: as they are."""


class ControlConfig(Section):
    """The control plane."""

    endpoint: str = ""
    """An address besides the ipc socket, e.g. tcp://0.0.0.0:5591 (events at the next port)."""
    curve: Literal["beyond", "always"] = "beyond"
    """When a tcp endpoint asks for keys: `beyond` this computer, or `always`."""
    keys_dir: str = ""
    """Folder of keys; empty: RECD_KEYS_DIR, or recd/keys in the user's configuration folder."""
    group: str = ""
    """Linux group that may use the ipc sockets; empty: only the daemon's user."""
    runtime_dir: str = ""
    """Folder of sockets and locks; empty: $XDG_RUNTIME_DIR, /run/recd or /tmp by what exists."""
    client_lost: Literal["finish", "stop", "continue"] = "finish"
    """What a plan does when its client vanishes, unless the client said otherwise."""


class LerobotServerConfig(Section):
    """What LeRobot's PolicyServer is to load, and the sidecar that speaks with it."""

    python: str
    """Interpreter of a LeRobot environment with its `async` extra, of the server's version."""
    python_path: list[str] = Field(default_factory=list)
    """Further folders of modules for it; the sidecar can read them."""
    path: str
    """The policy, as the server finds it: a folder there, or a name on the hub."""
    policy: str = "act"
    """Its type, in LeRobot's words."""
    device: str = "cpu"
    """Where the server runs it."""
    actions_per_chunk: int = Field(default=50, ge=1, le=256)
    """Steps of each chunk that are asked for."""
    confinement: Literal["required", "none"] = "required"
    """`none`: what the server sends may do on this computer all that recd may."""
    memory_mb: int = Field(default=8192, ge=512, le=1 << 20)
    """Most that the sidecar may allocate."""


class PolicyServerConfig(Section):
    """A policy server that speaks a foreign protocol, and what is expected of it."""

    address: str = ""
    """HOST:PORT, or ws://, wss:// (openpi), tcp:// (gr00t); empty: the protocol's own port here."""
    unencrypted: bool = False
    """Allow a server on another computer without encryption: only inside a VPN or a tunnel."""
    secret_file: str = ""
    """File with the server's API key or token."""
    profile: str = ""
    """Which camera and joint has which key: a profile's name or a YAML file; empty: the type's."""
    cameras: dict[Name, Name] = Field(default_factory=dict)
    """A camera of the profile -> the camera of this robot that takes its place."""
    timeout_s: Positive = 2.0
    """Longest wait for an answer. After it the connection is dropped, and its answer with it."""
    warm_up_timeout_s: Positive = 60.0
    """The same for warm-up inferences: servers compile at their first."""
    warm_up: int = Field(default=3, ge=1, le=100)
    """Inferences that have to be sound before the adapter takes the lease."""
    failures_most: int = Field(default=3, ge=1, le=10_000)
    """Requests in a row that may fail before the lease is given back."""
    horizon: int | None = Field(default=None, ge=1, le=256)
    """Steps of a chunk that the server has to give; none: as many as it says."""
    step_s: float | None = Field(default=None, gt=0, le=1)
    """Time between two steps, as the policy was trained; none: as the profile says."""
    execute: int | None = Field(default=None, ge=1, le=256)
    """Steps of each chunk that are played; none: all."""
    replan: int | None = Field(default=None, ge=1, le=256)
    """Steps after which the next chunk is asked for; none: half of those that are played."""
    blend: int = Field(default=0, ge=0, le=256)
    """Steps over which a chunk is blended with the one before; 0: it replaces it."""
    lerobot: LerobotServerConfig | None = None
    """What is particular to LeRobot's PolicyServer."""
    image_size: int | None = Field(default=None, ge=16, le=4096)
    """Edge of the pictures sent, in pixels, scaled and padded; none: as the profile says."""


class PolicyConfig(Section):
    """Remote policies. The section's presence starts the gateway (`policy: {}` is enough)."""

    type: Literal["zmq", "openpi", "gr00t", "lerobot"] = "zmq"
    """`zmq`: policies connect by themselves (docs/policy_api.md). Others: an adapter connects to
    the server below (docs/policy_adapters.md)."""
    server: PolicyServerConfig = PolicyServerConfig()
    """The server that an adapter talks to; not for `zmq`."""
    endpoint: str = ""
    """An address besides the ipc sockets, e.g. tcp://0.0.0.0:5595; it takes four ports in a row."""
    heartbeat_ms: int = Field(default=300, ge=50, le=5000)
    """A lease holder that is silent for longer is held."""
    lease_kept_s: float = Field(default=2.0, ge=0.1, le=60)
    """A holder that is silent for longer loses its lease."""
    stuck_s: float = Field(default=2.0, ge=0.1, le=60)
    """Heartbeats whose progress stands still for longer count no more."""
    observation_s: float = Field(default=3.0, ge=0.05, le=60)
    """An observation older than this no longer justifies movement."""
    seam: float = Field(default=20.0, gt=0)
    """Largest distance between a new chunk and where the arm is told to be, in dataset units."""
    warm_up_chunks: int = Field(default=3, ge=1, le=1000)
    """Sound chunks that a policy has to have sent before it may be attached."""
    action_latency_ms: float = Field(default=0.0, ge=0, le=500)
    """How much earlier than due a goal is sent, for the delay of the arms themselves."""


class RolloutConfig(Section):
    """What is recorded by itself while a policy drives; `recctl rollout` changes it."""

    strategy: Literal["base", "sentry", "highlight", "dagger", "episodic"] = "base"
    """`base`: nothing; `sentry`: everything, in episodes; `highlight`: only `recctl highlight`;
    `dagger`: corrections; `episodic`: one episode per attempt of the policy."""
    episode_s: float = Field(default=60.0, ge=1, le=990)
    """Length of an episode of `sentry`, longest of `episodic` (the policy is paused then)."""
    corrections: Literal["own", "inside"] = "own"
    """`dagger`: each correction an episode of its own, or the whole attempt with corrections
    marked by `intervention`."""
    highlight_s: float = Field(default=0.0, ge=0, le=50)
    """Seconds of the past that `recctl highlight` can save; they are kept in memory. 0: none."""


class HooksConfig(Section):
    """A shell command per event; RECD_EVENT, RECD_NAME, RECD_UID, ... say more. 10 s to finish."""

    start: str = ""
    """When an episode starts."""
    stop: str = ""
    """When an episode is durable; RECD_VERDICT is good, check or bad."""
    reset: str = ""
    """When a reset phase begins."""
    fault: str = ""
    """When something is lost or fails."""


class SimulationConfig(Section):
    """The built-in simulated robot; used by every port or source that says `sim`."""

    seed: int = 0
    """Seed of the demonstration that the leader plays."""
    demonstration: bool = True
    """The simulated leader moves by itself."""
    reply_delay_us: int = Field(default=400, ge=0, le=20000)
    """Adapter and servo delay of a transaction, on top of the time on the wire."""
    camera_jitter_ms: float = Field(default=1.0, ge=0, le=50)
    """Standard deviation of the simulated cameras' delivery time."""
    camera_drift_ppm: float = Field(default=20.0, ge=-500, le=500)
    """Rate error of the simulated cameras' clock."""


class RobotConfig(Section):
    """One robot: one YAML file."""

    version: int = Field(default=CONFIG_VERSION, ge=1, le=CONFIG_VERSION)
    """Version of this file's form; `recctl config migrate` brings older files up to date."""
    name: Name
    """Name of this robot; also the default instance of the daemon."""
    instance: Name | None = None
    """Instance of the daemon; two daemons on one computer need two names."""
    station: str = ""
    """Where this robot stands; written into every episode's manifest."""
    operator: str = ""
    """Who records; may be changed while running."""
    cameras: dict[Name, CameraConfig] = Field(default_factory=dict)
    """Any number of cameras, by name."""
    arms: dict[Name, ArmPairConfig]
    """One pair under any name, or two named `left` and `right`."""
    dataset: DatasetConfig
    """Where and how episodes are stored."""
    realtime: RealtimeConfig = RealtimeConfig()
    """Real-time settings."""
    control: ControlConfig = ControlConfig()
    """The control plane."""
    policy: PolicyConfig | None = None
    """Remote policies; none: no gateway, no sockets."""
    rollout: RolloutConfig | None = None
    """What is recorded by itself while a policy drives."""
    hooks: HooksConfig = HooksConfig()
    """Commands run on events."""
    simulation: SimulationConfig = SimulationConfig()
    """The built-in simulated robot."""

    @field_validator("arms")
    @classmethod
    def _two_arms_have_sides(cls, arms: dict[str, ArmPairConfig]) -> dict[str, ArmPairConfig]:
        if not arms:
            raise ValueError("at least one pair: state and action of every row are its, found none")
        if len(arms) > 1 and set(arms) != {"left", "right"}:
            raise ValueError(f"two pairs named 'left' and 'right', found {sorted(arms)}")
        return {name: arms[name] for name in sorted(arms)}

    @property
    def instance_name(self) -> str:
        """Name of the daemon's instance."""
        return self.instance or self.name

    @property
    def robot_type(self) -> str:
        """LeRobot's robot_type of the dataset: its class name, not the CLI's choice."""
        return "so_follower" if len(self.arms) == 1 else "bi_so_follower"

    @property
    def dataset_root(self) -> Path:
        """Dataset folder with `~` expanded, absolute."""
        return Path(self.dataset.root).expanduser().absolute()

    @property
    def highlight_s(self) -> float:
        """Seconds of the past that rings and histories hold for `recctl highlight`."""
        return 0.0 if self.rollout is None else self.rollout.highlight_s

    def meets(self, pair: str) -> bool:
        """True when the pair's leader is driven to its follower for a hand-over."""
        arm = self.arms[pair]
        driven = arm.leader is not None and arm.hand_over.leader == "driven"
        return driven and self.policy is not None

    def joints(self, pair: str) -> tuple[str, ...]:
        """Joint names of one pair without prefix, in servo order."""
        del pair
        return SO_JOINTS

    def joint_prefix(self, pair: str) -> str:
        """`left_`/`right_` for two pairs, nothing for one (LeRobot's naming)."""
        return "" if len(self.arms) == 1 else f"{pair}_"

    def feature_joints(self) -> tuple[str, ...]:
        """Names of `observation.state` and `action`: `shoulder_pan.pos`, `left_...pos`."""
        return tuple(
            f"{self.joint_prefix(pair)}{joint}.pos"
            for pair in self.arms
            for joint in self.joints(pair)
        )

    def buses(self) -> tuple[str, ...]:
        """Names of all serial buses: `<pair>.leader`, `<pair>.follower`."""
        names = []
        for pair, arm in self.arms.items():
            if arm.leader is not None:
                names.append(f"{pair}.leader")
            names.append(f"{pair}.follower")
        return tuple(names)

    def uses_simulation(self) -> bool:
        """True when any port or source says `sim`."""
        sides = [side for arm in self.arms.values() for side in (arm.leader, arm.follower) if side]
        return any(side.port == "sim" for side in sides) or any(
            camera.source == "sim" for camera in self.cameras.values()
        )
