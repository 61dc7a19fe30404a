# nbdkit plugin: disks with a cache of their own, behind one switch.
#
# What is written stays in the cache until the disk is asked to flush. When the power is cut, each sector that was written
# since then, on its own, keeps what it had before or gets one of the things written to it, by the seed.
#
#   folder=DIR   NAME.img in there is the medium of the export NAME; it has only what was flushed
#   cut=E,W,S    cut the power at write W (from 0) of epoch E, or at the flush that ends this epoch if it has no such
#                write; the seed is S. An epoch lasts from one flush that has something to do to the next.
#
# DIR/epochs has the number of writes of each epoch. DIR/off appears when the power is cut; requests then wait until DIR/dead
# is there, so that whoever writes can be killed without noticing, and fail.
import builtins, os, random, time
import errno, nbdkit

API_VERSION = 2
SECTOR = 512
settings = {"folder": "", "cut": ""}
disks = {}
now = {"epoch": 0, "write": 0, "off": False}


class Disk:
    def __init__(self, name):
        self.medium = os.open(os.path.join(settings["folder"], name + ".img"), os.O_RDWR)
        self.bytes = bytearray(os.pread(self.medium, os.fstat(self.medium).st_size, 0))
        self.cache = []

    def flush(self):
        for offset, data in self.cache:
            os.pwrite(self.medium, data, offset)
        self.cache = []

    def lose_power(self, chance):
        versions = {}
        for offset, data in self.cache:
            for at in range(0, len(data), SECTOR):
                versions.setdefault(offset + at, []).append(data[at:at + SECTOR])
        kept = chance.randrange(101)
        for offset, written in sorted(versions.items()):
            if chance.randrange(100) < kept:
                os.pwrite(self.medium, chance.choice(written), offset)


def config(key, value):
    settings[key] = value


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def open(readonly):
    name = nbdkit.export_name()
    if name not in disks:
        disks[name] = Disk(name)
    return disks[name]


def get_size(disk):
    return len(disk.bytes)


def can_write(disk):
    return True


def can_flush(disk):
    return True


def path(name):
    return os.path.join(settings["folder"], name)


def fail_if_off():
    if now["off"]:
        nbdkit.set_error(errno.EIO)
        raise IOError("there is no power")


def power_off(seed):
    chance = random.Random(seed)
    for name in sorted(disks):
        disks[name].lose_power(chance)
    now["off"] = True
    builtins.open(path("off"), "w").close()
    while not os.path.exists(path("dead")):
        time.sleep(0.002)
    fail_if_off()


def is_cut(write):
    if not settings["cut"]:
        return None
    epoch, last, seed = (int(number) for number in settings["cut"].split(","))
    due = now["epoch"] > epoch or (now["epoch"] == epoch and (write is None or write >= last))
    return seed if due else None


def pread(disk, into, offset, flags):
    fail_if_off()
    into[:] = disk.bytes[offset:offset + len(into)]


def pwrite(disk, data, offset, flags):
    fail_if_off()
    data = bytes(data)
    disk.cache.append((offset, data))
    disk.bytes[offset:offset + len(data)] = data
    seed = is_cut(now["write"])
    if seed is not None:
        power_off(seed)
    now["write"] += 1


def flush(disk, flags):
    fail_if_off()
    if not disk.cache:
        return
    seed = is_cut(None)
    if seed is not None:
        power_off(seed)
    disk.flush()
    with builtins.open(path("epochs"), "a") as log:
        log.write("%d\n" % now["write"])
    now["epoch"] += 1
    now["write"] = 0
