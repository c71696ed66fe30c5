"""Documents that are tests: their blocks of what was typed and shown, typed and looked at again.

A block of a Markdown file that is to be run names its terminal:

    ```console 2
    $ zkpy-cli
    Connecting to localhost:2181
    …
    [zk: localhost:2181(CONNECTED) 0] ls /
    [zookeeper]
    ```

A line that begins with a prompt is typed into that terminal once the prompt is there; the lines
below it must then be seen, these and no others, until the next prompt. `^C` alone is that key. A
block without a prompt says what comes to that terminal by itself. `…` stands for any text, alone on
a line for any lines. What differs from one run to the next (dates, sessions, pids) is not
compared; blanks before events aren't either, nor whether an event comes before or after the output
of the command that causes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .terminal import WAIT_S, Screen, Terminal

BLOCK = re.compile(r"^```console (?P<name>[^\n]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"(?P<prompt>\$|\[zk: [^\]]*\])(?: (?P<typed>.*))?$")
KEY = re.compile(r"\^([A-Z\\])$")
ANY = "…"
# The shell tells of its jobs, at the next prompt or later.
NOTICE = re.compile(r"\[\d+\][+-]? +(Stopped|Killed) ")
CLOSED = "WatchedEvent state:Closed "
VOLATILE = [
    (r"\b(ctime|mtime) = \w{3} \w{3} .*", r"\1 = DATE"),
    (r"\bephemeralOwner = 0x[1-9a-f][0-9a-f]*", "ephemeralOwner = 0xN"),
    (r"\b(leader|follower) \(pid \d+\)", "MODE (pid N)"),
    (r"\btask-[0-9a-f]{8}-\d{10}", "TASK"),
]


class Step(NamedTuple):
    """One thing typed, if `typed` is not None, and what is then seen in that terminal."""

    terminal: str
    prompt: str
    typed: str | None
    seen: list[str]
    line: int  # in the document


def steps_of(text: str) -> Iterator[Step]:
    """The steps of a document, in order."""
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start("text")) + 1
        step = Step(block["name"], "", None, [], first)
        for number, line in enumerate(block["text"].splitlines(), first):
            found = PROMPT.match(line)
            if found is None and not KEY.match(line):
                step.seen.append(line)
                continue
            if step.typed is not None or step.seen:
                yield step
            if found is None:
                step = Step(block["name"], "", line, [], number)
            else:
                step = Step(block["name"], found["prompt"], found["typed"] or "", [], number)
        if step.typed is not None or step.seen:
            yield step


class Output(NamedTuple):
    lines: list[str]
    events: list[str]


def split_events(lines: list[str]) -> Output:
    """Watch events apart from all else, which is without the shell's notices and bare prompts."""
    rest: list[str] = []
    events: list[str] = []
    lines = list(lines)
    while lines:
        line = lines.pop(0).rstrip()
        if line == "WATCHER::":
            while lines and not lines[0].strip():
                lines.pop(0)
            if lines:
                events.append(lines.pop(0).rstrip())
            if rest and not rest[-1]:
                rest.pop()
        elif not is_bare_prompt(line) and not NOTICE.match(line):
            rest.append(line)
    return Output(rest, events)


def without_the_last(output: Output) -> Output:
    """Without the event of the end of a session, or with as much of it as came: its headline."""
    events = [
        event
        for event in output.events
        if not (event.startswith(CLOSED) or NOTICE.match(event) or is_bare_prompt(event))
    ]
    return Output(output.lines, events)


def is_bare_prompt(line: str) -> bool:
    found = PROMPT.match(line)
    return found is not None and not found["typed"]


def pattern_of(lines: list[str]) -> re.Pattern[str]:
    """Matches the lines, joined; see the head of this file for `…`."""
    parts = []
    for line in lines:
        if line.strip() == ANY:
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(steady(line)).replace(ANY, ".*?") + r"\n")
    return re.compile("".join(parts))


def steady(line: str) -> str:
    for volatile, placeholder in VOLATILE:
        line = re.sub(volatile, placeholder, line)
    return line.rstrip()


