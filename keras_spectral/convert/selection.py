"""Which keys of a source are meant: under a prefix, but for some, without wrappers."""

import fnmatch

from keras_spectral.convert import dialects, spectral_state
from keras_spectral.convert.accounting import grouped
from keras_spectral.convert.files.errors import CheckpointError

# What training code calls the module that it holds a network in. A network may have
# such a name of its own: they are taken off only where the keys then fit better.
_HOLDERS = ("module.", "model.", "net.", "backbone.")


class Selection:
    """The keys that a user asks for.

    Args:
        prefix: String, of the keys to take, `None` for all.
        ignore: List of shell patterns of keys to leave out.

    Raises:
        ValueError: On arguments of another type.
    """

    def __init__(self, prefix=None, ignore=()):
        if prefix is not None and not isinstance(prefix, str):
            raise ValueError(
                "`prefix` must be a string, such as 'encoder.'. "
                f"Received: prefix={prefix!r}"
            )
        listed = isinstance(ignore, (list, tuple))
        if not listed or not all(isinstance(pattern, str) for pattern in ignore):
            raise ValueError(
                "`ignore` must be a list of patterns, such as ['head.*']. "
                f"Received: ignore={ignore!r}"
            )
        self._prefix = f"{prefix.removesuffix('.')}." if prefix else ""
        self._ignore = tuple(ignore)
        self._unmatched = set(ignore)
        # What was taken off the keys of the file, all in all.
        self._taken = ""

    def of(self, state):
        """Return the chosen tensors of a `StateDict`.

        Raises:
            CheckpointError: If no key begins with the prefix.
        """
        prefix = self._prefix.removeprefix(state.prefix)
        ignored = {}
        for pattern in self._ignore:
            # As they stand in the file; if there is none, without what holds them.
            found = [key for key in state if fnmatch.fnmatchcase(key, pattern)] or [
                key
                for key in state
                for name in (state.prefix + key, *_bare(key, prefix))
                if fnmatch.fnmatchcase(name, pattern)
            ]
            if found:
                self._unmatched.discard(pattern)
                ignored |= dict.fromkeys(found)
        names = {
            key[len(prefix) :]: key
            for key in state
            if key.startswith(prefix) and key not in ignored
        }
        if prefix and not names:
            parts = sorted({key.partition(".")[0] for key in state})
            raise CheckpointError(
                f"{state.origin} has no keys under `prefix` to load. Received: "
                f"prefix={self._prefix!r}. Its keys begin with: {', '.join(parts)}."
            )
        taken = {*names.values(), *ignored}
        others = [key for key in state if key not in taken]
        self._taken = state.prefix + prefix
        notes = {"ignored": ignored, f"not under `{prefix}`, left out": others}
        return state.selected(
            names, [f"{what}: {grouped(keys)}" for what, keys in notes.items() if keys]
        )

    def fitted(self, state, targets, dialect=None):
        """Take off, or put back, what holds the network, if its keys then fit better.

        Args:
            state: `StateDict`.
            targets: Set of the model's keys.
            dialect: `dialects.Dialect`, or `None` for any.
        """
        known = dialects.DIALECTS if dialect is None else (dialect,)
        # What was done -> the new names; the first of equally good ones is taken.
        spellings = {("", ""): {key: key for key in state}}
        first, taken = next(iter(state), ""), ""
        for name in _bare(first):
            taken = first[: len(first) - len(name)]
            if not all(key.startswith(taken) for key in state):
                break
            names = {key[len(taken) :]: key for key in state}
            spellings["taken off", taken] = names
        count = 0 if self._prefix else state.prefix.count(".")
        for back in ("module." * (n + 1) for n in range(count)):
            spellings["put back before", back] = {back + key: key for key in state}
        if len(spellings) == 1:
            return state
        best = max(spellings, key=lambda done: _fit(spellings[done], targets, known))
        done, prefix = best
        if not done:
            return state
        if done == "taken off":
            self._taken += prefix
        else:
            self._taken = self._taken.removesuffix(prefix)
        note = f"the prefix `{prefix}` was {done} every key, so that they fit the model"
        return state.selected(spellings[best], [note])

    def kept(self, missing, dialect):
        """Return the model's keys that are left as they are, on purpose.

        Args:
            missing: Set of the model's keys that the source does not have.
            dialect: `dialects.Dialect` of the source.

        Raises:
            ValueError: If a pattern matches no key, neither of the source's nor one of
                these.
        """
        kept = []
        for key in sorted(missing):
            names = {key, dialects.to_theirs(key, dialect)}
            names |= {self._taken + name for name in names}
            matching = [
                pattern
                for pattern in self._ignore
                if any(fnmatch.fnmatchcase(name, pattern) for name in names)
            ]
            if matching:
                kept.append(key)
                self._unmatched.difference_update(matching)
        if self._unmatched:
            raise ValueError(
                "`ignore` must hold patterns of keys of the checkpoint or the model. "
                f"Received: {', '.join(map(repr, sorted(self._unmatched)))}, which "
                "match none. `keras-spectral inspect` lists the checkpoint's."
            )
        return kept


def _bare(key, prefix=""):
    """Yield a key without a prefix, and without one name after another of holders."""
    if prefix and key.startswith(prefix):
        key = key[len(prefix) :]
        yield key
    while True:
        holder = next((name for name in _HOLDERS if key.startswith(name)), None)
        if holder is None:
            return
        key = key[len(holder) :]
        yield key


def _fit(keys, targets, known):
    """Return how many of a model's keys are among some, in the best dialect."""
    try:
        plain, _ = spectral_state.parse(keys)
    except CheckpointError:
        return 0
    return max(
        len({dialects.to_ours(key, dialect) for key in plain} & targets)
        for dialect in known
    )
