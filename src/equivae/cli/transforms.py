"""`equivae transforms`: the list of transforms."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

import equivae
from equivae.cli.showing import console
from equivae.transforms.table import transform_table

__all__ = ["transforms"]


def transforms() -> None:
    """List the transforms, and the groups of them."""
    table = Table("name", "group", "kind", "parameters", "from", title="Transforms")
    for row in transform_table():
        table.add_row(row.name, row.group, row.kind, escape(row.parameters), escape(row.source))
    console.print(table)
    groups = Table("name", "elements", title="Groups")
    for name in equivae.list_groups():
        groups.add_row(name, ", ".join(t.name for t in equivae.get_group(name)))
    console.print(groups)
