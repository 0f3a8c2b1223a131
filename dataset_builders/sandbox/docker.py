"""Docker sandbox, used where an engine runs and bubblewrap cannot be used.

Its limits are Docker's own. Most engines cannot limit how much a container writes, so
`Limits.disk` and `Limits.files` do not hold here.
"""

from __future__ import annotations

import functools
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence

from dataset_builders.sandbox.base import CAPABILITIES, ENVIRONMENT, Limits, SandboxError
from dataset_builders.sandbox.engine import EngineSandbox
from dataset_builders.sandbox.rootfs import INSTALLABLE, INSTALLED

IMAGE = "agenttuning-os"
_RECIPE = f"""FROM debian:bookworm-slim
RUN rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update \
 && apt-get install -y --no-install-recommends {" ".join(INSTALLED)} \
 && apt-get clean && apt-get install -y --download-only {" ".join(INSTALLABLE)}
"""
_WAIT = "echo; while read -r line; do :; done"


def _docker(*arguments: str, text: str = "", seconds: float | None = 60) -> str:
    try:
        done = subprocess.run(
            ["docker", *arguments], input=text, capture_output=True, text=True, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"docker {arguments[0]}: {error}") from None
    if done.returncode:
        raise SandboxError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def engine_answers() -> bool:
    """Whether a Docker engine is running; checked once."""
    if not shutil.which("docker"):
        return False
    try:
        return bool(_docker("version", "--format", "{{.Server.Version}}", seconds=10).strip())
    except SandboxError:
        return False


def image_ready() -> bool:
    """Whether the engine has the image."""
    try:
        return bool(_docker("image", "inspect", "--format", "{{.Id}}", IMAGE))
    except SandboxError:
        return False


def build_image(say: Callable[[str], None]) -> None:
    """Build the Docker image, roughly the same system as `rootfs` builds.

    Raises:
        SandboxError: The build fails.
    """
    say(f"docker: building the image {IMAGE}; takes some minutes")
    _docker("build", "--tag", IMAGE, "-", text=_RECIPE, seconds=None)
    say(f"docker: image {IMAGE} built")


class DockerSandbox(EngineSandbox):
    """A sandbox run by Docker; see `Sandbox`.

    Args:
        limits: Resource limits; not all are enforced, see the module's docstring.

    Raises:
        SandboxError: The container cannot be started.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self._name = f"agenttuning-{secrets.token_hex(8)}"
        memory = str(self.limits.memory)
        capabilities = [f"--cap-add={name.removeprefix('CAP_')}" for name in CAPABILITIES]
        # Attached: when our end of its input closes, the container ends and is removed.
        self._holder = self._client(
            [
                "run", "--interactive", "--rm", "--name", self._name, "--hostname", "box",
                "--network=none", "--memory", memory, "--memory-swap", memory,
                "--pids-limit", str(self.limits.processes), "--cap-drop=ALL", *capabilities,
                "--security-opt=no-new-privileges", IMAGE,
                "/bin/bash", "--norc", "--noprofile", "-c", _WAIT,
            ],
            merged=False,
        )  # fmt: skip
        self._processes.add(self._holder)
        assert self._holder.stdout
        assert self._holder.stderr
        if self._holder.stdout.readline() != b"\n":
            message = self._holder.stderr.read().decode().strip()
            self.close()
            raise SandboxError(f"docker run: {message}")

    @staticmethod
    def _client(arguments: Sequence[str], *, merged: bool) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["docker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            start_new_session=True,
        )

    def _spawn(
        self, cmd: Sequence[str], cwd: str, env: Mapping[str, str], *, merged: bool
    ) -> subprocess.Popen[bytes]:
        if any("\0" in part for part in (*cmd, *env, *env.values(), cwd)):
            raise SandboxError("a command cannot hold the character NUL")
        given = [f"--env={name}={value}" for name, value in {**ENVIRONMENT, **env}.items()]
        arguments = ["exec", "--interactive", "--workdir", cwd, *given, self._name, *cmd]
        return self._client(arguments, merged=merged)

    def _stop(self) -> None:
        try:
            # From inside, all except the first process and the sender.
            _docker("exec", self._name, "/bin/bash", "-c", "kill -9 -1", seconds=10)
        except SandboxError:
            _docker("kill", self._name)

    @property
    def _alive(self) -> bool:
        return self._holder.poll() is None

    def _end(self) -> None:
        if self._alive:
            _docker("kill", self._name)
        self._reap_all()
