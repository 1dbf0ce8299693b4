# Writes records into a mount in many ways and acknowledges each outside of it. Ends when the mount dies.
# writer.py DIRECTORY ACKNOWLEDGEMENTS KIND...
import mmap, os, sys, threading

directory, acknowledgements, kinds = sys.argv[1], sys.argv[2], sys.argv[3:]


def content(kind, number):
    repeated = 30_000 if number % 16 == 15 else 1 + number * 37 % 400
    return (f"{kind}:{number:08}|" * repeated).encode()


def save(path, data, sync):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, data)
    if sync:
        os.fsync(fd)
    os.close(fd)


def sync_directory():
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def append(at, number):
    fd = os.open(at("append"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        os.write(fd, (b"append:%08d|" % number * 4)[:64])
        os.fdatasync(fd)
        number += 1
        yield


def create(at, number):
    while True:
        save(at(f"create{number}"), content("create", number), True)
        number += 1
        yield


def close(at, number):
    while True:
        save(at(f"close{number}"), content("close", number), False)
        number += 1
        yield


def replace(at, number):
    while True:
        save(at("replace.new"), content("replace", number), False)
        os.rename(at("replace.new"), at("replace"))
        number += 1
        yield


def replacesync(at, number):
    while True:
        save(at("replacesync.new"), content("replacesync", number), True)
        os.rename(at("replacesync.new"), at("replacesync"))
        sync_directory()
        number += 1
        yield


def names(at, number):
    while True:
        os.mkdir(at(f"names{number}.new"))
        os.symlink(f"to{number}", at(f"names{number}.new/link"))
        os.rename(at(f"names{number}.new"), at(f"names{number}"))
        number += 1
        yield


def block(at, number):
    fd = os.open(at("block"), os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        os.pwrite(fd, (b"block:%08d|" % number * 300)[:4096], number % 8 * 4096)
        os.fsync(fd)
        number += 1
        yield


def mapped(at, number):
    fd = os.open(at("mapped"), os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, 4096)
    memory = mmap.mmap(fd, 4096)
    while True:
        memory[:] = (b"mapped:%08d|" % number * 300)[:4096]
        memory.flush()
        number += 1
        yield


def work(kind):
    acknowledged = os.open(os.path.join(acknowledgements, kind), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for _ in globals()[kind](lambda name: os.path.join(directory, name), 0):
            os.write(acknowledged, b".")
    except OSError:
        pass


threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
