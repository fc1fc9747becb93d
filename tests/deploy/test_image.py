"""The Dockerfile builds, and what comes out is what it says: small, without tools, run by nobody, and it carries traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.container_image import Container, Image
from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all
from tests.support.processes import WORKERS, eventually
from tests.support.workloads import ANY_PORT, CLIENT, SERVER
from tunnel import __version__
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import DevWorkloadApi
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id

_TOOLS = {"sh", "bash", "dash", "gcc", "cc", "c++", "as", "ld", "make", "pip", "pip3"}
_FILE = f"""workers = {WORKERS}
[status]
listen = "http://127.0.0.1:{{status}}"
[identity.default]
workload-api = "unix:///run/{{socket}}.sock"
[[server]]
listen = "{ANY_PORT}"
target = "{{target}}"
access = [{{{{ allow = "{CLIENT}" }}}}]
"""


@dataclass(frozen=True)
class Pod:
    """Containers of one image beside an agent."""

    image: Image
    sockets: Path
    things: ExitStack

    def start(self, mode: str, who: str, *flags: str) -> Container:
        address = f"unix:///run/{who.rpartition('/')[2]}.sock"
        flags = (f"--use-workload-api-addr={address}", f"--listen={ANY_PORT}", *flags)
        container = Container(self.image, mode, *flags, sockets=self.sockets)
        self.things.callback(container.close)
        return container

    def start_server(self, target: str, *flags: str) -> Container:
        return self.start("server", SERVER, f"--target={target}", f"--allow-id={CLIENT}", *flags)


@pytest.fixture
def pod(image: Image, tmp_path: Path) -> Iterator[Pod]:
    tmp_path.chmod(0o755)  # for the user of the image
    entries = {
        WorkloadEndpoint(path=str(tmp_path / f"{who.rpartition('/')[2]}.sock")): [Entry(parse_spiffe_id(who))]
        for who in (SERVER, CLIENT)
    }
    with DevWorkloadApi(entries, socket_mode=0o666), ExitStack() as things:
        yield Pod(image, tmp_path, things)


def test_an_echo_passes_through_a_server_and_a_client_of_the_image(pod: Pod) -> None:
    with Backend(echo) as backend:
        server = pod.start_server(backend.target)
        client = pod.start("client", CLIENT, f"--target={server.target}", f"--verify-id={SERVER}")
        with connect(client.address) as connection:
            connection.sendall(b"through both")
            connection.shutdown(1)
            assert receive_all(connection) == b"through both"
        facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.entry_pid}/status").read_text().splitlines())
        assert set(facts["Uid"].split()) == {"65532"}
        assert int(facts["CapEff"], 16) == 0
        assert facts["NSpid"].split()[-1] == "1"
        assert client.stop() == 0
        assert server.stop() == 0


def test_the_health_check_of_the_image_says_how_the_proxy_fares(pod: Pod) -> None:
    verb, *check = pod.image.config["Healthcheck"]["Test"]
    assert verb == "CMD"  # and not CMD-SHELL
    with Backend(echo) as backend:
        server = pod.start_server(backend.target, f"--status=http://127.0.0.1:{free_port()}")
        assert server.address
        well = server.execute(*check)
        assert well.returncode == 0, well.stderr
    eventually(lambda: server.execute(*check).returncode == 1, "the next look at the backend finds nobody")
    assert "refused" in server.execute(*check).stderr


def test_a_proxy_without_a_status_port_is_not_called_unhealthy(pod: Pod) -> None:
    with Backend(echo) as backend:
        server = pod.start_server(backend.target)
        assert server.address
        answer = server.execute(*pod.image.config["Healthcheck"]["Test"][1:])
        assert answer.returncode == 0, answer.stderr
        assert "--status" in answer.stdout


def test_the_health_check_of_the_image_finds_the_status_port_of_a_configuration_file(pod: Pod) -> None:
    file = pod.sockets / "tunnel.toml"
    with Backend(echo) as backend:
        file.write_text(_FILE.format(status=free_port(), socket=SERVER.rpartition("/")[2], target=backend.target))
        server = Container(pod.image, "serve", "--config=/run/tunnel.toml", sockets=pod.sockets)
        pod.things.callback(server.close)
        server.wait_for("listening for connections on")
        answer = server.execute(*pod.image.config["Healthcheck"]["Test"][1:])
        assert answer.returncode == 0, answer.stderr
        assert "nothing to query" not in answer.stdout
        assert server.stop() == 0


def test_what_is_meant_for_a_command_does_not_reach_the_entry_point_and_the_health_check(pod: Pod) -> None:
    hostile = ["PYTHONHOME=/nonexistent", "PYTHONPATH=/run", "PYTHONINSPECT=1", "GRPC_POLL_STRATEGY=nonsense"]
    image = replace(pod.image, config={**pod.image.config, "Env": [*pod.image.config["Env"], *hostile]})
    with Backend(echo) as backend:
        server = replace(pod, image=image).start_server(backend.target, f"--status=http://127.0.0.1:{free_port()}")
        assert server.address
        done = server.execute(*image.config["Healthcheck"]["Test"][1:])
        assert (done.returncode, done.stderr) == (0, "")


def test_the_settings_are_those_of_a_cautious_runtime(image: Image) -> None:
    assert image.config["Entrypoint"] == ["tunnel"]
    user, _, group = image.config["User"].partition(":")
    assert int(user) > 0 < int(group)
    assert image.config["StopSignal"] == "SIGTERM"
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_image_has_no_shell_no_compiler_and_no_installer(image: Image) -> None:
    places = [image.files / place for place in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/tunnel/bin")]
    found = {path.name for place in places if place.exists() for path in place.iterdir()}
    assert "tunnel" in found
    assert found & _TOOLS == set()
    assert not [name for name in found if name.endswith("-gcc")]


def test_nothing_in_it_belongs_to_its_user_or_is_open_to_it(image: Image) -> None:
    files = [path for path in (image.files / "opt").rglob("*") if not path.is_symlink()]
    assert files
    assert [path for path in files if path.stat().st_uid != 0 or path.stat().st_mode & 0o022] == []


def test_only_the_package_and_what_it_needs_is_in_it(image: Image) -> None:
    (packages,) = (image.files / "opt/tunnel/lib").glob("python3.*/site-packages")
    assert {"acme", "jwt", "regopy", "tunnel"} <= {path.name for path in packages.iterdir()}
    assert not list(image.files.glob("source*")) + list(image.files.glob("build*"))
    assert not list(image.files.rglob("pyproject.toml"))


def test_everything_is_compiled_beforehand(pod: Pod) -> None:
    with Backend(echo) as backend:
        server = pod.start_server(backend.target)
        assert server.address
        done = server.execute("python3", "-v", "-c", "import ssl, tunnel.commands.proxy.run, trio, grpc, cryptography.x509")
    assert done.returncode == 0, done.stderr
    sources = [line for line in done.stderr.splitlines() if line.startswith("# code object from '/") and "pyc'" not in line]
    assert sources == []
