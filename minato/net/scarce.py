"""Errors that this machine alone is to blame for: no descriptors, memory or ports left. They say nothing of a peer."""

from __future__ import annotations

import errno
from typing import Final

OUT_OF_DESCRIPTORS: Final = frozenset([errno.EMFILE, errno.ENFILE])
OUT_OF_RESOURCES: Final = OUT_OF_DESCRIPTORS | {errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EADDRNOTAVAIL}
"""ENOSPC is that of epoll_ctl, EADDRNOTAVAIL that of a connect for which there is no port left."""
