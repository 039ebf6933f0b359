"""The exceptions Tamiyo raises, by whose fault it is.

TamiyoError
├── HostError                 what was handed to us cannot be used
│   ├── PacketRejected        undecodable or over a limit; not journaled, counted
│   ├── ServiceClosed         a call after close()
│   ├── SettingsInvalid       a setting or environment variable is out of range
│   ├── SecretMissing         no signing secret; the message says how to make one
│   ├── RequestRejected       what an operator asks for cannot be used
│   ├── DeliveryRejected      what is said of a command cannot be used
│   ├── CheckpointRejected    a policy checkpoint does not fit
│   ├── RegistryConflict      a registry that is handed over numbers a name otherwise
│   ├── PolicyUnchanged       there is no policy to go back to
│   ├── ArchiveUnusable       the archive folder cannot take what a retention run is to keep there
│   ├── HeadNotKept           a head that a retention run is to keep provable is not one of this log
│   └── RetentionBusy         a retention run of this log is at work already
├── JournalError              the stored history cannot be used
│   ├── NotRecorded           the log takes no record at the moment; nothing was changed
│   ├── JournalUnreadable     a record does not parse, or was written by a newer version
│   │   └── RecordRedacted    its payload was taken out by a retention run
│   ├── RetentionUnproven     what would be left does not come to the same state; nothing more is taken away
│   └── ProjectionUnusable    the SQLite projection cannot be opened or migrated
└── InvariantViolation        our own fault: a rule of the core was broken; the service stops

Integrations, exports and the demo add their own under HostError (`LibraryUnusable`, `ExtrasRejected`,
`SeedStateRejected`, `RunCheckpointRejected`, `NothingToLearn`, `ExportUnavailable`, `DemoUnavailable`), beside what
raises them.

Faults of disk, library, network and broker during a step are none of these: they are values that
`decide` reads, and their answer is a command. The log's own errors are under `wal.LogError`.
"""


class TamiyoError(Exception):
    """Anything raised by Tamiyo on purpose."""


class HostError(TamiyoError):
    """What was handed to Tamiyo cannot be used; the host can change that."""


class PacketRejected(HostError, ValueError):
    """A packet is undecodable or over a limit. It is counted, not journaled, and gets no command."""


class ServiceClosed(HostError, RuntimeError):
    """A call after `close()`. Open the directory again to go on from its log."""


class SettingsInvalid(HostError, ValueError):
    """A setting is out of range or does not parse; the message names it and its bounds."""


class SecretMissing(HostError, RuntimeError):
    """There is no signing secret. The message says how to make one."""


class RequestRejected(HostError, ValueError):
    """What an operator asks for cannot be used: an unknown directive, no text, no request at all."""


class DeliveryRejected(HostError, ValueError):
    """What is said of a command cannot be used: no command id, an outcome that is no word."""


class CheckpointRejected(HostError, ValueError):
    """A policy checkpoint cannot be loaded here: damaged, of another architecture, shape or registry.

    `reason` is "invalid_payload", "version_mismatch", "shape_mismatch", "registry_mismatch" or "checkpoint_missing".
    """

    def __init__(self, message: str, reason: str = "invalid_payload") -> None:
        super().__init__(message)
        self.reason = reason


class RegistryConflict(HostError, ValueError):
    """A registry that is handed over numbers a name otherwise than the live one; the message names the first."""


class PolicyUnchanged(HostError, RuntimeError):
    """There is no policy to go back to, or none to go back from. Nothing was changed."""


class ArchiveUnusable(HostError, RuntimeError):
    """The archive folder cannot take what a retention run is to keep there. Nothing was taken away."""


class HeadNotKept(HostError, ValueError):
    """A head that a retention run is to keep provable is not one of this log. Nothing was changed."""


class RetentionBusy(HostError, RuntimeError):
    """A retention run of this log is at work already; one at a time."""


class JournalError(TamiyoError):
    """The stored history cannot be used as it is."""


class NotRecorded(JournalError):
    """The log takes no record at the moment. Nothing was changed: try again once it is back."""


class JournalUnreadable(JournalError):
    """A record does not parse, or its kind is of a newer version of Tamiyo. Nothing was changed."""


class RecordRedacted(JournalUnreadable):
    """A record's payload was taken out by a retention run: what follows from it cannot be said any more.

    `lsn` is its place.
    """

    def __init__(self, lsn: int, name: str) -> None:
        super().__init__(
            f"the payload of LSN {lsn}, a {name}, was taken out by a retention run: begin with a StateBase that stands "
            "after it"
        )
        self.lsn, self._name = lsn, name

    def __reduce__(self) -> tuple[object, ...]:
        """Come back from another process as it was."""
        return type(self), (self.lsn, self._name)


class RetentionUnproven(JournalError):
    """What would be left of the log does not come to the state that there is. Nothing more is taken away."""


class ProjectionUnusable(JournalError):
    """The SQLite projection cannot be opened or migrated. It is disposable: move it away and open again."""


class InvariantViolation(TamiyoError, AssertionError):
    """A rule of the core was broken. The service stops rather than act on a state it cannot explain."""
