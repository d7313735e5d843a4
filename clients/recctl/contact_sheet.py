"""One picture of all cameras side by side, for a look before a session."""

import math
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

TILE_WIDTH, TILE_HEIGHT = 480, 360
GAP = 8


def read_picture(path: Path, *, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A picture file as uint8 RGB [height, width, 3], scaled to fit on black."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    scale = min(width / frame.width, height / frame.height)
    size = (max(2, int(frame.width * scale)) // 2 * 2, max(2, int(frame.height * scale)) // 2 * 2)
    picture = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
    tile = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = picture
    return tile


def write_contact_sheet(pictures: dict[str, Path], folder: Path) -> Path:
    """Tile the pictures, in the order given, into `folder/contact_sheet.png`; returns its path."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full(
        (rows * (TILE_HEIGHT + GAP) + GAP, columns * (TILE_WIDTH + GAP) + GAP, 3), 40, np.uint8
    )
    for i, path in enumerate(pictures.values()):
        top = GAP + (i // columns) * (TILE_HEIGHT + GAP)
        left = GAP + (i % columns) * (TILE_WIDTH + GAP)
        tile = read_picture(path, width=TILE_WIDTH, height=TILE_HEIGHT)
        sheet[top : top + TILE_HEIGHT, left : left + TILE_WIDTH] = tile
    target = folder / "contact_sheet.png"
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = sheet.shape[1], sheet.shape[0], "rgb24"
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(sheet, "rgb24")), *encoder.encode(None)]
    target.write_bytes(b"".join(bytes(packet) for packet in packets))
    return target
