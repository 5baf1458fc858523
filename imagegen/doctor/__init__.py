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
