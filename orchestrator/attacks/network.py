"""Attacks that look for a way out over a network.

Without them "no network" would be believed because a setting says so.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group
from orchestrator.attacks.barriers import (
    ABSENT,
    FILTERED,
    LANDLOCK,
    NETWORK,
    PRIVILEGED,
    barrier,
)
from orchestrator.attacks.judges import refused
from orchestrator.attacks.walls import Wall

_THREAT = "network"
_OUTWARD = (*FILTERED, NETWORK)


def _attack(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    barriers: tuple[Barrier, ...] = _OUTWARD,
    known_as: str = "",
    is_on_the_kernel: bool = False,
) -> Attack:
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.NETWORK,
        threat=_THREAT,
        barriers=barriers,
        source=source,
        judge=refused,
        known_as=known_as,
        is_on_the_kernel=is_on_the_kernel,
    )


NETWORK_ATTACKS: Final = (
    _attack(
        "tcp-to-the-host",
        "connect to a listener on every address of the host",
        """
def dial(address):
    socket.create_connection((address, SCENE["tcp_port"]), 2).close()
return {address: attempt(dial, address) for address in SCENE["addresses"]}
""",
    ),
    _attack(
        "udp-to-the-host",
        "send a datagram to every address of the host",
        """
def send(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.sendto(b"leak", (address, SCENE["udp_port"]))
return {address: attempt(send, address) for address in SCENE["addresses"]
        if not address.startswith("127.")} or {"datagram": "not here: no address but loopback"}
""",
    ),
    _attack(
        "dns",
        "ask a name server, the classic way to carry data out",
        # 192.0.2.0/24 is for documentation (RFC 5737): no packet to it arrives anywhere.
        """
question = bytes.fromhex("1234010000010000000000000465786d7003636f6d0000010001")
def ask():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.sendto(question, ("192.0.2.53", 53))
return {"192.0.2.53": attempt(ask)}
""",
    ),
    _attack(
        "cloud-metadata",
        "read the credentials that clouds hand out on a link-local address",
        """
def dial():
    socket.create_connection(("169.254.169.254", 80), 2).close()
return {"169.254.169.254": attempt(dial)}
""",
    ),
    _attack(
        "ipv6",
        "leave by the other protocol, which rules are often forgotten for",
        # 2001:db8::/32 is for documentation (RFC 3849).
        """
def send():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as line:
        line.sendto(b"leak", ("2001:db8::53", 53))
return {"2001:db8::53": attempt(send)}
""",
    ),
    _attack(
        "packet-socket",
        "read and forge packets below the protocols",
        """
def open_one(kind):
    socket.socket(socket.AF_PACKET, kind).close()
return {"raw": attempt(open_one, socket.SOCK_RAW), "cooked": attempt(open_one, socket.SOCK_DGRAM)}
""",
        barriers=PRIVILEGED,
        known_as="CVE-2017-7308; SandboxEscapeBench: packet socket",
        is_on_the_kernel=True,
    ),
    _attack(
        "raw-ip",
        "forge packets of any protocol",
        """
def open_one(number):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, number).close()
return {"ICMP": attempt(open_one, 1), "any": attempt(open_one, 255)}
""",
        barriers=PRIVILEGED,
    ),
    _attack(
        "vsock",
        "reach a hypervisor, which no network namespace divides",
        """
def dial(context):
    with socket.socket(40, socket.SOCK_STREAM) as line:
        line.settimeout(2)
        line.connect((context, 1024))
return {"host": attempt(dial, 2), "hypervisor": attempt(dial, 0)}
""",
        barriers=(*FILTERED, barrier(Wall.KERNEL, "ENODEV")),
        known_as="isolate 2.5",
    ),
    _attack(
        "netlink",
        "reach the kernel's packet filter, its IPsec and its audit trail",
        """
FAMILIES = {"netfilter": 12, "xfrm": 6, "audit": 9, "crypto": 21, "connector": 11}
def open_one(number):
    socket.socket(16, socket.SOCK_RAW, number).close()
