"""Kinds that live elsewhere in the package and register themselves there: a look-up has to import them."""

import mtl_tickets.tasks.playground  # noqa: F401
