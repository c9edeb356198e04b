"""Faults, and what becomes of runs after them: killed, damaged, without room, twice at once, with a clock gone wrong.

    python scripts/fault_drill.py FOLDER [--seed 0] [--kills 120] [--harms 50] > scripts/results/fault_drill.md

Everything is drawn from the seed: which command, at which moment, which file, which byte. After every fault the same
command is started again, as a user would, until it ends; what it then has is compared, byte for byte, with what an
undisturbed run has. A disk that is full is a real one: a small file system in memory, for which one must be root.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from drill import RECIPES, World, command, content_of, kill_all, make_world

from mtl_tickets.provenance import device, versions

# what must be the same as without faults, by verb
RESULTS = {
    "run": "*/seed-1/results.jsonl",
    "study": "*/runs/*/seed-*/results.jsonl",
    "pretrain": "made/model.safetensors",
    "export": "made/model.safetensors",
}
RESUMABLE = ("run", "pretrain")
# what is damaged: files of a run, and those of the cache
KINDS = {
    "checkpoint": ["stages/**/checkpoint.safetensors"],
    "ticket": ["tickets/**/*.safetensors", "stages/**/*ticket*.safetensors", "stages/**/pruned.safetensors"],
    "record": ["**/*.json", "results.jsonl", "config.yaml", "**/SHA256SUMS"],
    "cache": ["cache/**/*.arrow", "cache/**/*.safetensors"],
    "weights": ["stages/**/weights.safetensors", "model/**/*.safetensors", "stages/**/predictions*.safetensors"],
}


@dataclass
class Figures:
    """Of one kind of fault."""

    faults: int = 0
    right: int = 0
    refused: int = 0
    wrong: int = 0
    lost: int = 0
    where: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        judged = self.right + self.refused + self.lost + self.wrong
        return f"| {name} | {self.faults} | {judged} | {self.right} | {self.refused} | {self.lost} | {self.wrong} |"


class Drill:
    """One drill in ``folder``, drawn from ``seed``."""

    def __init__(self, folder: Path, seed: int):
        self.random = random.Random(seed)
        self.folder = folder
        self.world: World = make_world(folder / "world")
        self.expected: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}

    def commands(self, output: Path) -> dict[str, list[str]]:
        """Every verb that writes, by a name."""
        verbs = {
            f"run {name}": ["run", self.world.experiment(name), "--set", f"output={output}"]
            + (["--set", "workers=2"] if name == "super_tickets" else [])
            for name in RECIPES
        }
        verbs["study"] = ["study", str(self.world.folder / "study.yaml"), "--set", f"output={output}"]
        text = ["--text", "playground", "--set", "playground_tokens=20000", "--tokens", "30000", "--set"]
        text += ["checkpoint_seconds=0", "--layers", "2", "--hidden", "32", "--heads", "4", "--vocabulary-size", "300"]
        cache = ["--length", "32", "--cache", str(output / "cache")]
        verbs["pretrain"] = ["pretrain", str(output / "made"), *text, *cache]
        if models := [*(self.folder / "whole" / "run super_tickets").glob("*/seed-1/model/own")]:
            verbs["export"] = ["export", str(models[0]), str(output / "made"), "--task", "play_acceptability"]
        return verbs

    def undisturbed(self) -> None:
        """What every verb leaves when nothing happens, and how long it takes."""
        shutil.rmtree(self.folder / "whole", ignore_errors=True)
        for name in self.commands(self.folder):
            self._whole(name)
        self._whole("export")  # of a model that a run has made

    def _whole(self, name: str) -> None:
        output = self.folder / "whole" / name
        started = time.monotonic()
        code, said = command(self.commands(output)[name])
        assert code == 0, said
        self.seconds.setdefault(name, time.monotonic() - started)
        self.expected[name] = self._result(name, output)
        assert self.expected[name], name

    def _result(self, name: str, output: Path) -> dict[str, str]:
        return content_of(output, RESULTS[name.partition(" ")[0]])

    def again(self, name: str, output: Path) -> tuple[int, str]:
        """The command as a user starts it after a fault."""
        arguments = self.commands(output)[name]
        return command([*arguments, "--resume"] if arguments[0] in RESUMABLE else arguments)

    def judge(self, figures: Figures, name: str, output: Path, code: int, said: str) -> None:
        """After the last start."""
        said = said.replace(f"{self.folder}/", "")
        if code == 0 and self._result(name, output) == self.expected[name]:
            figures.right += 1
        elif code == 2 and "error:" in said:
            figures.refused += 1
            figures.failures.append(f"{name}: {said.strip().splitlines()[-1][:300]}")
        else:
            figures.wrong += code == 0
            figures.lost += code != 0
            figures.failures.append(f"{name}: exit {code}: {said.strip()[-600:]}")

    # -- kills --------------------------------------------------------------------------------------------------------

    def kills(self, number: int, how: signal.Signals = signal.SIGKILL) -> Figures:
        """Processes killed at any moment, one to three times before a command may end. Now and then it is only one of
        the workers that a run has forked."""
        figures = Figures()
        verbs = [name for name in self.expected if how == signal.SIGKILL or name.startswith(("run", "study"))]
        turn = 0
        while figures.faults < number:
            name = verbs[turn % len(verbs)]
            turn += 1
            output = self.folder / "killed" / f"{how.name}-{turn}"
            for _ in range(self.random.randint(1, 3)):
                arguments = self.commands(output)[name]
                if arguments[0] in RESUMABLE:
                    arguments = [*arguments, "--resume"]
                one = self.random.random() < 0.3
                delay = self.random.uniform(0.0, 1.1 * self.seconds[name])
                code, said = command(arguments, partial(self._strike, delay=delay, one=one, how=how))
                if code == 0:
                    break  # it was quicker
                figures.faults += 1
                figures.where[name] += 1
                if how == signal.SIGINT and (code != 130 or "Traceback" in said):
                    figures.failures.append(f"{name}: exit {code} after Ctrl-C: {said[-300:]}")
            code, said = self.again(name, output)
            self.judge(figures, name, output, code, said)
            shutil.rmtree(output, ignore_errors=True)
        return figures

    def _strike(self, pid: int, delay: float, one: bool = False, how: signal.Signals = signal.SIGKILL) -> None:
        """After so many seconds; ``one``: only a worker that it has forked, if there is one."""

        def strike() -> None:
            time.sleep(delay)
            forked = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
            children = [int(word) for word in forked.split()]
            if one and children and how == signal.SIGKILL:
                try:
                    os.kill(self.random.choice(children), how)
                except ProcessLookupError:
                    kill_all(pid, how)
            else:
                kill_all(pid, how)

        threading.Thread(target=strike, daemon=True).start()

    # -- damage -------------------------------------------------------------------------------------------------------

    def harms(self, kind: str, number: int) -> Figures:
        """Files of a run that was stopped, or is finished, are cut off, emptied, or have a bit the other way."""
        figures = Figures()
        names = [f"run {recipe}" for recipe in RECIPES]
        while figures.faults < number:
            name = names[figures.faults % len(names)]
            output = self.folder / "harmed" / f"{kind}-{figures.faults}"
            finished = kind != "checkpoint" and self.random.random() < 0.4
            cache = ["--set", f"cache={output / 'cache'}"]
            arguments = [*self.commands(output)[name], *cache]
            if finished:
                command(arguments)
            else:
                while not self._files(kind, output):  # until there is something to harm
                    delay = self.random.uniform(0.3, 1.0) * self.seconds[name]
                    command([*arguments, "--resume"], partial(self._strike, delay=delay))
                    if self._finished(output):
                        shutil.rmtree(output)
            file = self.random.choice(self._files(kind, output))
            figures.where[self._harm(file)] += 1
            figures.faults += 1
            code, said = command([*arguments, "--resume"])
            self.judge(figures, name, output, code, f"{file.relative_to(output)}: {said}")
            shutil.rmtree(output, ignore_errors=True)
        return figures

    def _finished(self, output: Path) -> bool:
        return any('"finished": "' in file.read_text() for file in output.glob("*/seed-1/record.json"))

    def _files(self, kind: str, output: Path) -> list[Path]:
        roots = [output] if kind == "cache" else [*output.glob("*/seed-1")]
        found = {file for root in roots for pattern in KINDS[kind] for file in root.glob(pattern)}
        return sorted(file for file in found if file.is_file() and ".part" not in str(file))

    def _harm(self, file: Path) -> str:
        content = bytearray(file.read_bytes())
        how = self.random.choice(["bit", "bit", "cut", "emptied"])
        if how == "bit" and content:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        elif how == "cut":
            content = content[: self.random.randrange(max(1, len(content)))]
        else:
            content = bytearray()
        # a hard link shares its bytes with another run's file, as a bad sector would
        file.unlink()
        file.write_bytes(content)
        return how

    # -- no room, two at once, clocks ---------------------------------------------------------------------------------

    def full(self, number: int) -> Figures | None:
        """A file system that fills up; a larger one later. None where this user may not mount one."""
        figures, names = Figures(), [f"run {recipe}" for recipe in RECIPES]
        for turn in range(number):
            name, place = names[turn % len(names)], self.folder / "full"
            used = sum(f.stat().st_size for f in (self.folder / "whole" / name).rglob("*") if f.is_file())
            size = int(self.random.uniform(0.05, 0.9) * used) + 65536
            with _mounted(place, size) as mounted:
                if not mounted:
                    return None
                code, said = command(self.commands(place / "out")[name])
                if code == 0:
                    continue
                figures.faults += 1
                if code != 2 or "No space left" not in said or "Traceback" in said:
                    figures.failures.append(f"{name}: exit {code} on a full disk: {said[-400:]}")
                subprocess.run(["mount", "-o", f"remount,size={8 * used + 10**7}", str(place)], check=True)
                code, said = self.again(name, place / "out")
                self.judge(figures, name, place / "out", code, said)
        return figures

    def twice(self, number: int) -> Figures:
        """Two processes on one run directory: one does it, the other is refused and harms nothing."""
        figures = Figures()
        names = [f"run {recipe}" for recipe in RECIPES]
        for turn in range(number):
            name, output = names[turn % len(names)], self.folder / "twice" / str(turn)
            arguments = [*self.commands(output)[name], "--resume"]
            codes: list[tuple[int, str]] = []
            other = threading.Thread(target=_into, args=(codes, arguments))
            other.start()
            time.sleep(self.random.uniform(0, 0.5))
            codes.append(command(arguments))
            other.join()
            figures.faults += 1
            if any(code not in (0, 2) or "Traceback" in said for code, said in codes):
                figures.failures.append(f"{name}: {codes}")
            code, said = self.again(name, output)
            self.judge(figures, name, output, code, said)
            shutil.rmtree(output)
        return figures

    def clocks(self, number: int) -> Figures:
        """The wall clock jumps back and forth by days while a run is at work."""
        figures, names = Figures(), [f"run {recipe}" for recipe in RECIPES]
        for turn in range(number):
            name, output = names[turn % len(names)], self.folder / "clocks" / str(turn)
            seed = self.random.randrange(2**32)
            code, said = command(self.commands(output)[name], before=partial(_wrong_clock, seed))
            figures.faults += 1
            self.judge(figures, name, output, code, said)
            shutil.rmtree(output)
        return figures


def _into(codes: list[tuple[int, str]], arguments: list[str]) -> None:
    codes.append(command(arguments))


def _wrong_clock(seed: int) -> None:
    true, drawn = time.time, random.Random(seed)
    time.time = lambda: true() + drawn.uniform(-10, 3) * 86400


@contextmanager
def _mounted(place: Path, size: int) -> Iterator[bool]:
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--harms", type=int, default=50)
    parser.add_argument("--full", type=int, default=12)
    parser.add_argument("--others", type=int, default=10)
    given = parser.parse_args()
    import mtl_tickets.cli
    import mtl_tickets.exporting
    import mtl_tickets.pretraining.pretrain
    import mtl_tickets.report.write
    import mtl_tickets.running
    import mtl_tickets.study.runs  # noqa: F401  (loaded once, for all processes that are forked)

    drill = Drill(given.folder, given.seed)
    drill.undisturbed()
    found: dict[str, Figures | None] = {"processes killed (SIGKILL)": drill.kills(given.kills)}
    found["interrupted (Ctrl-C)"] = drill.kills(given.stops, signal.SIGINT)
    for kind in KINDS:
        found[f"{kind} files damaged"] = drill.harms(kind, given.harms)
    found["disks full"] = drill.full(given.full)
    found["two processes on one run"] = drill.twice(given.others)
    found["clocks that jump"] = drill.clocks(given.others)

    print("# Faults, and what became of the runs\n")
    print(f"    python scripts/fault_drill.py FOLDER --seed {given.seed} --kills {given.kills} --stops {given.stops} "
          f"--harms {given.harms} --full {given.full} --others {given.others}\n")  # fmt: skip
    known, here = versions(), device()
    print(f"{here['kind']} {here['name']}, {os.cpu_count()} cores; torch {known['torch']}, "
          f"transformers {known['transformers']}, python {known['python']}.\n")  # fmt: skip
    print("Right: the next start of the same command ended with the bytes of an undisturbed one. Refused: it ended")
    print("with one clear error, and nothing was believed. Lost: it could not go on. Wrong: it ended well with other")
    print("numbers. A command may be killed up to three times before it is let to its end.\n")
    print("| fault | faults | commands | ended right | refused | lost | wrong results accepted |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, figures in found.items():
        print(
            f"| {name} | not tried: mounting a file system is not allowed here ||||||"
            if figures is None
            else figures.line(name)
        )
    print("\nFaults by what was at work, or by what was done:\n")
    for name, figures in found.items():
        if figures is not None and figures.where:
            print(f"- {name}: " + ", ".join(f"{key} {count}" for key, count in sorted(figures.where.items())))
    problems = [f"- {name}: {text}" for name, figures in found.items() if figures for text in figures.failures]
    if problems:
        print("\nWhat did not end right:\n\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
