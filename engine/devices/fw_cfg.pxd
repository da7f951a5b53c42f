"""QEMU's firmware configuration device.  Names: QEMU, docs/specs/fw_cfg and standard-headers/linux/qemu_fw_cfg.h."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from engine._device cimport Device, device_core, io_status, reset_kind

cdef enum:                # regions
    IO = 0
    DMA = 1

cdef enum:                # byte offsets in IO
    SELECTOR = 0          # WO  16 bits: chooses an item and goes to its start
    DATA = 1              # RO  8 bits: the item's next byte

cdef enum:                # byte offsets in DMA; big endian
    DMA_HIGH = 0          # WO  32 bits: upper half of a descriptor's address
    DMA_LOW = 4           # WO  32 bits: lower half; starts the transfer

cdef enum:                # selector keys
    KEY_SIGNATURE = 0x00
    KEY_ID = 0x01
    KEY_FILE_DIR = 0x19
    KEY_FILE_FIRST = 0x20
    KEY_WRITE_CHANNEL = 0x4000    # no meaning any more; ignored
    KEY_ARCH_LOCAL = 0x8000
    KEY_INVALID = 0xFFFF  # what the selector holds after a key that names no slot
    FILE_SLOTS = 0x20
    KEYS = 0x40           # KEY_FILE_FIRST + FILE_SLOTS: slots of each of the two key spaces

cdef enum:                # KEY_ID
    ID_TRADITIONAL = 1
    ID_DMA = 2

cdef enum:                # control word of a DMA descriptor; bits 31:16 are a selector key
    CTL_ERROR = 0x01
    CTL_READ = 0x02
    CTL_SKIP = 0x04
    CTL_SELECT = 0x08
    CTL_WRITE = 0x10

cdef enum:                # what an item is
    ITEM_CONTENT = 1      # its bytes are content, learnt or supplied, not device state
    ITEM_WRITABLE = 2     # the guest may write it by DMA; its bytes are device state
    ITEM_SMI_OK = 4       # selecting it judges the SMI features that the guest asks for

cdef enum:
    FILE_NAME = 56        # bytes of a name in the directory, with its terminator
    DIR_ENTRY = 64
    WRITABLE_ROOM = 256   # bytes of writable items: a PC has 8 (SMI features), 16 with a VM generation ID

cdef enum:                # SMI features, bit numbers' masks (etc/smi/supported-features)
    SMI_BROADCAST = 1
    SMI_CPU_HOTPLUG = 2
    SMI_CPU_HOT_UNPLUG = 4

cdef struct fw_cfg_item:
    uint8_t *data
    uint32_t size
    uint32_t known        # of content: how many bytes from the start are known
    uint32_t flags

cdef struct fw_cfg_state:
    device_core core
    uint64_t dma_addr             # what DMA_HIGH has latched, already shifted
    uint32_t offset               # within the selected item
    uint16_t key                  # selected
    uint8_t smi_ok                # etc/smi/features-ok
    uint8_t pad
    uint64_t smi_features         # agreed on
    uint8_t written[256]          # WRITABLE_ROOM: the writable items, one after another

cdef class FwCfg(Device):
    cdef fw_cfg_state *s
    cdef fw_cfg_item items[2][64]           # [KEY_ARCH_LOCAL set][KEYS]
    cdef uint8_t *payload                   # every item's bytes as given
    cdef uint8_t start[256]                 # what `written` holds after reset
    cdef dict keys                          # name -> key of the named items
    cdef fw_cfg_item *requested             # etc/smi/requested-features, or NULL
    cdef uint64_t smi_supported
    cdef bint dma_on
    cdef readonly uint64_t unknown          # reads and transfers of content that is not known
    cdef fw_cfg_item *item(self) noexcept nogil
    cdef void select(self, uint32_t key) noexcept nogil
    cdef void judge_smi_features(self) noexcept nogil
    cdef void transfer(self, uint64_t at) noexcept nogil
    cdef int zero(self, uint64_t gpa, uint64_t n) noexcept nogil
