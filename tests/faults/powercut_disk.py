"""A disk in memory, by which the records of powercut.c are followed, and what is on it when the power goes.

What was written to a file is there for sure once the file is synced, and a name once the directory that holds it is: POSIX promises no more. Of
what is not synced yet a cut may keep nothing, all, or any part (Cut). A rename is never kept by half so that the file has no name at all."""
import os
import random
import struct

SECTOR = 512
RECORD = struct.Struct("<B3xI3Q2I")
EXCHANGE = 2  # of renameat2's flags


class Record:
    __slots__ = ("kind", "a", "b", "c", "first", "second", "bytes")

    def __init__(self, fields, first, second, data):
        self.kind, self.a, self.b, self.c = chr(fields[0]), *fields[2:5]
        self.first, self.second, self.bytes = first, second, data


def read_records(path):
    with open(path, "rb") as file:
        data = file.read()
    records, at = [], 0
    while at < len(data):
        fields = RECORD.unpack_from(data, at)
        parts = []
        at += RECORD.size
        for length in (fields[5], fields[6], fields[1]):
            parts.append(data[at:at + length])
            at += length
        records.append(Record(fields, os.fsdecode(parts[0]), os.fsdecode(parts[1]), parts[2]))
    return records


class File:
    def __init__(self, data=b""):
        self.synced, self.pending = bytearray(data), []  # pending: (its number, kind, offset or size, bytes or count)

    def content(self, kept):
        """kept(number, kind, bytes): the ranges of the bytes that are kept; for what has none a true value."""
        data = bytearray(self.synced)
        for number, kind, at, what in self.pending:
            ranges = kept(number, kind, what if kind == "W" else b"")
            if not ranges:
                continue
            if kind == "T":
                data[at:] = bytes(max(at - len(data), 0))
            elif kind == "A":
                data.extend(bytes(max(at + what - len(data), 0)))
            else:
                for start, end in ranges:
                    data.extend(bytes(max(at + end - len(data), 0)))
                    data[at + start:at + end] = what[start:end]
        return data

    def sync(self):
        self.synced, self.pending = self.content(all_of), []


class Directory:
    def __init__(self):
        self.synced, self.now, self.pending = {}, {}, []


class Change:
    """Of names, together: [(directory, name, what it names then)]; the first is what must not be lacking where the others are kept."""

    def __init__(self, number, entries):
        self.number, self.entries, self.done = number, entries, set()

    def apply(self, names, directory):
        for i, (where, name, node) in enumerate(self.entries):
            if where is directory:
                if node is None:
                    names.pop(name, None)
                else:
                    names[name] = node
                self.done.add(i)


def all_of(_, kind, data):
    return [(0, len(data))] if kind == "W" else True


class Cut:
    """What of the changes that are not synced a cut keeps."""

    def __init__(self, name, pending=0, seed=0):
        """name: none, all, half (of what is pending, the first ones; of the last of these the first half) or random."""
        self.name, self.limit, self.last, self.seed = name, None, None, seed
        self.pending = pending

    def rng(self, number):
        return random.Random(self.seed * 1000003 + number)

    def change(self, number):
        if self.name in ("none", "all"):
            return self.name == "all"
        return number <= self.limit if self.name == "half" else self.rng(number).random() < 0.5

    def data(self, number, kind, data):
        if self.name == "half" and number == self.limit and kind == "W":
            return [(0, len(data) // 2)]
        if self.name != "random" or kind != "W":
            return all_of(number, kind, data) if self.change(number) else None
        rng = self.rng(number)
        how = rng.randrange(3)
        if how < 2:
            return [(0, len(data))] if how else None
        sectors = range(0, len(data), SECTOR)
        return [(at, min(at + SECTOR, len(data))) for at in sectors if rng.random() < 0.5]


class Disk:
    """Of some directories, as they are."""

    def __init__(self, roots):
        self.nodes, self.roots, self.number = {}, {}, 0
        for root in roots:
            self.roots[root] = self.load(root)

    def load(self, path):
        directory = self.nodes[os.stat(path).st_ino] = Directory()
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                node = self.load(entry.path)
            else:
                with open(entry.path, "rb") as file:
                    node = self.nodes[entry.inode()] = File(file.read())
            directory.synced[entry.name] = directory.now[entry.name] = node
        return directory

    # ---- what happens ----

    def change(self, *entries):
        self.number += 1
        change = Change(self.number, entries)
        for directory in {id(d): d for d, _, _ in entries}.values():
            change.apply(directory.now, directory)
            directory.pending.append(change)
        change.done.clear()

    def follow(self, record):
        node = self.nodes.get(record.a)
        if record.kind in "CM":
            made = self.nodes[record.b] = File() if record.kind == "C" else Directory()
            self.change((node, record.first, made))
        elif record.kind == "U":
            self.change((node, record.first, None))
        elif record.kind == "R":
            to = self.nodes[record.b]
            moved = node.now[record.first]
            back = to.now[record.second] if record.c & EXCHANGE else None
            self.change((to, record.second, moved), (node, record.first, back))
        elif record.kind in "WTA":
            self.number += 1
            node.pending.append((self.number, record.kind, record.b, record.bytes if record.kind == "W" else record.c))
        elif record.kind == "F":
            self.sync(node)

    def sync(self, node, under_way=()):
        if isinstance(node, File):
            node.sync()
            return
        # Where a part of a rename lies elsewhere, the new name is kept before the old one goes.
        for change in node.pending:
            for where, _, what in change.entries:
                if what is not None and where is not node and where not in under_way and change in where.pending:
                    self.sync(where, (*under_way, node))
        for change in node.pending:
            change.apply(node.synced, node)
        node.pending = []

    # ---- what is left ----

    def pending(self):
        """The numbers of what is not synced."""
        found = set()
        for node in self.nodes.values():
            found.update(p.number if isinstance(node, Directory) else p[0] for p in node.pending)
        return sorted(found)

    def cut(self, name, seed=0):
        pending = self.pending()
        cut = Cut(name, len(pending), seed)
        cut.limit = pending[len(pending) // 2] if pending else 0
        return {root: self.tree(node, cut) for root, node in self.roots.items()}

    def names(self, directory, cut):
        names = dict(directory.synced)
        for change in directory.pending:
            if cut.change(change.number):
                done = set(change.done)
                change.apply(names, directory)
                change.done = done
        return names

    def tree(self, directory, cut):
        return {name: self.tree(node, cut) if isinstance(node, Directory) else bytes(node.content(cut.data))
                for name, node in self.names(directory, cut).items()}


def write_tree(path, tree):
    """In place of what is there."""
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            write_tree(entry.path, {})
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
    for name, node in tree.items():
        below = os.path.join(path, name)
        if isinstance(node, dict):
            os.mkdir(below)
            write_tree(below, node)
        else:
            with open(below, "wb") as file:
                file.write(node)


def read_tree(path):
    tree = {}
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            tree[entry.name] = read_tree(entry.path)
        else:
            with open(entry.path, "rb") as file:
                tree[entry.name] = file.read()
    return tree


def without_index(tree):
    """SQLite's index of its journal is shared memory: nothing that has to last."""
    return {name: without_index(node) if isinstance(node, dict) else node for name, node in tree.items() if not name.endswith("-shm")}
