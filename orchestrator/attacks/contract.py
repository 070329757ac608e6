"""Attacks on the contract: the channel to the worker, the broker's socket, the token.

Without them the one way out of a sandbox would be the one thing that was not attacked.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group, Judge, Position
from orchestrator.attacks.barriers import ABSENT, LANDLOCK, REPL_FILTER, barrier
from orchestrator.attacks.judges import contained, refused, survived
from orchestrator.attacks.walls import Wall

_WORKER = barrier(Wall.WORKER)
_BROKER = barrier(Wall.BROKER)
_CHANNEL = """
descriptors = [int(name) for name in os.listdir("/proc/self/fd")
               if "socket:" in os.path.realpath(f"/proc/self/fd/{name}")]
descriptor = os.dup(descriptors[0])
os.set_blocking(descriptor, True)
"""


def _attack(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    threat: str,
    barriers: tuple[Barrier, ...],
    judge: Judge,
) -> Attack:
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.CONTRACT,
        threat=threat,
        barriers=barriers,
        source=source,
        judge=judge,
        positions=(Position.CELL,),
        is_apart=judge is refused,
        is_destructive=judge is not refused,
        timeout_s=10.0 if judge is refused else 2.0,
    )


CONTRACT_ATTACKS: Final = (
    _attack(
        "second-dial",
        "speak to the broker past the worker, without a token, with a wrong one",
        """
def dial():
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(2)
        line.connect("/run/rlm/broker.sock")
answer = attempt(dial)
if answer != "done":
    return {"connect": answer}
import grpc
def attach(token):
    channel = grpc.insecure_channel(
        "unix:/run/rlm/broker.sock", options=[("grpc.use_local_subchannel_pool", 1)])
    call = channel.stream_stream("/rlm_sandbox.v1.SandboxBroker/Attach")
    try:
        list(call(iter([b""]), metadata=[("rlm-session-token", token)], timeout=5))
    except grpc.RpcError as error:
        return error.code().name
    return "done"
return {"no token": attach(""), "a guess": attach("0" * 64)}
""",
        threat="broker-door",
        barriers=(
            REPL_FILTER,
            LANDLOCK,
            barrier(Wall.BROKER, "UNAUTHENTICATED", "FAILED_PRECONDITION"),
        ),
        judge=refused,
    ),
    _attack(
        "used-token",
        "use the token again",
        """
return {"token": opened("/run/rlm/token"), "directory": attempt(os.listdir, "/run/rlm")
        if "token" in (os.listdir("/run/rlm") if attempt(os.listdir, "/run/rlm") == "done" else [])
        else "none"}
""",
        threat="broker-door",
        barriers=(barrier(Wall.BROKER, "ENOENT", "none"), LANDLOCK, ABSENT),
        judge=refused,
    ),
    _attack(
        "noise-on-the-brokers-socket",
        "send the broker what is no message, on many connections",
        """
held = globals().setdefault("lines", [])
for number in range(40):
    line = socket.socket(socket.AF_UNIX)
    line.connect("/run/rlm/broker.sock")
    attempt(line.sendall, os.urandom(2**16))
    held.append(line)
return {"sent": "done"}
""",
        threat="broker-door",
        barriers=(barrier(Wall.REPL_SYSTEM_CALLS), _BROKER),
        judge=contained,
    ),
    _attack(
        "noise-on-the-channel",
        "send the worker what is no message of the platform",
        _CHANNEL + "os.write(descriptor, bytes([255]) * 100)\ntime.sleep(60)\n",
        threat="forged-frames",
        barriers=(_WORKER,),
        judge=survived,
    ),
    _attack(
        "forged-command",
        "give the platform's own process an order it may not get from a cell",
        _CHANNEL
        + """
data = json.dumps({"cell_id": 99, "source": "print(1)"}).encode()
os.write(descriptor, struct.pack(">IB", len(data), 5) + data)
time.sleep(60)
""",
        threat="forged-frames",
        barriers=(_WORKER,),
        judge=survived,
    ),
    _attack(
        "half-a-frame",
        "begin a message and never end it",
        _CHANNEL + 'os.write(descriptor, struct.pack(">IB", 1000, 16) + b"{")\ntime.sleep(60)\n',
        threat="forged-frames",
        barriers=(_WORKER,),
        judge=survived,
    ),
    _attack(
        "closed-channel",
        "close the channel, so that nobody can speak to the process any more",
        _CHANNEL
        + """
for number in (*descriptors, descriptor):
    attempt(os.close, number)
while True:
    time.sleep(1)
""",
        threat="forged-frames",
        barriers=(_WORKER,),
        judge=survived,
    ),
    _attack(
        "queries-without-end",
        "ask for answers and never read one",
        _CHANNEL
        + """
asker = llm_query.__self__
cell_id = getattr(asker, "cell_id", getattr(asker, "_cell_id", None))
data = json.dumps({"query_id": "a", "cell_id": cell_id, "prompts": ["a" * 10**5]}).encode()
while True:
    os.write(descriptor, struct.pack(">IB", len(data), 17) + data)
""",
        threat="forged-frames",
        barriers=(_WORKER, _BROKER),
        judge=contained,
    ),
    _attack(
        "large-query",
        "ask a question of a hundred megabytes",
        """
llm_query("a" * 10**8)
return {"asked": "done"}
""",
        threat="reference-holes",
        barriers=(_WORKER, _BROKER),
        judge=survived,
    ),
)
