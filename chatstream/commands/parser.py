"""The command line's parser. Reports mistakes in plain words, with the usage of the command that was meant."""

import argparse
import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

# Names of our commands in other programs and in our scripts.
_MEANT = {
    "help": "--help",
    "version": "--version",
    **dict.fromkeys(("start", "run", "server", "up", "dev"), "serve"),
    **dict.fromkeys(("check", "config", "checkconfig", "check_config", "validate", "test", "doctor"), "check-config"),
    **dict.fromkeys(("mint", "mint_token", "mint-token", "tokens", "login"), "token"),
    **dict.fromkeys(("seed_conversations", "seeds"), "seed"),
    **dict.fromkeys(("env", "setting", "template", "init"), "settings"),
}
# Dashes that word processors and web pages put in place of two hyphens.
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` for a command line with commands."""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Like `parse_args`. On an error, exit with status 2 and a line that says how to fix the command."""
        self._given = [*arguments]
        parsed, rest = self.parse_known_args(arguments)
        if rest:
            command = getattr(parsed, "command", None)
            parser = self._commands[command] if command else self
            parser._refuse(rest, self._given, [*self._commands], command)
        return parsed

    @property
    def _commands(self) -> dict[str, "Parser"]:
        actions = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return {name: parser for action in actions for name, parser in action.choices.items()}

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            raise argparse.ArgumentError(None, self._no_command(str(value)))
        super()._check_value(action, value)

    def _no_command(self, word: str) -> str:
        """The error message for a first word that is not a command."""
        commands = [*self._commands]
        if later := next((each for each in self._given if each in commands), None):
            rest = shlex.join(each for each in self._given if each != later)
            return f"the command comes first: chatstream {later} {rest}"
        if hint := _hint(word):
            return hint
        meant = _MEANT.get(word.lower()) or next(iter(get_close_matches(word, commands, n=1)), None)
        return f"there is no command {word!r}" + (
            f"; did you mean: chatstream {meant}" if meant else f": there are {', '.join(commands)}"
        )

    def _refuse(self, rest: list[str], given: list[str], commands: list[str], command: str | None) -> NoReturn:
        """End the program with an error message for unknown arguments."""
        word = rest[0]
        others = [each for each in rest if each in commands]
        called = f"chatstream {command}" if command else "chatstream"
        if command and others:
            words = [each for each in given if each not in commands]
            self.error(f"one command at a time: {' or: '.join(_line(each, words) for each in (command, others[0]))}")
        name = word.partition("=")[0]
        if name.startswith("-"):
            own = self._option_string_actions
            if name in own:  # an option of the command, typed before the command
                self.error(f"options of a command come behind it: {_line(command or '', _without(given, command))}")
            if name in ("--port", "--host") and "--url" in own:
                self.error(f"{called} has no option {name}: where the server is, --url http://localhost:3001 says")
            near = (
                get_close_matches(name, own, n=1, cutoff=0.7)
                or [one for one in own if one.startswith(f"-{name[:2]}")][:1]
            )
            self.error(f"{called} has no option {name}" + (f"; did you mean {near[0]}?" if near else ""))
        if (hint := _hint(word)) and ("--port" in self._option_string_actions or not word.isdigit()):
            self.error(hint)
        if any(not action.option_strings and action.dest == "question" for action in self._actions):
            self.error(f'what is asked stands in quotation marks: {called} "Who wins on Sunday?"')
        self.error(f"{called} takes no {word!r}: see {called} --help")


def _hint(word: str) -> str:
    """A hint about a word that no command accepts."""
    if word.isdigit():
        return f"a port is given by its name: --port {word}"
    if word[:1] in _DASHES:
        return f"{word!r} begins with a dash that is none: type --{word.lstrip(_DASHES + '-')}"
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", word):
        name = word.partition("=")[0]
        return f"settings are no arguments: write {name}=… before the command, into .env, or into an --env-file"
    return ""


def _line(command: str, words: Sequence[str]) -> str:
    return shlex.join(["chatstream", command, *words])


def _without(given: Sequence[str], command: str | None) -> list[str]:
    return [each for each in given if each != command]