class Runner:
    """Terminals by name, each with a shell in it, opened when first used."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        translate: Callable[[str], str] = lambda text: text,
        *,
        prompts: bool = True,
        wait_s: float = WAIT_S,
    ) -> None:
        """`translate` is laid over all that is typed and expected: other ports, for instance.

        Without `prompts` the program at the `[zk: ...]` shows none (Apache's, without its line
        editor): then a step is over as soon as what is expected has been seen. As that program
        ends, its thread for events may or may not get to its last words.
        """
        self.folder = folder
        self.environment = environment
        self.translate = translate
        self.prompts = prompts
        self.wait_s = wait_s
        self.terminals: dict[str, Terminal] = {}
        self.read_to: dict[str, int] = {}  # lines of each terminal's screen that are done with

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_error: object) -> None:
        for terminal in self.terminals.values():
            terminal.close()

    def terminal(self, name: str) -> Terminal:
        if name not in self.terminals:
            self.terminals[name] = Terminal(
                ["bash", "--norc", "--noprofile"],
                folder=self.folder,
                environment={**self.environment, "PS1": "$ ", "HISTFILE": ""},
            )
            self.read_to[name] = 0
        return self.terminals[name]

    def run(self, steps: list[Step]) -> None:
        """Raises AssertionError with the line of the document and what was on the screen."""
        for at, step in enumerate(steps):
            later = [one for one in steps[at + 1 :] if one.terminal == step.terminal]
            try:
                self.do(step, later)
            except AssertionError as error:
                raise AssertionError(
                    f"line {step.line}, terminal {step.terminal}: {step.typed!r}: {error}"
                ) from None

    def do(self, step: Step, later: list[Step]) -> None:
        """Type, and wait for what is to be seen; `later` are the steps to come in that terminal."""
        terminal = self.terminal(step.terminal)
        if step.typed is not None:
            self.enter(terminal, step)
        expected = self.split([self.translate(line) for line in step.seen])
        # The next prompt shows that there is no more to come.
        end = None
        if step.typed is not None and later and later[0].prompt and self.shows(later[0].prompt):
            end = self.translate(later[0].prompt)
        self.expect(terminal, step, expected, end)

    def split(self, lines: list[str]) -> Output:
        output = split_events(lines)
        return output if self.prompts else without_the_last(output)

    def shows(self, prompt: str) -> bool:
        return self.prompts or not prompt.startswith("[zk")

    def enter(self, terminal: Terminal, step: Step) -> None:
        assert step.typed is not None
        read_to = self.read_to[step.terminal]
        if not step.prompt:
            terminal.settle()
            self.read_to[step.terminal] = terminal.screen.row
            terminal.type(chr(ord(step.typed[1]) & 0x1F))
            return
        if self.shows(step.prompt):
            prompt = self.translate(step.prompt)
            terminal.wait_for(lambda screen: at_prompt(screen, prompt), f"the prompt {prompt!r}")
            unread = self.split(terminal.screen.text()[read_to:-1])
            if any(unread.lines) or unread.events:
                raise AssertionError(f"not in the document: {unread}")
        if not step.typed:
            return
        typed = self.translate(step.typed)
        self.read_to[step.terminal] = terminal.screen.row + 1
        terminal.type(f"{typed}\r")
        if not self.shows(step.prompt):
            # Where it appears depends on what the program had still to say.
            terminal.wait_for(lambda screen: typed in screen.text()[read_to:], f"{typed!r} echoed")
            self.read_to[step.terminal] = terminal.screen.text().index(typed, read_to) + 1

    def expect(self, terminal: Terminal, step: Step, expected: Output, end: str | None) -> None:
        pattern = pattern_of(expected.lines)
        events = [pattern_of([event]) for event in expected.events]

        def found(screen: Screen) -> bool:
            if end is not None and not at_prompt(screen, end):
                return False
            # Without the last: the prompt, or a line that may go on.
            lines = screen.text()[self.read_to[step.terminal] : -1]
            if lines and not step.prompt:
                lines[0] = re.sub(r"^\^[A-Z\\]", "", lines[0])  # the key, as the terminal shows it
                lines = lines[0 if lines[0] else 1 :]
            got = self.split(lines)
            text = "".join(f"{steady(line)}\n" for line in got.lines)
            if end is None:
                seen = pattern.search(text) and len(got.events) >= len(events)
            else:
                seen = pattern.fullmatch(text) and len(got.events) == len(events)
            return bool(seen) and all(
                event.fullmatch(f"{steady(line)}\n")
                for event, line in zip(events, got.events, strict=False)
            )

        wanted = "\n".join([*expected.lines, *expected.events, *([end] if end else [])])
        terminal.wait_for(found, wanted, self.wait_s)
        if end is not None or expected.lines or expected.events:
            self.read_to[step.terminal] = terminal.screen.row


def at_prompt(screen: Screen, prompt: str) -> bool:
    """The cursor stands behind this prompt, with nothing typed yet."""
    return screen.row == len(screen.lines) - 1 and screen.text()[-1] == prompt


def steps_in(path: Path) -> list[Step]:
    return list(steps_of(path.read_text()))
