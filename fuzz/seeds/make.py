#!/usr/bin/env python3
"""Writes the seeds: small inputs from which a fuzz target reaches what it is there for.

    fuzz/seeds/make.py

Needs zstd and lz4 on PATH. The formats are those that the targets read: crates/*/src/fuzzing*.
"""

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

SEEDS = Path(__file__).parent
ENTRY = 0x100_0000


def write(target, name, data):
    path = SEEDS / target / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def elf(sections):
    """An ELF64 executable: one loaded segment over the whole file at ENTRY, and a note segment if there is one."""
    names, data, headers = b"\0", b"", [(0, 0, 0, 0)]
    first = 64 + 2 * 56
    for name, body in sections:
        headers.append((len(names), 1, first + len(data), len(body)))
        names += name.encode() + b"\0"
        data += body + b"\0" * (-len(body) % 8)
    headers.append((len(names), 3, first + len(data), len(names) + 10))
    names += b".shstrtab\0"
    data += names + b"\0" * (-len(names) % 8)
    note = next((h for h, (n, _) in zip(headers[1:], sections) if n == ".notes"), (0, 0, 0, 0))
    whole = first + len(data)
    out = b"\x7fELF\x02\x01\x01" + bytes(9)
    out += struct.pack("<HHIQQQI", 2, 62, 1, ENTRY, 64, whole, 0)
    out += struct.pack("<HHHHHH", 64, 56, 2, 64, len(headers), len(headers) - 1)
    out += struct.pack("<IIQQQQQQ", 1, 7, 0, ENTRY, ENTRY, whole, whole + 0x1000, 0x1000)
    out += struct.pack("<IIQQQQQQ", 4, 4, note[2], 0, 0, note[3], note[3], 4)
    out += data
    for name, kind, offset, size in headers:
        out += struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)
    return out


def vmlinux():
    config = gzip.compress(b"CONFIG_64BIT=y\n# CONFIG_PSI is not set\nCONFIG_HZ=250\n", mtime=0)
    rodata = b"Linux version %s (%s)\0Linux version 9.9.9-seed (a@b) #1\n\0"
    rodata += b"IKCFG_ST" + config + b"IKCFG_ED"
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", ENTRY)
    return elf([(".notes", note), (".rodata", rodata), (".BTF", b"\x9f\xeb\x01\0types")])


def bzimage(payload):
    image = bytearray(3 * 512)

    def put(at, data):
        image[at : at + len(data)] = data

    put(0x1F1, b"\x01")
    put(0x1FE, b"\x55\xaaXXHdrS" + struct.pack("<H", 0x20F))
    put(0x20E, struct.pack("<H", 0x80))
    put(0x211, b"\x01")
    put(0x214, struct.pack("<I", 0x10_0000))
    put(0x22C, struct.pack("<I", 0x7FFF_FFFF))
    put(0x236, struct.pack("<H", 1))
    put(0x248, struct.pack("<II", 0x200, len(payload)))
    put(0x258, struct.pack("<QI", ENTRY, 0x20_0000))
    put(0x280, b"9.9.9-seed (a@b) #1\0")
    return bytes(image) + payload


def lzop(data):
    """Stored, not compressed: a block as long as what it holds."""
    header = struct.pack(">HHHBBIIIIB", 0x1030, 0x20A0, 0x0940, 3, 9, 0, 0, 0, 0, 0) + bytes(4)
    return b"\x89LZO\x00\r\n\x1a\n" + header + struct.pack(">II", len(data), len(data)) + data + bytes(4)


