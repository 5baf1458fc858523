"""What this machine lacks to build images, and the steps that mend it.

``look`` reads the machine, ``findings`` and ``plan`` decide without touching it, ``fix`` acts. A
step is a value, so what ``fix`` runs, what a dry run prints and what a person without root is told
to paste are the same words.

Whose engine it is decides what may be touched. An engine that answers is used as it is. One that
has to be started gets its settings from ``CONFIG``, a file of our own; ``/etc/docker/daemon.json``
is read, never written. The service manager's unit is extended only where the engine is ours, which
is what ``DROP_IN`` marks: it is written before the package is installed, so the engine's first
start already is the right one.
"""

from imagegen.doctor.acting import fix
from imagegen.doctor.judging import findings
from imagegen.doctor.looking import examine, look
from imagegen.doctor.planning import plan
from imagegen.doctor.steps import Command, Daemon, Install, Step, Write, commands
from imagegen.doctor.values import (
    CONFIG,
    DATA,
    DROP_IN,
    MIN_BUILDX,
    MIN_CLIENT,
    MIN_COMPOSE,
    MIN_DISK,
    MIN_ENGINE,
    MIN_MEMORY,
    OTHERS_CONFIG,
    PIN,
    SOURCE,
    Engine,
    Facts,
    Finding,
    Fixed,
    version,
)

__all__ = [
    "CONFIG",
    "DATA",
    "DROP_IN",
    "MIN_BUILDX",
    "MIN_CLIENT",
    "MIN_COMPOSE",
    "MIN_DISK",
    "MIN_ENGINE",
    "MIN_MEMORY",
    "OTHERS_CONFIG",
    "PIN",
    "SOURCE",
    "Command",
    "Daemon",
    "Engine",
    "Facts",
    "Finding",
    "Fixed",
    "Install",
    "Step",
    "Write",
    "commands",
    "examine",
    "findings",
    "fix",
    "look",
    "plan",
    "version",
]
