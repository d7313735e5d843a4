"""Where every word of a ring or a cell lies. Numbers only; all words are 8 bytes, little endian.

Every 64-byte line has exactly one writing process. Kernels, handles and the dump read this table;
a change of any number here needs a new LAYOUT_VERSION.
"""

LAYOUT_VERSION = 1
RING_MAGIC = 0x474E495264636572  # "recdRing"
CELL_MAGIC = 0x6C6C654364636572  # "recdCell"

WORD = 8
LINE = 64
PAGE = 4096

# Line 0: written once by whoever creates the segment; MAGIC last.
MAGIC = 0
VERSION = 8
DATA = 16  # offset of slot 0 from the start of the segment
SLOTS = 24
STRIDE = 32  # bytes from slot to slot
SLOT_BYTES = 40  # payload capacity
READERS = 48
META_BYTES = 56  # length of the msgpack description at META

# Line 1: the writer; alone on its line because readers poll it.
HEAD = 64  # indices finished: the next index to be published

# Line 2: the writer.
EPOCH = 128
WRITER_PID = 136
ABANDONED = 144  # indices begun by a writer that died before publishing them
DROPPED = 152  # losses before the ring, told by the device

# From line 3 on: two lines per reader, written by that reader only.
READER_0 = 192
READER_STRIDE = 128
READER_SELECT = 0  # counts up; its parity names the tally that holds: one store moves all counts
READER_PID = 8
READER_POLICY = 16
READER_ORIGIN = 24  # cursor at first attach
READER_JOINED = 32  # 1 once ORIGIN and the first tally are valid
READER_TALLY = 64
TALLY_BYTES = 32
TALLY_CURSOR = 0  # next index to take
TALLY_LOST = 8  # indices that could not be read, or were torn while in use
TALLY_TORN = 16  # part of LOST: overwritten while in use
TALLY_SKIPPED = 24  # indices passed over on purpose (policy LATEST, seek)

META_MAX_BYTES = 3072

ROOM_SHIFT = 3
"""A reader that was overrun goes on an eighth (1 / 2**3) of the ring above its oldest slot."""

# A slot: one line of description, then the payload.
SLOT_SEQ = 0  # 2k+1 while index k is being written, 2k+2 when it is whole, 0 never used
SLOT_FACTS = 8  # the words of FACTS_FORMAT
FACTS_WORDS = 7
FACTS_FORMAT = "<IIqqqqqq"  # nbytes, epoch, capture, arrival, publish (ns), source seq, flags, aux
PAYLOAD = 64

# The private control block of a handle (never shared): kernels get its address only, because one
# prepared pointer is the cheapest argument that ctypes can pass.
CTL_BASE = 0
CTL_SLOTS = 8
CTL_STRIDE = 16
CTL_DATA = 24  # address of slot 0
CTL_LINE = 32  # reader: address of its lines
CTL_NEXT = 40  # writer: next index
CTL_EPOCH = 48  # writer: its epoch
CTL_FORGIVE = 56  # reader: 1 when unread indices count as skipped, not as lost
CTL_ARGUMENT = 64  # index to verify or seek, losses to add
CTL_STAGE = 72  # address of the private copy of a record: a cell's, or what ring_put publishes
CTL_STAGE_WORDS = 80
CTL_FACTS = 88  # FACTS_WORDS words, as in a slot
CTL_STAGED = 144  # ring: nbytes and epoch of a staged record, first word of its facts
CTL_BELLS = 152  # ring: address of the descriptors of its doorbells, a word each
CTL_BELL_COUNT = 160
CTL_WORDS = 21

# What kernels return instead of an index.
NOTHING = -1  # nothing to take, nothing published yet
SUPERSEDED = -2  # a newer writer has taken over this ring
NOT_RESERVED = -3  # commit without reserve
DAMAGED = -4  # a word that the protocol cannot produce
