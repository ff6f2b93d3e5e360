"""Which arguments of jobs are masked: by Rails' names, those in jq.toml, and those of the Rails application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solidjq_cli import session, view

if TYPE_CHECKING:
    from solidjq.rails.masking import Mask


def mask() -> Mask | None:
    """Return the mask of the command that runs; None with ``--show-arguments``.

    Raises UsageError for a settings file that cannot be read.
    """
    return None if view.current().show_arguments else whole_mask()


def whole_mask() -> Mask:
    """Return the mask of the command that runs, for what is recorded, whatever is shown."""
    from solidjq.rails.masking import application_names, with_own  # noqa: PLC0415
    from solidjq.settings.masks import masked_names  # noqa: PLC0415

    current = session.current()
    if current not in _masks:
        rails = current.connecting.rails
        names = masked_names(current.settings)
        _masks.clear()  # a program has one session; those of tests do not pile up
        _masks[current] = with_own(
            names if rails is None else (*names, *application_names(rails, current.connecting.environment))
        )
    return _masks[current]


_masks: dict[session.Session, Mask] = {}