return {name: attempt(open_one, number) for name, number in FAMILIES.items()}
""",
        barriers=PRIVILEGED,
        is_on_the_kernel=True,
    ),
    _attack(
        "other-families",
        "open a socket of a family that hardly anybody maintains",
        # Unix, both IPs, netlink and packets have attacks of their own.
        """
def open_one(family, kind):
    socket.socket(family, kind).close()
answers = {}
for family in range(2, 46):
    if family in (2, 10, 16, 17):
        continue
    kinds = [attempt(open_one, family, kind) for kind in (1, 2, 3, 5)]
    answers[f"family {family}"] = "done" if "done" in kinds else kinds[0]
return answers
""",
        barriers=(*PRIVILEGED, barrier(Wall.KERNEL, "EINVAL", "ESOCKTNOSUPPORT")),
        is_on_the_kernel=True,
    ),
    _attack(
        "kernel-crypto",
        "use the kernel's own cryptography, a rich source of its flaws",
        """
def open_one():
    with socket.socket(38, socket.SOCK_SEQPACKET) as line:
        line.bind(("hash", "sha256"))
return {"AF_ALG": attempt(open_one)}
""",
        barriers=(*FILTERED, barrier(Wall.KERNEL, "ENOENT")),
        is_on_the_kernel=True,
    ),
    _attack(
        "abstract-socket-of-the-host",
        "dial a Unix socket that lies in no file system",
        """
def dial():
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(chr(0) + SCENE["abstract_name"])
return {"abstract name": attempt(dial)}
""",
        barriers=(*_OUTWARD, LANDLOCK),
        known_as="CVE-2020-15257",
    ),
    _attack(
        "socket-of-an-engine",
        "dial a container engine, which does what it is told as root",
        """
PATHS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
         "/run/podman/podman.sock", "/run/crio/crio.sock", "/run/systemd/private",
         "/run/dbus/system_bus_socket", "/var/lib/kubelet/kubelet.sock")
def dial(path):
    os.stat(path)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
return {path: attempt(dial, path) for path in PATHS}
""",
        barriers=(ABSENT, *FILTERED, LANDLOCK),
        known_as="SandboxEscapeBench: docker socket mounted",
    ),
    _attack(
        "devices-up",
        "find a network device that leads anywhere",
        """
def is_up(name):
    try:
        with open(f"/sys/class/net/{name}/flags") as file:
            return int(file.read(), 16) & 1
    except OSError:
        return True  # not readable is not down
names = os.listdir("/sys/class/net") if os.path.isdir("/sys/class/net") else []
up = [name for name in names if name != "lo" and is_up(name)]
with open("/proc/net/route") as file:
    routes = len(file.read().splitlines()) - 1
return {"devices": " ".join(up) or "none", "routes": str(routes) if routes > 0 else "none"}
""",
        barriers=(NETWORK,),
    ),
    _attack(
        "make-a-device",
        "make a network device, or change the one there is",
        # SIOCSIFADDR and SIOCSIFFLAGS, and RTM_NEWLINK, all of things that are not there: whoever
        # may do it is told so (ENODEV, EOPNOTSUPP), and nothing is changed where a wall is missing.
        """
import fcntl
def change(request):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton("10.9.8.7"))
        fcntl.ioctl(line, request, struct.pack("=16s16s", b"rlm-none", address))
def make():
    with socket.socket(16, socket.SOCK_RAW, 0) as line:
        kind = struct.pack("=HH8s", 12, 1, b"rlm-none")
        info = struct.pack("=HH", 4 + len(kind), 18) + kind
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + info
        line.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
        answer = line.recv(4096)
        number = -struct.unpack("=i", answer[16:20])[0]
        if number:
            raise OSError(number, os.strerror(number))
return {"address": attempt(change, 0x8916), "flags": attempt(change, 0x8914),
        "new device": attempt(make)}
""",
        barriers=PRIVILEGED,
        is_on_the_kernel=True,
    ),
)