def piped(command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def images():
    kernel = vmlinux()
    payloads = {
        "gzip": gzip.compress(kernel, mtime=0),
        "bzip2": bz2.compress(kernel),
        "lzma": lzma.compress(kernel, lzma.FORMAT_ALONE),
        "xz": lzma.compress(kernel, lzma.FORMAT_XZ, lzma.CHECK_CRC32),
        "lzo": lzop(kernel),
        "lz4": piped(["lz4", "-l", "-c"], kernel),
        "zstd": piped(["zstd", "-c"], kernel),
    }
    for name, payload in payloads.items():
        write("image", f"payload-{name}", b"\x01" + payload)
    write("image", "bzimage", b"\x00" + bzimage(payloads["gzip"]))
    write("image", "vmlinux", b"\x02" + kernel)
    write("image", "config", b"\x03CONFIG_64BIT=y\nCONFIG_SMP=m\n# CONFIG_PSI is not set\n")
    # 18 MiB of RAM and more, 99 bytes of command line, an initramfs of 5 pages.
    write("boot", "bzimage", bytes([30, 11, 5]) + bzimage(payloads["gzip"]))
    # The same from pages of the file.
    write("boot", "vmlinux-mapped", bytes([0x9E, 11, 5]) + kernel)
    write("boot", "vmlinux", bytes([30, 11, 5]) + kernel)


def ar(members):
    out = b"!<arch>\n"
    for name, data in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out


def tar(form, files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue().rstrip(b"\0") + bytes(1024)


def debs():
    tree = "./usr/lib/modules/9.9.9-seed"
    long = f"{tree}/kernel/{'d/' * 60}a.ko.xz"
    files = [("./boot/vmlinuz-9.9.9-seed", b"MZ"), (f"{tree}/config", b"CONFIG_SMP=y\n"), (long, b"module"), ("./etc/x", b"")]
    data = {"gnu": tar(tarfile.GNU_FORMAT, files), "pax": tar(tarfile.PAX_FORMAT, files)}
    for name, bytes_ in data.items():
        write("deb", f"tree-{name}", b"\1" + bytes_)
    packed = {
        "": data["gnu"],
        ".gz": gzip.compress(data["gnu"], mtime=0),
        ".xz": lzma.compress(data["pax"], lzma.FORMAT_XZ),
        ".zst": piped(["zstd", "-c"], data["gnu"]),
    }
    for architecture in ["amd64", "arm64"]:
        control = f"Package: linux-image\nArchitecture: {architecture}\n".encode()
        control = gzip.compress(tar(tarfile.USTAR_FORMAT, [("./control", control)]), mtime=0)
        for suffix, bytes_ in packed.items():
            if suffix and architecture != "amd64":
                continue
            members = [("debian-binary", b"2.0\n"), ("control.tar.gz", control), (f"data.tar{suffix}", bytes_)]
            write("deb", f"{architecture}{suffix.replace('.', '-')}", b"\0" + ar(members))


def modules():
    modinfo = b"license=GPL\0depends=left,right-one\0name=x\0"
    write("modules", "modinfo", b"\0" + elf([(".modinfo", modinfo)]))
    dep = b"kernel/a.ko: kernel/b.ko.xz kernel/c-d.ko\nkernel/b.ko.xz: kernel/c-d.ko\nkernel/c-d.ko:\n"
    write("modules", "lists", b"\1" + dep + b"\0kernel/x/c-d.ko\n")
    write("modules", "circle", b"\1a.ko: b.ko\nb.ko: c.ko\nc.ko: b.ko\n")


def apt():
    def stanza(name, version, depends):
        return f"Package: {name}\nVersion: {version}\nDepends: {depends}\nSize: 10\nDescription: x\n more\n\n"

    v = "7.3.4-cloud-amd64"
    split = f"kmod, linux-base-{v} (= 1) | x, linux-binary-{v} (= 1), linux-modules-{v} (= 1)"
    packages = stanza("bash", "5", "") + stanza(f"linux-image-{v}", "7.3.4-1~bpo13+1", split)
    packages += stanza(f"linux-binary-unsigned-{v}", "7.3.4-1~bpo13+1", f"linux-base-{v}")
    packages += stanza(f"linux-modules-{v}", "7.3.4-1~bpo13+1", "kmod")
    packages += stanza("linux-image-6.12-amd64", "1:6.12-1", "kmod")
    write("apt", "packages", b"\x007.3\n" + packages.encode())
    write("apt", "release", b"\1Origin: Debian\nSuite: stable-backports\nCodename: trixie-backports\n")
    line = "deb [arch=amd64,arm64 signed-by=/k/a.gpg check-valid-until=no] https://mirror.example/debian trixie main\n"
    write("apt", "list", b"\2# comment\n" + line.encode())
    deb822 = "Types: deb deb-src\nURIs: https://mirror.example/debian\nSuites: trixie\nComponents: main\n"
    deb822 += "Check-Valid-Until: no\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    write("apt", "deb822", b"\3" + deb822.encode())
    error = "E: The repository 'http://mirror.example/debian none Release' does not have a Release file.\n"
    write("apt", "messages", b"\4" + error.encode())


def serial():
    line_out = bytes([0, 0, 5]) + b"hello"
    divisor = bytes([0, 3, 1, 0x80, 0, 0, 1, 12, 0, 3, 1, 3])
    loopback = bytes([0, 4, 1, 0x10, 0, 0, 2]) + b"in" + bytes([3, 0, 2, 0, 4, 1, 0])
    flood = bytes([2, 0, 255, 2, 0x80, 255, 4, 0, 9])
    write("serial", "console", divisor + line_out + bytes([4, 0, 3, 3, 5, 1, 3, 0x87, 4]) + line_out)
    write("serial", "loopback", loopback + line_out)
    write("serial", "flood", flood + line_out + bytes([6, 0, 255]) + line_out)


def virtio_console():
    up = bytes([11])
    offers = bytes([17, 2, 64] * 6)
    announce = bytes([19, 255, 0, 1, 19, 1, 3, 1, 19, 0, 3, 1])
    write("virtio_console", "handshake", up + offers + announce)
    talk = bytes([18, 5, 5]) + b"frame" + bytes([18, 1, 5]) + b"shell" + bytes([15, 4, 9, 15, 0x84, 9])
    answer = bytes([17, 4, 8, 17, 4, 8, 15, 0, 1, 12])
    write("virtio_console", "talk", up + talk + answer)
    loop = bytes([6, 5, 0, 0, 1, 1]) + struct.pack("<II", 0x20_0000, 64)
    loop += bytes([6, 5, 1, 0, 1, 0]) + struct.pack("<II", 0x20_0000, 64)
    ring = bytes([8, 5, 0, 1]) + struct.pack("<H", 9) + bytes([14, 5])
    write("virtio_console", "loop", up + loop + ring)
    bar = bytes([4, 0x41, 0x10, 8]) + struct.pack("<I", 0xFFFF_FFFF)
    ecam = bytes([5, 0x13, 0x3C, 8, 7])
    registers = bytes([0, 0x00, 20, 0, 0, 0, 0x50, 0, 0, 0, 0x22, 0, 0x40, 0, 0x42, 18, 0])
    write("virtio_console", "bus", bar + ecam + registers)


def tables():
    def shape(nodes, llcs_per_node, threads, cores, mib, leaves=b"", memory_only=(), declared=0, more=b""):
        head = bytes([nodes, llcs_per_node, threads, 0]) + struct.pack("<HBB", cores, declared, len(memory_only))
        return head + b"".join(struct.pack("<I", n) for n in (*mib, *memory_only)) + more + leaves

    leaf = struct.pack("<BBIIII", 0x40, 0, 0xD, 0, 0, 0)
    write("tables", "one", shape(1, 1, 1, 1, [128]))
    write("tables", "odd", shape(1, 5, 2, 3, [4096], leaf))
    write("tables", "nodes", shape(3, 3, 2, 7, [2048, 1024, 2048], leaf))
    write("tables", "odd-nodes", shape(3, 1, 1, 3, [1, 2, 3], leaf))
    write("tables", "memory-only", shape(1, 2, 1, 2, [512], leaf, memory_only=[1024]))
    distances = bytes([20, 60, 30])
    performance = struct.pack("<6H", 100, 110, 300, 40000, 50000, 20480)
    numa = {"memory_only": [64], "declared": 13, "more": distances + performance}
    write("tables", "performance", shape(2, 1, 1, 1, [256, 512], leaf, **numa))


def frames():
    cuts = bytes([0, 7, 31, 255])
    sent = bytes([0, 3]) + b"one" + bytes([8, 3]) + b"two" + bytes([40, 0])
    damaged = bytes([4, 3]) + b"bad" + bytes([3, 4]) + b"\x01\x02\x03\x04"
    payload = b"\x02\x03two"
    forged = bytes([6 | 3 << 3, len(payload)]) + struct.pack("<I", 4) + payload
    write("frames", "whole", cuts + sent)
    write("frames", "damaged", cuts + sent + damaged + sent + bytes([5, 2]) + sent)
    write("frames", "forged", cuts + sent + forged)
    head = b"KTS1" + struct.pack("<IIII", 8, 0, 1, zlib.crc32(b"\x07"))
    raw = head + struct.pack("<I", zlib.crc32(head)) + b"\x07"
    write("frames", "raw", cuts + bytes([7, len(raw)]) + raw)


def host_frames():
    cuts = bytes([0, 7, 31, 255])
    sent = bytes([0, 3]) + b"one" + bytes([8, 0]) + bytes([24, 0])
    damaged = bytes([4, 3]) + b"bad" + bytes([3, 4]) + b"\x01\x02\x03\x04"
    answer = b"\x01\x01"
    forged = bytes([6 | 6 << 3, len(answer)]) + struct.pack("<I", 2) + answer
    write("host_frames", "whole", cuts + sent)
    write("host_frames", "damaged", cuts + sent + damaged + sent + bytes([5, 2]) + sent)
    write("host_frames", "forged", cuts + sent + forged)


def verdict():
    """A byte of flags, then two bytes a message: its number, and what is in it."""
    hello, body, result, bye = bytes([0, 0]), bytes([1, 0]), bytes([3, 0b1000]), bytes([7, 0])
    write("verdict", "pass", b"\0" + hello + body + result + bye)
    write("verdict", "no_last_word", b"\0" + hello + body + result + bytes([14, 2]))
    write("verdict", "damaged", b"\0" + hello + bytes([8, 0]) + result + bye)
    write("verdict", "skip", b"\0" + hello + bytes([3, 0b10000]) + bye)
    attached, checks = bytes([4, 0]), bytes([3, 0b1001])
    write("verdict", "scheduler", b"\1" + hello + attached + bytes([5, 0]) + checks + bye)
    stalled = bytes([5, 4]) + bytes([3, 0b1000101])
    write("verdict", "stall", bytes([1 | 1 << 1]) + hello + attached + stalled + bye)
    never = bytes([5, 0xC1]) + bytes([3, 0b11000001])
    write("verdict", "load_failure", bytes([1 | 5 << 1]) + hello + never + bye)


class Btf:
    """The parts of a BTF object (Documentation/bpf/btf.rst), in the making."""

    def __init__(self, first_id=1, first_name=0):
        self.types, self.names = b"", b"\0" if first_name == 0 else b""
        self.next_id, self.first_name = first_id, first_name

    def name(self, name):
        if not name:
            return 0
        at = self.first_name + len(self.names)
        self.names += name.encode() + b"\0"
        return at

    def add(self, name, kind, vlen, word, *tail):
        self.types += struct.pack(f"<{3 + len(tail)}I", self.name(name), kind << 24 | vlen, word, *tail)
        self.next_id += 1
        return self.next_id - 1

    def members(self, *members):
        return [word for name, kind, at in members for word in (self.name(name), kind, at)]

    def bytes(self):
        sizes = (24, 0, len(self.types), len(self.types), len(self.names))
        return struct.pack("<HBB5I", 0xEB9F, 1, 0, *sizes) + self.types + self.names


def btf():
    base = Btf()
    int_ = base.add("int", 1, 0, 4, 1 << 24 | 32)
    long = base.add("unsigned long", 1, 0, 8, 64)
    pointer = base.add("", 2, 0, 0)
    array = base.add("", 3, 0, 0, long, int_, 4)
    union = base.add("", 5, 2, 8, *base.members(("word", long, 0), ("half", int_, 0)))
    bits = base.add("bits", 4, 1 << 31 | 2, 4, *base.members(("low", int_, 3 << 24), ("high", int_, 5 << 24 | 3)))
    base.add("mode", 6, 1 << 31 | 2, 4, base.name("OFF"), 0, base.name("BROKEN"), 0xFFFF_FFFF)
    scx = base.add("scx", 4, 1, 8, *base.members(("slice", long, 0)))
    members = base.members(("", union, 0), ("all", array, 64), ("next", pointer, 320), ("scx", scx, 384), ("bits", bits, 448))
    node = base.add("node", 4, 5, 64, *members)
    base.add("node_t", 8, 0, node)
    variable = base.add("count", 14, 0, int_, 1)
    base.add(".bss", 15, 1, 4, variable, 0, 4)
    split = Btf(base.next_id, len(base.names))
    split.add("of_a_module", 4, 1, 64, *split.members(("base", node, 0)))
    for name, parts in {"base": (base.bytes(), b""), "split": (base.bytes(), split.bytes())}.items():
        write("btf", name, struct.pack("<H", len(parts[0])) + b"".join(parts))


def kallsyms():
    """As scripts/kallsyms.c writes them, without compression beyond single characters."""
    base = 0xFFFF_FFFF_8100_0000
    # More than one marker's worth of them.
    symbols = [(base, "T_text"), (base + 64, "tschedule"), (base + 0x1000, "Djiffies_64")]
    symbols += [(base + 0x2000 + 8 * number, f"b{number}") for number in range(256)]
    out = b"what is before it\0"

    def align(data):
        return data + bytes(-len(data) % 8)

    out = align(align(out) + struct.pack("<I", len(symbols)))
    names, markers = b"", []
    for number, (_, name) in enumerate(symbols):
        markers += [len(names)] if number % 256 == 0 else []
        names += bytes([len(name)]) + name.encode()
    out = align(align(out + names) + struct.pack(f"<{len(markers)}I", *markers))
    starts, tokens = [], b""
    for token in range(256):
        starts.append(len(tokens))
        tokens += (bytes([token]) if 0x21 <= token <= 0x7E else b"a_token_of_many") + b"\0"
    out = align(align(out + tokens) + struct.pack("<256H", *starts))
    out = align(out + struct.pack(f"<{len(symbols)}I", *(address - base for address, _ in symbols)))
    out += struct.pack("<Q", base)
    for number in sorted(range(len(symbols)), key=lambda number: symbols[number][1][1:]):
        out += struct.pack(">I", number)[1:]
    write("kallsyms", "tables", b"\0" + struct.pack("<Q", base + 0x100_0000) + out + b"what is after it")
    text = "".join(f"{address:016x} {name[0]} {name[1:]}\n" for address, name in symbols[:8])
    write("kallsyms", "text", b"\1" + text.encode() + b"ffffffffc0000000 t in_a_module\t[module]\n")


def page_tables():
    def walk(levels, address, *entries):
        return bytes([levels]) + struct.pack(f"<QQ{len(entries)}Q", 0x1000, address, *entries)

    write("page_tables", "small", walk(0, 0xFFFF_8880_1234_5678, 0x2001, 0x3001, 0x4001, 1 << 63 | 0x5001))
    write("page_tables", "huge", walk(0, 0xFFFF_FFFF_8123_4567, 0x2001, 0x3001, 0x40_0081))
    write("page_tables", "five", walk(1, 0xFF3C_5DA6_C012_3456, 0x2001, 0x3001, 0x4000_0081))


def bpf_memory():
    write("xarray", "as-it-is", bytes(64))
    # The first node leads to itself, or to the next.
    write("xarray", "another-node", bytes(8) + b"\x40\x02" + bytes(600))
    write("map_values", "as-it-is", bytes(64))
    write("map_values", "flipped", bytes(range(256)) * 16)


def section_types(types):
    """A section of one variable `a`: a number, text, bits, an enumeration and an array. Its id."""
    signed = 0x80000000
    number = types.add("int", 1, 0, 4, 1 << 24 | 32)
    char = types.add("char", 1, 0, 1, 8)
    text = types.add("", 3, 0, 0, char, number, 4)
    numbers = types.add("", 3, 0, 0, number, number, 2)
    state = types.add("state", 6, 2 | signed, 4, types.name("ON"), 1, types.name("OFF"), 0xFFFFFFFF)
    alias = types.add("alias", 8, 0, state)
    inner = types.add("", 5, 1, 4, types.name("c"), number, 0)
    members = [("b", number, 0), ("t", text, 32), ("bits", number, 3 << 24 | 65), ("s", alias, 96), ("", inner, 128)]
    members.append(("n", numbers, 160))
    tail = [word for name, id, at in members for word in (types.name(name), id, at)]
    outer = types.add("outer", 4, len(members) | signed, 28, *tail)
    var = types.add("a", 14, 0, outer, 1)
    return types.add(".bss", 15, 1, 28, var, 0, 28)


SECTION_VALUE = struct.pack("<i4sIiI2i", -5, b"hi\0\0", 6, -1, 7, 8, 9)


class Memory:
    """A guest's memory as crates/introspect/src/fuzzing/guest.rs has it, and a kernel's variables there."""

    START = 0x3000
    DIRECT_MAP = 0xFFFF_8880_0000_0000
    VMALLOC = 0xFFFF_C900_0000_0000

    def __init__(self, cpus=1, objects_at=0x80):
        self.data, self.next, self.map = bytearray(objects_at), objects_at, self.DIRECT_MAP
        self.put(0x30, struct.pack("<IxxxxQQ", cpus, 0, 64))

    def put(self, at, data):
        self.data[at : at + len(data)] = data

    def object(self, data):
        """Its address."""
        at = self.next
        self.put(at, data)
        self.next = at + len(data) + -len(data) % 8
        self.data += bytes(self.next - len(self.data))
        return self.map + self.START + at

    def bpf_map(self, kind, key, value, entries, rest, id=1, btf=0, value_type=0):
        fields = struct.pack("<8IQ16s", kind, key, value, entries, 0, id, 0, value_type, btf, b"numbers")
        return self.object(fields + bytes(96 - len(fields)) + rest)

    def maps(self, head):
        self.put(8, struct.pack("<Q", head))


def map_memory():
    memory = Memory()
    memory.maps(memory.bpf_map(2, 4, 8, 4, struct.pack("<Ixxxx4Q", 8, 1, 2, 3, 4)))
    write("map_memory", "array", memory.data)

    memory = Memory(cpus=2)
    values = memory.object(bytes(16 + 64))
    memory.maps(memory.bpf_map(6, 4, 8, 2, struct.pack("<IxxxxQQ", 8, values, values + 8)))
    write("map_memory", "percpu-array", memory.data)

    memory = Memory()
    last = memory.object(struct.pack("<QQQQ", 1, 0, 5, 50))
    first = memory.object(struct.pack("<QQQQ", last, 0, 6, 60))
    buckets = memory.object(struct.pack("<QQQQ", first, 0, 3, 0))
    memory.maps(memory.bpf_map(1, 4, 8, 2, struct.pack("<QQ", buckets, 2)))
    write("map_memory", "hash", memory.data)

    types = Btf()
    section = section_types(types)

    def globals(memory):
        data = types.bytes()
        btf = memory.object(struct.pack("<QQQ", memory.object(data), len(data), 0))
        size = len(SECTION_VALUE)
        rest = struct.pack("<Ixxxx", size) + SECTION_VALUE
        memory.maps(memory.bpf_map(2, 4, size, 1, rest, btf=btf, value_type=section))

    memory = Memory()
    globals(memory)
    write("map_memory", "globals", memory.data)
    # The same by way of page tables: the first word is an entry of one, a huge page.
    memory = Memory()
    memory.map = memory.VMALLOC
    memory.put(0, struct.pack("<Q", 0x83))
    globals(memory)
    write("map_memory", "vmalloc", memory.data)


def sched_memory():
    """Words that are exchanged: what, which, with what."""

    def words(*changes):
        return b"".join(struct.pack("<BHH", *change) for change in changes)

    for target in ("tasks", "dispatch_queues", "state_reader"):
        write(target, "as-it-is", b"")
        # Each of the first objects' words leads to another word.
        write(target, "pointers", words(*[(0, word, 1024 + word * 7) for word in range(1024, 1100)]))
        write(target, "numbers", words(*[(2, word, word * 3) for word in range(1024, 1400, 5)]))
        write(target, "bits", words(*[(3 + 4 * (word % 7), word, 0x8001) for word in range(1024, 1400, 3)]))


def io_apic():
    def entry(pin, value):
        return struct.pack("<BBQ", 3, pin, value)

    # As a kernel sets them up: all masked, then COM1 to the CPU with id 0x234, and its line let through.
    masked = b"".join(entry(pin, 1 << 16) for pin in range(24))
    open_line = entry(4, 0x34 << 56 | 0x02 << 49 | 0x31)
    write("io_apic", "a-line", masked + open_line + b"\x07\0" + entry(4, 1 << 16) + b"\x07\0")
    # The identity, a read-only bit, a register that is not there, accesses of a width that no register has.
    odd = struct.pack("<BBI", 0, 0, 0xFFFFFFFF) + struct.pack("<BBI", 0, 0x10, 0x5031)
    odd += struct.pack("<BBI", 4, 0xEE, 7) + b"\x15\x10ab" + b"\x26\x10" + b"\x06\x00"
    write("io_apic", "odd-accesses", odd)


def disk():
    def request(kind, length, sector, writable=1):
        return struct.pack("<BBBBH", 4, kind, length, writable, sector)

    def descriptor(index, flags, following, address, length):
        return struct.pack("<BBBBBII", 1, index, flags, following, 0, address, length)

    write("disk", "requests", request(1, 4, 7) + request(0, 4, 7, 0) + request(8, 0, 0, 0) + request(4, 0, 0))
    chain = descriptor(0, 1, 1, 0x3000, 16) + descriptor(1, 3, 2, 0x4000, 512) + descriptor(2, 2, 0, 0x3010, 1)
    write("disk", "a-chain", chain + bytes([5, 0, 7]))
    write("disk", "a-circle", descriptor(0, 1, 1, 0x3000, 16) + descriptor(1, 1, 0, 0x4000, 512) + bytes([5, 0, 7]))


def qmp():
    greeting = b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}\r\n'
    done = b'{"return": {}, "id": 0}\r\n'
    refused = b'{"id": 2, "error": {"class": "GenericError", "desc": "no such thing"}}\r\n'
    shutdown = b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}\r\n'
    session = greeting + done + refused + shutdown
    write("qmp", "session", b"\x40\x07\xff\x00" + session)
    write("qmp", "no-qmp", b"\x01\x01\x01\x01" + greeting + b"\r\n[1]\n{}\n")


def info_registers():
    long_mode = "\r\nCPU#0\r\n" + " ".join(f"{n}={i:016x}" for i, n in enumerate(
        ["RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"]))
    long_mode += "\r\nRIP=ffffffff81e9a3ab RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\nCR3=0000000004c38000\r\n"
    real_mode = "CPU#1\r\nEAX=00000000 EBX=00000001 ECX=00000000 EDX=00060fb1\r\nESI=00000000 EDI=00000000 EBP=00000000 ESP=00000007\r\n"
    real_mode += "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\nCR3=00000000\r\n"
    # No registers to write, then the number of vCPUs and the text.
    write("info_registers", "two-cpus", b"\0\x02" + (long_mode + real_mode).encode())
    write("info_registers", "any-registers", bytes(range(1, 200)) * 3)


if __name__ == "__main__":
    io_apic()
    disk()
    qmp()
    info_registers()
    images()
    debs()
    modules()
    apt()
    serial()
    virtio_console()
    tables()
    frames()
    host_frames()
    verdict()
    btf()
    kallsyms()
    page_tables()
    bpf_memory()
    map_memory()
    sched_memory()
