"""The house in order: imports that point one way, functions and files of a size that can be read."""

from __future__ import annotations

import house

TREES = house.modules()
GRAPH = house.imports(TREES)


def test_every_module_has_a_room() -> None:
    assert {house.room_of(module) for module in TREES} <= {*house.ROOMS, *house.FACE}


def test_rooms_import_downwards_only() -> None:
    assert house.upward(GRAPH) == []


def test_no_imports_run_in_a_circle() -> None:
    # A package's face imports its modules, which import one another past it.
    packages = {m for m in TREES if any(other.startswith(f"{m}.") for other in TREES)}
    inside = {m: {o for o in others if o not in packages} for m, others in GRAPH.items()}
    assert house.circles({m: o for m, o in inside.items() if m not in packages}) == []
    rooms: dict[str, set[str]] = {}
    for module, others in GRAPH.items():
        if house.room_of(module) not in house.FACE:
            rooms.setdefault(house.room_of(module), set()).update(map(house.room_of, others))
    assert house.circles({room: others - {room} for room, others in rooms.items()}) == []


def test_a_function_fits_on_a_screen_and_a_half() -> None:
    assert house.long_functions(TREES) == []


def test_a_file_can_be_read_in_one_sitting() -> None:
    assert house.long_files() == []


def test_a_circle_and_an_import_upwards_would_be_found() -> None:
    graph = {"data.a": {"data.b"}, "data.b": {"data.c"}, "data.c": {"data.a"}, "units": {"data.a"}}
    assert house.circles(graph) == [["data.a", "data.b", "data.c"]]
    assert house.upward(graph) == ["units imports data.a"]
