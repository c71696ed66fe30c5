"""Which files a server has: its configuration, what is read beside it, its pid file, its output.

Source: zkServer.sh and zkEnv.sh, ZooKeeper 3.9.
"""

from __future__ import annotations

import os

from zkpy.protocol.config_error import ConfigException, IllegalArgument
from zkpy.protocol.properties import load_properties
from zkpy.server.config import properties_from_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PID_FILE = "zookeeper_server.pid"


def read_file(path: str) -> str | None:
    """The text of a file, in the encoding of Java properties; None if there is no such file."""
    if not os.path.isfile(path):
        return None
    with open(path, encoding="iso-8859-1") as file:
        return file.read()


def config_path(config_dir: str | None, name: str | None) -> str:
    """Which file is meant, by the rules of zkServer.sh; a bare name may also be here.

    A path is given back as it was given: it is shown to the user.
    """
    name = name or os.environ.get("ZOOCFG") or "zoo.cfg"
    if "/" in name:
        return name
    path = os.path.join(config_directory(config_dir, name), name)
    if not os.path.isfile(path) and os.path.isfile(name):
        return os.path.abspath(name)
    given = config_dir or os.environ.get("ZOOCFGDIR")
    return path if given else os.path.abspath(path)


def config_directory(config_dir: str | None, name: str) -> str:
    """The directory of configurations: the one given, else the first usual one that has `name`."""
    directory = config_dir or os.environ.get("ZOOCFGDIR")
    if not directory:
        places = ("conf", "/etc/zkpy", "/etc/zookeeper")
        directory = next((p for p in places if os.path.isfile(os.path.join(p, name))), "conf")
    return directory


def read_environment_files(config_dir: str | None) -> None:
    """Take over what zookeeper-env.sh and java.env set, where they exist."""
    directory = config_directory(config_dir, "zoo.cfg")
    for name in ("zookeeper-env.sh", "java.env"):
        text = read_file(os.path.join(directory, name))
        if text is not None:
            from zkpy.cli.environment_files import variables_of  # rare, so loaded where needed

            os.environ.update(variables_of(text, os.environ))


def flags_in(*variables: str) -> list[str]:
    """The words that these environment variables hold, in order.

    Raises ConfigException where quotes do not match.
    """
    tokens: list[str] = []
    for variable in variables:
        flags = os.environ.get(variable)
        if flags:
            import shlex  # its import takes a while, and mostly there are no flags

            try:
                tokens += shlex.split(flags)
            except ValueError as error:
                raise ConfigException(f"{variable}={flags}: {error}") from None
    return tokens


def properties_of(arguments: list[str]) -> dict[str, str]:
    """Java system properties: of SERVER_JVMFLAGS, JVMFLAGS and the command line; the last wins.

    Raises ConfigException for flags whose quotes do not match.
    """
    properties = properties_from_flags(flags_in("SERVER_JVMFLAGS", "JVMFLAGS") + arguments)
    if os.environ.get("ZOO_DATADIR_AUTOCREATE_DISABLE"):
        properties["zookeeper.datadir.autocreate"] = "false"
    return properties


def read_entries(path: str) -> dict[str, str]:
    """The lines of zoo.cfg, unchecked: enough to find a server that may not even start any more.

    Raises ConfigException when the file cannot be read.
    """
    try:
        text = read_file(path)
        if text is None:
            raise ConfigException(f"Error processing {path}: {path} file is missing")
        return load_properties(text)
    except OSError as error:
        raise ConfigException(f"Error processing {path}: {path} ({error.strerror})") from None
    except IllegalArgument as error:
        raise ConfigException(f"Error processing {path}: {error}") from None


def pid_path(entries: Mapping[str, str]) -> str | None:
    """Where the pid file is; None if nothing says so."""
    path = os.environ.get("ZOOPIDFILE")
    if not path and (data_dir := entries.get("dataDir")):
        path = f"{data_dir}/{PID_FILE}"
    return path or None


def output_path() -> str:
    """Where a server in the background writes: ZOO_LOG_DIR, or logs/ here as conf/ is here."""
    directory = os.environ.get("ZOO_LOG_DIR") or "logs"
    user = os.environ.get("USER", "")
    host = os.environ.get("HOSTNAME") or os.uname().nodename
    return os.path.join(directory, f"zookeeper-{user}-server-{host}.out")


def missing_directory(entries: Mapping[str, str]) -> str | None:
    """What zkServer.sh says when the directories must be there, and one is not."""
    if not os.environ.get("ZOO_DATADIR_AUTOCREATE_DISABLE"):
        return None
    for what, key in (("data", "dataDir"), ("txnlog", "dataLogDir")):
        path = entries.get(key, "")
        if (path or key == "dataDir") and not os.path.isdir(f"{path}/version-2"):
            return f"ZooKeeper {what} directory is missing at {path} fix the path or run initialize"
    return None
