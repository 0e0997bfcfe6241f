"""Every deliberate error: what was found, what was expected, what to do. A leaf: imports nothing of ours, no torch."""


class TunesmithError(Exception):
    """A condition a person can act on. Shown as one short message, never as a traceback.

    `found` says what is wrong and names it (file, line, knob, value), `expected` what would have been right,
    `do` the next action. `exit_code` is the process's exit status when this reaches the command line.
    """

    exit_code = 2

    def __init__(self, found: str, *, expected: str = "", do: str = "") -> None:
        self.found = found
        self.expected = expected
        self.do = do
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole message on one line."""
        parts = [self.found, f"expected {self.expected}" if self.expected else "", self.do]
        sentences = [part if part.endswith("?") else f"{part.rstrip('.')}." for part in parts if part]
        return " ".join((*sentences[:1], *(sentence[:1].upper() + sentence[1:] for sentence in sentences[1:])))


class RecipeError(TunesmithError):
    """An unknown knob, a value out of range, a contradiction between knobs, unreadable YAML."""


class DataError(TunesmithError):
    """A folder, picture, sound, chart or caption that cannot be used as it is."""


class WeightsError(TunesmithError):
    """A base, checkpoint or tensor file that is missing, damaged, hostile or of another architecture."""


class AdapterError(TunesmithError):
    """An adapter that does not fit: keys left over, ranks that disagree, a layer that was not found."""


class PlanRefused(TunesmithError):
    """What was asked for cannot work here; `do` names the change that makes it work."""


class DeviceError(TunesmithError):
    """The device is missing, or ran out of memory."""


class NonFinite(TunesmithError):
    """A NaN or Inf appeared; names the item and the tensor."""

    exit_code = 3


class JobError(TunesmithError):
    """A job folder that cannot be used: damaged, changed recipe, no valid state."""


class JobBusy(JobError):
    """Another process holds the job folder's lock, or a newer attempt owns it."""

    exit_code = 4


class DiskFull(TunesmithError):
    """Not enough room; nothing half-written is left behind."""

    exit_code = 5


class CatalogError(TunesmithError):
    """A checkpoint or concept that is missing, in use, or already there."""


class ExchangeError(TunesmithError):
    """An export that could not be proven to load back, or a file no layout explains."""


class Stopped(TunesmithError):
    """The user asked to stop (Ctrl-C, a signal or a control request); state is saved before this is raised."""

    exit_code = 130
